"""Compiles the training step of a run for devices that are not here, and says what it will need: memory,
traffic, FLOPs, time.

TPU topologies are compiled by libtpu itself (extra `tpu`), which raises the pod's own out-of-memory error;
`cpu:N` for N CPU devices. Nothing is run and no array is made: inputs are shapes with layouts. A program is
known by its lowered text, so that runs which differ only in their numbers (entropy and space patches of one
size, say) are compiled once, and a table that was begun goes on."""

import contextlib
import hashlib
import math
import os
import sys
import time

import jax
import jax.numpy as jnp

from bltjax import config as cfg
from bltjax import flops, models
from bltjax.compile import chips, collectives, hlo, oom, roofline
from bltjax.data import batches
from bltjax.errors import UserError
from bltjax.parallel import sharding
from bltjax.training import step as training_step

LARGEST = 12  # collectives that a record lists
SCHEDULE_STEPS = 10_000  # programs differ in their learning rates' constants otherwise, and in nothing else


def devices(topology: chips.Topology):
    """The devices of a topology, as objects that programs can be compiled for. Call before JAX has started
    its backend for `cpu:N`."""
    # where libtpu is installed, JAX would look for a TPU first, for minutes
    jax.config.update("jax_platforms", "cpu")
    if topology.chip.platform == "cpu":
        try:
            jax.config.update("jax_num_cpu_devices", topology.devices)
        except RuntimeError:  # the backend runs already
            pass
        here = jax.devices("cpu")
        if len(here) < topology.devices:
            raise UserError(
                f"topology {topology.name}: JAX has started with {len(here)} CPU devices in this process"
            )
        return here[: topology.devices]
    if topology.chip.platform != "tpu":
        raise UserError(
            f"programs for {topology.chip.name} can only be compiled where one is; `bltjax plan --topology"
            f" {topology.name}` estimates"
        )
    # a second process with libtpu dies on a lock file; topologies hold no chip
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # no metadata server to ask about a machine that is no TPU
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    name, options = topology.libtpu()
    try:
        with _silence():
            return topologies.get_topology_desc(name, "tpu", **options).devices
    except Exception as error:
        line = " ".join(str(error).split())
        missing = "libtpu" in line and (
            "not found" in line or "No module" in line or "Failed to open" in line
        )
        raise UserError(
            f"topology {topology.name}: "
            + (
                "libtpu is not installed; make setup EXTRAS=tpu"
                if missing
                else f"libtpu refuses it: {line[:200]}"
            )
        ) from None


@contextlib.contextmanager
def _silence():
    """libtpu writes to standard error that this machine is no TPU. What is wrong with a topology it
    raises."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_size(topology: chips.Topology, shape: tuple[int, int, int]) -> None:
    """UserError for a mesh that does not use the topology's devices exactly."""
    if math.prod(shape) != topology.devices:
        raise UserError(
            f"a mesh of {_times(shape)} has {math.prod(shape)} devices; {topology.name} has"
            f" {topology.devices}"
        )


def mesh_of(topology: chips.Topology, shape: tuple[int, int, int], found=None) -> jax.sharding.Mesh:
    """UserError as `check_size` has it."""
    check_size(topology, shape)
    return sharding.make_mesh(shape, devices(topology) if found is None else found)


def batch_like(run, mesh) -> dict:
    """Shapes and layouts of a batch of a run (docs/contracts.md), int32."""
    slots, patches = batches.row_shape(run)
    like = lambda width: jax.ShapeDtypeStruct(
        (run.data.rows, width), jnp.int32, sharding=sharding.batch_sharding(mesh)
    )
    kind = models.kind(run.model)
    return {name: like(slots) for name in kind.SLOTS} | {name: like(patches) for name in kind.PATCHES}


def traced(run, mesh):
    """The training step of a run on a mesh, traced: `.lower().compile()` compiles it."""
    train = cfg.replace(run.train, steps=SCHEDULE_STEPS)
    fresh = lambda params: training_step.init_state(train, SCHEDULE_STEPS, params)
    like = jax.eval_shape(fresh, models.shapes_of(run.model))  # which a check has traced, and keeps
    return training_step.make_step(run.model, train, SCHEDULE_STEPS, mesh=mesh).trace(
        like, batch_like(run, mesh)
    )


def lower(run, mesh):
    """The same, lowered: `.compile()` compiles it."""
    return traced(run, mesh).lower()


