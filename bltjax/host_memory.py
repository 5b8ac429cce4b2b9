"""Keep the memory that a process has touched, instead of giving it back after every step.

XLA's CPU backend allocates a program's temporaries anew at each call. Blocks beyond 32 MB come from the kernel page by page, zeroed,
and go back when the call ends: of a training step with 230 MB of temporaries that was a quarter of the time.
"""

import ctypes
import sys

# glibc's mallopt parameters: no mmap for large blocks, never trim the heap, one heap for all threads (mallopt(3)).
_PARAMETERS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_ARENA_MAX": (-8, 1)}


def keep() -> bool:
    """Ask glibc to keep freed memory for the process; call it before the first large allocation. False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in _PARAMETERS.values())
