"""What a flow is asked once it is trained: latents by level, walks, attributes, strangeness."""

import zlib
from functools import partial

import numpy as np
import pytest

import minglow as mg
from minglow.inference import (
    apply_attribute,
    attribute_direction,
    interpolate,
    latent_views,
    resample,
    strangeness,
)
from minglow.testing import moved

glow = partial(mg.glow, steps=2, hidden=4, dtype=np.float64, rng=0)
realnvp = partial(mg.realnvp, hidden=4, dtype=np.float64, rng=0)

# name: (a flow, the shape of its images, the shapes of its latents by level)
FLOWS = {
    "one level": (partial(glow, levels=1), (4, 2, 3), [(2, 1, 12)]),
    "two levels": (partial(glow, levels=2), (4, 8, 1), [(2, 4, 2), (1, 2, 8)]),
    "three levels": (partial(glow, levels=3), (8, 16, 3), [(4, 8, 6), (2, 4, 12), (1, 2, 48)]),
    "reversible": (partial(glow, levels=2, reversible=True), (4, 4, 1), [(2, 2, 2), (1, 1, 8)]),
    "by class": (partial(glow, levels=2, classes=3), (4, 4, 1), [(2, 2, 2), (1, 1, 8)]),
    "vectors": (glow, (6,), [(6,)]),
    "realnvp": (partial(realnvp, levels=3), (4, 8, 1), [(2, 4, 2), (1, 2, 4), (1, 2, 4)]),
    "realnvp, one level": (partial(realnvp, levels=1), (3, 4, 1), [(3, 4, 1)]),
    "nice": (partial(mg.nice, hidden=8, depth=1, dtype=np.float64, rng=0), (4, 2, 1), [(8,)]),
}
every_flow = pytest.mark.parametrize("name", FLOWS)


def made(name, seed=0, dtype=np.float64):
    make, shape, shapes = FLOWS[name]
    flow = moved(make(shape, dtype=dtype), seed, 0.05)
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (3, *shape)).astype(dtype)
    return flow, x, {f"level {i + 1}": shape for i, shape in enumerate(shapes)}


@every_flow
def test_views_have_the_names_and_shapes_of_the_levels_and_cover_the_latents_once(name):
    flow, x, shapes = made(name)
    z = flow.latents(x)
    assert z.shape == (3, x[0].size)
    views = latent_views(flow, z)
    assert {key: view.shape[1:] for key, view in views.items()} == shapes
    assert list(views) == list(shapes) and sum(view.size for view in views.values()) == z.size
    counts = np.zeros_like(z)
    for view in latent_views(flow, counts).values():
        assert np.shares_memory(view, counts)
        np.add(view, 1, out=view)
    assert np.all(counts == 1)


@every_flow
def test_each_view_holds_what_leaves_at_its_level(name):
    flow, x, _ = made(name)
    views, bijection = latent_views(flow, flow.latents(x)), flow.bijection
    for view in list(views.values())[:-1]:
        h = bijection.steps.forward(x)[0]
        half = h.shape[-1] // 2
        x, bijection = h[..., :half], bijection.inner
        np.testing.assert_allclose(view, h[..., half:], rtol=1e-12)
    *_, last = views.values()
    np.testing.assert_allclose(last.reshape(3, -1), bijection.forward(x)[0], rtol=1e-12)


@pytest.mark.parametrize("order", "CF")
def test_writing_into_a_view_changes_that_levels_latents_alone(order):
    flow, x, _ = made("three levels")
    z = np.array(flow.latents(x), order=order)
    before = {key: view.copy() for key, view in latent_views(flow, z).items()}
    latent_views(flow, z)["level 2"][1, 0, 3, 5] = 9.0
    flat = 4 * 8 * 6 + (0 * 4 + 3) * 12 + 5
    assert z[1, flat] == 9.0
    after = latent_views(flow, z)
    np.testing.assert_array_equal(after["level 1"], before["level 1"])
    np.testing.assert_array_equal(after["level 3"], before["level 3"])
    assert np.count_nonzero(after["level 2"] != before["level 2"]) == 1


