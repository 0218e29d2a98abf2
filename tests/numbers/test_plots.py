"""The figures of minglow.plots, checked through matplotlib's objects."""

import io
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.animation import FuncAnimation
from matplotlib.colors import to_rgba
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


def test_a_grid_and_a_density_can_have_limits_for_each_axis(axes):
    limits = np.array([[-1.0, 3.0], [5.0, 6.0]])
    plots.draw_grid(axes, lambda x: x, limits, lines=3)
    assert [line.get_xdata()[0] for line in axes.lines[::2]] == pytest.approx([-1, 1, 3])
    assert [line.get_ydata()[0] for line in axes.lines[1::2]] == pytest.approx([5, 5.5, 6])

    def uniform(x):  # on the left half
        return np.where(x[:, 0] < 1, np.log(0.5), -np.inf)

    edges, density, total = plots.density_on_grid(uniform, limits, cells=10)
    assert edges.shape == (2, 11) and np.array_equal(edges[:, [0, -1]], limits)
    assert (density[:, :5] == 0.5).all() and (density[:, 5:] == 0).all() and total == pytest.approx(1)


def test_limits_ignore_an_outlier_and_hold_the_other_points():
    points = np.c_[np.linspace(-1, 1, 101), np.full(101, 7.0)].astype(np.float32)
    assert plots.robust_limits(points) == pytest.approx(np.array([[-1.1, 1.1], [3.5, 10.5]]))
    points[:2] = (1e6, 7), (np.nan, 8)
    (low, high), constant = plots.robust_limits(points)
    assert -1.3 < low < -0.96 and 1 < high < 4 and constant == pytest.approx([3.5, 10.5])
    rare = np.zeros((100, 1))
    rare[0] = 2.0  # 99 equal values
    assert plots.robust_limits(rare) == pytest.approx(np.array([[-0.1, 2.1]]))
    with pytest.raises(ValueError, match="at least one point with finite values"):
        plots.robust_limits(points * np.nan)


def drawn_points(axes):
    return np.concatenate([scatter.get_offsets() for scatter in axes.collections])


def title_of(figure):
    title, = figure.texts
    return title.get_text()


def render(figure):
    """Every test of a figure draws it: the layout and the texts are checked only then."""
    with io.BytesIO() as file:
        figure.savefig(file, dpi=30)
        assert file.tell() > 1_000


def test_a_summary_of_the_plane_has_three_panels_with_the_same_limits():
    data, samples = mg.data.two_moons(3000, 0), mg.data.two_moons(500, 1)
    samples[:3], samples[3:5], samples[5] = np.nan, 50, (np.inf, 0)
    limits = plots.robust_limits(data)
    normal = mg.Flow(mg.Chain(mg.Scaling(2)), mg.StandardNormal((2,)))
    edges, density, total = plots.density_on_grid(normal.log_prob, limits, cells=30)
    density[3, 4] = np.nan
    figure = plots.plane_summary(data, samples, edges, density)
    rest = np.nansum(density) * np.prod(np.diff(edges[:, :2]))
    assert 0.3 < rest < total < 0.9
    assert [axes.get_title() for axes in figure.axes] == [
        "data\n2000 of 3000 points", f"density\nintegral over the grid: {rest:.3f}, 1 cells not finite",
        "samples\n500 points, 2 outside, 4 not finite"]
    for axes in figure.axes:
        assert axes.get_xlim() == pytest.approx(limits[0])
        assert axes.get_ylim() == pytest.approx(limits[1])
        assert axes.get_aspect() == 1
    assert len(drawn_points(figure.axes[0])) == 2000
    assert np.array_equal(drawn_points(figure.axes[2]), samples[6:])
    assert figure.axes[1].collections[0].get_array().shape == (30, 30)
    render(figure)


def test_a_summary_of_the_plane_stretches_axes_with_other_units():
    data = mg.data.two_moons(300, 0) * np.array([1, 1000])
    figure = plots.plane_summary(data, data * np.nan, np.linspace(-2, 2, 3), np.ones((2, 2)))
    assert figure.axes[0].get_aspect() == "auto"
    assert figure.axes[2].get_title() == "samples\n300 points, 300 not finite"
    assert figure.axes[1].get_title().endswith("integral over the grid: 16.000")
    render(figure)


def double(x):
    return 2 * x


