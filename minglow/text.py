"""Words from files and from other people's errors, made fit for one line of a terminal. Floor 1."""

from __future__ import annotations

LONGEST = 1000  # characters


def one_line(text: object) -> str:
    """The text in one line of printable characters, all others escaped, and its end cut if it is long.

    What comes from a file may hold line ends, or sequences that would command a terminal.
    """
    words = " ".join(str(text).split())
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in words[:LONGEST])
    return "".join(shown) + "..." * (len(words) > LONGEST)
