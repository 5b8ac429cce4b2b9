"""What a process takes of its machine: cores, memory that it keeps, compiled programs that it finds again.

XLA's CPU backend allocates a program's temporaries anew at each call. Blocks beyond 32 MB come from the
kernel page by page, zeroed, and go back when the call ends: of a training step with 230 MB of temporaries
that was a quarter of the time."""

import ctypes
import os
import pathlib
import sys

# glibc's mallopt parameters: no mmap for large blocks, never trim the heap, one heap for all threads
# (mallopt(3)).
_PARAMETERS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_ARENA_MAX": (-8, 1)}


def keep_memory() -> bool:
    """Ask glibc to keep freed memory for the process; call it before the first thread begins. False where
    there is no glibc.

    A thread that began earlier has a heap of its own, whose large blocks come from the kernel as ever: of a
    run with tables of 400 MB that was half of the time."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in _PARAMETERS.values())


def cores() -> list[int]:
    """The cores this process may use."""
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def ready() -> None:
    """What a process that trains does before its first computation: keep its memory, and its compiled
    programs."""
    keep_memory()
    keep_compiled_programs()


def keep_compiled_programs() -> None:
    """Compiled programs are kept between processes, all of them, under the user's cache folder: an equal
    command does not compile again. Where the user has no folder, or JAX_COMPILATION_CACHE_DIR names one,
    nothing is changed.

    A run's numbers do not depend on it.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None and (base := _cache_folder()) is not None:
        jax.config.update("jax_compilation_cache_dir", str(base / "bltjax" / f"xla-{jax.__version__}"))
    # By default what compiles within a second is not kept: of a command that loads a model those are most.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cache_folder() -> pathlib.Path | None:
    """XDG_CACHE_HOME or ~/.cache; None for a user without a home."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(given)
    try:
        return pathlib.Path.home() / ".cache"
    except RuntimeError:
        return None
