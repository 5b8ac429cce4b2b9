"""What a compiled program sends between chips, and which rows it looks up: read from optimized HLO of CPU,
GPU and TPU.

Bytes are per chip and one execution of the operation, by the ring convention: what each chip must send when
the data goes round a ring (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md;
https://jax-ml.github.io/scaling-book/sharding). A torus takes less time for the same bytes, which
`ici_bytes_per_second` of bltjax/compile/chips.py (all links of a chip, one way) stands for."""

import dataclasses
import math
import re

import numpy as np

from bltjax.compile import hlo

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    bytes: sent per chip by one execution of the operation; times: executions of it in one of the program;
    operands, results: types of one chip's arrays; group_size: chips that take part together; groups: their
    ids (source and target pairs of a permutation; () where the text has none); network: "ici", or "dcn" where
    the group spans slices; op_name: where in the traced program it is from; computation, name, source: where
    in the compiled one, and the instruction that made its (first) operand."""

    kind: str
    bytes: float
    times: int
    operands: tuple[hlo.Shape, ...]
    results: tuple[hlo.Shape, ...]
    group_size: int
    groups: tuple[tuple[int, ...], ...]
    network: str
    op_name: str
    computation: str
    name: str
    source: str

    @property
    def total_bytes(self) -> float:
        """Per chip and execution of the program."""
        return self.bytes * self.times

    @property
    def gathers(self) -> bool:
        """It brings parts together unchanged. XLA:TPU writes some gathers as all-reduces of parts that are
        zero elsewhere (seen for groups of all chips of a v5p:4x4x4): they move twice the bytes of an
        all-gather, and are counted as what they are."""
        return (
            self.kind == "all-gather" or self.kind == "all-reduce" and "dynamic-update-slice" in self.source
        )


@dataclasses.dataclass(frozen=True)
class RowAccess:
    """One `gather` or `scatter`: `rows` slices of `width` elements of `dtype` by one execution, `times`
    executions in one of the program; table: the type of what is looked up or updated, one chip's part."""

    kind: str
    rows: int
    width: int
    dtype: str
    times: int
    table: hlo.Shape
    op_name: str
    computation: str
    name: str

    @property
    def total_rows(self) -> int:
        """Per chip and execution of the program."""
        return self.rows * self.times


def collectives(hlo_text: str, slice_devices: int = 0, unknown: float = math.nan) -> list[Collective]:
    """All collectives of a program, in the order of its text. Asynchronous pairs count once, at their start,
    also where XLA:TPU spreads one over several fusions; an all-reduce that XLA:TPU fused with the slice that
    follows is a reduce-scatter; what XLA:TPU hands to the host for other slices (megascale `send`) is on
    "dcn".

    slice_devices: devices in a slice, or in a host of GPUs: groups that reach over several are on "dcn" (0:
    all is one slice). unknown: how often a loop runs whose trip count depends on data; NaN: ValueError if it
    holds a collective."""
    program = hlo.parse(hlo_text)
    times, callers, again = hlo.executions(program, unknown), _caller_names(program), _later_steps(program)
    found = []
    for computation, instructions in program.computations.items():
        for one in instructions.values():
            kind = one.op.removesuffix("-start")
            megascale = one.op == "send" and "megascale" in one.attributes
            if (
                times[computation] == 0
                or not megascale
                and kind not in KINDS
                or (computation, one.name) in again
            ):
                continue
            fused = computation.startswith("all-reduce-scatter")
            record = (_megascale if megascale else _collective)(
                one,
                "reduce-scatter" if fused and kind == "all-reduce" else kind,
                instructions,
                program.devices,
                slice_devices,
            )
            if fused:
                record["results"] = instructions[program.roots[computation]].shapes
            found.append(
                Collective(
                    **record,
                    times=hlo.known(times[computation], computation, "collectives"),
                    op_name=one.op_name or callers.get(computation, ""),
                    computation=computation,
                    name=one.name,
                    source=_source(one, computation, program),
                )
            )
    return found


def by_kind(records: list[Collective], network: str = "") -> dict[str, float]:
    """{kind: bytes per chip and execution of the program}. network: only of "ici" or "dcn"."""
    totals = {}
    for record in records:
        if not network or record.network == network:
            totals[record.kind] = totals.get(record.kind, 0.0) + record.total_bytes
    return totals


