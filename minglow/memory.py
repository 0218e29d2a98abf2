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
    decided = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    if decided:
        return False
    settings = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 16 * MIB, M_MMAP_MAX: 0}
    return all(mallopt(name, value) for name, value in settings.items())