def test_a_warped_grid_is_drawn_after_each_map():
    points = mg.data.pinwheel(200, 0)
    seen = []

    def shift(x):
        seen.append(x.dtype)
        return x + np.array([10, 0], x.dtype)

    figure = plots.warped_grid([double, shift], ["data", "doubled", "shifted"], points)
    assert [axes.get_title() for axes in figure.axes] == ["data", "doubled", "shifted"]
    assert seen == [np.float32]
    for axes, mapped in zip(figure.axes, (points, 2 * points, 2 * points + [10, 0])):
        assert np.allclose(drawn_points(axes), mapped, atol=1e-5) and len(axes.lines) == 34
        assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))  # equal scales
        assert axes.get_box_aspect() == 1
        assert np.array_equal(axes.collections[0].get_array(), points[:, 0])
    limits = plots.robust_limits(points)
    assert np.allclose(figure.axes[2].lines[0].get_xdata(), 2 * limits[0, 0] + 10, atol=1e-5)
    assert np.allclose(figure.axes[2].lines[-1].get_ydata(), 2 * limits[1, 1], atol=1e-5)
    render(figure)


@pytest.mark.parametrize(("maps", "panels"), [(0, 1), (4, 5), (7, 8), (20, 8)])
def test_a_warped_grid_has_at_most_eight_panels(maps, panels):
    names = [str(number) for number in range(maps + 1)]
    figure = plots.warped_grid([np.negative] * maps, names, mg.data.pinwheel(50, 0))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == panels and titles[0] == names[0] and titles[-1] == names[-1]
    gaps = np.diff(np.array(titles, int))
    assert (gaps > 0).all() and np.ptp([*gaps, *gaps[:1]] or [0]) <= 1  # evenly chosen
    with pytest.raises(ValueError, match=f"expected {maps + 1} titles for {maps} maps, got {maps}"):
        plots.warped_grid([np.negative] * maps, names[1:], mg.data.pinwheel(50, 0))


def test_a_warped_grid_counts_points_that_are_lost():
    def lose(x):
        x = x.astype(np.float64)
        x[:3], x[3], x[100:110] = np.nan, 1e308, np.inf
        return x

    points = mg.data.pinwheel(60, 0)
    points[0] = np.nan
    titles = ["data", "lost", "all lost"]
    figure = plots.warped_grid([lose, lambda x: x * np.nan], titles, points)
    assert [axes.get_title() for axes in figure.axes] == [
        "data\n1 not finite", "lost\n1 outside, 3 not finite", "all lost\n59 not finite"]
    assert [len(drawn_points(axes)) for axes in figure.axes] == [59, 55, 0]
    render(figure)


NAMES = "age", "income $a_$", "a name that is much too long", "x_3", "x_4", "x_5", "x_6"


def table(rows, seed, columns=7):
    values = np.random.default_rng(seed).standard_normal((rows, 7)) * [1, 1e6, 1e-5, 1, 1, 1, 1]
    return values[:, :columns]


def test_a_pair_plot_has_data_below_and_samples_above_the_diagonal():
    data, samples = table(3000, 0), table(100, 1)
    samples[:4, 3], samples[4:6, 0] = np.nan, 100
    figure = plots.pair_plot(data, samples, NAMES)
    panels = np.reshape(figure.axes, (6, 6))
    limits = plots.robust_limits(data[:, :6])
    inside = samples[6:][plots.points.inside(samples[6:, :6], limits)]
    assert len(inside) > 80
    for (row, column), axes in np.ndenumerate(panels):
        assert axes.get_xlim() == pytest.approx(limits[column])
        if row == column:
            assert len(axes.patches) == 2 and not axes.collections
            continue
        points = drawn_points(axes)
        assert axes.get_ylim() == pytest.approx(limits[row])
        if row > column:
            assert len(points) == 2000 and np.isin(points[:, 0], data[:, column]).all()
        else:
            assert np.array_equal(points, inside[:, [column, row]])
    assert title_of(figure).split("\n")[0] == "the first 6 of 7 columns"
    assert title_of(figure).endswith(f"samples: 100 rows, {96 - len(inside)} outside, 4 not finite")
    labels = [axes.get_xlabel() for axes in panels[-1]]
    assert labels == ["age", "income $a_$", "a name that is …", "x_3", "x_4", "x_5"]
    assert labels == [axes.get_ylabel() for axes in panels[:, 0]]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["data (below the diagonal)", "samples (above)"]
    colors = [patch.get_edgecolor() for patch in panels[0, 0].patches]
    assert colors == [to_rgba(color) for color in plots.COLORS[:2]]
    render(figure)
    tick_labels = [text.get_text() for text in panels[-1, 1].get_xticklabels()]
    assert "0" in tick_labels and max(map(len, tick_labels)) <= 5  # 5M, not 5000000


