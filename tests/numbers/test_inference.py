"""Inference: latents by level, interpolation, attributes, anomaly scores."""

import zlib
from functools import partial

import numpy as np
import pytest

import minglow as mg
from minglow.inference import (
    anomaly_scores,
    apply_attribute,
    attribute_direction,
    interpolate,
    latent_views,
    resample,
)
from minglow.testing import perturbed

glow = partial(mg.glow, flow_steps=2, hidden=4, dtype=np.float64, rng=0)
realnvp = partial(mg.realnvp, hidden=4, dtype=np.float64, rng=0)

# name: (function that builds a flow, shape of its images, shapes of its latents by level)
FLOWS = {
    "one level": (partial(glow, levels=1), (4, 2, 3), [(2, 1, 12)]),
    "two levels": (partial(glow, levels=2), (4, 8, 1), [(2, 4, 2), (1, 2, 8)]),
    "three levels": (partial(glow, levels=3), (8, 16, 3), [(4, 8, 6), (2, 4, 12), (1, 2, 48)]),
    "reversible": (partial(glow, levels=2, reversible=True), (4, 4, 1), [(2, 2, 2), (1, 1, 8)]),
    "class-conditional": (partial(glow, levels=2, classes=3), (4, 4, 1), [(2, 2, 2), (1, 1, 8)]),
    "vectors": (glow, (6,), [(6,)]),
    "realnvp": (partial(realnvp, levels=3), (4, 8, 1), [(2, 4, 2), (1, 2, 4), (1, 2, 4)]),
    "realnvp, one level": (partial(realnvp, levels=1), (3, 4, 1), [(3, 4, 1)]),
    "nice": (partial(mg.nice, hidden=8, depth=1, dtype=np.float64, rng=0), (4, 2, 1), [(8,)]),
}
every_flow = pytest.mark.parametrize("name", FLOWS)


def build(name, seed=0, dtype=np.float64):
    """A perturbed flow, images, and the shapes of its latents by level."""
    build_flow, shape, shapes = FLOWS[name]
    flow = perturbed(build_flow(shape, dtype=dtype), seed, 0.05)
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (3, *shape)).astype(dtype)
    return flow, x, {f"level {i + 1}": shape for i, shape in enumerate(shapes)}


@every_flow
def test_views_have_the_names_and_shapes_of_the_levels_and_cover_the_latents_once(name):
    flow, x, shapes = build(name)
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


def test_a_bijection_that_is_no_chain_has_one_level():
    flow, z = linear(), np.zeros((2, 4))
    assert {name: view.shape for name, view in latent_views(flow, z).items()} == {"level 1": (2, 4)}


@every_flow
def test_each_view_holds_the_channels_that_its_level_factors_out(name):
    flow, x, _ = build(name)
    views, bijection = latent_views(flow, flow.latents(x)), flow.bijection
    for view in list(views.values())[:-1]:
        h = bijection.steps.forward(x)[0]
        half = h.shape[-1] // 2
        x, bijection = h[..., :half], bijection.inner
        np.testing.assert_allclose(view, h[..., half:], rtol=1e-12)
    *_, last = views.values()
    np.testing.assert_allclose(last.reshape(3, -1), bijection.forward(x)[0], rtol=1e-12)


@pytest.mark.parametrize("order", "CF")
def test_writing_to_a_view_changes_only_that_levels_latents(order):
    flow, x, _ = build("three levels")
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
def test_from_latents_inverts_latents(name):
    flow, x, _ = build(name)
    back = flow.from_latents(flow.latents(x))
    assert back.shape == x.shape
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-10)
    z = np.random.default_rng(1).standard_normal((3, x[0].size))
    np.testing.assert_allclose(flow.latents(flow.from_latents(z)), z, rtol=0, atol=1e-10)


