"""How fast this machine trains, roughly: measured in a process of its own while a plan is made."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from bltjax.errors import RunFailed, UserError
from bltjax.parallel import environment, host

NO_DEVICE = 3  # exit status of what measures, where there is nothing to measure on


@contextlib.contextmanager
def measuring() -> Iterator[Callable[[], float]]:
    """Measures FLOPs per second of one worker here (one core of a CPU, one accelerator) while the body runs;
    the function that it gives waits for the number. A rough estimate, made in 2 to 3 s and kept nowhere.

    In a process of its own: pinned to one core as a run would be, and this process never holds a device. Good
    to a factor of two or so for models as narrow as the quickstart's; wide ones reach more."""

    process = subprocess.Popen(
        [sys.executable, "-c", "from bltjax.sweep import speed; speed.print_measured()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield lambda: _found(process)
    finally:
        process.kill()
        process.communicate()


def _found(process: subprocess.Popen) -> float:
    from bltjax import flops  # not by the process that measures: all models come with it

    said, complaint = process.communicate()
    try:
        return flops.TRAIN * float(said.split()[-1])
    except (IndexError, ValueError):
        pass
    last = (complaint.strip().splitlines() or ["it said nothing"])[-1]
    if process.returncode == NO_DEVICE:
        raise UserError(last)
    raise RunFailed(f"this machine's speed could not be measured: {last}")


def print_measured() -> None:
    """What `forward_rate` finds; an error as the last line of stderr, with a status."""
    if hasattr(os, "sched_setaffinity"):  # as a run is: before JAX starts its threads
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    host.keep_memory()  # as runs do
    try:
        host.keep_compiled_programs()
        print(forward_rate())
    except Exception as error:
        said = environment.no_device(error)
        print(said or f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(NO_DEVICE if said else 1)


def forward_rate(rows: int = 4, positions: int = 256, width: int = 64, heads: int = 2) -> float:
    """Forward FLOPs per second of this process while it trains: by the median gradient of one narrow layer,
    whose products and softmax are those of training."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)  # and not JAX's, whose programs would be compiled first
    weights = [
        rng.normal(size=(width, n * width)).astype(np.float32) * np.float32(0.1) for n in (1, 1, 1, 1, 4, 4)
    ]
    x = np.ones((rows, positions, width), np.float32)
    future = np.arange(positions)[:, None] < np.arange(positions)[None]

    def loss(weights, x):
        q, k, v = ((x @ w).reshape(rows, positions, heads, width // heads) for w in weights[:3])
        p = jax.nn.softmax(jnp.where(future[None, None], -1e30, jnp.einsum("bqhd,bshd->bhqs", q, k)), -1)
        x = x + jnp.einsum("bhqs,bshd->bqhd", p, v).reshape(x.shape) @ weights[3]
        return jnp.sum((x + jax.nn.silu(x @ weights[4]) @ weights[5].T) ** 2)

    step = jax.jit(jax.grad(loss, (0, 1)))
    jax.block_until_ready(step(weights, x))
    times = []
    while len(times) < 5 or sum(times) < 0.2:
        start = time.perf_counter()
        jax.block_until_ready(step(weights, x))
        times.append(time.perf_counter() - start)
    products = 2 * rows * positions * (12 * width**2 + 2 * width * positions)
    return products / statistics.median(times)
