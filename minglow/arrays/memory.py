"""Settings of glibc's malloc, and the machine's memory.

A training step allocates the same arrays as the step before. By default, glibc returns large freed
blocks to the system, which clears them on their next use: a third of a large step's time.
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # parameters of mallopt, from glibc's malloc.h
SETTINGS = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**24, M_MMAP_MAX: 0}


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory; return whether it did. The environment's settings prevail."""
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    return all(_call("mallopt", name, value) for name, value in SETTINGS.items())


def trim_freed_memory() -> None:
    """Return all freed memory to the system, after a large temporary that is not needed again."""
    _call("malloc_trim", 0)


def installed() -> int:
    """Bytes of memory that this machine has; 2^63 where the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**63


def _call(name: str, *arguments: int) -> int:
    """Call a function of the C library; return 0 if the library lacks it."""
    try:
        return int(getattr(ctypes.CDLL(None), name)(*arguments))
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return 0
