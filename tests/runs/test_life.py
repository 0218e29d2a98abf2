"""A run's life in any order: training, interruption, failing writes, damage, resumption, use."""

import signal
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import minglow as mg
from minglow.data import Images
from minglow.storage import archive, checkpoint
from minglow.storage.checkpoint import CheckpointError
from minglow.training.loop import Interrupted, train

STEPS = 5
CALLS_OF_A_WRITE = "savez", "fsync", "replace"


def images():
    pixels = np.random.default_rng(0).integers(0, 16, (12, 2, 2, 1), np.uint8)
    return Images(pixels[:9], pixels[9:], 17)


def new_flow(seed=0):
    return mg.glow((2, 2, 1), 1, 1, 2, rng=seed)


def learn(flow, on_evaluation, **options):
    train(flow, images(), steps=STEPS, batch_size=4, learning_rate=0.01, warmup_steps=1,
          ema_decay=0.9, shift=1.0, on_evaluation=on_evaluation, evaluate_every=STEPS, **options)


@cache
def uninterrupted():
    """The parameters after each step of a run that is not interrupted."""
    flow, after = new_flow(), {}
    learn(flow, lambda state, best: None,
          on_step=lambda progress: after.update({progress.step: flow.flat.value.copy()}))
    return after


class Life(RuleBasedStateMachine):
    """At any time, the file is the state of some step of the run that is not interrupted."""

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "last.npz")
        self.step = 0  # of the file
        self.fault = None  # what fails in the next write

    def teardown(self):
        self.folder.cleanup()

    def save(self, flow, state):
        with pytest.MonkeyPatch.context() as patch:
            if self.fault:
                def fail(*_, **__):
                    raise OSError(28, "No space left on device")
                patch.setattr(np if self.fault == "savez" else archive.os, self.fault, fail)
            checkpoint.save(self.path, flow, {}, state.arrays(), state.facts())
        self.step = state.step

    @rule(steps=st.integers(1, STEPS), fault=st.sampled_from([None, None, *CALLS_OF_A_WRITE]))
    def train_on(self, steps, fault):
        """From the file or the initialization; interrupted after some steps; the write may fail."""
        self.fault = fault
        last, flow = checkpoint.read(self.path) if self.step else None, new_flow(seed=int(self.step > 0))
        if last:
            checkpoint.restore(last, flow)
        if self.step == STEPS:
            learn(flow, None, resume=last)  # no step is left
            return
        asked = iter(range(1, STEPS + 1))
        before = self.step
        try:
            learn(flow, lambda state, best: self.save(flow, state), resume=last,
                  should_stop=lambda: signal.SIGINT * (next(asked) == steps))
        except OSError:
            assert fault and self.step == before
        except Interrupted:
            assert not fault and self.step == before + steps
        else:
            assert not fault and self.step == STEPS

    @precondition(lambda self: self.step)
    @rule(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 8))
    def damage_and_read(self, position, bit):
        """One bit is flipped or, for 8, the file is cut: an error that changes nothing, or no change."""
        intact = self.path.read_bytes()
        damaged, at = bytearray(intact), int(position * len(intact))
        if bit == 8:
            del damaged[at:]
        else:
            damaged[at] ^= 1 << bit
        self.path.write_bytes(damaged)
        flow = new_flow(seed=2)
        before = flow.flat.value.copy()
        try:
            mg.load(self.path, into=flow)
        except CheckpointError as error:
            assert str(error).startswith(str(self.path)) and str(error).isprintable()
            np.testing.assert_array_equal(flow.flat.value, before)
        else:
            np.testing.assert_array_equal(flow.flat.value, uninterrupted()[self.step])
        self.path.write_bytes(intact)

    @precondition(lambda self: self.step)
    @rule(seed=st.integers(0, 3))
    def sample(self, seed):
        """The saved flow gives samples and is invertible."""
        flow = new_flow(seed=3)
        mg.load(self.path, into=flow)
        x = flow.sample(3, seed)
        assert np.isfinite(x).all() and flow.reconstruction_error(x) < 1e-4

    @invariant()
    def the_file_is_that_of_its_step(self):
        if not hasattr(self, "path"):
            return
        assert [path.name for path in self.path.parent.iterdir()] == ["last.npz"] * (self.step > 0)
        if self.step:
            found = checkpoint.read(self.path)
            assert found.facts["step"] == self.step
            np.testing.assert_array_equal(found.arrays["flow.value"], uninterrupted()[self.step])


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
