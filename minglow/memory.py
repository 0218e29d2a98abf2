"""Memory that is freed stays with the process, to be handed out again. Floor 1; imports ctypes alone.

A training step makes the arrays that the step before has freed. By default glibc gives large blocks
back to the system when they are freed, and the system clears every page again when it is touched
next: a third of a large step's time. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MIB = 1 << 20


def keep_freed_memory() -> bool:
    """Ask glibc to keep what the process frees; return whether it agreed.

    Whoever has set one of malloc's own variables (MALLOC_TRIM_THRESHOLD_ and the like, or
    GLIBC_TUNABLES) has decided already, and is left alone.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    settings = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 16 * MIB, M_MMAP_MAX: 0}
    return all(_call("mallopt", name, value) for name, value in settings.items())


def give_back_freed_memory() -> bool:
    """Give all that is free at present back to the system; return whether there was any.

    For when something large has been put together, and its pieces will not be needed again.
    """
    return bool(_call("malloc_trim", 0))


def installed() -> int:
    """Bytes of this machine's memory; where it does not say, more than any has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**63


def _call(name: str, *arguments: int) -> int:
    """A function of the C library, or 0 where it has none of that name."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return 0
    return int(function(*arguments))
