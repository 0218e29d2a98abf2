"""Flows of tables: losses, resuming, early stopping, warnings, samples, and the commands."""

import csv
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_distributed import finished, mpi

import minglow as mg
from minglow import data
from minglow.cli import main as cli
from minglow.dequantization import Continuous
from minglow.runs.loading import load_run
from minglow.storage import checkpoint
from minglow.training import Interrupted, TrainingConfig, TrainingWarning, evaluate, train
from minglow.training.evaluation import baseline, gaussian_nats
from minglow.training.monitor import Monitor, data_range, explosion

SHORT = {"steps": 8, "batch_size": 32, "evaluate_every": 2, "warmup_steps": 2, "ema_decay": 0.5}


def clusters(n, rng, std=1e-3):
    """Two tight clusters in four dimensions, whose tails a flow of the official scale blows up."""
    rng = np.random.default_rng(rng)
    return rng.choice([-1.0, 1.0], (n, 1)) + std * rng.standard_normal((n, 4))


def correlated(n, rng, dtype=np.float64):
    """Three columns in units that differ by a million, correlated and shifted."""
    rng = np.random.default_rng(rng)
    x = rng.standard_normal((n, 3)) @ np.array([[1, 0.9, 0], [0, 0.3, 0.5], [0, 0, 1]])
    return (x * [1e3, 1.0, 1e-3] + [500.0, -2.0, 3e-3]).astype(dtype)


def test_a_gaussian_by_brute_force():
    train_part, held_out = correlated(500, 0), correlated(70, 1)
    mean, covariance = train_part.mean(axis=0), np.cov(train_part, rowvar=False, bias=True)
    r = held_out - mean
    log_p = (-0.5 * np.einsum("bi,ij,bj->b", r, np.linalg.inv(covariance), r)
             - 0.5 * np.linalg.slogdet(covariance)[1] - 1.5 * np.log(2 * np.pi))
    assert gaussian_nats(train_part, held_out) == pytest.approx(-log_p.mean(), rel=1e-12)
    assert baseline(data.Table(train_part, held_out)) == gaussian_nats(train_part, held_out)
    dependent = np.c_[train_part, train_part.sum(axis=1)]
    assert np.isnan(gaussian_nats(dependent, dependent))  # has no density


@pytest.mark.parametrize("build", [
    partial(mg.glow, flow_steps=4), partial(mg.glow, flow_steps=2, coupling="spline"),
    partial(mg.realnvp, couplings=4), partial(mg.nice, base="normal"),
    partial(mg.spline_flow, flow_steps=2)],
    ids=["glow", "glow, spline", "realnvp", "nice", "spline_flow"])
def test_an_array_is_all_that_training_needs(build):
    """In a few steps a flow learns correlations in units that differ by a million."""
    flow, x = build((3,), hidden=16, rng=0), correlated(2000, 0)
    curve = []
    train(flow, x, steps=300, on_step=lambda p: curve.append(p.held_out_loss or np.inf))
    table = data.split(x)
    found = evaluate(flow, table.held_out)
    assert found == pytest.approx(min(curve), abs=1e-4)
    independent = sum(gaussian_nats(table.train[:, [j]], table.held_out[:, [j]]) for j in range(3))
    assert found < independent - 0.5 and found < baseline(table) + 0.25
    assert found == pytest.approx(-np.mean(flow.log_prob(table.held_out)), abs=1e-4)


def test_densities_are_those_of_the_data_in_their_own_units():
    """In other units the same training gives the same flow; the loss differs by their logarithm."""
    losses, units = [], np.array([10.0, 1e-4, 3.0])
    x = correlated(300, 0)
    for factor, shift in ((1.0, 0.0), (units, 5 * units)):
        flow = mg.glow((3,), flow_steps=2, dtype=np.float64, rng=0)
        train(flow, x * factor + shift, **SHORT)
        losses.append(evaluate(flow, (x * factor + shift)[:50]))
        assert flow.bijection.layers[0].constants["mean"] == pytest.approx(
            (data.split(x).train * factor + shift).mean(axis=0), rel=1e-12)
    assert losses[1] - losses[0] == pytest.approx(np.log(units).sum(), rel=1e-7)


