"""Runs on this machine: one pinned process per core on CPUs, one process in all on accelerators.

Two pinned one-core processes train faster together than one process on both cores, their compilations
overlap, and a train step repeats bit for bit only on the same number of cores."""

import pathlib
import subprocess
import sys

from bltjax.parallel import host

ORPHAN_NOTE = "the runner that started this process is gone"


def platform() -> str:
    """JAX's default backend here (cpu, gpu, tpu), asked in a process of its own so that the runner never
    holds a device."""
    asked = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    return asked.stdout.split()[-1] if asked.returncode == 0 and asked.stdout.split() else "cpu"


def slots(workers: int = 0) -> list[int | None]:
    """One slot per process that may run at once: a core to pin it to, or None."""
    here = platform()
    if here != "cpu":
        return [None] * max(1, workers)
    available = host.cores()
    return [available[i % len(available)] for i in range(workers or len(available))]


def start(arguments: list[str], core: int | None, log: pathlib.Path) -> subprocess.Popen:
    """`python -m bltjax.run.worker ARGUMENTS`, pinned to a core; its output is appended to log.

    The child holds the other end of a pipe: when this process dies, however it dies, or closes it, the child
    sees the end of the pipe, saves a checkpoint and stops."""
    log.parent.mkdir(parents=True, exist_ok=True)
    pin = [] if core is None else ["--core", str(core)]
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "bltjax.run.worker", *arguments, *pin],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
        )
