"""Reads compiled programs: their operations, how often each runs, and how many floating-point operations
their matrix products are.

XLA's own `cost_analysis()` counts a scanned stack once and elementwise work too, so FLOP counts are checked
against this instead. Optimized HLO of CPU, GPU and TPU; collectives are in bltjax/compile/collectives.py.
What a Pallas kernel does (a custom call) is in no count."""

import functools
import json
import math
import re
from typing import NamedTuple

import numpy as np

BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s2": 2,
    "u2": 2,
    "s64": 64,
    "u64": 64,
    "f64": 64,
    "c64": 64,
    "c128": 128,
    "token": 0,
    "opaque": 0,
    **{
        name: 8
        for name in (
            "s8",
            "u8",
            "f8e4m3fn",
            "f8e5m2",
            "f8e4m3",
            "f8e3m4",
            "f8e4m3b11fnuz",
            "f8e5m2fnuz",
            "f8e8m0fnu",
        )
    },
    **{name: 16 for name in ("s16", "u16", "f16", "bf16")},
    **{name: 32 for name in ("s32", "u32", "f32")},
    "f4e2m1fn": 4,
}

_COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT\s+)?%?([\w.\-]+)\s*=\s*(.*?)\s([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,<=]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_CALLED_LIST = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":(\{[^}]*\})')
_OP_NAME = re.compile(r'metadata=\{[^}]*?op_name="([^"]*)"')
# Operations that run what they name. Others (reduce, sort, scatter, all-reduce) name a scalar function, which
# is no work of its own.
_CALLERS = {
    "fusion",
    "call",
    "while",
    "conditional",
    "async-start",
    "fusion-start",
    "call-start",
    "custom-call",
    "custom-call-start",
}
_SAME_VALUE = {
    "copy",
    "bitcast",
    "convert",
    "copy-start",
    "copy-done",
    "optimization-barrier",
    "reshape",
    "broadcast",
}


class Shape(NamedTuple):
    """An array's type, its layout left out."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def bytes(self) -> float:
        """Unpadded."""
        return math.prod(self.dims) * BITS[self.dtype] / 8


class Instruction(NamedTuple):
    """operands: names within the computation; shapes: what it makes, a tuple's parts flattened; attributes:
    the text behind operands."""

    name: str
    op: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    operand_text: str
    attributes: str

    @property
    def op_name(self) -> str:
        """Where in the traced program it came from, as JAX wrote it; "" where the compiler dropped that."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ""

    def called(self) -> list[str]:
        if self.op not in _CALLERS:
            return []
        lists = [
            name.strip().lstrip("%")
            for found in _CALLED_LIST.findall(self.attributes)
            for name in found.split(",")
        ]
        return [name for name in _CALLED.findall(self.attributes) + lists if name]


class Program(NamedTuple):
    """computations: {name: {instruction's name: Instruction}}, in their order; roots: {computation: its
    root's name}; devices: how many run it."""

    computations: dict[str, dict[str, Instruction]]
    roots: dict[str, str]
    entry: str
    devices: int


@functools.lru_cache(maxsize=2)  # one text is read for its FLOPs, its collectives and its gathers
def parse(text: str) -> Program:
    """text: optimized HLO, `jax.jit(f).lower(...).compile().as_text()`; other text: ValueError."""
    computations, roots, entry = {}, {}, None
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened and " = " not in line.split("{")[0]:
            name = opened[2]
            computations[name] = {}
            entry = name if opened[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if not found or not computations:
            continue
        root, result, type_, op, rest = found.groups()
        operands, attributes = _split_operands(rest)
        names = (
            tuple(re.findall(r"%([\w.\-]+)", operands))
            if "%" in operands
            else tuple(re.findall(r"([\w.\-]+)(?=\s*(?:,|$))", operands))
        )
        computations[name][result] = Instruction(result, op, _shapes(type_), names, operands, attributes)
        if root:
            roots[name] = result
    if entry is None:
        raise ValueError("no ENTRY computation: this is not HLO text as compile().as_text() gives it")
    header = text[: text.find("\n")]
    counts = [int(n) for n in re.findall(r"(?:replica_count|num_partitions)=(\d+)", header)]
    return Program(computations, roots, entry, math.prod(counts))


def executions(program: Program, unknown: float = math.nan) -> dict[str, float]:
    """How often each computation runs in one execution of the program; `unknown` times where a loop around it
    has no known trip count.

    Every branch of a conditional counts as run."""
    times = dict.fromkeys(program.computations, 0.0) | {program.entry: 1.0}
    for name in _callers_first(program):
        for instruction in program.computations[name].values():
            trips = trip_count(program, name, instruction) if instruction.op == "while" else 1
            for called in instruction.called():
                if called in times and times[name]:
                    times[called] += times[name] * (unknown if trips is None else trips)
    return times


def trip_count(program: Program, computation: str, loop: Instruction) -> int | None:
    """How often a `while` runs: what XLA says (`known_trip_count`), else what its condition compares with a
    constant.

    TPU programs do not say. There the counter's start and step are read too; where they cannot be, they are
    taken as 0 and 1, which is what JAX's scans have. None: the condition is no comparison of a counter with a
    constant."""
    said = _TRIPS.search(loop.attributes)
    if said:
        return int(json.loads(said[1])["n"])
    condition, body = (
        re.search(rf"{part}=%?([\w.\-]+)", loop.attributes)[1] for part in ("condition", "body")
    )
    if condition not in program.roots:
        return None
    direction, values = _compared(program, condition)
    if (
        direction not in ("LT", "LE", "NE")
        or not isinstance(values[0], Element)
        or not isinstance(values[1], int)
    ):
        return None
    counter, limit = values
    operand = program.computations[computation].get(loop.operands[0])
    start = (
        _value(program, computation, operand.operands[counter.index])
        if operand and operand.op == "tuple"
        else 0
    )
    start = start if isinstance(start, int) else 0
    step = _step(program, body, counter.index)
    return max(0, math.ceil((limit + (direction == "LE") - start) / step))


def dot_flops(hlo_text: str) -> int:
    """FLOPs of all matrix products that one execution of a program does on one device: 2·M·N·K for each
    `dot`, and for each `convolution` (what XLA makes of a dot on TPU) 2 for every product of two elements
    that are really there.

    Fusions and calls count as often as they are called, loops as often as they run (`trip_count`); a loop
    without a known count that holds a product: ValueError. Custom calls and elementwise work are not counted.
    """
    program = parse(hlo_text)
    times = executions(program)
    total = 0
    for name, instructions in program.computations.items():
        for one in instructions.values():
            if one.op in ("dot", "convolution") and times[name]:
                total += (_dot if one.op == "dot" else _convolution)(one, instructions) * known(
                    times[name], name, "matrix products"
                )
    return total


def known(times: float, computation: str, what: str) -> int:
    """times as a whole number; NaN: ValueError."""
    if math.isnan(times):
        raise ValueError(f"the loop body {computation} holds {what}, and its trip count is unknown")
    return int(times)


def operand_shapes(instruction: Instruction, instructions: dict[str, Instruction]) -> tuple[Shape, ...]:
    """Of each operand: written inline, or where it was made. Tuples are flattened."""
    inline = _shapes(instruction.operand_text)
    if inline:
        return inline
    return tuple(shape for name in instruction.operands for shape in instructions[name].shapes)


def sizes(text: str) -> tuple[int, ...]:
    """(1, 2) of "1,2"."""
    return tuple(int(n.lstrip("<=")) for n in text.split(",") if n)


class Element(NamedTuple):
    """One part of a loop's state."""

    index: int


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(Shape(dtype, sizes(dims)) for dtype, dims in _SHAPE.findall(text) if dtype in BITS)


def _split_operands(rest: str) -> tuple[str, str]:
    """What stands before and after the parenthesis that closes the operands. Layouts have parentheses of
    their own."""
    depth = 0
    for place, char in enumerate(rest):
        if char == "(":
            depth += 1
        elif char == ")":
            if not depth:
                return rest[:place], rest[place + 1 :]
            depth -= 1
    return rest, ""


def _callers_first(program: Program) -> list[str]:
    """The computations that the entry reaches, each behind all of its callers."""
    order, seen = [], set()
    stack = [(program.entry, False)]
    while stack:
        name, done = stack.pop()
        if done:
            order.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack += [
                (called, False)
                for one in program.computations[name].values()
                for called in one.called()
                if called in program.computations
            ]
    return order[::-1]


def _compared(program: Program, condition: str):
    """(direction, values) of the `compare` that a loop's condition ends with; a fusion around it is looked
    into. Else ("", [])."""
    root = program.computations[condition][program.roots[condition]]
    if root.op == "compare":
        compare, values = root, [_value(program, condition, name) for name in root.operands]
    else:
        inside = next((name for name in root.called() if name in program.roots), None)
        compare = program.computations[inside][program.roots[inside]] if inside else root
        if compare.op != "compare":
            return "", []
        values = []
        for name in compare.operands:
            one = program.computations[inside][name]
            outer = root.operands[int(one.operand_text)] if one.op == "parameter" else None
            values.append(_value(program, condition, outer) if outer else _value(program, inside, name))
    return re.search(r"direction=(\w+)", compare.attributes)[1], values


def _value(program: Program, computation: str, name: str):
    """An int, the `Element` of the loop's state that a value is, or None."""
    instructions = program.computations[computation]
    while name in instructions:
        one = instructions[name]
        if one.op == "constant":
            return int(one.operand_text) if re.fullmatch(r"-?\d+", one.operand_text.strip()) else None
        if one.op == "get-tuple-element" and instructions[one.operands[0]].op == "parameter":
            return Element(int(re.search(r"index=(\d+)", one.attributes)[1]))
        if one.op not in _SAME_VALUE:
            return None
        name = one.operands[0]
    return None


def _step(program: Program, body: str, index: int) -> int:
    """By how much a loop's body raises a counter; 1 where that cannot be read."""
    instructions = program.computations.get(body, {})
    root = instructions.get(program.roots.get(body, ""))
    add = instructions.get(root.operands[index]) if root and root.op == "tuple" else None
    while add and add.op in _SAME_VALUE:
        add = instructions.get(add.operands[0])
    if add is None or add.op != "add":
        return 1
    amounts = [
        value
        for value in (_value(program, body, name) for name in add.operands)
        if isinstance(value, int) and value > 0
    ]
    return amounts[0] if amounts else 1


def _dot(dot: Instruction, instructions: dict) -> int:
    left = operand_shapes(dot, instructions)[0].dims
    which = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    return 2 * math.prod(dot.shapes[0].dims) * math.prod(left[i] for i in sizes(which[1]) if which)


def _convolution(conv: Instruction, instructions: dict) -> int:
    """Batch dimensions of a dot become spatial ones here, with padding or holes so that only matching pairs
    meet: count those that do."""
    left, right = (shape.dims for shape in operand_shapes(conv, instructions)[:2])
    lhs, rhs, out = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", conv.attributes).groups()
    window = dict(
        re.findall(r"(\w+)=([\dx_\-]+)", (re.search(r"window=\{([^}]*)\}", conv.attributes) or [""] * 2)[1])
    )
    spatial = [label for label in out if label.isdigit()]
    flops = 2 * right[rhs.index("i")]
    for label, size in zip(out, conv.shapes[0].dims):
        if not label.isdigit():
            flops *= size
    for place in range(len(spatial)):
        label = str(place)
        part = {key: text.split("x")[place] for key, text in window.items()}
        flops *= _meetings(
            left[lhs.index(label)],
            right[rhs.index(label)],
            conv.shapes[0].dims[out.index(label)],
            int(part.get("pad", "0_0").split("_")[0]),
            int(part.get("stride", 1)),
            int(part.get("lhs_dilate", 1)),
            int(part.get("rhs_dilate", 1)),
        )
    return flops


@functools.lru_cache(maxsize=1024)
def _meetings(
    inputs: int, kernel: int, outputs: int, pad: int, stride: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """Pairs (output position, kernel position) along one dimension that fall on an input element, not on
    padding or a hole."""
    starts = np.arange(outputs, dtype=np.int64) * stride - pad
    total = 0
    for place in range(kernel):
        where = starts + place * rhs_dilate
        total += int(((where >= 0) & (where <= (inputs - 1) * lhs_dilate) & (where % lhs_dilate == 0)).sum())
    return total