def program_key(lowered, topology: chips.Topology) -> str:
    """16 hex digits: the traced program, what it is compiled for and by."""
    from importlib import metadata

    compiler = metadata.version("libtpu") if topology.chip.platform == "tpu" else ""
    parts = [lowered.as_text(), topology.name, jax.__version__, compiler]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def compile_run(run, topology: chips.Topology, shape: tuple[int, int, int], found=None, known=None) -> dict:
    """Everything that the table says of a run on a topology, ready for JSON.

    known: {program key: record} of programs compiled before. Keys of the record: see docs/compile.md. Raises
    UserError for a mesh that cannot be; a program that does not fit is a record with fits False and `error`,
    one line."""
    mesh = mesh_of(topology, shape, found)
    models.check_mesh(run, shape)
    start = time.perf_counter()
    lowered = lower(run, mesh)
    lower_s, key = time.perf_counter() - start, program_key(lowered, topology)
    layout = dict(
        topology=topology.name,
        mesh=list(shape),
        accumulate=run.train.accumulate,
        remat=run.model.remat,
        rows=run.data.rows,
    )
    if known and key in known:
        measured = {**known[key], "lower_s": lower_s}
    else:
        measured = {"program": key, "lower_s": lower_s, **measure(run, lowered, topology, shape)}
    return {
        **described(run),
        **layout,
        **measured,
        **timed(run, topology, shape, measured),
        "measured": sorted(measured),
    }


def described(run) -> dict:
    slots, patches = batches.row_shape(run)
    return dict(
        name=run.name,
        family=run.family,
        size=run.size,
        patch_size=flops.count(run)["patch_size"],
        slots=slots,
        patches=patches,
        params_total=flops.params(run)["total"],
    )


def measure(run, lowered, topology: chips.Topology, shape) -> dict:
    """Compiles; what the compiled program says of itself."""
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except Exception as error:
        if not oom.is_out_of_memory(error):
            raise
        return dict(
            compile_s=time.perf_counter() - start,
            fits=False,
            hbm_peak_bytes=None,
            hbm_chip_bytes=topology.chip.hbm_bytes or None,
            error=f"{oom.out_of_memory(error)}; {advice(run, topology, shape)}",
        )
    seconds, text = time.perf_counter() - start, compiled.as_text()
    memory = memory_of(compiled)
    capacity = topology.chip.hbm_bytes or None
    return dict(
        compile_s=seconds,
        error=None,
        hbm=memory,
        hbm_peak_bytes=memory["peak"],
        hbm_chip_bytes=capacity,
        fits=memory["peak"] <= capacity if capacity else True,
        **traffic(run, text, topology, shape),
        **products(run, text, topology),
    )


def memory_of(compiled) -> dict:
    """Bytes per device: state and batch that go in, what the program needs beside, code, and the sum of
    all."""
    m = compiled.memory_analysis()
    parts = dict(
        arguments=m.argument_size_in_bytes,
        outputs=m.output_size_in_bytes - m.alias_size_in_bytes,
        temporaries=m.temp_size_in_bytes,
        code=m.generated_code_size_in_bytes,
    )
    return {**parts, "peak": sum(parts.values())}


def traffic(run, text: str, topology: chips.Topology, shape) -> dict:
    """Collectives by kind in bytes per chip and step, and which of them look up, carry tables, or gather
    weights."""
    # Only look-ups loop as long as data wants: one round, unless hashes crowd (kernels/hash_lookup.py).
    records = collectives.collectives(text, topology.slice_devices if topology.slices > 1 else 0, unknown=1)
    tables = table_rows(run.model)
    rows = [access for access in collectives.row_gathers(text, unknown=1) if set(access.table.dims) & tables]
    total = lambda chosen: sum(record.total_bytes for record in chosen)
    looks_up = [r for r in records if _of_lookups(r) and not carries(r, tables)]
    weights = [r for r in records if r not in looks_up and not carries(r, tables) and _of_weights(r, shape)]
    return dict(
        collective_bytes=collectives.by_kind(records),
        dcn_bytes=total(r for r in records if r.network == "dcn"),
        hash_table_collective_bytes=total(r for r in records if carries(r, tables)),
        lookup_collective_bytes=total(looks_up),
        weight_collective_bytes=total(weights),
        weight_minimum_bytes=weight_minimum(run, shape),
        largest_collectives=[
            _described(record) for record in sorted(records, key=lambda r: -r.total_bytes)[:LARGEST]
        ],
        rows_gathered=sum(a.total_rows for a in rows if a.kind == "gather"),
        rows_scattered=sum(a.total_rows for a in rows if a.kind == "scatter"),
        row_width=max((a.width for a in rows), default=0),
    )


def _described(record) -> dict:
    arrays = [f"{array.dtype}[{','.join(map(str, array.dims))}]" for array in record.results]
    return dict(
        kind=record.kind,
        bytes=record.total_bytes,
        times=record.times,
        chips=record.group_size,
        results=arrays,
        where=record.op_name,
    )


def weight_minimum(run, shape) -> float:
    """Bytes per chip and step that FSDP cannot do without: of everything cut over data but tables, each
    microbatch, two gathers in the compute dtype and one reduce-scatter in float32 (in which gradients are
    summed)."""
    sizes = dict(zip(sharding.AXES, shape))
    params = models.shapes_of(run.model)
    once = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = sharding.parameter_path(path)
        axes = jax.tree.leaves(tuple(sharding.spec(name, leaf.shape, sizes)))
        if "data" in axes and not name.endswith(("ngrams", "embed")):
            once += leaf.size / (sizes["model"] if "model" in axes else 1)
    each = 2 * jnp.dtype(run.model.dtype).itemsize + 4
    return run.train.accumulate * once * each * (sizes["data"] - 1) / sizes["data"]


