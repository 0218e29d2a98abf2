"""Output on a terminal or into a pipe that its reader may close."""

import os
import sys
from contextlib import suppress
from typing import Any


class IgnoreClosedPipe:
    """A stream whose reader may close it, as `| head` does: what is written afterwards is dropped."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, if the stream is still open."""
        self._attempt(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream is still open."""
        self._attempt(self.stream.flush)

    def _attempt(self, method: Any, *arguments: str) -> None:
        try:
            method(*arguments)
        except OSError:
            with suppress(OSError):  # a stream without a file
                discard_output(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def discard_output(stream: Any) -> None:
    """Drop everything that is written to a stream from now on, also at the process's exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_error(line: str) -> None:
    """Print a line to stderr; a closed stderr is ignored."""
    print(line, file=IgnoreClosedPipe(sys.stderr), flush=True)