def test_every_row_standardizes_a_table_of_up_to_ten_thousand():
    flow, x = mg.glow((3,), flow_steps=1, rng=0), correlated(11_200, 0)
    train(flow, x, **SHORT | {"steps": 1})
    mean = flow.bijection.layers[0].constants["mean"]
    assert not np.allclose(mean, data.split(x).train.mean(axis=0), rtol=1e-9)  # of 10,080
    assert np.allclose(mean, data.split(x).train.mean(axis=0), atol=5e-2 * x.std(axis=0))


def table_of(kind):
    """Rows on a parabola, which no Gaussian fits."""
    rng, x = np.random.default_rng(1), np.random.default_rng(0).standard_normal((90, 3))
    x[:, 1] = x[:, 0] ** 2 + 0.1 * x[:, 1]
    labels, context = rng.integers(0, 2, 90), rng.standard_normal((90, 2))
    return {"plain": partial(data.split, x), "labels": partial(data.split, x, labels=labels),
            "context": partial(data.split, x, context=context)}[kind]()


def flow_of(kind, seed=0):
    options = {"plain": {}, "labels": {"classes": 2}, "context": {"context": 2}}[kind]
    return mg.glow((3,), flow_steps=2, hidden=8, rng=seed, **options)


@pytest.mark.parametrize("kind", ["plain", "labels", "context"])
@pytest.mark.parametrize("patience", [None, 2])
def test_training_on_a_table_resumes_bit_by_bit_from_any_step(tmp_path, kind, patience):
    options = SHORT | ({"patience": 2, "learning_rate": 0.3, "steps": 20} if patience else {})
    with mg.threads(1):
        uninterrupted, stops = flow_of(kind), []
        quiet = {"on_warning": lambda line: None}
        train(uninterrupted, table_of(kind), **options, **quiet,
              on_evaluation=lambda state, best: stops.append((state.step, state.best)))
        assert (stops[-1][0] < options["steps"]) == (patience is not None)
        for at in range(1, stops[-1][0] + 1):
            flow, numbers = flow_of(kind), iter(range(1, 21))

            def save(state, best, flow=flow):
                checkpoint.save(tmp_path / "last.npz", flow, {}, state.arrays(), state.facts())

            with pytest.raises(Interrupted):
                train(flow, table_of(kind), **options, on_evaluation=save,
                      should_stop=lambda at=at, numbers=numbers: signal.SIGTERM * (next(numbers) == at))
            other = flow_of(kind, seed=1)
            steps = [at]
            train(other, table_of(kind), **options, **quiet,
                  on_step=lambda p, steps=steps: steps.append(p.step),
                  resume=checkpoint.read(tmp_path / "last.npz"))
            assert steps[-1] == stops[-1][0]  # patience counts on
            np.testing.assert_array_equal(other.flat.value, uninterrupted.flat.value)


def test_a_table_leaves_the_best_parameters_and_images_the_last():
    """Noise, which any training overfits."""
    x = np.random.default_rng(0).standard_normal((60, 3))
    table, losses = data.Table(x[:30], x[30:]), []
    flow = mg.glow((3,), flow_steps=4, rng=0)
    train(flow, table, steps=200, evaluate_every=10, on_warning=lambda line: None,
          on_step=lambda p: losses.append(p.held_out_loss))
    losses = [loss for loss in losses if loss is not None]
    assert evaluate(flow, table.held_out) == pytest.approx(min(losses), abs=1e-5)
    assert losses[-1] > min(losses) + 1


