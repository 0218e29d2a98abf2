"""Processes that train together, started by mpiexec: they take the same steps as one process.

The tests run MPI's own programs, and are skipped where mpi4py or mpiexec is missing.
"""

import csv
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import minglow as mg
from minglow import data
from minglow.bijection import SingularWeightError
from minglow.cli import main as cli
from minglow.storage import checkpoint
from minglow.training import distributed
from minglow.training.distributed import SINGLE_PROCESS, ProcessError, ProcessGroup, launched, world
from minglow.training.evaluation import evaluate
from minglow.training.loop import train

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")


def missing():
    """The reason why this machine cannot start processes of MPI, or an empty text."""
    if not MPIEXEC or not find_spec("mpi4py"):
        return "needs mpi4py and mpiexec: pip install 'minglow[mpi]'"
    answer = subprocess.run([MPIEXEC, "-n", "2", sys.executable, "-c",
                             "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"],
                            capture_output=True, text=True, check=False)
    # both print at once, perhaps on one line
    if "".join(answer.stdout.split()) == "22":
        return ""
    return f"needs an mpi4py of mpiexec's MPI: {answer}"


MISSING = missing()
mpi = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def start(count, *arguments, **options):
    """Processes of one program under mpiexec, in pipes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.Popen([MPIEXEC, "-n", str(count), sys.executable, *map(str, arguments)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options)


def finished(count, *arguments, **options):
    """Exit status, stdout and stderr of all processes together."""
    processes = start(count, *arguments, **options)
    out, err = processes.communicate(timeout=300)
    return processes.returncode, out, err


PROGRAM = """
import sys
import numpy as np
import minglow as mg
from minglow import data
from minglow.dequantization.dequantizers import VariationalDequantizer
from minglow.training.distributed import world
from minglow.training.loop import train
out, dtype, parts, kind = sys.argv[1], np.dtype(sys.argv[2]).type, int(sys.argv[3]), sys.argv[4]
processes = world()
mg.threads(1)
digits = data.digits()
images = data.Images(digits.train[:200], digits.held_out[:39], digits.bins,
                     digits.train_labels[:200], digits.held_out_labels[:39])
options = {"classes": 10} if kind == "classes" else {}
flow = mg.glow((8, 8, 1), levels=2, flow_steps=2, hidden=16, dtype=dtype, rng=0, **options)
dequantizer = None
if kind == "variational":
    dequantizer = VariationalDequantizer((8, 8, 1), digits.bins, 8, rng=0, dtype=dtype)
steps, values = 30 if kind == "uniform" else 10, []
def record(progress):
    values.append(np.r_[progress[1:3], progress[3] or 0.0, flow.flat.value])
train(flow, images, steps=steps, batch_size=16, evaluate_every=5, processes=processes,
      micro_batches=parts, flip=True, shift=1, dequantizer=dequantizer, learning_rate=1e-3,
      classification_weight=0.1 if kind == "classes" else 0.0, on_step=record)
if not processes.rank:
    np.save(out, np.array(values))
