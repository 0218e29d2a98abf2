"""Conditioners, compared with brute force, and their initialization."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minglow.nets import (
    Conv,
    EdgeBias,
    TransposedConv,
    conv_net,
    mlp,
    official_conv_net,
    paper_conv_net,
    res_net,
)

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("widths_and_size", [(2, 5, 3), (5, 2, 3), (3, 3, 5), (4, 2, 1)])
@given(seed=seeds, height=st.integers(1, 5), width=st.integers(1, 5))
def test_convolution_is_the_sum_in_its_docstring(widths_and_size, seed, height, width):
    channels_in, channels_out, size = widths_and_size
    rng = np.random.default_rng(seed)
    conv = Conv(channels_in, channels_out, size, std=1.0, rng=rng, dtype=np.float64)
    weight, r = conv.params["weight"], size // 2
    x = rng.standard_normal((2, height, width, channels_in))
    expected = np.zeros((2, height, width, channels_out))
    for i in range(height):
        for j in range(width):
            for di in range(size):
                for dj in range(size):
                    if 0 <= i + di - r < height and 0 <= j + dj - r < width:
                        expected[:, i, j] += x[:, i + di - r, j + dj - r] @ weight[:, di, dj].T
    np.testing.assert_allclose(conv.forward(x)[0], expected, rtol=1e-12, atol=1e-12)


@given(seed=seeds, height=st.integers(1, 5), width=st.integers(1, 5))
def test_a_transposed_convolution_is_the_sum_in_its_docstring_and_a_convolution_reversed(
        seed, height, width):
    rng = np.random.default_rng(seed)
    transposed = TransposedConv(5, 2, 3, std=1.0, rng=rng, dtype=np.float64)
    conv = Conv(5, 2, 3, dtype=np.float64)
    weight = transposed.params["weight"]
    conv.params["weight"][...] = weight[:, ::-1, ::-1].transpose(3, 1, 2, 0)
    x = rng.standard_normal((2, height, width, 5))
    expected = np.zeros((2, height + 2, width + 2, 2))  # with a border for the taps outside
    for i, j, di, dj in np.ndindex(height, width, 3, 3):
        expected[:, i + di, j + dj] += x[:, i, j] @ weight[:, di, dj]
    y, _ = transposed.forward(x)
    np.testing.assert_allclose(y, expected[:, 1:-1, 1:-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y, conv.forward(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("build", [conv_net, mlp])
def test_a_conditioner_is_the_constant_zero_at_first(build):
    net = build(2, 8, 4, rng=0)
    shape = (3, 2, 2, 2) if build is conv_net else (3, 2)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    net.initialize(x)
    y, _ = net.forward(x)
    assert y.shape == (*x.shape[:-1], 4)
    assert np.all(y == 0)


# The nets of 2 channels to 4 with 60 hidden units: (class, shapes of its parameters, standard deviation
# of its weight or None), layer by layer. It is Glow's 0.05, or (2 / inputs)^0.5 (He et al. 2015).
NORM = "NormReLU", [(60,), (60,)], None
ENDS = [("TransposedConv", [(60, 3, 3, 4)], 0.0), ("ShiftScale", [(4,), (4,)], None)]
HALF_BLOCK = [NORM, ("Conv", [(60, 3, 3, 60)], (2 / 540) ** 0.5)]
STRUCTURES = {
    mlp: [("Dense", [(2, 60), (60,)], 1.0), ("ReLU", [], None), ("Dense", [(60, 60), (60,)], 30**-0.5),
          ("ReLU", [], None), ("Dense", [(60, 4), (4,)], 0.0)],
    conv_net: [("Conv", [(60, 3, 3, 2)], 0.05), NORM, ("Dense", [(60, 60)], 0.05), NORM, *ENDS],
    paper_conv_net: [
        ("Conv", [(60, 3, 3, 2)], 0.05), ("Bias", [(60,)], None), ("ReLU", [], None),
        ("Dense", [(60, 60), (60,)], 0.05), ("ReLU", [], None), *ENDS],
    official_conv_net: [
        ("Conv", [(60, 3, 3, 2)], 0.05), ("EdgeBias", [(3, 3, 60)], None), NORM,
        ("Dense", [(60, 60)], 0.05), NORM, ENDS[0], ("EdgeBias", [(3, 3, 4)], None), ENDS[1],
        ("AsNet", [], None)],
    res_net: [("Conv", [(60, 3, 3, 2)], 0.05), *HALF_BLOCK * 4, NORM, *ENDS],
}


def leaves(net):
    """The layers of a net that is made of others, in order."""
    if type(net).__name__ in ("Sequence", "Residual"):
        return [leaf for child in net.children.values() for leaf in leaves(child)]
    return [net]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("build", STRUCTURES)
def test_a_conditioner_has_its_layers_and_initial_weights(build, dtype):
    layers = leaves(build(2, 60, 4, rng=0, dtype=dtype))
    assert [type(layer).__name__ for layer in layers] == [name for name, _, _ in STRUCTURES[build]]
    for layer, (_, shapes, std) in zip(layers, STRUCTURES[build]):
        arrays = [part.params[name] for _, part in layer.walk() for name in part.params]
        assert [array.shape for array in arrays] == shapes
        assert all(array.dtype == dtype for array in arrays)
        if std is not None:
            assert arrays[0].std() == pytest.approx(std, rel=4 / np.sqrt(2 * arrays[0].size))


def test_initialize_normalizes_hidden_units():
    rng = np.random.default_rng(0)
    net = conv_net(2, 8, 4, rng=0, dtype=np.float64)
    x = rng.standard_normal((5, 4, 4, 2)) * 3 + 1
    net.initialize(x)
    for convolution, norm in (net.nets[0], net.nets[1]), (net.nets[2], net.nets[3]):
        hidden, _ = convolution.forward(x)
        normalized, _, _ = norm.norm.forward(hidden)
        np.testing.assert_allclose(normalized.mean(axis=(0, 1, 2)), 0, atol=1e-12)
        np.testing.assert_allclose(normalized.var(axis=(0, 1, 2)), 1, rtol=1e-12)
        x, _ = norm.forward(hidden)


@pytest.mark.parametrize("convolution", [Conv, TransposedConv])
def test_a_convolution_expects_an_odd_size_and_images(convolution):
    with pytest.raises(ValueError, match="odd size, got 2"):
        convolution(2, 2, 2)
    with pytest.raises(ValueError, match=r"expected images \(B, h, w, 2\), got \(3, 2\)"):
        convolution(2, 2).forward(np.zeros((3, 2), np.float32))


def test_an_edge_bias_is_the_sum_over_taps_beyond_the_image():
    rng = np.random.default_rng(0)
    net = EdgeBias(2, 3, rng=rng, dtype=np.float64)
    x, bias = rng.standard_normal((2, 3, 4, 2)), net.params["bias"]
    y, _ = net.forward(x)
    for i, j in np.ndindex(3, 4):
        taps = [bias[di, dj] for di, dj in np.ndindex(3, 3)
                if not (0 <= i + di - 1 < 3 and 0 <= j + dj - 1 < 4)]
        np.testing.assert_allclose(y[:, i, j], x[:, i, j] + np.sum(taps, axis=0) if taps else x[:, i, j])