def test_patience_ends_training_and_leaves_the_best_parameters():
    """Few rows and a flow that is too large: it overfits soon."""
    x, rng = np.random.default_rng(0).standard_normal((60, 4)), np.random.default_rng(1)
    table = data.Table(x, rng.standard_normal((300, 4)))
    evaluations, flows = [], {}
    flow = mg.glow((4,), flow_steps=4, rng=0)

    def remember(state, best):
        evaluations.append(best)
        with state.averaged():
            flows[state.step] = flow.flat.value.copy()

    train(flow, table, steps=2000, evaluate_every=20, warmup_steps=20, learning_rate=0.01, patience=4,
          on_evaluation=remember, on_warning=lambda line: None)
    assert evaluations[-5:] == [True, False, False, False, False] and len(evaluations) < 30
    np.testing.assert_array_equal(flow.flat.value, flows[20 * (len(evaluations) - 4)])
    assert not np.array_equal(flow.flat.value, flows[20 * len(evaluations)])


def exploding_flow(scale="sigmoid"):
    flow = mg.glow((4,), flow_steps=8, scale=scale, rng=0)
    x = clusters(20_000, 0)
    flow.initialize(x[:1000].astype(np.float32))
    if scale == "sigmoid":  # the last steps divide by a thousand where the net's input is large
        for layer in flow.bijection.layers:
            if isinstance(layer, mg.AffineCoupling):
                layer.net.nets[-1].params["weight"][:, 2:] = -1.0
    return flow, x


def test_the_monitor_sees_samples_that_explode_and_names_the_layer():
    flow, x = exploding_flow()
    center = np.median(x, axis=0)
    radius = np.abs(x - center).max(axis=0)
    found = explosion(flow, center, radius, 2000)
    assert found.farthest > 1e3 and found.factor > 3 and "AffineCoupling at bijection." in found.layer
    for part in ("of 2000 samples", found.layer, "scale='tanh'", "learning rate"):
        assert part in found.warning()
    sample = flow.sample(2000, 0)
    far = np.abs((sample - center) / radius).max(axis=1)
    assert found.farthest == pytest.approx(far.max(), rel=1e-3)
    assert found.outside == pytest.approx((far > 3).mean(), abs=1e-3)
    assert found.round_trip > 1
    calm, x = exploding_flow("tanh")
    quiet = explosion(calm, center, radius, 2000)
    assert quiet.farthest < 10 and not quiet.warning() and quiet.round_trip < 1e-3


def test_the_units_of_a_column_are_no_magnification():
    flow, x = mg.glow((3,), flow_steps=2, rng=0), correlated(1000, 0, np.float32)
    flow.initialize(x)
    found = explosion(flow, *data_range(data.split(x)), 2000)
    assert found.factor < 3 and not found.warning(3.0)


def test_training_warns_of_samples_far_from_the_data():
    flow, x = exploding_flow()
    blown = flow.flat.value.copy()
    table = data.split(x)

    def keep_exploding(progress):
        flow.flat.value[...] = blown

    with pytest.warns(TrainingWarning) as found:
        train(flow, table, steps=2, learning_rate=1e-9, on_step=keep_exploding)
    lines = []
    train(flow, table, steps=2, learning_rate=1e-9, on_warning=lines.append, on_step=keep_exploding)
    assert lines == [str(warning.message) for warning in found]
    assert any("AffineCoupling at bijection." in line and "magnifies most" in line for line in lines)


def test_training_that_is_worse_than_a_gaussian_is_said():
    """Without a NaN: the rate is too high for these clusters."""
    lines = []
    train(mg.glow((4,), flow_steps=8, rng=0), clusters(2000, 0), steps=60, learning_rate=0.05,
          warmup_steps=1, on_warning=lines.append)
    assert any("worse than that of a Gaussian" in line and "learning rate" in line for line in lines)
    monitor = Monitor(mg.glow((3,), rng=0), data.split(correlated(100, 0)), Continuous())
    simple = baseline(monitor.data)
    for worse, since, advice in ((0.05, 0, ""), (0.07, 0, "for more steps"), (0.07, 3, "patience")):
        found = [line for line in monitor.final_warnings(simple + worse, since) if "Gaussian" in line]
        assert len(found) == bool(advice) and all(advice in line for line in found)