@every_flow
def test_resampling_draws_the_chosen_levels_and_keeps_the_others(name):
    flow, x, shapes = build(name)
    before, original = latent_views(flow, flow.latents(x)), x.copy()
    new = latent_views(flow, flow.base.sample(3, 5, np.float64))
    first, *_, last = ["level 1", *shapes]
    for chosen in [], [first], [last], list(shapes):
        after = latent_views(flow, flow.latents(resample(flow, x, chosen, 5)))
        for level in shapes:
            expected = new if level in chosen else before
            np.testing.assert_allclose(after[level], expected[level], rtol=0, atol=1e-9)
            assert np.all(np.abs(new[level] - before[level]) > 1e-6)
    np.testing.assert_array_equal(x, original)
    np.testing.assert_allclose(resample(flow, x, shapes, 5), flow.sample(3, 5), atol=1e-12)


def test_resampling_has_a_temperature_and_labels():
    flow, x, _ = build("class-conditional")
    cold = latent_views(flow, flow.latents(resample(flow, x, ["level 1"], 0, temperature=0.0)))
    np.testing.assert_allclose(cold["level 1"], 0, atol=1e-9)
    labels = np.array([2, 0, 1])
    cold = resample(flow, x, iter(["level 2"]), 0, 0.0, labels)
    top = latent_views(flow, flow.latents(cold))["level 2"]
    np.testing.assert_allclose(top[:, 0, 0], flow.base.params["mean"][labels], atol=1e-9)


def test_resampling_does_not_change_an_image_whose_latents_are_a_view_of_it():
    flow = mg.Flow(mg.Chain(mg.Flatten((2, 2, 1))), mg.StandardNormal((4,)))
    x = np.zeros((2, 2, 2, 1), np.float32)
    assert resample(flow, x, ["level 1"], 0).all()
    assert not x.any()


def test_levels_that_a_flow_does_not_have_are_refused():
    flow, x, _ = build("two levels")
    for level in "level 0", "level 3":
        with pytest.raises(ValueError, match=f"expected levels among level 1, level 2, got '{level}'"):
            resample(flow, x, ["level 1", level], 0)
    with pytest.raises(ValueError, match="expected levels among level 1, got 'level 2'"):
        resample(*build("nice")[:2], ["level 2"], 0)
    for levels in "level 1", 1:
        with pytest.raises(ValueError, match=f"^expected levels to be a list of names, got {levels!r}"):
            resample(flow, x, levels, 0)


@pytest.mark.parametrize("name", ["two levels", "vectors", "nice"])
@pytest.mark.parametrize("more", [-1, 1])
def test_latents_of_another_size_are_refused(name, more):
    flow, x, _ = build(name)
    size = x[0].size
    with pytest.raises(ValueError, match=rf"expected latents \(B, {size}\), got \(3, {size + more}\)"):
        latent_views(flow, np.zeros((3, size + more)))
    with pytest.raises(ValueError, match=rf"expected latents \(B, {size}\), got \({size},\)"):
        latent_views(flow, np.zeros(size))


@every_flow
def test_interpolations_are_straight_lines_between_latents(name):
    flow, x, _ = build(name)
    start, end = x[:2], x[1:]
    images = interpolate(flow, start, end, 4)
    assert images.shape == (2, 4, *x.shape[1:])
    np.testing.assert_allclose(images[:, 0], start, rtol=0, atol=1e-10)
    np.testing.assert_allclose(images[:, -1], end, rtol=0, atol=1e-10)
    a, b = flow.latents(start), flow.latents(end)
    for frame in 1, 2:
        between = flow.latents(images[:, frame])
        np.testing.assert_allclose(between, a + frame / 3 * (b - a), rtol=0, atol=1e-9)


def test_interpolations_have_the_flows_dtype():
    flow, x, _ = build("two levels", dtype=np.float32)
    images = interpolate(flow, x.astype(np.float64), x[::-1], 2)
    assert images.dtype == np.float32 and images.shape[1] == 2
    np.testing.assert_allclose(images[:, 1], x[::-1], atol=1e-4)
    np.testing.assert_array_equal(interpolate(flow, x, x).shape, (3, 9, 4, 8, 1))


def test_invalid_interpolations_are_refused():
    flow, x, _ = build("two levels")
    with pytest.raises(ValueError, match=r"images of one shape, got \(3, 4, 8, 1\) and \(2, 4, 8, 1\)"):
        interpolate(flow, x, x[:2])
    with pytest.raises(ValueError, match="frames to be a whole number of at least 2, got 1"):
        interpolate(flow, x, x, 1)
    with pytest.raises(ValueError, match="at least one sample"):
        interpolate(flow, x[:0], x[:0])
    with pytest.raises(ValueError, match=r"^expected start to be an array, got 'x'"):
        interpolate(flow, "x", x)
    with pytest.raises(ValueError, match=r"^expected end to be an array, got 'x'"):
        interpolate(flow, x, "x")


