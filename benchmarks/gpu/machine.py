"""The chip, what is installed, and the two ceilings that everything else stands under."""

import subprocess
import time
from importlib import metadata

import jax
import jax.numpy as jnp

from bltjax.compile import chips
from bltjax.errors import UserError
from bltjax.storage import rundir


def check(small: bool) -> None:
    """UserError where there is no GPU to measure, unless the kit is only tried."""
    if small or jax.default_backend() == "gpu":
        return
    if not any(name.startswith("jax-cuda") for name in packages()):
        raise UserError(
            f"jax {jax.__version__} here has no CUDA: pip install -r benchmarks/gpu/requirements.txt"
            " (or try the kit on this CPU: --small)"
        )
    raise UserError(
        f"jax {jax.__version__} sees no NVIDIA GPU (nvidia-smi says what there is); --small tries the kit"
        f" on {jax.default_backend()}"
    )


def packages() -> dict[str, str]:
    """Versions of what belongs to JAX and CUDA, by name."""
    found = {
        (d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in metadata.distributions()
    }
    return {
        name: found[name] for name in sorted(found) if name.startswith(("jax", "nvidia-", "flax", "optax"))
    }


def peak() -> float:
    """The chip's published dense bfloat16 FLOP/s; 0 where it is unknown."""
    chip = chips.of_kind(jax.devices()[0].device_kind)
    return chip.flops_per_second if chip else 0.0


def memory_limit() -> int:
    """Bytes that a program may use; 0 where the backend does not say."""
    return int((jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0))


def peak_memory() -> int:
    """Most bytes that this process had in use; 0 where the backend does not say."""
    return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def run(settings, record, argument: str) -> None:
    """Fills in the chip, the versions, and what one large product and one large copy reach."""
    device = jax.devices()[0]
    chip = chips.of_kind(device.device_kind)
    record["chip"] = {
        "kind": device.device_kind,
        "platform": device.platform,
        "peak_tflops": chip.flops_per_second / 1e12 if chip else "unknown",
        "peak_source": chip.source if chip else "unknown",
        "memory_limit_gib": memory_limit() / 2**30,
        "nvidia_smi": _nvidia_smi(),
    }
    record["versions"] = {**rundir.versions(), **packages()}
    record.save()
    n = settings.matmul
    a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.bfloat16) for i in range(2))
    seconds = timed(jax.jit(jnp.matmul), a, b, repeats=settings.repeats)
    record["matmul"] = {"n": n, "ms": 1e3 * seconds, "tflops": 2 * n**3 / seconds / 1e12}
    record.save()
    x = jax.random.normal(jax.random.key(2), (settings.copy_mib, 2**18), jnp.float32)
    seconds = timed(jax.jit(lambda x: x + 1), x, repeats=settings.repeats)
    record["copy"] = {"mib": settings.copy_mib, "ms": 1e3 * seconds, "gb_per_s": 2 * x.nbytes / seconds / 1e9}


def timed(function, *args, repeats: int) -> float:
    """Seconds of a call: the median of three rounds of `repeats` calls that wait for the last only, so that
    the host's part of a call hides behind the chip's. The first two calls (compilation, warm-up) are left
    out."""
    for _ in range(2):
        jax.block_until_ready(function(*args))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(repeats):
            out = function(*args)
        jax.block_until_ready(out)
        seconds.append((time.perf_counter() - began) / repeats)
    return sorted(seconds)[1]


def _nvidia_smi() -> str:
    """The card, its memory and its driver; "" without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