"""


def trained(folder, count, dtype="float64", parts=1, kind="uniform"):
    """Bits, norm, held-out bits and parameters after every step of `count` processes."""
    program, out = folder / "program.py", folder / f"{count}-{dtype}-{parts}-{kind}.npy"
    program.write_text(PROGRAM)
    if count == 1:
        subprocess.run([sys.executable, program, out, dtype, str(parts), kind], check=True)
    else:
        status, _, err = finished(count, program, out, dtype, parts, kind)
        assert status == 0, err
    return np.load(out)


@mpi
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_processes_equal_one_with_two_micro_batches_to_the_last_bit(tmp_path, dtype):
    one, two = trained(tmp_path, 1, dtype, parts=2), trained(tmp_path, 2, dtype)
    assert len(one) == 30
    np.testing.assert_array_equal(two[:, 3:], one[:, 3:])
    np.testing.assert_allclose(two[:, :3], one[:, :3], rtol=1e-6 if dtype == "float32" else 1e-12)


@mpi
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["uniform", "classes", "variational"])
def test_processes_equal_one_within_rounding_at_every_step(tmp_path, count, kind):
    """Parameters, bits of the batch and of the held-out images, and the norm of the gradient."""
    one, several = trained(tmp_path, 1, kind=kind), trained(tmp_path, count, kind=kind)
    error = np.linalg.norm(several - one, axis=1) / np.linalg.norm(one, axis=1)
    assert error.max() < 1e-12
    np.testing.assert_allclose(several[:, :3], one[:, :3], rtol=1e-10)


def test_micro_batches_take_the_same_step_as_the_complete_batch():
    images = data.digits()
    values = []
    for parts in (1, 2, 8):
        flow = mg.glow((8, 8, 1), levels=2, flow_steps=2, hidden=8, dtype=np.float64, rng=0)
        train(flow, images, steps=10, batch_size=16, evaluate_every=20, micro_batches=parts,
              learning_rate=1e-3)
        values.append(flow.flat.value.copy())
    for value in values[1:]:
        np.testing.assert_allclose(value, values[0], rtol=0, atol=1e-13)


def test_a_batch_that_cannot_be_divided_is_refused():
    flow = mg.glow((8, 8, 1), levels=1, flow_steps=1, hidden=4, rng=0)
    with pytest.raises(ValueError, match="evenly among 1 processes with 3 micro-batches each, got 16"):
        train(flow, data.digits(), steps=1, batch_size=16, micro_batches=3)


SMALL = ["-K", "1", "-L", "1", "--hidden", "4", "--evaluate-every", "5"]


@mpi
def test_the_command_trains_together_and_one_process_writes(tmp_path):
    command = ["-m", "minglow", "train", *SMALL, "--dtype", "float64", "--steps", "15"]
    status, out, err = finished(2, *command, "--name", "a", cwd=tmp_path)
    assert status == 0, err
    assert out.count("processes=2") == 1 and out.count("held_out_bits_per_dim=") == 1
    assert err.count("step=15") == 1
    with (tmp_path / "runs/a/metrics.csv").open() as file:
        assert [int(line["step"]) for line in csv.DictReader(file)] == list(range(1, 16))
    assert not list((tmp_path / "runs/a").glob("*.tmp"))
    subprocess.run([sys.executable, *command, "--name", "b"], cwd=tmp_path, check=True)
    two, one = (checkpoint.read(tmp_path / "runs" / name / "last.npz") for name in "ab")
    assert two.facts["rng"] == one.facts["rng"]
    np.testing.assert_array_equal(two.arrays["remaining"], one.arrays["remaining"])
    np.testing.assert_allclose(two.arrays["flow.value"], one.arrays["flow.value"], atol=1e-11)


@mpi
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_resumes_with_another_number_of_processes(tmp_path, before, after):
    """In float64, the result is that of an uninterrupted run up to rounding."""
    train_it = ["-m", "minglow", "train", *SMALL, "--dtype", "float64", "--learning-rate", "0.001"]
    assert finished(before, *train_it, "--steps", "20", "--name", "complete", cwd=tmp_path)[0] == 0
    stop_at_ten(tmp_path, before, train_it)
    status, _, err = finished(after, "-m", "minglow", "train", "--resume", "runs/cut", cwd=tmp_path)
    assert status == 0, err
    complete, cut = (checkpoint.read(tmp_path / "runs" / name / "last.npz")
                     for name in ("complete", "cut"))
    assert complete.facts["rng"] == cut.facts["rng"] and cut.facts["step"] == 20
    np.testing.assert_allclose(cut.arrays["flow.value"], complete.arrays["flow.value"], rtol=0,
                               atol=1e-11)


STOPPED = """
import sys
from minglow.cli import main as cli
from minglow.runs import metrics
real = metrics.Recorder.__call__
def stop_after_ten(self, progress):
    real(self, progress)
    if progress.step == 10:
        import os, signal
        os.kill(os.getpid(), signal.SIGTERM)
