"""Which kernels a step spends its time in: a profiler trace, read by JAX's own reader (no TensorFlow)."""

import pathlib
import re
import tempfile
from collections.abc import Callable

import jax
from jax.profiler import ProfileData

SLOWEST = 40  # kept; the table shows the first few
# An instruction of a compiled program: its name, and the part of the model that it comes from.
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]+)"', re.MULTILINE)


def kernels(run: Callable, steps: int, program: str) -> dict:
    """Traces one call of `run`, which does `steps` steps and waits for them. Returns slowest(...) of it, each
    kernel with the `source` that `program`, the compiled program's text, names for it ("": none)."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        found = sorted(pathlib.Path(folder).rglob("*.xplane.pb"))
        if not found:
            raise FileNotFoundError("the profiler wrote no *.xplane.pb")
        kept = slowest(ProfileData.from_file(str(found[-1])), steps)
    sources = dict(INSTRUCTION.findall(program))
    for one in kept["slowest"]:
        one["source"] = sources.get(one["op"], "")
    return kept


def slowest(profile: ProfileData, steps: int, count: int = SLOWEST) -> dict:
    """{"busy_ms": kernel time of a step, "slowest": the `count` names with most time: name, op (what XLA
    calls it), ms (a step's), share (of busy_ms), calls (a step's)}. Overlapping kernels count in full.
    """
    total, calls, ops = {}, {}, {}
    for name, op, nanoseconds in events(profile):
        total[name] = total.get(name, 0) + nanoseconds
        calls[name] = calls.get(name, 0) + 1
        ops.setdefault(name, op)
    busy = sum(total.values())
    names = sorted(total, key=lambda name: (-total[name], name))[:count]
    return {
        "busy_ms": busy / 1e6 / steps,
        "slowest": [
            {
                "name": name[:120],
                "op": ops[name],
                "ms": total[name] / 1e6 / steps,
                "share": total[name] / busy,
                "calls": calls[name] / steps,
            }
            for name in names
        ],
    }


def events(profile: ProfileData):
    """(name, XLA's operation or "", nanoseconds) of all that ran on the device. On a GPU: the lines of its
    streams, since the plane's other lines sum the same time up again. On a CPU: what has an operation."""
    gpus = [plane for plane in profile.planes if plane.name.startswith("/device:GPU")]
    for plane in gpus or [plane for plane in profile.planes if plane.name == "/host:CPU"]:
        for line in plane.lines:
            if gpus and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                op = str(dict(event.stats).get("hlo_op", ""))
                if gpus or op:
                    yield event.name, op, event.duration_ns
