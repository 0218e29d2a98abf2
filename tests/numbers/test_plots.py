"""The figures of minglow.plots, checked through matplotlib's objects."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

import minglow as mg
from minglow import plots


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_style_sets_the_colors():
    with matplotlib.rc_context():
        plots.style()
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == list(plots.COLORS)
        assert matplotlib.rcParams["image.cmap"] == "viridis"


def test_zero_is_white_in_a_matrix(axes):
    plots.draw_matrix(axes, np.array([[0.0, -3.0], [1.0, 2.0]]), "J")
    image = axes.images[0]
    assert image.get_clim() == (-3, 3) and axes.get_title() == "J"
    assert image.to_rgba(0.0)[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)
    plots.draw_matrix(axes, np.zeros((2, 2)))
    assert axes.images[1].get_clim() == (-1, 1)


def test_grid_lines_are_the_images_of_straight_lines(axes):
    plots.draw_grid(axes, lambda x: x @ np.array([[2, 0], [0, 0.5]], np.float32), limit=1.0, lines=3)
    first, second = axes.lines[:2]
    assert np.allclose(first.get_xdata(), -2) and np.allclose(np.ptp(first.get_ydata()), 1)
    assert np.allclose(second.get_ydata(), -0.5) and np.allclose(np.ptp(second.get_xdata()), 4)
    assert len(axes.lines) == 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_density_is_indexed_as_in_pcolormesh_and_integrates_to_one(dtype):
    flow = mg.Flow(mg.Chain(mg.Scaling(2, dtype)), mg.StandardNormal((2,)))
    flow.bijection.layers[0].params["log_scale"][...] = np.log(2), 0  # narrow in x_1
    edges, density, total = plots.density_on_grid(flow.log_prob, limit=6.0, dtype=dtype)
    assert total == pytest.approx(1, abs=1e-5) and edges[[0, -1]] == pytest.approx([-6, 6])
    assert (density[100] > 0.01).sum() < (density[:, 100] > 0.01).sum()


def test_drawn_images_have_the_images_pixels(axes):
    images = np.arange(8).reshape(2, 2, 2, 1)
    plots.draw_images(axes, images, bins=8, columns=2, title="two")
    drawn = axes.images[0].get_array()
    assert drawn.shape == (2, 5) and np.allclose(drawn[:, 3:], images[1, ..., 0] / 7)
    plots.draw_images(axes, np.zeros((1, 2, 2, 3), int), bins=8, columns=1)
    assert axes.images[1].get_array().shape == (2, 2, 3)


def test_an_animation_loads_nothing_and_has_alternative_text(axes):
    line, = axes.plot([0, 1], [0, 1])
    animation = FuncAnimation(axes.figure, lambda frame: line.set_ydata([0, frame]), frames=2)
    page = plots.animation_html(animation, 'a "line" turns')
    without = re.sub(r"data:[^\"]*|^\s*//.*", "", page, flags=re.MULTILINE)  # images, comments
    assert "//" not in without and "fa-" not in without
    assert all(sign in page for sign in plots.SIGNS.values())
    assert '<img alt="a &quot;line&quot; turns" id=' in page