def linear():
    """z = (x + 1) * [1, 2, 4, 8]."""
    layer = mg.ActNorm(4, np.float64)
    layer.params["shift"][...], layer.params["log_scale"][...] = 1, np.log([1, 2, 4, 8])
    return mg.Flow(layer, mg.StandardNormal((4,)))


def test_an_attributes_direction_is_a_difference_of_mean_latents():
    having, lacking = np.array([[3.0, 0, 0, 1], [1, 2, 0, 1]]), np.array([[1.0, 0, 1, 1]])
    direction = attribute_direction(linear(), having, lacking)
    np.testing.assert_allclose(direction, [1, 2, -4, 0], atol=1e-12)  # of x: [1, 1, -1, 0]
    changed = apply_attribute(linear(), lacking, direction, 0.5)
    np.testing.assert_allclose(changed, [[1.8, 0.8, 0.2, 1]], atol=1e-12)  # 1.6 * 0.5 directions


@every_flow
def test_an_attribute_shifts_latents_in_proportion_to_its_strength(name):
    flow, x, _ = build(name)
    direction = attribute_direction(flow, x[:2], x[2:])
    assert direction.shape == (x[0].size,)
    np.testing.assert_allclose(attribute_direction(flow, x[2:], x[:2]), -direction, rtol=1e-12)
    np.testing.assert_allclose(apply_attribute(flow, x, direction, 0.0), x, rtol=0, atol=1e-10)
    for strength in -1.0, 0.25:
        after = flow.latents(apply_attribute(flow, x, direction, strength))
        step = np.tile(1.6 * strength * direction, (3, 1))
        np.testing.assert_allclose(after - flow.latents(x), step, rtol=0, atol=1e-9)


def test_an_attribute_keeps_the_flows_dtype():
    flow, x, _ = build("two levels", dtype=np.float32)
    assert apply_attribute(flow, x, np.zeros(32), 1.0).dtype == np.float32


def test_directions_of_another_shape_are_refused():
    flow, x, _ = build("two levels")
    for size in 31, 1:  # one number would broadcast silently
        with pytest.raises(ValueError, match=rf"expected a direction \(32,\), got \({size},\)"):
            apply_attribute(flow, x, np.zeros(size), 1.0)
    with pytest.raises(ValueError, match="expected strength to be a number"):
        apply_attribute(flow, x, np.ones(32), np.nan)
    with pytest.raises(ValueError, match=r"^expected direction to be an array, got 1"):
        apply_attribute(flow, x, 1, 1.0)
    with pytest.raises(ValueError, match="at least one sample"):
        attribute_direction(flow, x, x[:0])


@every_flow
def test_temperature_multiplies_the_noise_of_every_level(name):
    flow, _, shapes = build(name)
    labels = np.array([0, 2, 1]) if flow.base.classes else None

    def noise(temperature):
        z = flow.latents(flow.sample(3, 7, temperature, labels))
        if flow.base.classes:  # the top level's latents have the class's mean
            latent_views(flow, z)["level 2"][...] -= flow.base.params["mean"][labels][:, None, None]
        return latent_views(flow, z)

    expected = noise(1.0)
    for temperature in 0.0, 0.3, 0.8:
        found = noise(temperature)
        for level in shapes:
            assert expected[level].std() > 0.5
            np.testing.assert_allclose(found[level], temperature * expected[level], rtol=0, atol=1e-8)


def test_samples_of_a_class_have_its_mean_and_scale_in_the_top_level():
    flow, _, _ = build("class-conditional")
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


BINS = 16
IMAGES = np.random.default_rng(0).integers(0, BINS, (5, 4, 4, 1), np.uint8)
USUAL = np.random.default_rng(1).integers(0, BINS, (7, 4, 4, 1), np.uint8)


def bits_by_hand(flow, images, rng):
    x = (images + rng.random(images.shape)) / BINS - 0.5
    return -flow.log_prob(x) / np.log(2) / 16 + np.log2(BINS)


