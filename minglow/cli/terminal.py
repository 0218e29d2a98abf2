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
        try:
            self.stream.write(text)
        except OSError:
            self._discard()
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream is still open."""
        try:
            self.stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
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