@every_flow
def test_images_come_back_from_their_latents(name):
    flow, x, _ = made(name)
    back = flow.from_latents(flow.latents(x))
    assert back.shape == x.shape
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-10)
    z = np.random.default_rng(1).standard_normal((3, x[0].size))
    np.testing.assert_allclose(flow.latents(flow.from_latents(z)), z, rtol=0, atol=1e-10)


@every_flow
def test_resampling_draws_the_chosen_levels_and_keeps_the_others(name):
    flow, x, shapes = made(name)
    before, kept = latent_views(flow, flow.latents(x)), x.copy()
    fresh = latent_views(flow, flow.base.sample(3, 5, np.float64))
    first, *_, last = ["level 1", *shapes]
    for chosen in [], [first], [last], list(shapes):
        after = latent_views(flow, flow.latents(resample(flow, x, chosen, 5)))
        for level in shapes:
            expected = fresh if level in chosen else before
            np.testing.assert_allclose(after[level], expected[level], rtol=0, atol=1e-9)
            assert np.all(np.abs(fresh[level] - before[level]) > 1e-6)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_allclose(resample(flow, x, shapes, 5), flow.sample(3, 5), atol=1e-12)


def test_resampling_has_a_temperature_and_labels():
    flow, x, _ = made("by class")
    cold = latent_views(flow, flow.latents(resample(flow, x, ["level 1"], 0, temperature=0.0)))
    np.testing.assert_allclose(cold["level 1"], 0, atol=1e-9)
    labels = np.array([2, 0, 1])
    cold = resample(flow, x, iter(["level 2"]), 0, 0.0, labels)
    top = latent_views(flow, flow.latents(cold))["level 2"]
    np.testing.assert_allclose(top[:, 0, 0], flow.base.params["mean"][labels], atol=1e-9)


def test_resampling_leaves_the_image_alone_even_where_latents_are_a_view_of_it():
    flow = mg.Flow(mg.Chain(mg.Flatten((2, 2, 1))), mg.StandardNormal((4,)))
    x = np.zeros((2, 2, 2, 1), np.float32)
    assert resample(flow, x, ["level 1"], 0).all()
    assert not x.any()


def test_levels_that_a_flow_does_not_have_are_refused():
    flow, x, _ = made("two levels")
    for level in "level 0", "level 3":
        with pytest.raises(ValueError, match=f"expected levels among level 1, level 2, got '{level}'"):
            resample(flow, x, ["level 1", level], 0)
    with pytest.raises(ValueError, match="expected levels among level 1, got 'level 2'"):
        resample(*made("nice")[:2], ["level 2"], 0)


@pytest.mark.parametrize("name", ["two levels", "vectors", "nice"])
@pytest.mark.parametrize("more", [-1, 1])
def test_latents_of_another_size_are_refused(name, more):
    flow, x, _ = made(name)
    size = x[0].size
    with pytest.raises(ValueError, match=rf"expected latents \(B, {size}\), got \(3, {size + more}\)"):
        latent_views(flow, np.zeros((3, size + more)))
    with pytest.raises(ValueError, match=rf"expected latents \(B, {size}\), got \({size},\)"):
        latent_views(flow, np.zeros(size))


@every_flow
def test_walks_go_straight_from_one_image_to_the_other(name):
    flow, x, _ = made(name)
    start, end = x[:2], x[1:]
    walk = interpolate(flow, start, end, 4)
    assert walk.shape == (2, 4, *x.shape[1:])
    np.testing.assert_allclose(walk[:, 0], start, rtol=0, atol=1e-10)
    np.testing.assert_allclose(walk[:, -1], end, rtol=0, atol=1e-10)
    a, b = flow.latents(start), flow.latents(end)
    for frame, share in (1, 1 / 3), (2, 2 / 3):
        between = flow.latents(walk[:, frame])
        np.testing.assert_allclose(between, (1 - share) * a + share * b, rtol=0, atol=1e-9)


def test_walks_are_in_the_flows_dtype():
    flow, x, _ = made("two levels", dtype=np.float32)
    walk = interpolate(flow, x.astype(np.float64), x[::-1], 2)
    assert walk.dtype == np.float32 and walk.shape[1] == 2
    np.testing.assert_allclose(walk[:, 1], x[::-1], atol=1e-4)
    np.testing.assert_array_equal(interpolate(flow, x, x).shape, (3, 9, 4, 8, 1))