def row_gathers(hlo_text: str, unknown: float = math.nan) -> list[RowAccess]:
    """The `gather` and `scatter` operations of a program; unknown: as above.

    Look-ups that XLA turned into slices, loops or products are not among them."""
    program = hlo.parse(hlo_text)
    times, callers = hlo.executions(program, unknown), _caller_names(program)
    found = []
    for computation, instructions in program.computations.items():
        for one in instructions.values():
            if one.op not in ("gather", "scatter") or not times[computation]:
                continue
            shapes = hlo.operand_shapes(one, instructions)
            if one.op == "gather":
                width = math.prod(_attribute(one, "slice_sizes"))
                rows = math.prod(one.shapes[0].dims) // max(width, 1)
            else:
                updates, window = shapes[-1].dims, _attribute(one, "update_window_dims")
                width = math.prod(updates[i] for i in window)
                rows = math.prod(updates) // max(width, 1)
            found.append(
                RowAccess(
                    one.op,
                    rows,
                    width,
                    shapes[0].dtype,
                    hlo.known(times[computation], computation, "look-ups"),
                    shapes[0],
                    one.op_name or callers.get(computation, ""),
                    computation,
                    one.name,
                )
            )
    return found


def ring_bytes(kind: str, size: float, group: int) -> float:
    """Bytes that a chip sends in a ring of `group` chips. size: bytes of its operands."""
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    return size * {"all-gather": group - 1, "all-reduce": 2 * (group - 1) / group}.get(
        kind, (group - 1) / group
    )


def replica_groups(text: str, devices: int) -> tuple[tuple[int, ...], ...]:
    """The groups of device ids in an operation's attributes, in any of XLA's three forms:

    {{0,1},{2,3}}              lists; {}: all devices are one group
    [2,4]<=[4,2]T(1,0)         2 groups of 4: iota over 4 x 2, transposed
    mesh['a'=4,'b'=2] {'b'}    a group for every place on the other axes; 'a':(1)2 is a part of an axis
    """
    lists = re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", text)
    if lists:
        groups = tuple(hlo.sizes(group) for group in re.findall(r"\{([\d,]*)\}", lists[1]))
        return groups or (tuple(range(devices)),)
    iota = re.search(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)", text)
    if iota:
        return _rows(_iota(iota[1]))
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))?\s*\{([^}]*)\}", text)
    return _mesh_groups(*mesh.groups()) if mesh else (tuple(range(devices)),)


