"""Words made fit for one line of a terminal, and streams that nobody may read any more. Floor 1."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

LONGEST = 1000  # characters


def one_line(text: object) -> str:
    """The text in one line of printable characters, all others escaped, and its end cut if it is long.

    What comes from a file, or in another's error, may hold line ends, or sequences that command a
    terminal.
    """
    words = " ".join(str(text).split())
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in words[:LONGEST])
    return "".join(shown) + "..." * (len(words) > LONGEST)


class Unheard:
    """A stream that may lose whoever reads it, as by `| head`: the rest that it is told is dropped."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, if anybody reads."""
        try:
            self.stream.write(text)
        except OSError:
            self._lead_nowhere()
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if anybody reads."""
        try:
            self.stream.flush()
        except OSError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        with suppress(OSError):  # a stream without a file
            lead_nowhere(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def lead_nowhere(stream: Any) -> None:
    """Drop whatever a stream has still to write, at the process's exit, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(words: str) -> None:
    """A line on stderr, where anybody reads it."""
    print(words, file=Unheard(sys.stderr), flush=True)