def test_walks_that_cannot_be_made():
    flow, x, _ = made("two levels")
    with pytest.raises(ValueError, match=r"images of one shape, got \(3, 4, 8, 1\) and \(2, 4, 8, 1\)"):
        interpolate(flow, x, x[:2])
    with pytest.raises(ValueError, match="frames to be a whole number of at least 2, got 1"):
        interpolate(flow, x, x, 1)
    with pytest.raises(ValueError, match="at least one sample"):
        interpolate(flow, x[:0], x[:0])


def linear():
    """z = (x + 1) * [1, 2, 4, 8]."""
    layer = mg.ActNorm(4, np.float64)
    layer.params["shift"][...], layer.params["log_scale"][...] = 1, np.log([1, 2, 4, 8])
    return mg.Flow(layer, mg.StandardNormal((4,)))


def test_an_attributes_direction_leads_from_those_without_it_to_those_with_it():
    having, lacking = np.array([[3.0, 0, 0, 1], [1, 2, 0, 1]]), np.array([[1.0, 0, 1, 1]])
    direction = attribute_direction(linear(), having, lacking)
    np.testing.assert_allclose(direction, [1, 2, -4, 0], atol=1e-12)  # of x: [1, 1, -1, 0]
    moved_on = apply_attribute(linear(), lacking, direction, 0.5)
    np.testing.assert_allclose(moved_on, [[1.8, 0.8, 0.2, 1]], atol=1e-12)  # 1.6 * 0.5 of it


@every_flow
def test_an_attribute_moves_latents_by_its_strength(name):
    flow, x, _ = made(name)
    direction = attribute_direction(flow, x[:2], x[2:])
    assert direction.shape == (x[0].size,)
    np.testing.assert_allclose(attribute_direction(flow, x[2:], x[:2]), -direction, rtol=1e-12)
    np.testing.assert_allclose(apply_attribute(flow, x, direction, 0.0), x, rtol=0, atol=1e-10)
    for strength in -1.0, 0.25:
        after = flow.latents(apply_attribute(flow, x, direction, strength))
        step = np.tile(1.6 * strength * direction, (3, 1))
        np.testing.assert_allclose(after - flow.latents(x), step, rtol=0, atol=1e-9)


def test_an_attribute_keeps_the_flows_dtype():
    flow, x, _ = made("two levels", dtype=np.float32)
    assert apply_attribute(flow, x, np.zeros(32), 1.0).dtype == np.float32


def test_attributes_that_do_not_fit_are_refused():
    flow, x, _ = made("two levels")
    for size in 31, 1:  # one number would broadcast silently
        with pytest.raises(ValueError, match=rf"expected a direction \(32,\), got \({size},\)"):
            apply_attribute(flow, x, np.zeros(size), 1.0)
    with pytest.raises(ValueError, match="expected strength to be a number"):
        apply_attribute(flow, x, np.ones(32), np.nan)
    with pytest.raises(ValueError, match="at least one sample"):
        attribute_direction(flow, x, x[:0])


@every_flow
def test_temperature_multiplies_the_noise_of_every_level(name):
    flow, _, shapes = made(name)
    labels = np.array([0, 2, 1]) if flow.base.classes else None

    def noise(temperature):
        z = flow.latents(flow.sample(3, 7, temperature, labels))
        if flow.base.classes:  # the top level's noise is about the class's mean
            latent_views(flow, z)["level 2"][...] -= flow.base.params["mean"][labels][:, None, None]
        return latent_views(flow, z)

    warm = noise(1.0)
    for temperature in 0.0, 0.3, 0.8:
        colder = noise(temperature)
        for level in shapes:
            assert warm[level].std() > 0.5
            np.testing.assert_allclose(colder[level], temperature * warm[level], rtol=0, atol=1e-8)


