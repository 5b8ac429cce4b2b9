"""Runs on this machine: one pinned process per core on CPUs, one process a chip on GPUs, one in all on TPUs.

Two pinned one-core processes train faster together than one process on both cores, their compilations
overlap, and a train step repeats bit for bit only on the same number of cores."""

import dataclasses
import os
import pathlib
import subprocess
import sys

from bltjax.parallel import host

ORPHAN_NOTE = "the runner that started this process is gone"


@dataclasses.dataclass(frozen=True)
class Slot:
    """Room for one process. core: that it is pinned to; gpu: the only one that it sees, as
    CUDA_VISIBLE_DEVICES names it. None: any."""

    core: int | None = None
    gpu: str | None = None


def devices() -> tuple[str, int]:
    """(JAX's default backend here: cpu, gpu or tpu; its devices), asked in a process of its own so that the
    runner never holds a device."""
    asked = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend(), jax.local_device_count())"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    words = asked.stdout.split()[-2:]
    if asked.returncode or len(words) < 2 or not words[1].isdecimal():
        return "cpu", 1
    return words[0], int(words[1])


def slots(workers: int = 0) -> list[Slot]:
    """One slot per process that may run at once. workers: how many; 0: one per core on CPUs, one per GPU, one
    on a TPU host, whose chips one process holds."""
    platform, count = devices()
    if platform == "cpu":
        available = host.cores()
        return [Slot(core=available[i % len(available)]) for i in range(workers or len(available))]
    if platform != "gpu":
        return [Slot()] * max(1, workers)
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = seen if len(seen) == count else [str(i) for i in range(count)]
    return [Slot(gpu=names[i % count]) for i in range(workers or count)]


def command(directory: str) -> list[str]:
    """What runs a job here."""
    return [sys.executable, "-m", "bltjax.run.worker", str(directory), "--child"]


def start(arguments: list[str], slot: Slot, log: pathlib.Path) -> subprocess.Popen:
    """A process of a job in a slot; its output is appended to log. arguments: the job's directory, and more
    for run/worker.py.

    The child holds the other end of a pipe: when this process dies, however it dies, or closes it, the child
    sees the end of the pipe, saves a checkpoint and stops."""
    log.parent.mkdir(parents=True, exist_ok=True)
    directory, *more = arguments
    pin = [] if slot.core is None else ["--core", str(slot.core)]
    sees = {} if slot.gpu is None else {"CUDA_VISIBLE_DEVICES": slot.gpu}
    with log.open("ab") as out:
        return subprocess.Popen(
            [*command(directory), *more, *pin],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env={**os.environ, **sees},
        )