def test_tick_labels_of_a_narrow_range_differ():
    data = 1e9 + table(50, 0, 1)
    axes, = plots.marginals(data, data, ["x"]).axes
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert len(set(labels)) == len(labels) > 2


@pytest.mark.parametrize(("columns", "panels"), [(1, 1), (7, 7), (24, 24), (26, 24)])
def test_marginals_are_densities_in_equal_bins(columns, panels):
    data = np.random.default_rng(0).standard_normal((500, columns))
    samples = np.random.default_rng(1).standard_normal((300, columns)) + 1
    samples[:10, 0], samples[10:20, -1] = np.nan, 1e9
    figure = plots.marginals(data, samples, [f"x_{number}" for number in range(columns)])
    assert len(figure.axes) == panels
    assert title_of(figure).startswith("the first 24 of 26") == (columns > panels)
    assert ", 10 not finite" in title_of(figure)
    for index, axes in enumerate(figure.axes):
        limits = axes.get_xlim()
        assert axes.get_xlabel() == f"x_{index}"
        for values, patch in zip((data, samples[10:]), axes.patches):
            heights, edges, _ = patch.get_data()
            assert np.allclose(np.diff(edges), np.ptp(limits) / len(heights))
            seen = (values[:, index] >= limits[0]) & (values[:, index] <= limits[1])
            assert (heights * np.diff(edges)).sum() == pytest.approx(seen.mean())
    render(figure)


def test_a_single_column_can_have_a_density_curve():
    x = np.linspace(-3, 3, 50)
    data, no_samples = table(400, 0, 1), np.full((20, 1), np.nan)
    figure = plots.marginals(data, no_samples, ["x"], (x, np.exp(-x**2 / 2)))
    axes, = figure.axes
    assert np.array_equal(axes.lines[0].get_xydata(), np.c_[x, np.exp(-x**2 / 2)])
    assert axes.patches[1].get_data()[0].sum() == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()][2] == "density of the model"
    render(figure)
    with pytest.raises(ValueError, match="one column, got 2 columns"):
        plots.marginals(table(9, 0, 2), table(9, 0, 2), ["x", "y"], (x, x))
    for function in plots.marginals, plots.pair_plot:
        with pytest.raises(ValueError, match=re.escape("expected samples of shape (N, 2)")):
            function(table(9, 0, 2), table(9, 0, 3), ["x", "y"])


def test_curves_have_a_baseline_and_limits_around_negative_values():
    curve = [(0, -1.0, -0.5), (10, -3.0, -2.5), (20, np.nan, np.inf), (30, -4.0, -3.25)]
    figure = plots.training_curves(curve, "nats per sample", 1.0, "Gaussian")
    axes, = figure.axes
    assert axes.get_ylim() == pytest.approx((-4.5, 1.5)) and axes.get_ylabel() == "nats per sample"
    baseline, losses, held_out = axes.lines
    assert set(baseline.get_ydata()) == {1.0} and list(held_out.get_xdata()) == [0, 10, 20, 30]
    assert list(losses.get_ydata())[-1] == -4 and axes.get_title() == "2 losses not finite"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["Gaussian, 1.00", "training batches", "held out, -3.25 at best"]
    render(figure)
    single, = plots.training_curves([(5, 2.0, 2.0)], "bits per dimension", 2.0, "uniform model").axes
    assert single.get_ylim() == (1, 3) and single.get_title() == ""
    assert single.lines[1].get_marker() == "."  # a line through one point is invisible


@pytest.mark.parametrize(("loss", "title"), [
    (2.0, "1 losses not finite"), (np.nan, "4 losses not finite")])
def test_curves_without_a_finite_baseline_have_two_lines(loss, title):
    curve = [(0, loss, loss), (10, loss, np.inf)]
    figure = plots.training_curves(curve, "nats per sample", np.nan, "Gaussian")
    axes, = figure.axes
    assert len(axes.lines) == 2 and axes.get_title() == title
    assert np.isfinite(loss) == (axes.get_ylim() == (1, 3))
    render(figure)


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