def test_samples_of_a_class_have_its_means_in_the_top_level():
    flow, _, _ = made("by class")
    mean, log_std = flow.base.params["mean"], flow.base.params["log_std"]
    mean[...], log_std[...] = np.arange(24).reshape(3, 8) - 12, np.log(0.5)
    for label in range(3):
        z = latent_views(flow, flow.latents(flow.sample(2000, label, labels=label)))
        top = z["level 2"][:, 0, 0]
        np.testing.assert_allclose(top.mean(axis=0), mean[label], atol=5 * 0.5 / 2000**0.5)
        np.testing.assert_allclose(top.std(axis=0), 0.5, rtol=0.1)
        np.testing.assert_allclose(z["level 1"].mean(axis=0), 0, atol=5 / 2000**0.5)
    labels = np.array([2, 0, 1, 2])
    one_each = latent_views(flow, flow.latents(flow.sample(4, 0, 0.0, labels)))["level 2"]
    np.testing.assert_allclose(one_each[:, 0, 0], mean[labels], atol=1e-9)


LEVELS = 16
PICTURES = np.random.default_rng(0).integers(0, LEVELS, (5, 4, 4, 1), np.uint8)
USUAL = np.random.default_rng(1).integers(0, LEVELS, (7, 4, 4, 1), np.uint8)


def bits_by_hand(flow, images, rng):
    x = (images + rng.random(images.shape)) / LEVELS - 0.5
    return -flow.log_prob(x) / np.log(2) / 16 + np.log2(LEVELS)


def test_each_score_of_strangeness_is_its_formulas():
    flow = moved(glow((4, 4, 1), levels=2), 0, 0.1)
    rng = np.random.default_rng(3)
    bits, usual = bits_by_hand(flow, PICTURES, rng), bits_by_hand(flow, USUAL, rng)
    scores = strangeness(flow, PICTURES, LEVELS, USUAL, 3)
    assert list(scores) == ["bits", "typicality", "complexity"]
    np.testing.assert_allclose(scores["bits"], bits, rtol=1e-12)
    np.testing.assert_allclose(scores["typicality"], np.abs(bits - usual.mean()), rtol=1e-10)
    assert np.any(bits < usual.mean()) and np.any(bits > usual.mean())
    sizes = [len(zlib.compress(bytes(image.ravel().tolist()), 9)) for image in PICTURES]
    np.testing.assert_allclose(scores["complexity"], bits - 8 * np.array(sizes) / 16, rtol=1e-12)


def test_complexity_is_the_same_however_the_images_are_stored():
    flow = glow((4, 4, 1), levels=1)
    expected = strangeness(flow, PICTURES, LEVELS, USUAL, 3)
    for stored in PICTURES.astype(np.int64), PICTURES.astype(">u2"), np.asfortranarray(PICTURES):
        found = strangeness(flow, stored, LEVELS, USUAL, 3)
        for name, score in expected.items():
            np.testing.assert_array_equal(found[name], score)


def test_a_flat_image_is_stranger_than_noise_of_the_same_bits():
    flow = mg.Flow(mg.Flatten((16, 16, 1)), mg.StandardNormal((256,)))
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8)
    same_length = np.where(noise < 128, 54, 202).astype(np.uint8)  # about as far from the middle
    scores = strangeness(flow, np.stack([np.sort(same_length, axis=None).reshape(noise.shape), noise]),
                         256, noise[None], 0)
    assert abs(scores["bits"][0] - scores["bits"][1]) < 0.05
    assert scores["complexity"][0] > scores["complexity"][1] + 3


def test_strangeness_of_what_is_no_image():
    flow = glow((4, 4, 1), levels=1)
    for images, usual in (PICTURES[:0], USUAL), (PICTURES, USUAL[:0]):
        with pytest.raises(ValueError, match="at least one sample"):
            strangeness(flow, images, LEVELS, usual)
    with pytest.raises(ValueError, match=r"from 0 to 7 \(8 levels\), got 0 to 15"):
        strangeness(flow, PICTURES, 8, USUAL)
    with pytest.raises(ValueError, match="expected integer images, got float64"):
        strangeness(flow, PICTURES / 16, LEVELS, USUAL)
    with pytest.raises(ValueError, match=r"expected an array of shape \(B, 2, 2, 4\)"):
        strangeness(flow, PICTURES.reshape(5, 2, 8, 1), LEVELS, USUAL)
