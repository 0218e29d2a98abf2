"""Settings of glibc's malloc, and the machine's memory.

A training step allocates the same arrays as the step before. By default, glibc returns large freed
blocks to the system, which clears every page again on its next use. This takes a third of a large
step's time. Other C libraries keep their settings.
"""

import ctypes
import os

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MIB = 1 << 20


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the process; return whether it accepted.

    Does nothing if malloc is configured by the environment (MALLOC_TRIM_THRESHOLD_ and the like, or
    GLIBC_TUNABLES).
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    settings = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 16 * MIB, M_MMAP_MAX: 0}
    return all(_call("mallopt", name, value) for name, value in settings.items())


def trim_freed_memory() -> bool:
    """Return all freed memory to the system; return whether there was any.

    Call it after a large temporary that will not be needed again.
    """
    return bool(_call("malloc_trim", 0))


def installed() -> int:
    """Bytes of memory that this machine has; 2^63 where the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**63


def _call(name: str, *arguments: int) -> int:
    """Call a function of the C library; return 0 if the library lacks it."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return 0
    return int(function(*arguments))
