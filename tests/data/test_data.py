"""The digits, the toys, the user's own files, and shifts of images."""

import numpy as np
import pytest

from minglow import data
from minglow.data.augment import random_shifts


def test_the_digits_are_split_and_complete():
    images = data.digits()
    assert images.train.shape == (1500, 8, 8, 1) and images.held_out.shape == (297, 8, 8, 1)
    assert images.train.dtype == np.uint8 and images.bins == 17 and images.shift == 1.0
    both = np.concatenate([images.train, images.held_out])
    assert both.min() == 0 and both.max() == 16
    assert int(both.sum()) == 561718  # as in scikit-learn's copy
    assert np.bincount(np.concatenate([images.train_labels, images.held_out_labels])).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # the test set's counts at UCI
    assert not (both[:1500, None] == both[None, 1500:]).all(axis=(2, 3, 4)).any()  # none is in both


@pytest.mark.parametrize(("toy", "radius"), [
    (data.two_moons, 2.2), (data.pinwheel, 4.5), (data.checkerboard, 3), (data.eight_gaussians, 3)])
def test_toys_are_points_around_the_origin_and_follow_their_seed(toy, radius):
    points = toy(2000, rng=0)
    assert points.shape == (2000, 2) and points.dtype == np.float32
    assert np.abs(points.mean(axis=0)).max() < 0.15
    assert np.linalg.norm(points, axis=1).max() < radius
    np.testing.assert_array_equal(points, toy(2000, rng=0))
    assert np.any(points != toy(2000, rng=1))


def test_a_checkerboard_leaves_every_other_field_empty():
    fields = np.floor(data.checkerboard(2000, rng=0)).astype(int)
    assert np.all(fields.sum(axis=1) % 2 == 0)
    assert len(np.unique(fields, axis=0)) == 8 and fields.min() == -2 and fields.max() == 1


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (25, 4, 6, 3), np.uint8)


def test_npy_and_npz_are_read_alike(tmp_path, pictures):
    np.save(tmp_path / "a.npy", pictures)
    np.savez(tmp_path / "b.npz", pictures)
    np.savez_compressed(tmp_path / "c.npz", labels=np.arange(25), images=pictures)
    for name in "a.npy", "b.npz", "c.npz":
        images = data.load_images(tmp_path / name)
        np.testing.assert_array_equal(images.held_out, pictures[::10])
        np.testing.assert_array_equal(images.train, np.delete(pictures, [0, 10, 20], axis=0))
        assert images.bins == 256


def test_gray_images_get_a_channel_and_few_images_are_split_too(tmp_path, pictures):
    np.save(tmp_path / "a.npy", pictures[:2, ..., 0])
    images = data.load_images(tmp_path / "a.npy")
    assert images.train.shape == images.held_out.shape == (1, 4, 6, 1)


BAD = {
    "floats": (np.zeros((5, 4, 4)), r"expected uint8 images .* got float64 \(5, 4, 4\)"),
    "rank": (np.zeros((5, 4), np.uint8), r"got uint8 \(5, 4\)"),
    "one": (np.zeros((1, 4, 4), np.uint8), "at least 2 images"),
    "empty": (np.zeros((5, 0, 4), np.uint8), "at least 2 images, got an array"),
    "channels": (np.zeros((5, 3, 4, 4), np.uint8), "expected 1 or 3 channels, and them last"),
    "bins": (np.full((5, 4, 4), 17, np.uint8), "below 17 bins, got 17"),
    "objects": (np.array([{}, {}]), "holds no array of numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_other_arrays_are_refused_by_name(name, tmp_path):
    array, message = BAD[name]
    path = tmp_path / f"{name}.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=f"{name}.npy: .*{message}"):
        data.load_images(path, 17)


def test_other_files_are_refused_by_name(tmp_path, pictures):
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "none.npy").write_bytes(b"")
    np.savez(tmp_path / "two.npz", a=pictures, b=pictures)
    np.savez(tmp_path / "objects.npz", images=np.array([{}]))
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in "text.npz", "none.npy", "two.npz", "objects.npz", "cut.npz", "missing.npz":
        with pytest.raises(ValueError, match=name) as caught:
            data.load_images(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_half_of_the_images_shift_and_keep_their_ink():
    rng = np.random.default_rng(0)
    images = np.zeros((400, 8, 8, 1), np.uint8)
    images[:, 3:5, 3:5] = 200
    shifted = random_shifts(images, 1.0, rng)
    assert shifted.dtype == np.uint8 and shifted.shape == images.shape
    same = (shifted == images).all(axis=(1, 2, 3))
    assert 0.4 < same.mean() < 0.6
    assert np.abs(shifted.sum(axis=(1, 2, 3)).astype(int) - 800).max() <= 8  # rounding alone
    axis = np.arange(8)
    center = (shifted[..., 0] * axis).sum(axis=(1, 2)) / shifted.sum(axis=(1, 2, 3)) - 3.5
    assert -1.02 < center.min() < -0.9 and 0.9 < center.max() < 1.02


def test_integer_shifts_move_pixels_and_change_none():
    rng = np.random.default_rng(0)
    images = np.zeros((500, 8, 8, 1), np.uint8)
    images[:, 3, 4] = 16
    shifted = random_shifts(images, 1.0, rng, integer=True)
    _, i, j, _ = np.nonzero(shifted)
    assert (shifted.max(axis=(1, 2, 3)) == 16).all() and len(i) == 500
    assert set(i) == {2, 3, 4} and set(j) == {3, 4, 5}
    assert 0.5 < ((i == 3) & (j == 4)).mean() < 0.75  # half are not shifted, others round to 0, 0


def test_no_shift_is_no_change():
    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(random_shifts(images, 0, np.random.default_rng(0)), images)
