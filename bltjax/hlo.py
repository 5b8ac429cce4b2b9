"""Reads compiled programs: how many floating-point operations their matrix products are.

XLA's own `cost_analysis()` counts a scanned stack once and elementwise work too, so FLOP counts are checked against this instead.
"""

import json
import math
import re

_COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT\s+)?%?([\w.\-]+)\s*=\s*(.*?)\s([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":(\{[^}]*\})')


def dot_flops(hlo_text: str) -> int:
    """FLOPs of all `dot` operations that one execution of a program does, 2·M·N·K each.

    hlo_text: optimized HLO, `jax.jit(f).lower(...).compile().as_text()`. Fusions and calls count as often as they are called,
    loops as often as XLA says that they run (`known_trip_count`); a loop without a known count that holds a dot: ValueError.
    Convolutions, custom calls and elementwise work are not counted.
    """
    computations, entry = _parse(hlo_text)
    known = {}

    def total(name: str) -> int:
        if name not in known:
            flops, calls = computations[name]
            for called, times in calls:
                inside = total(called)
                if inside and times is None:
                    raise ValueError(f"the loop body {called} holds matrix products, and its trip count is unknown")
                flops += inside * (times or 0)
            known[name] = flops
        return known[name]

    if entry is None:
        raise ValueError("no ENTRY computation: this is not HLO text as compile().as_text() gives it")
    return total(entry)


def _parse(text: str):
    """{computation: (its own dots' FLOPs, [(called computation, times)])} and the entry's name."""
    computations, entry, shapes = {}, None, {}
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened and " = " not in line.split("{")[0]:
            name, shapes, calls = opened[2], {}, []
            computations[name] = [0, calls]
            entry = name if opened[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if not found or not computations:
            continue
        result, type_, operation, rest = found.groups()
        shape = _SHAPE.search(type_)
        shapes[result] = _dims(shape[1]) if shape else ()
        if operation == "dot":
            computations[name][0] += 2 * math.prod(shapes[result]) * math.prod(_contracted(rest, shapes))
        times = 1
        if operation == "while":
            trips = _TRIPS.search(rest)
            times = int(json.loads(trips[1])["n"]) if trips else None
        called = _CALLED.findall(rest) if operation in ("fusion", "call", "while", "conditional", "async-start") else []
        branches = _BRANCHES.search(rest) if operation == "conditional" else None
        calls += [(c, times) for c in called + ([b.strip().lstrip("%") for b in branches[1].split(",")] if branches else [])]
    return {name: (flops, calls) for name, (flops, calls) in computations.items()}, entry


def _contracted(rest: str, shapes: dict) -> list[int]:
    """Sizes of the contracted dimensions, from the left operand: its type is written inline or stands where it was made."""
    operand = rest.split(")")[0]
    inline = _SHAPE.match(operand.strip())
    left = _dims(inline[1]) if inline else shapes[re.match(r"\s*%?([\w.\-]+)", operand)[1]]
    which = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
    return [left[i] for i in _dims(which[1])] if which else []


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)
