"""Attention and cross-attention as the library computes them on this chip, against the dense references in
float32: largest difference and time, forward and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.machine import timed
from benchmarks.gpu.record import first_line
from bltjax.models import cross_attention
from bltjax.models.kernels import attention
from bltjax.parallel import sharding

# ‖difference‖ / ‖reference‖ that is still rounding: float32 products are TF32 on these chips.
ROUNDING = {"float32": 5e-3, "bfloat16": 3e-2}
DTYPES = ("bfloat16", "float32")
PARTS = ("out", "dq", "dk", "dv")


def run(settings, record, argument: str) -> None:
    """record["cases"]: one entry for each shape, dtype and implementation; a failed one has an `error`. The
    library's own choices for bfloat16 come first."""
    record["cases"] = []
    jobs = [*_self_attentions(settings), *_crosses(settings)]
    for case, *job in sorted(jobs, key=lambda job: (job[0]["dtype"] != "bfloat16", not job[0]["chosen"])):
        record["cases"].append(case)
        with record.kept():
            _measured(case, *job, settings.repeats)


def _self_attentions(settings):
    """(entry, shapes of q, k, v; implementation; reference; document ids) of each case."""
    for case in settings.attention:
        shapes, attend, ids = [(case.B, case.H, case.T, case.K)] * 3, _self_attention(case), _documents(case)
        exact = _exact(attend)
        for dtype in DTYPES:
            chosen = attention.chosen(sharding.platform(), jnp.dtype(dtype))
            for path in dict.fromkeys((chosen, "blocks")):  # beside it: what would be lost without a kernel
                names = dict(dtype=dtype, path=path, chosen=path == chosen)
                entry = {"operation": "self-attention", **case._asdict(), **names}
                yield entry, shapes, functools.partial(attend, implementation=path), exact, ids


def _crosses(settings):
    """The same for cross-attention, both ways; patch ids."""
    for case in settings.cross:
        for way in ("patches_from_bytes", "bytes_from_patches"):
            shapes, attend = _cross(case, way)
            exact, ids = _exact(attend), _patch_ids(case)
            for dtype in DTYPES:
                names = dict(dtype=dtype, path="auto", chosen=True)
                yield {"operation": way, **case._asdict(), **names}, shapes, attend, exact, ids


def _self_attention(case):
    """A function of q, k, v, document ids and implementation."""
    return functools.partial(attention.self_attention, window=case.window)


def _cross(case, way: str):
    """(shapes of q, k, v; a function of q, k, v, patch ids and implementation)."""
    of_bytes, of_patches = (case.B, case.T, case.C), (case.B, case.P, case.k, case.C)
    x, source = (of_patches, of_bytes) if way == "patches_from_bytes" else (of_bytes, of_patches)
    return [x, source, source], functools.partial(getattr(cross_attention, way), heads=case.heads)


def _exact(attend):
    """The dense reference, compiled once for a shape."""
    return jax.jit(functools.partial(pulled, functools.partial(attend, implementation="reference")))


def _measured(case: dict, shapes, attend, exact, ids: dict, repeats: int) -> None:
    """Fills in differences, times and whether they are rounding; or the error."""
    try:
        rng = np.random.default_rng(case["T"])
        # The same rounded numbers for both: only the arithmetic differs.
        q, k, v, g = (
            jnp.asarray(rng.standard_normal(shape), case["dtype"]) for shape in (*shapes, shapes[0])
        )
        wide = [x.astype(jnp.float32) for x in (q, k, v, g)]
        forward, gradient = jax.jit(attend), jax.jit(functools.partial(pulled, attend))
        case["differences"] = {}
        for name, one in ids.items():
            with jax.default_matmul_precision("highest"):
                expected = exact(*wide, one)
            found = gradient(q, k, v, g, one)
            case["differences"][name] = {
                part: difference(a, b) for part, a, b in zip(PARTS, found, expected, strict=True)
            }
        del expected, found, wide
        worst = max_or_nan(d["relative"] for each in case["differences"].values() for d in each.values())
        case["worst_relative"], case["rounding_only"] = worst, worst <= ROUNDING[case["dtype"]]
        one = list(ids.values())[-1]
        case["forward_ms"] = 1e3 * timed(forward, q, k, v, one, repeats=repeats)
        case["forward_and_gradient_ms"] = 1e3 * timed(gradient, q, k, v, g, one, repeats=repeats)
    except Exception as error:  # whatever a kernel raises on the chip is a finding; the next case goes on
        case["error"] = first_line(error)


def max_or_nan(numbers) -> float:
    """The largest, or NaN where one is."""
    return float(np.max(list(numbers)))


def pulled(attend, q, k, v, g, ids):
    """(out, dq, dk, dv) for the output's gradient g."""
    out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, ids), q, k, v)
    return out, *pull(g.astype(out.dtype))


@jax.jit
def _difference(a, b):
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.max(jnp.abs(a - b)), jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel())


def difference(a, b) -> dict:
    """Largest |a - b|, and ‖a - b‖ / ‖b‖. A NaN anywhere makes both NaN."""
    largest, relative = _difference(a, b)
    return {"largest": float(largest), "relative": float(relative)}


def _documents(case) -> dict:
    """Document ids int32 [B,T]: one document; several, some shorter than a window, with padding behind."""
    T = case.T
    ends = np.unique(np.clip([T // 3, T // 3 + 3, T // 2, T // 2 + 40, T - T // 16], 1, T))
    several = np.searchsorted(ends, np.arange(T), side="right") + 1
    several[ends[-1] :] = 0
    return {
        "one document": jnp.ones((case.B, T), jnp.int32),
        "several documents": jnp.asarray(np.tile(several, (case.B, 1)).astype(np.int32)),
    }


def _patch_ids(case) -> dict:
    """Patch ids int32 [B,T]: every patch has a byte; and the last bytes have no patch (id P)."""
    starts = np.random.default_rng(0).permuted(np.tile(np.arange(1, case.T), (case.B, 1)), axis=1)
    starts = np.sort(starts[:, : case.P - 1], axis=1)
    ids = np.stack([np.searchsorted(row, np.arange(case.T), side="right") for row in starts])
    padded = np.where(np.arange(case.T) < case.T - case.T // 16, ids, case.P)
    return {"all bytes": jnp.asarray(ids.astype(np.int32)), "padding": jnp.asarray(padded.astype(np.int32))}