metrics.Recorder.__call__ = stop_after_ten
sys.exit(cli.main(sys.argv[1:]))
"""


def stop_at_ten(folder, count, train_it):
    """Train a run of 20 steps, stopped by a signal to its first process after step 10."""
    (folder / "stopped.py").write_text(STOPPED)
    command = ["stopped.py", *train_it[2:], "--steps", "20", "--name", "cut"]
    status, _, err = finished(count, *command, cwd=folder)
    assert status == 128 + signal.SIGTERM
    assert err.count("minglow train: interrupted after step 10") == 1
    assert err.count("minglow train --resume runs/cut  # resumes the run") == 1
    assert checkpoint.read(folder / "runs/cut/last.npz").facts["step"] == 10


@mpi
@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "nowhere.npz"], "nowhere.npz"),
    (["--batch-size", "3"], "batch_size that divides evenly among 2 processes with 1 micro-batches"),
    (["--resume", "nowhere"], "cannot be combined with --resume"),
    (["--steps", "none"], "expected steps to be a whole number of at least 1"),
    (["--net", "plain"], "expected --net to be one of conv, mlp, paper, residual, got 'plain'"),
    (["--depth", "2"], "--depth is an option of --model nice, not of glow"),
])
def test_an_error_of_all_processes_is_printed_once(tmp_path, arguments, message):
    status, out, err = finished(2, "-m", "minglow", "train", *SMALL, *arguments, cwd=tmp_path)
    assert status in (1, 2)
    assert err.count("error:") == 1 and message in err and "Traceback" not in err, err
    assert not out and not list(tmp_path.glob("runs/*/last.npz"))


FAULTY = """
import sys
import numpy as np
from minglow import flow
from minglow.cli import main as cli
from minglow.training import distributed
which, kind = int(sys.argv[1]), sys.argv[2]
real = flow.Flow.nll_backward
calls = 0
def at_step_8(self, *arguments):
    global calls
    calls += 1
    if calls == 8 and distributed.launched() == which:
        if kind == "nan":
            self.flat.value[...] = np.nan
        elif kind == "memory":
            raise MemoryError("no memory for this")
        else:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *arguments)
