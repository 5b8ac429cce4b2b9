"""Attention and cross-attention as the library computes them on this chip, against the dense references in
float32: largest difference and time, forward and gradient."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

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
UNTRIED = {"xla_gpu_autotune_level": 0}  # of the references: nobody waits for their best algorithms


def run(settings, record, argument: str) -> None:
    """record["cases"]: one entry for each shape, dtype and implementation; a failed one has an `error`. The
    library's own choices for bfloat16 come first."""
    record["cases"] = []
    jobs = [Job(*job) for job in (*_self_attentions(settings), *_crosses(settings))]
    jobs.sort(key=lambda job: (job.case["dtype"] != "bfloat16", not job.case["chosen"]))
    with ThreadPoolExecutor() as pool:  # compilers work beside each other; nothing is timed meanwhile
        programs = [pool.submit(job.compiled) for job in jobs]
    for job, compiled in zip(jobs, programs):
        record["cases"].append(job.case)
        with record.kept():
            job.measure(compiled, settings.repeats)


def _self_attentions(settings):
    """(entry, shapes of q, k, v; implementation; reference; document ids) of each case."""
    for case in settings.attention:
        shapes, attend, ids = [(case.B, case.H, case.T, case.K)] * 3, _self_attention(case), _documents(case)
        exact = functools.partial(attend, implementation="reference")
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
            exact, ids = functools.partial(attend, implementation="reference"), _patch_ids(case)
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


class Job(NamedTuple):
    """One entry of the record and what fills it in."""

    case: dict
    shapes: list  # of q, k, v
    attend: Callable  # the implementation
    exact: Callable  # the dense reference
    ids: dict  # name -> what parts documents or patches, int32 [B,T]

    def compiled(self):
        """(forward, its gradient, the reference's gradient), compiled: the first two take q, k, v in the
        case's dtype, the reference float32."""
        ids = jax.ShapeDtypeStruct((self.case["B"], self.case["T"]), jnp.int32)
        arrays = lambda dtype: [
            jax.ShapeDtypeStruct(shape, dtype) for shape in (*self.shapes, self.shapes[0])
        ]
        own, gradient = arrays(self.case["dtype"]), functools.partial(pulled, self.attend)
        with jax.default_matmul_precision("highest"):
            exact = jax.jit(functools.partial(pulled, self.exact)).lower(*arrays("float32"), ids)
        return (
            jax.jit(self.attend).lower(*own[:3], ids).compile(),
            jax.jit(gradient).lower(*own, ids).compile(),
            exact.compile(compiler_options=UNTRIED),
        )

    def measure(self, programs, repeats: int) -> None:
        """Fills in differences, times and whether they are rounding; or the error. programs: a future."""
        case = self.case
        try:
            forward, gradient, exact = programs.result()
            rng = np.random.default_rng(case["T"])
            # The same rounded numbers for both: only the arithmetic differs.
            q, k, v, g = (
                jnp.asarray(rng.standard_normal(shape), case["dtype"])
                for shape in (*self.shapes, self.shapes[0])
            )
            wide = [x.astype(jnp.float32) for x in (q, k, v, g)]
            case["differences"] = {
                name: {
                    part: difference(a, b)
                    for part, a, b in zip(PARTS, gradient(q, k, v, g, ids), exact(*wide, ids), strict=True)
                }
                for name, ids in self.ids.items()
            }
            worst = max_or_nan(d["relative"] for each in case["differences"].values() for d in each.values())
            case["worst_relative"], case["rounding_only"] = worst, worst <= ROUNDING[case["dtype"]]
            ids = list(self.ids.values())[-1]
            case["forward_ms"] = 1e3 * timed(forward, q, k, v, ids, repeats=repeats)
            case["forward_and_gradient_ms"] = 1e3 * timed(gradient, q, k, v, g, ids, repeats=repeats)
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