def test_one_bad_sample_does_not_lose_the_others():
    flow = mg.glow((2,), flow_steps=2, scale="exp", rng=0)
    coupling = flow.bijection.layers[-2]
    coupling.net.nets[0].params["weight"][...] = np.linspace(-50, 50, 32)
    coupling.net.nets[-1].params["weight"][...] = -1.0  # exp(-s) overflows for some of the latents
    kept = flow.sample(200, 0, on_bad="keep")
    bad = ~np.isfinite(kept).all(axis=1)
    assert 0 < bad.sum() < 200
    np.testing.assert_array_equal(flow.sample(200, 0, on_bad="drop"), kept[~bad])
    with pytest.raises(FloatingPointError, match=(
            rf"^{bad.sum()} of 200 samples at temperature 1 are NaN or inf, from the inverse of "
            r"AffineCoupling at bijection\.7: on_bad='drop'")):
        flow.sample(200, 0)
    assert flow.first_nonfinite_inverse(flow.base.sample(200, 0)) == str(coupling)
    coupling.net.nets[-1].params["bias"][...] = np.nan
    with pytest.raises(FloatingPointError, match="200 of 200"):
        flow.sample(200, 0, on_bad="drop")
    with pytest.raises(ValueError, match="on_bad to be raise, drop or keep, got 'skip'"):
        flow.sample(2, on_bad="skip")


@pytest.mark.parametrize(("change", "message"), [
    ({"shift": 1.0}, "expected images to shift or to flip, got a table"),
    ({"flip": True}, "expected images to shift or to flip, got a table"),
    ({"patience": 0}, "expected patience to be a whole number of at least 1, got 0"),
])
def test_settings_that_tables_do_not_have(change, message):
    with pytest.raises(ValueError, match=message):
        train(mg.glow((3,), rng=0), correlated(50, 0), **SHORT | change)


@pytest.mark.parametrize(("x", "message"), [
    (correlated(50, 0)[:, :2], r"model's shape \(3,\), got \(2,\)"),
    (np.full((50, 3), 1e300), "1e\\+300 is too large"),
    (correlated(50, 0) * [1, 0, 1], "column 2 is constant"),
    (correlated(1, 0), "at least 3 rows"),
    (correlated(50, 0).astype(int), "float32 or float64"),
    ([[1.0, 2.0, 3.0]], "to be an array"),
])
def test_tables_that_do_not_fit(x, message):
    flow = mg.glow((3,), rng=0)
    before = flow.flat.value.copy()
    with pytest.raises(ValueError, match=message) as error:
        train(flow, x, **SHORT)
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(flow.flat.value, before)


def test_a_context_where_there_is_none_and_none_where_there_is_one():
    x = correlated(50, 0)
    with pytest.raises(ValueError, match="expected no context"):
        train(mg.glow((3,), rng=0), data.split(x, context=x[:, :2]), **SHORT)
    with pytest.raises(ValueError, match="needs a context"):
        train(mg.glow((3,), context=2, rng=0), x, **SHORT)


def test_defaults_of_tables_and_of_images():
    table, images = data.split(correlated(50, 0)), data.digits()
    large = data.split(correlated(9000, 0))
    cases = (mg.glow((3,)), table), (mg.glow((8, 8, 1)), images), (mg.nice((3,)), large)
    found = [TrainingConfig().resolved(flow.config, part) for flow, part in cases]
    assert [(c.learning_rate, c.batch_size, c.ema_decay, c.shift, c.evaluate_every) for c in found] == [
        (0.01, 256, 0.99, 0.0, 10), (0.01, 64, 0.999, 1.0, 100), (0.002, 256, 0.99, 0.0, 100)]