flow.Flow.nll_backward = at_step_8
sys.exit(cli.main(sys.argv[3:]))
"""


@mpi
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("kind", "message"), [
    ("nan", "training diverged in step 8: the parameter bijection.1.shift is NaN or inf"),
    ("memory", "no memory for this"), ("killed", "")])
def test_a_failing_process_ends_all_and_leaves_an_intact_checkpoint(tmp_path, which, kind, message):
    (tmp_path / "faulty.py").write_text(FAULTY)
    command = ["faulty.py", which, kind, "train", *SMALL, "--steps", "20", "--name", "a"]
    status, _, err = finished(2, *command, cwd=tmp_path)
    assert status != 0 and "Traceback" not in err
    assert err.count("minglow train: ") == bool(message) and message in err, err
    saved = checkpoint.read(tmp_path / "runs/a/last.npz")
    assert saved.facts["step"] == 5 and np.isfinite(saved.arrays["flow.value"]).all()
    assert finished(2, "-m", "minglow", "train", "--resume", "runs/a", cwd=tmp_path)[0] == 0
    assert checkpoint.read(tmp_path / "runs/a/last.npz").facts["step"] == 20


@mpi
def test_ctrl_c_at_mpiexec_ends_the_step_and_saves_it(tmp_path):
    command = ["-m", "minglow", "train", *SMALL, "--steps", "100000", "--name", "a"]
    processes = start(2, *command, cwd=tmp_path)
    for line in processes.stderr:
        if line.startswith("step=10 "):
            break
    processes.send_signal(signal.SIGINT)
    _, err = processes.communicate(timeout=120)
    assert processes.returncode != 0
    assert "minglow train --resume runs/a  # resumes the run" in err and "Traceback" not in err
    last = checkpoint.read(tmp_path / "runs/a/last.npz")
    assert last.facts["step"] >= 10
    with (tmp_path / "runs/a/metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == last.facts["step"]


# ------------------------------------------------------------------------------------- without MPI


class FakeCommunicator:
    """A communicator whose other processes return given values."""

    rank, size = 0, 3

    def __init__(self, others):
        self.others = others

    def allgather(self, own):
        return [own, *self.others]

    def bcast(self, value, root=0):
        return value if root == 0 else f"from {root}"


def process(rank, size):
    """One process of several, without MPI."""
    group = ProcessGroup()
    group.rank, group.size = rank, size
    return group


def test_shards_cover_everything_once():
    for size in (1, 2, 3, 5, 8):
        for count in (0, 1, 7, 64):
            indices = [i for rank in range(size) for i in range(count)[process(rank, size).shard(count)]]
            assert indices == list(range(count))


def test_a_single_process_exchanges_nothing():
    group, array = SINGLE_PROCESS, np.arange(3.0)
    group.average(array)
    assert group.total(1.5) == 1.5 and group.largest(2) == 2 and group.from_culprit("x") == "x"
    assert group.agree(lambda: 3) == 3 and group.first(lambda: 4) == 4 and group.local_rank() == (0, 1)
    np.testing.assert_array_equal(array, np.arange(3.0))
    with pytest.raises(SingularWeightError), group.together():
        raise SingularWeightError("as it was raised")


def test_the_message_is_that_of_the_first_process_that_fails():
    group = ProcessGroup(FakeCommunicator([False, True]))
    with pytest.raises(FloatingPointError, match="from 2"), group.together():
        pass
    assert group.culprit == 2
    group = ProcessGroup(FakeCommunicator([True, True]))
    with pytest.raises(FloatingPointError, match="from 1"), group.together():
        pass
    group = ProcessGroup(FakeCommunicator(["", "of another"]))
    with pytest.raises(ProcessError, match="of another"):
        group.agree(lambda: 1)
    with pytest.raises(ProcessError, match="own"):
        group.agree(lambda: int("own"))
    assert ProcessGroup(FakeCommunicator([3, 1])).largest(2) == 3


def test_differences_between_processes_are_refused():
    class Same(FakeCommunicator):
        def allgather(self, own):
            return [own, own, self.others or own]

    things = np.arange(3), {"seed": 1}, 2.5
    ProcessGroup(Same(None)).check_same(*things)
    with pytest.raises(ProcessError, match="got others in process 2 than in process 0"):
        ProcessGroup(Same("another digest")).check_same(*things)
    digests = []
    for changed in (things, (np.arange(4), *things[1:]), (*things[:2], 2.0)):
        group = ProcessGroup(FakeCommunicator([]))
        group.comm.allgather = lambda digest: digests.append(digest) or [digest]
        group.check_same(*changed)
    assert len(set(digests)) == 3


@pytest.mark.parametrize("name", distributed.RANK_VARIABLES)
def test_a_process_knows_its_rank_before_mpi_is_imported(name, monkeypatch):
    for other in (*distributed.RANK_VARIABLES, *distributed.SIZE_VARIABLES):
        monkeypatch.delenv(other, raising=False)
    assert launched() == 0 and world().size == 1
    monkeypatch.setenv(name, "3")
    assert launched() == 3


def test_mpiexec_without_mpi4py_names_what_is_missing(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match="mpiexec started 4 processes, which need mpi4py"):
        world()
    monkeypatch.setenv("PMI_SIZE", "1")
    assert world().size == 1


def test_every_process_evaluates_its_shard():
    """The sums of the shards are that of all images, whatever the numbers of processes and images."""
    flow = mg.glow((8, 8, 1), levels=1, flow_steps=1, hidden=4, rng=0, dtype=np.float64)
    images = data.digits().held_out[:43]  # the last batch has fewer images than processes

    def total(rank, size):
        group, totals = process(rank, size), []
        group.total = lambda number: totals.append(number) or number
        evaluate(flow, images, 17, samples=2, processes=group, batch_size=4)
        return totals[0]

    for size in (2, 3, 5, 60):
        shards = sum(total(rank, size) for rank in range(size))
        np.testing.assert_allclose(shards, total(0, 1), rtol=1e-12)


def test_only_the_first_process_prints(monkeypatch, capsys):
    monkeypatch.setenv("PMI_RANK", "1")
    with pytest.raises(SystemExit):
        cli.main(["train", "--steps", "none"])
    assert capsys.readouterr() == ("", "")
