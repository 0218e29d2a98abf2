"""Ctrl-C, SIGTERM and SIGHUP: the first lets a step end, the second does not. Floor 1."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """A function that gives the number of the signal that has come since, or 0.

    A second signal ends the process as if nobody had waited: the handlers that were there before get
    it. Only the main thread can listen; elsewhere none ever comes.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            put_back()
            signal.raise_signal(number)
        received.append(number)

    # What is ignored stays so (nohup), but for Ctrl-C, which a shell's & ignores: who sends it means it.
    before = {number: signal.signal(number, handle) for number in SIGNALS
              if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: received[0] if received else 0
    finally:
        put_back()