def table_rows(model) -> set[int]:
    """Sizes that only an axis of table rows has: of one table or of all in line, whole or one device's
    part."""
    count, rows, _ = models.kind(model).tables(model)
    return {
        part
        for n in (rows, count * rows)
        for part in (n // 2**i for i in range(11) if n % 2**i == 0)
        if part >= 1000
    }


def carries(record, tables: set[int]) -> bool:
    """Whether a collective moves (a part of) a look-up table or its gradient. A table's last axis is its
    features: an output head, whose last axis is the vocabulary, is a matrix like any other."""
    arrays = (*record.operands, *record.results)
    return "/head/" not in record.op_name and any(set(array.dims[:-1]) & tables for array in arrays)


def _of_lookups(record) -> bool:
    """What kernels/hash_lookup.py moves. XLA drops the name of some: but only look-ups send all to all, or
    gather integers."""
    integers = all(array.dtype in ("s32", "u32", "s16", "u16") for array in record.operands)
    return (
        "/embed/" in record.op_name or record.kind == "all-to-all" or record.kind == "all-gather" and integers
    )


def _of_weights(record, shape) -> bool:
    """Gathers and sums of floats, but for those of activations: all-reduces over the model axis alone."""
    of_activations = record.kind == "all-reduce" and shape[2] > 1 and record.group_size == shape[2]
    floats = any(array.dtype in ("f32", "bf16") for array in (*record.operands, *record.results))
    return record.kind in ("all-gather", "reduce-scatter", "all-reduce") and floats and not of_activations


def products(run, text: str, topology: chips.Topology) -> dict:
    """FLOPs per chip and step: of the compiled program's matrix products, and as `flops` counts them. Kernels
    are not in the first."""
    slots, patches = batches.row_shape(run)
    useful = flops.train_flops(run, flops.full_rows(run, run.data.rows, slots, patches))
    return dict(
        compiled_dot_flops=float(hlo.dot_flops(text)),
        exact_flops=useful / topology.devices,
        executed_flops=flops.executed_step(run, run.data.rows, slots, patches) / topology.devices,
    )


def timed(run, topology: chips.Topology, shape, measured: dict) -> dict:
    """The roofline estimate, with the compiled program's own traffic and products, and with the predicted
    bytes of HBM (a compiler's figure counts every operand of every fusion). Of programs that do not compile,
    and of chips without peaks, None."""
    if measured["error"] or not topology.chip.flops_per_second:
        return dict(step_seconds=None, mfu=None, chip_hours=None, bound=None, seconds=None)
    predicted = roofline.predict(run, topology, tuple(shape))["counts"]
    # as `plan` counts them: rows are not full
    steps = run.train.steps or round(run.budget_flops / (predicted["useful_flops"] * topology.devices))
    share = roofline.link_share(shape[1], topology)
    moved = sum(measured["collective_bytes"].values()) - measured["dcn_bytes"]
    counts = dict(
        predicted,
        flops=max(predicted["flops"], measured["compiled_dot_flops"]),
        ici_bytes=max(0.0, moved - measured["lookup_collective_bytes"]) / share,
        dcn_bytes=measured["dcn_bytes"],
        ici_blocking_bytes=measured["lookup_collective_bytes"] / share,
    )
    # XLA:TPU writes scatters as loops of its own; what was looked up is what is added to
    if measured["rows_gathered"]:
        counts.update(
            rows_gathered=measured["rows_gathered"],
            rows_scattered=measured["rows_scattered"] or measured["rows_gathered"],
        )
    estimate = roofline.estimate(topology.chip, **counts, steps=steps, devices=topology.devices)
    return {key: estimate[key] for key in ("step_seconds", "mfu", "chip_hours", "bound", "seconds")}


def advice(run, topology: chips.Topology, shape) -> str:
    """What to change where a program does not fit."""
    rows = run.data.rows // (shape[0] * shape[1] * run.train.accumulate)
    # of all arrays of a batch, which microbatches do not cut
    batch = 8 * 4 * run.data.rows // (shape[0] * shape[1]) * run.data.context
    if rows > 1 and topology.chip.hbm_bytes and batch > topology.chip.hbm_bytes // 4:
        return (
            f"fewer rows (data.rows={run.data.rows}: a device's share of the batch alone is"
            f" {batch / 2**30:.0f} GiB)"
        )
    if rows > 1:
        return (
            f"more microbatches (train.accumulate={2 * run.train.accumulate}; now {rows} rows a device and"
            " microbatch)"
        )
    if run.model.remat != "full":
        return f"model.remat=full (now {run.model.remat})"
    return f"more chips, or a larger model axis (the mesh is {_times(shape)})"


def _times(shape) -> str:
    return "x".join(map(str, shape))
