"""Ctrl-C, SIGTERM and SIGHUP: the first lets the current step finish, the second ends the process."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])


@contextmanager
def catch_signals() -> Iterator[Callable[[], int]]:
    """A function that returns the number of the signal received within the block, or 0.

    A second signal goes to the handlers that were installed before. Only the main thread can receive
    signals; in other threads the function always returns 0.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            restore_handlers()
            signal.raise_signal(number)
        received.append(number)

    # Ignored signals stay ignored (nohup), except Ctrl-C, which a shell ignores for background jobs.
    before = {number: signal.signal(number, handle) for number in SIGNALS
              if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT}

    def restore_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: received[0] if received else 0
    finally:
        restore_handlers()
