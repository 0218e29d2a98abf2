"""Processes that train one flow together, started by `mpiexec -n N`. Floor 2.

Each holds all parameters and computes the gradient of its own share of every batch; their average is
the batch's gradient, and the same step follows in all of them. MPI (by mpi4py) is imported where
mpiexec has started more than one process, never before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from time import sleep
from typing import Any, TypeVar

import numpy as np

from minglow.bijection import SingularWeightError
from minglow.device import beside, to_host
from minglow.text import one_line

T = TypeVar("T")
NUMBERS = "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"  # what launchers tell each process: its number
SIZES = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"
PASSED_ON = 2.0  # seconds in which mpiexec has read what a process printed, on a busy machine, too


class Agreed(Exception):
    """An error of one process or of several, raised in all of them, with one message."""


class Ranks:
    """This process among those that train together: alone, unless it is given a communicator of MPI.

    rank     its number, from 0
    size     how many there are
    culprit  the first of those that failed in the last `together`
    """

    def __init__(self, comm: Any = None) -> None:
        self.comm, self.culprit = comm, 0
        self.rank: int = comm.rank if comm else 0
        self.size: int = comm.size if comm else 1

    def share(self, count: int) -> slice:
        """This process's part of so many, in order."""
        return share(count, self.rank, self.size)

    def average(self, array: np.ndarray) -> None:
        """Replace an array, in place, by its mean over all processes: one Allreduce, on the host."""
        if self.comm:
            total = to_host(array)
            self.comm.Allreduce(_in_place(), total)
            total /= self.size
            if total is not array:
                array[...] = beside(total, array)

    def total(self, number: float) -> float:
        """The sum over all processes."""
        return self.comm.allreduce(number) if self.comm else number

    def largest(self, number: int) -> int:
        """The largest of all processes."""
        return max(self.comm.allgather(number)) if self.comm else number

    def from_culprit(self, value: T) -> T:
        """What the culprit says."""
        return self.comm.bcast(value, root=self.culprit) if self.comm else value

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that may meet NaN or a singular weight: if one process does, all raise at its end."""
        failure: Exception | None = None
        try:
            yield
        except (FloatingPointError, SingularWeightError) as error:
            failure = error
        if self.comm:
            failed = self.comm.allgather(failure is not None)
            if any(failed):
                self.culprit = failed.index(True)
                said = self.from_culprit(f"process {self.rank}: {failure}")
                raise FloatingPointError(said) from failure
        elif failure is not None:
            raise failure

    def agree(self, function: Callable[[], T]) -> T:
        """What a function returns; where one process's raises, all raise Agreed with its message."""
        if not self.comm:
            return function()
        result, message = None, ""
        try:
            result = function()
        except Exception as error:
            message = one_line(error) or type(error).__name__
        said = next(filter(None, self.comm.allgather(message)), "")
        if said:
            raise Agreed(said)
        return result  # type: ignore[return-value]

    def first(self, function: Callable[[], T]) -> T:
        """What a function returns in process 0, for all: the others don't call it."""
        result = self.agree(lambda: None if self.rank else function())
        return self.comm.bcast(result) if self.comm else result  # type: ignore[return-value]

    def check_same(self, *things: Any) -> None:
        """Raise Agreed, in every process, unless arrays and words are the same in all of them."""
        if self.comm:
            digest = sha256()
            for thing in map(to_host, things):
                digest.update(thing.tobytes() if isinstance(thing, np.ndarray) else repr(thing).encode())
            said = self.comm.allgather(digest.hexdigest())
            if len(set(said)) > 1:
                other = next(rank for rank, words in enumerate(said) if words != said[0])
                raise Agreed("expected the same flow, images, seed and arguments in every process, "
                             f"got others in process {other} than in process 0")

    def neighbours(self) -> tuple[int, int]:
        """This process's number among those of its machine, and how many these are."""
        if not self.comm:
            return 0, 1
        from mpi4py import MPI  # noqa: PLC0415

        local = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        return local.rank, local.size

    def abort(self) -> None:
        """End every process, whatever it is waiting for."""
        if self.comm:
            sleep(PASSED_ON)  # mpiexec drops what it has not passed on when it ends them
            self.comm.Abort(1)


ALONE = Ranks()


def share(count: int, number: int, shares: int) -> slice:
    """One of so many shares of `count` things, in order; sizes differ by 1 at most."""
    return slice(number * count // shares, (number + 1) * count // shares)


def check_parts(batch: int, processes: int, passes: int) -> None:
    """Raise ValueError unless so many processes can take equal parts of a batch, in so many passes."""
    if batch % (processes * passes):
        raise ValueError(f"expected a batch that parts evenly among {processes} processes, in {passes} "
                         f"passes each, got {batch}")


def launched() -> int:
    """Which process of an MPI launcher this is, from 0, by what the launcher says; 0 without one."""
    return next((int(os.environ[name]) for name in NUMBERS if os.environ.get(name, "").isdecimal()), 0)


def world() -> Ranks:
    """All processes that mpiexec has started; this one alone if it was not started so.

    Raises ImportError where there are several and mpi4py is missing, ValueError where its MPI is not
    mpiexec's: each process would take itself for the only one.
    """
    if not any(name in os.environ for name in NUMBERS):
        return Ranks()
    started = max((int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdecimal()),
                  default=1)
    try:
        from mpi4py import MPI  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # RuntimeError: no library of MPI
        if started == 1:
            return Ranks()
        raise ImportError(f"mpiexec started {started} processes, which need mpi4py to train together "
                          f"(pip install 'minglow[mpi]'): {one_line(error)}") from None
    if MPI.COMM_WORLD.size < started:
        raise ValueError(f"mpiexec started {started} processes, but mpi4py sees {MPI.COMM_WORLD.size}: "
                         f"they are of different MPIs; mpi4py's is {one_line(MPI.get_vendor()[0])}")
    return Ranks(MPI.COMM_WORLD) if MPI.COMM_WORLD.size > 1 else Ranks()


def _in_place() -> Any:
    from mpi4py import MPI  # noqa: PLC0415

    return MPI.IN_PLACE