PROGRAM = """
import sys
import numpy as np
import minglow as mg
from minglow.training import train
from minglow.training.distributed import world
sys.path[:0] = sys.argv[2:]
from test_training_on_tables import SHORT, flow_of, table_of
processes = world()
mg.threads(1)
flow = flow_of("context")
losses = []
train(flow, table_of("context"), processes=processes,
      on_step=lambda p: losses.append(p.held_out_loss or p.loss),
      on_warning=lambda line: None, **SHORT | {"micro_batches": 2 // processes.size})
if processes.rank == 0:
    np.savez(sys.argv[1], value=flow.flat.value, losses=losses)
"""


@mpi
def test_two_processes_are_one_on_a_table(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    folders = [Path(__file__).parent, Path(__file__).parents[1] / "arrays"]
    results = []
    for count in (1, 2):
        code, _, err = finished(count, tmp_path / "program.py", tmp_path / f"{count}.npz",
                                *folders)
        assert code == 0, err
        results.append(np.load(tmp_path / f"{count}.npz"))
    np.testing.assert_array_equal(results[0]["value"], results[1]["value"])
    np.testing.assert_allclose(results[0]["losses"], results[1]["losses"], rtol=1e-6)


def facts_of(capsys):
    return dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())


def write_csv(path, header=True, n=300):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["length", "width", "height"]] * header + correlated(n, 0).tolist())
    return path


TRAIN = ["train", "--steps", "20", "--evaluate-every", "10", "-K", "2"]


def test_the_commands_on_a_csv_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "boxes.csv")
    assert cli.main([*TRAIN, "--data", "boxes.csv"]) == 0
    trained = facts_of(capsys)
    assert trained["run"] == "runs/boxes-1" and trained["rows"] == "270"
    assert {path.name for path in (tmp_path / "runs/boxes-1").glob("*.png")} == {
        "curves.png", "pairs.png", "marginals.png"}
    with (tmp_path / "runs/boxes-1/metrics.csv").open() as file:
        assert file.readline() == "step,loss,grad_norm,held_out_loss,seconds\n"
    assert cli.main(["evaluate", "runs/boxes-1"]) == 0
    evaluated = facts_of(capsys)
    assert {*evaluated} == {"held_out_nats", "gaussian_nats", "round_trip_error"}
    assert all(evaluated[key] == trained[key] for key in evaluated)
    table = data.load("boxes.csv")
    assert float(evaluated["gaussian_nats"]) == pytest.approx(baseline(table), abs=1e-3)
    for name in ("drawn.csv", "drawn.npy"):
        assert cli.main(["sample", "runs/boxes-1", "-n", "7", "--out", name]) == 0
    assert facts_of(capsys)["rows"] == "7"
    with (tmp_path / "drawn.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["length", "width", "height"] and len(lines) == 8
    expected = mg.load("runs/boxes-1").sample(7, 0)
    np.testing.assert_array_equal(np.load("drawn.npy"), expected)
    np.testing.assert_array_equal(np.array(lines[1:], np.float32), expected)
    assert cli.main(["sample", "runs/boxes-1"]) == 0
    assert facts_of(capsys) == {"samples": "runs/boxes-1/samples-T1-seed0.csv", "rows": "1000"}
    assert cli.main(["info", "runs/boxes-1"]) == 0
    info = facts_of(capsys)
    assert info["columns"] == "['length', 'width', 'height']" and info["scale"] == "tanh"
    assert float(info["farthest_sample"].split()[0]) < 10 and "warning" not in info
    assert float(info["round_trip_error_of_latents"]) < 1e-3
    config = load_run("runs/boxes-1").config.data
    assert config.center == tuple(np.median(table.train, axis=0))
    assert config.radius == tuple(np.abs(table.train - config.center).max(axis=0))


@pytest.mark.parametrize(("columns", "pictures"), [
    (1, {"curves.png", "marginals.png"}), (2, {"curves.png", "density.png", "warped-grid.png"})])
def test_one_and_two_columns_of_a_float_array(tmp_path, monkeypatch, capsys, columns, pictures):
    monkeypatch.chdir(tmp_path)
    np.save("numbers.npy", correlated(200, 0)[:, 1:1 + columns])
    model = ["--model", "spline"] if columns == 1 else []
    assert cli.main([*TRAIN, *model, "--data", "numbers.npy"]) == 0
    assert facts_of(capsys)["rows"] == "180"
    assert {path.name for path in (tmp_path / "runs/numbers-1").glob("*.png")} == pictures


@pytest.mark.parametrize("name", data.TOYS)
def test_toys_by_name(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*TRAIN, "--data", name]) == 0
    facts = facts_of(capsys)
    assert facts["rows"] == "20000" and (tmp_path / facts["run"] / "density.png").exists()