def _collective(
    one: hlo.Instruction, kind: str, instructions: dict, devices: int, slice_devices: int
) -> dict:
    operands = hlo.operand_shapes(one, instructions)
    pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", one.attributes)
    if pairs:
        groups = tuple(hlo.sizes(pair) for pair in re.findall(r"\{([\d,]*)\}", pairs[1]))
        size = 2 if any(source != target for source, target in groups) else 1
    else:
        groups = replica_groups(one.attributes, devices)
        size = max(map(len, groups))
    held = sum(shape.bytes for shape in operands)
    if one.op == "all-reduce":  # XLA:TPU folds a conversion into it: float32 in, bfloat16 out
        held = min(held, sum(shape.bytes for shape in one.shapes))
    moved = 0.0 if size == 1 else ring_bytes(kind, held, size)
    apart = slice_devices and any(len({i // slice_devices for i in group}) > 1 for group in groups)
    return dict(
        kind=kind,
        bytes=moved,
        operands=operands,
        results=one.shapes,
        group_size=size,
        groups=groups,
        network="dcn" if apart else "ici",
    )


def _megascale(one: hlo.Instruction, kind: str, instructions: dict, devices: int, slice_devices: int) -> dict:
    """A `send` to the megascale runtime: the part of a collective that goes between slices, chip by chip of
    the same place."""
    asked = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.attributes)
    kind = asked[1].lower().replace("_", "-") if asked else "send"
    target = re.search(r'_xla_megascale_target="\{([\d,]+)\}', one.attributes)
    slices = len(target[1].split(",")) if target else 2
    operands = hlo.operand_shapes(one, instructions)[:1]
    size = sum(shape.bytes for shape in operands)
    return dict(
        kind=kind,
        bytes=ring_bytes(kind, size, slices) if kind in KINDS else size,
        operands=operands,
        results=operands,
        group_size=slices,
        groups=(),
        network="dcn",
    )


def _later_steps(program: hlo.Program) -> set[tuple[str, str]]:
    """(computation, name) of collectives that only go on with one that was started elsewhere. XLA:TPU's
    asynchronous collective fusions name the same operation in each: where it starts (an operand of
    AsyncCollectiveStart), beside what it overlaps with, and where it ends; `chain_id` says that it is one of
    them."""
    started, steps = set(), {}
    for computation, instructions in program.computations.items():
        for one in instructions.values():
            if 'custom_call_target="AsyncCollectiveStart"' in one.attributes:
                started |= {(computation, name) for name in one.operands}
            chain = re.search(r'chain_id="([^"]*)"', one.attributes)
            if chain and one.op in KINDS:
                steps.setdefault(chain[1], []).append((computation, one.name))
    begins = started | {chain[0] for chain in steps.values() if not started & set(chain)}
    return {step for chain in steps.values() for step in chain} - begins


def _caller_names(program: hlo.Program) -> dict[str, str]:
    """{computation: op_name of the first instruction that calls it}: fused collectives have none of their
    own."""
    names = {}
    for instructions in program.computations.values():
        for one in instructions.values():
            for called in one.called():
                names.setdefault(called, one.op_name)
    return names


def _source(one: hlo.Instruction, computation: str, program: hlo.Program) -> str:
    if not one.operands:
        return ""
    made = program.computations[computation].get(one.operands[0])
    if made is None or not made.called():
        return one.operands[0]
    return (
        f"{one.operands[0]}:"
        f" {' '.join(inner.op for inner in program.computations.get(made.called()[0], {}).values())}"
    )


def _attribute(one: hlo.Instruction, name: str) -> tuple[int, ...]:
    found = re.search(rf"{name}=\{{([\d,]*)\}}", one.attributes)
    return hlo.sizes(found[1]) if found else ()


def _rows(ids) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(i) for i in row) for row in ids)


def _iota(text: str):
    """The array of [2,4]<=[4,2]T(1,0)."""
    shape, dims, order = re.fullmatch(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    ids = np.arange(math.prod(hlo.sizes(dims))).reshape(hlo.sizes(dims))
    return (ids.transpose(hlo.sizes(order)) if order else ids).reshape(hlo.sizes(shape))


def _mesh_groups(axes: str, device_ids: str | None, grouped: str) -> tuple[tuple[int, ...], ...]:
    full = {name: int(size) for name, size in re.findall(r"'?([\w.\-]+)'?=(\d+)", axes)}
    # [2,32]T(1,0): an iota, without its target shape
    transposed = re.fullmatch(r"\[([\d,]+)\]T\(([\d,]+)\)", (device_ids or "").strip())
    if transposed:
        dims = hlo.sizes(transposed[1])
        ids = np.arange(math.prod(dims)).reshape(dims).transpose(hlo.sizes(transposed[2])).reshape(-1)
    elif device_ids and "<=" in device_ids:
        ids = _iota(device_ids).reshape(-1)
    else:
        ids = (
            np.array(hlo.sizes(device_ids.strip("[] ")))
            if device_ids
            else np.arange(math.prod(full.values()))
        )
    wanted = [
        (name, int(before or 1), int(size or full[name]))
        for name, before, size in re.findall(r"'?([\w.\-]+)'?(?::\((\d+)\)(\d+))?(?:,|$)", grouped)
    ]
    # every axis is split into what comes before, in and behind the part that a group spans
    dims, last = [], []
    for name, size in full.items():
        parts, done = [], 1
        for place, (_, before, part) in sorted(
            ((i, w) for i, w in enumerate(wanted) if w[0] == name), key=lambda w: w[1][1]
        ):
            parts.append((before // done, None))
            parts.append((part, place))
            done = before * part
        parts.append((size // done, None))
        for part, place in parts:
            if place is not None:
                last.append((place, len(dims)))
            dims.append(part)
    behind = [axis for _, axis in sorted(last)]
    group = math.prod(dims[axis] for axis in behind)
    front = [axis for axis in range(len(dims)) if axis not in behind]
    return _rows(ids.reshape(dims).transpose(front + behind).reshape(-1, group))
