"""Processes that train one flow together, started by `mpiexec -n N`.

Each holds all parameters and computes the gradient of its own shard of every batch. Their average is
the batch's gradient, and the same step follows in all of them. mpi4py is imported only where mpiexec
has started more than one process.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from time import sleep
from typing import Any, TypeVar

import numpy as np

from minglow.arrays.device import to_device_of, to_host
from minglow.bijection import SingularWeightError
from minglow.validation import single_line

T = TypeVar("T")
RANK_VARIABLES = "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"  # set by the launcher: its rank
SIZE_VARIABLES = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"
FORWARD_SECONDS = 2.0  # in which mpiexec forwards what a process printed, even on a busy machine


class ProcessError(Exception):
    """An error of one process or of several, raised in all of them, with one message."""


class ProcessGroup:
    """The processes that train together: this one only, unless it is given an MPI communicator.

    rank     this process's number, from 0
    size     the number of processes
    culprit  the rank of the first that failed in the last `together`
    """

    def __init__(self, comm: Any = None) -> None:
        self.comm, self.culprit = comm, 0
        self.rank: int = comm.rank if comm else 0
        self.size: int = comm.size if comm else 1

    def shard(self, count: int) -> slice:
        """This process's shard of `count` items, in order."""
        return shard(count, self.rank, self.size)

    def average(self, array: np.ndarray) -> None:
        """Replace an array, in place, by its mean over all processes: one Allreduce, on the host."""
        if self.comm:
            from mpi4py import MPI  # noqa: PLC0415

            total = to_host(array)
            self.comm.Allreduce(MPI.IN_PLACE, total)
            total /= self.size
            if total is not array:
                array[...] = to_device_of(total, array)

    def total(self, number: float) -> float:
        """The sum over all processes."""
        return self.comm.allreduce(number) if self.comm else number

    def largest(self, number: int) -> int:
        """The largest of all processes."""
        return max(self.comm.allgather(number)) if self.comm else number

    def from_culprit(self, value: T) -> T:
        """The culprit's value, in all processes."""
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
                message = self.from_culprit(f"process {self.rank}: {failure}")
                raise FloatingPointError(message) from failure
        elif failure is not None:
            raise failure

    def agree(self, function: Callable[[], T]) -> T:
        """What a function returns; if one process's raises, all raise ProcessError with its message."""
        if not self.comm:
            return function()
        result, message = None, ""
        try:
            result = function()
        except Exception as error:
            message = single_line(error) or type(error).__name__
        message = next(filter(None, self.comm.allgather(message)), "")
        if message:
            raise ProcessError(message)
        return result  # type: ignore[return-value]

    def first(self, function: Callable[[], T]) -> T:
        """What a function returns in process 0, for all: the others don't call it."""
        result = self.agree(lambda: None if self.rank else function())
        return self.comm.bcast(result) if self.comm else result  # type: ignore[return-value]

    def check_same(self, *things: Any) -> None:
        """Raise ProcessError, in every process, unless arrays and settings are equal in all of them."""
        if self.comm:
            digest = sha256()
            for thing in map(to_host, things):
                digest.update(thing.tobytes() if isinstance(thing, np.ndarray) else repr(thing).encode())
            digests = self.comm.allgather(digest.hexdigest())
            if len(set(digests)) > 1:
                other = next(rank for rank, found in enumerate(digests) if found != digests[0])
                raise ProcessError("expected the same flow, images, seed and settings in every process, "
                                   f"got others in process {other} than in process 0")

    def local_rank(self) -> tuple[int, int]:
        """This process's number among those of its machine, and how many there are."""
        if not self.comm:
            return 0, 1
        from mpi4py import MPI  # noqa: PLC0415

        local = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        return local.rank, local.size

    def abort(self) -> None:
        """End every process, whatever it is waiting for."""
        if self.comm:
            sleep(FORWARD_SECONDS)  # at abort mpiexec drops what it has not forwarded
            self.comm.Abort(1)


SINGLE_PROCESS = ProcessGroup()


def shard(count: int, number: int, shards: int) -> slice:
    """One of `shards` shards of `count` items, in order; their sizes differ by 1 at most."""
    return slice(number * count // shards, (number + 1) * count // shards)


def check_batch_divides(batch_size: int, processes: int, micro_batches: int) -> None:
    """Raise ValueError unless a batch divides evenly into processes times micro-batches."""
    if batch_size % (processes * micro_batches):
        raise ValueError(f"expected a batch_size that divides evenly among {processes} processes with "
                         f"{micro_batches} micro-batches each, got {batch_size}")


def launched() -> int:
    """The rank of this process by its MPI launcher's variables; 0 without a launcher."""
    return next(iter(launcher_numbers(RANK_VARIABLES)), 0)


def launcher_numbers(variables: tuple[str, ...]) -> list[int]:
    """The numbers that an MPI launcher has set in environment variables."""
    return [int(os.environ[name]) for name in variables if os.environ.get(name, "").isdecimal()]


def world() -> ProcessGroup:
    """All processes that mpiexec has started; this one only without mpiexec.

    Raises ImportError if mpi4py is missing, ValueError if its MPI is not mpiexec's.
    """
    if not any(name in os.environ for name in RANK_VARIABLES):
        return ProcessGroup()
    started = max(launcher_numbers(SIZE_VARIABLES), default=1)
    try:
        from mpi4py import MPI  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:  # RuntimeError: no library of MPI
        if started == 1:
            return ProcessGroup()
        raise ImportError(f"mpiexec started {started} processes, which need mpi4py to train together "
                          f"(pip install 'minglow[mpi]'): {single_line(error)}") from None
    if MPI.COMM_WORLD.size < started:  # each process would believe that it is the only one
        raise ValueError(f"mpiexec started {started} processes, but mpi4py sees {MPI.COMM_WORLD.size}: "
                         f"they are of different MPIs; mpi4py's is {single_line(MPI.get_vendor()[0])}")
    return ProcessGroup(MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None)