def test_a_killed_run_on_a_table_resumes_to_the_same_model(tmp_path):
    write_csv(tmp_path / "boxes.csv")
    command = [sys.executable, "-m", "minglow", *TRAIN, "--data", "boxes.csv", "--steps", "400",
               "--threads", "1"]
    subprocess.run([*command, "--name", "all"], cwd=tmp_path, check=True, capture_output=True)
    process = subprocess.Popen([*command, "--name", "killed"], cwd=tmp_path, stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL)
    for _ in range(3):
        process.stderr.readline()
    process.kill()
    process.wait()
    process.stderr.close()
    last = tmp_path / "runs/killed/last.npz"
    assert checkpoint.read(last).facts["step"] < 400
    resume = [*command[:3], "train", "--resume", "runs/killed", "--threads", "1"]
    subprocess.run(resume, cwd=tmp_path, check=True, capture_output=True)
    both = [checkpoint.read(tmp_path / f"runs/{name}/last.npz") for name in ("all", "killed")]
    assert both[0].facts == both[1].facts
    for name, array in both[0].arrays.items():
        np.testing.assert_array_equal(array, both[1].arrays[name])


@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "text.csv"], "text.csv: line 3, column width: 'wide' is not a number"),
    (["--data", "boxes.csv", "--bins", "16"], "bins"),
    (["--data", "boxes.csv", "--flip"], "expected images to shift or to flip, got a table"),
    (["--data", "boxes.csv", "--dequantizer", "variational"], "expected images for a dequantizer"),
    (["--data", "boxes.csv", "--model", "official"], "expected"),
    (["--data", "boxes.csv", "--held-out", "1"], "below 1"),
    (["--data", "digits", "--dither"], "expected a table to dither"),
    (["--data", "one.npy"], "minglow.spline_flow"),
])
def test_bad_input_gets_one_line_and_no_folder(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "boxes.csv")
    (tmp_path / "text.csv").write_text("length,width\n1,2\n3,wide\n4,5\n")
    np.save("one.npy", correlated(50, 0)[:, :1])
    try:
        code = cli.main([*TRAIN, *arguments])
    except SystemExit as error:
        code = error.code
    shown = capsys.readouterr().err
    assert code and shown.count("\n") == 1 and message in shown
    assert not (tmp_path / "runs").exists()


def test_a_model_of_a_table_refuses_other_columns_and_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "boxes.csv")
    assert cli.main([*TRAIN, "--data", "boxes.csv", "--name", "a"]) == 0
    write_csv(tmp_path / "plain.csv", header=False)
    capsys.readouterr()
    for command, message in (
        (["evaluate", "runs/a", "--data", "plain.csv"], "the model's columns length, width, height"),
        (["interpolate", "runs/a"], "expected a model of images to interpolate, got one of a table"),
        (["sample", "runs/a", "--out", "drawn.png"], "expected a file that ends in .csv or .npy"),
    ):
        assert cli.main(command) == 1
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1 and message in shown
