"""What a process takes of its machine: cores, memory that it keeps, compiled programs that it finds again.

XLA's CPU backend allocates a program's temporaries anew at each call. Blocks beyond 32 MB come from the
kernel page by page, zeroed, and go back when the call ends: of a training step with 230 MB of temporaries
that was a quarter of the time."""

import contextlib
import ctypes
import gc
import importlib.util
import os
import pathlib
import sys
import tempfile

from bltjax.errors import UserError
from bltjax.parallel import environment

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


def collect_cycles_rarely() -> None:
    """Python looks for cycles of objects that nobody holds any more after each 10,000 new objects, not 700:
    the objects of a traced program are many and stay, and to look through them again and again was a seventh
    of a short command's time."""
    gc.set_threshold(10_000)


def cores() -> list[int]:
    """The cores this process may use: those of its affinity, and no more of them than its cgroup has time
    for (a container of two CPUs on a host of sixty-four sees all of them)."""
    seen = (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )
    allowed = cgroup_cpus()
    return seen if allowed is None else seen[: max(1, int(allowed))]


def cgroup_cpus(
    own: pathlib.Path = pathlib.Path("/proc/self/cgroup"),
    mount: pathlib.Path = pathlib.Path("/sys/fs/cgroup"),
) -> float | None:
    """CPUs' time that this process's cgroup, or one above it, may take (cpu.max of version 2, the quota of
    version 1); None: no limit, or no cgroups. own, mount: where the kernel says so."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mount if not controllers else mount / "cpu"
        folder = base / path.lstrip("/")
        # in a container the path may be the host's, and its own limit stands at the mount
        for where in dict.fromkeys((folder, *folder.parents, base)):
            if base in (where, *where.parents):
                found += _quota(where)
    return min(found, default=None)


def _quota(folder: pathlib.Path) -> list[float]:
    """[CPUs] that a cgroup's files allow; [] where they set no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / name).read_text(encoding="utf-8").strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return [int(quota) / int(period)] if quota != "max" and int(quota) > 0 and int(period) > 0 else []
    except (OSError, ValueError):
        return []


def ready() -> None:
    """What a process that trains does before its first computation: JAX's settings, memory that is kept, and
    compiled programs."""
    environment.pin()
    keep_memory()
    collect_cycles_rarely()
    keep_compiled_programs()


def keep_compiled_programs() -> None:
    """Compiled programs are kept between processes, all of them, under the user's cache folder: an equal
    command does not compile again. Where the user has no folder, or may not write there, nothing is kept;
    where JAX_COMPILATION_CACHE_DIR names one, that is it.

    A run's numbers do not depend on it.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None and (base := _cache_folder()) is not None:
        jax.config.update("jax_compilation_cache_dir", str(base / "bltjax" / f"xla-{jax.__version__}"))
    # By default what compiles within a second is not kept: of a command that loads a model those are most.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cache_folder() -> pathlib.Path | None:
    """XDG_CACHE_HOME or ~/.cache; None for a user without a home, and where nothing can be written."""
    try:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        (base / "bltjax").mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=base / "bltjax").close()
        return base
    except (RuntimeError, OSError):
        return None


def write_any_text() -> None:
    """Standard output and error write what their encoding lacks as \\x.. or \\u...., whatever the terminal
    or PYTHONIOENCODING says: a sign that cannot be shown ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # none, or not a file's
            stream.reconfigure(errors="backslashreplace")


def import_matplotlib() -> None:
    """Imports matplotlib with its own defaults and no window: a matplotlibrc of the user's, or MPLBACKEND,
    could end it, or ask for a TeX that is not there. UserError where it cannot be had."""
    if "matplotlib" in sys.modules:
        return
    os.environ["MPLBACKEND"] = "agg"
    given, found = os.environ.get("MATPLOTLIBRC"), importlib.util.find_spec("matplotlib")
    if found is not None and found.origin:
        os.environ["MATPLOTLIBRC"] = str(pathlib.Path(found.origin).parent / "mpl-data" / "matplotlibrc")
    try:
        import matplotlib  # noqa: F401
    except Exception as error:
        where = " (is there a matplotlibrc in this folder?)" if os.path.exists("matplotlibrc") else ""
        raise UserError(f"matplotlib cannot be loaded{where}: {type(error).__name__}: {error}") from None
    finally:
        if given is None:
            os.environ.pop("MATPLOTLIBRC", None)
        else:
            os.environ["MATPLOTLIBRC"] = given