def test_each_anomaly_score_follows_its_formula():
    flow = perturbed(glow((4, 4, 1), levels=2), 0, 0.1)
    rng = np.random.default_rng(3)
    bits, usual = bits_by_hand(flow, IMAGES, rng), bits_by_hand(flow, USUAL, rng)
    scores = anomaly_scores(flow, IMAGES, BINS, USUAL, 3)
    assert list(scores) == ["bits", "typicality", "complexity"]
    np.testing.assert_allclose(scores["bits"], bits, rtol=1e-12)
    np.testing.assert_allclose(scores["typicality"], np.abs(bits - usual.mean()), rtol=1e-10)
    assert np.any(bits < usual.mean()) and np.any(bits > usual.mean())
    sizes = [len(zlib.compress(bytes(image.ravel().tolist()), 9)) for image in IMAGES]
    np.testing.assert_allclose(scores["complexity"], bits - 8 * np.array(sizes) / 16, rtol=1e-12)


def test_complexity_does_not_depend_on_the_images_dtype_and_order():
    flow = glow((4, 4, 1), levels=1)
    expected = anomaly_scores(flow, IMAGES, BINS, USUAL, 3)
    for stored in IMAGES.astype(np.int64), IMAGES.astype(">u2"), np.asfortranarray(IMAGES):
        found = anomaly_scores(flow, stored, BINS, USUAL, 3)
        for name, score in expected.items():
            np.testing.assert_array_equal(found[name], score)


def test_a_simple_image_has_a_higher_complexity_score_than_noise_with_the_same_bits():
    flow = mg.Flow(mg.Flatten((16, 16, 1)), mg.StandardNormal((256,)))
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8)
    two_values = np.where(noise < 128, 54, 202).astype(np.uint8)  # about as far from the center
    simple = np.sort(two_values, axis=None).reshape(noise.shape)
    scores = anomaly_scores(flow, np.stack([simple, noise]), 256, noise[None], 0)
    assert abs(scores["bits"][0] - scores["bits"][1]) < 0.05
    assert scores["complexity"][0] > scores["complexity"][1] + 3


@pytest.mark.parametrize(("bins", "bytes_per_value"), [(2, 1), (256, 1), (257, 2)])
def test_complexity_compresses_the_smallest_dtype_that_holds_the_values(bins, bytes_per_value):
    flow = glow((4, 4, 1), levels=1)
    images = np.random.default_rng(0).integers(bins, size=(1, 4, 4, 1))
    scores = anomaly_scores(flow, images, bins, images, 0)
    compressed = zlib.compress(images.astype(f"<u{bytes_per_value}").tobytes(), 9)
    assert scores["complexity"] == pytest.approx(scores["bits"] - 8 * len(compressed) / 16)


def test_anomaly_scores_refuse_invalid_images():
    flow = glow((4, 4, 1), levels=1)
    for images, usual in (IMAGES[:0], USUAL), (IMAGES, USUAL[:0]):
        with pytest.raises(ValueError, match="at least one sample"):
            anomaly_scores(flow, images, BINS, usual)
    with pytest.raises(ValueError, match=r"from 0 to 7 \(8 bins\), got 0 to 15"):
        anomaly_scores(flow, IMAGES, 8, USUAL)
    with pytest.raises(ValueError, match="expected integer images, got float64"):
        anomaly_scores(flow, IMAGES / 16, BINS, USUAL)
    with pytest.raises(ValueError, match=r"^expected images to be an array, got None"):
        anomaly_scores(flow, None, BINS, USUAL)
    with pytest.raises(ValueError, match=r"^expected bins to be a whole number of at least 2, got 1"):
        anomaly_scores(flow, IMAGES, 1, USUAL)
    two_bins = np.zeros((1, 4, 4, 1), np.uint8)
    assert np.isfinite(anomaly_scores(flow, two_bins, 2, two_bins)["complexity"]).all()
    with pytest.raises(ValueError, match=r"expected an array of shape \(B, 2, 2, 4\)"):
        anomaly_scores(flow, IMAGES.reshape(5, 2, 8, 1), BINS, USUAL)
