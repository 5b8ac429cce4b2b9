"""How long a training step takes at best, and what memory it needs: a roofline estimate, from a compiled
program's counts or from a config.

`estimate` turns counts into seconds; `predict` makes the counts of a run without compiling it (for `plan
--topology`, and to choose what to compile); `candidates` ranks the ways to lay a run out. All counts are per
device; what a device is, bltjax/compile/chips.py says.

The terms are lower bounds: every unit at its published peak, each byte moved once. No program is as fast.
"""

import math

from bltjax import flops, models
from bltjax.compile.chips import Topology
from bltjax.data import batches
from bltjax.models.kernels import attention

BF16, F32 = 2, 4
STATE = 3 * F32  # AdamW: parameter and two moments
UPDATE = 2 * STATE + F32  # bytes of HBM per parameter and step: the state read and written, the gradient read
MARGIN = 0.9  # of the HBM: a prediction that leaves less than a tenth is not trusted to fit
RESERVED = 0.25 * 2**30  # bytes that XLA:TPU counts as used, whatever the program
LISTED = 0.5  # of the requests, what is sent: bltjax.models.lookup.SHARE
SCATTER = 2  # a row that is added to is read and written
REMAT = ("none", "dots", "full")  # bltjax.models.layers.REMAT, from the most memory to the least


def estimate(
    chip,
    *,
    flops: float,
    hbm_bytes: float,
    ici_bytes: float = 0.0,
    ici_blocking_bytes: float = 0.0,
    dcn_bytes: float = 0.0,
    rows_gathered: float = 0.0,
    rows_scattered: float = 0.0,
    row_bytes: float = 0.0,
    useful_flops: float = 0.0,
    steps: int = 0,
    devices: int = 1,
) -> dict:
    """Seconds of one step, by term, from counts of one device and step (the ICI ones already divided by the
    share of links they can use).

    flops: executed; useful_flops: `exact`, for MFU; ici_blocking_bytes: of collectives on the critical path;
    row_bytes: of a row, padded. Returns {"seconds": {"compute", "hbm", "ici", "dcn", "rows", "ici_blocking"},
    "step_seconds", "bound" (the largest term), "mfu" (useful FLOPs over time times peak), "chip_hours" (of
    `steps` steps on all `devices`)}; of a chip without peaks all None.

    step = max(compute, hbm, ici, dcn) + rows + ici_blocking. What is inside max() runs at the same time:
    matrix units work while HBM is read ahead, weights of the next layer are gathered and gradients of the
    last one scattered (XLA's latency-hiding scheduler). Rows come on top, because look-ups and scatter-adds
    are issued by the same core that would otherwise multiply; so do collectives whose result the very next
    operation waits for: tensor-parallel all-reduces, and the all-to-all that brings looked-up rows home."""
    if not chip.flops_per_second:
        terms = ("compute", "hbm", "ici", "dcn", "rows", "ici_blocking")
        return dict(seconds=dict.fromkeys(terms), step_seconds=None, bound=None, mfu=None, chip_hours=None)
    touched = rows_gathered + SCATTER * rows_scattered
    seconds = dict(
        compute=flops / chip.flops_per_second,
        hbm=hbm_bytes / chip.hbm_bytes_per_second,
        ici=ici_bytes / chip.ici_bytes_per_second,
        dcn=dcn_bytes / chip.dcn_bytes_per_second,
        rows=touched * (chip.row_seconds + row_bytes / chip.hbm_bytes_per_second),
        ici_blocking=ici_blocking_bytes / chip.ici_bytes_per_second,
    )
    step = (
        max(seconds[term] for term in ("compute", "hbm", "ici", "dcn"))
        + seconds["rows"]
        + seconds["ici_blocking"]
    )
    return dict(
        seconds=seconds,
        step_seconds=step,
        bound=max(seconds, key=seconds.get),
        mfu=useful_flops / (step * chip.flops_per_second),
        chip_hours=steps * step * devices / chip.devices / 3600,
    )


def predict(
    run,
    topology: Topology,
    mesh: tuple[int, int, int] | None = None,
    accumulate: int | None = None,
    remat: str | None = None,
    steps: int = 0,
) -> dict:
    """`estimate` of a run config on a topology, without compiling. Default: FSDP over each slice, a replica a
    slice, the run's settings.

    mesh: (replica, data, model) devices. Beside the keys of `estimate`: "mesh", "accumulate", "remat",
    "hbm_bytes" (by use; not all of it is there at once), "hbm_peak_bytes", "hbm_chip_bytes", "fits" (None:
    HBM unknown), "counts" (of `estimate`).

    Counted: products as `flops.executed_step` has them, and what `remat` repeats; FSDP's 2 gathers in
    bfloat16 and 1 reduce-scatter in float32 of the weights per microbatch; tensor-parallel all-reduces;
    gradients over replicas, once a step; look-ups; AdamW in float32. Compiled for one v5p chip, 400M BPE: the
    products are those predicted, and peak memory 4% and 6% more (remat full, none)."""
    chip = topology.chip
    mesh = tuple(mesh or (topology.slices, topology.slice_devices, 1))
    accumulate, remat = accumulate or run.train.accumulate, remat or run.model.remat
    counts, memory = _counts(run, topology, mesh, accumulate, remat)
    peak = _peak(memory)
    return dict(
        estimate(chip, **counts, steps=steps, devices=topology.devices),
        mesh=mesh,
        accumulate=accumulate,
        remat=remat,
        hbm_bytes=memory,
        hbm_peak_bytes=peak,
        hbm_chip_bytes=chip.hbm_bytes,
        fits=peak <= MARGIN * chip.hbm_bytes if chip.hbm_bytes else None,
        counts=counts,
    )


def candidates(run, topology: Topology, steps: int = 0, allowed=None, copies: bool = False) -> list[dict]:
    """`predict` of every layout that can be, the fastest that fits first; then those that are predicted not
    to fit, the nearest first.

    Mesh shapes with a replica for each slice; microbatches of whole rows per device; every remat policy.
    allowed: (mesh, accumulate) -> bool, to leave out more than `mistake` does. copies: also several replicas
    in a slice."""
    found = []
    for model in divisors(topology.slice_devices):
        for each in divisors(topology.slice_devices // model) if copies else (1,):
            mesh = (topology.slices * each, topology.slice_devices // model // each, model)
            per_device = run.data.rows // (mesh[0] * mesh[1])
            for accumulate in divisors(max(per_device, 1)):
                if mistake(run, topology, mesh, accumulate) or allowed and not allowed(mesh, accumulate):
                    continue
                found += [predict(run, topology, mesh, accumulate, remat, steps=steps) for remat in REMAT]
    return sorted(
        found,
        key=lambda p: (
            p["fits"] is False,
            p["hbm_peak_bytes"] if p["fits"] is False else p["step_seconds"] or 0.0,
            p["accumulate"],
            p["hbm_peak_bytes"],
        ),
    )


def mistake(run, topology: Topology, mesh: tuple[int, int, int], accumulate: int = 1) -> str:
    """Why a run cannot be laid out so, in one line; "" if it can."""
    replica, data, model = mesh
    if replica * data * model != topology.devices:
        return (
            f"mesh {replica}x{data}x{model} needs {replica * data * model} devices; {topology.name} has"
            f" {topology.devices}"
        )
    if replica % topology.slices:
        return (
            f"mesh {replica}x{data}x{model}: {topology.slices} slices need a multiple of {topology.slices}"
            " replicas"
        )
    if run.data.rows % (replica * data * accumulate):
        return (
            f"data.rows {run.data.rows} cannot be cut into {accumulate} microbatches over {replica * data}"
            f" devices (replica {replica} x data {data})"
        )
    kind = models.kind(run.model)
    for part in (*kind.stacks(run.model), *kind.crosses(run.model)):
        if part.heads % model:
            return f"model axis {model} does not divide {part.key}.heads ({part.heads} heads)"
    for stack in kind.stacks(run.model):
        if stack.width % data or stack.ffn % (data * model):
            return (
                f"data axis {data} does not divide {stack.key}.width ({stack.width}), or data x model"
                f" {data * model} its {stack.ffn} feed-forward columns"
            )
    return ""


def link_share(group: int, topology: Topology) -> float:
    """Share of a chip's links that a collective over `group` neighbours can use: those of the torus axes that
    it spans.

    Wrap-around links are taken to be there, which they are not on every small slice."""
    if group <= 1 or not topology.chip.axes:
        return 1.0
    reached, axes = 1, 0
    for side in reversed([side for side in topology.grid if side > 1] or [1]):
        if reached < group:
            reached, axes = reached * side, axes + 1
    return max(axes, 1) / topology.chip.axes


def lookup(config, mesh: tuple[int, int, int], lanes: int, slots: float) -> dict:
    """One device's share of looking up `slots` bytes (or tokens) per replica and data device, as
    kernels/hash_lookup.py does it: rows of the tables are cut over data, features over replica and model. In
    one round: more are rare, and take few microbatches of few rows.

    {"rows" in each direction: of its own tables for others, and of what comes back for its own bytes;
    "row_bytes" padded, "entries" padded float32 that a device holds, "found_bytes" of looked-up rows at once,
    "home", "replicas", "model": bytes moved over the axes data, replica and model, forward and backward
    together}."""
    replica, data, model = mesh
    count, rows, width = models.kind(config).tables(config)
    if not count:
        return dict(rows=0.0, row_bytes=0.0, entries=0.0, found_bytes=0.0, home=0.0, replicas=0.0, model=0.0)
    own = width / (replica * model)
    row, asked = lanes * math.ceil(own / lanes), count * replica * slots
    sent, activation = (
        min(LISTED * asked, count * rows) if replica * data * model > 1 else 0.0,
        BF16 * slots * width,
    )
    return dict(
        rows=sent + asked,
        row_bytes=row * F32,
        entries=count * math.ceil(rows / data) * row,
        found_bytes=F32 * row * (sent + replica * slots),
        home=(data - 1) / data * sent * (2 * F32 + own * (BF16 + F32)),
        replicas=(replica - 1) * (2 * F32 * count * slots + 2 * activation / replica),
        model=(model - 1) / model * activation,
    )


def divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]


def _counts(run, topology, mesh, accumulate, remat) -> tuple[dict, dict]:
    """(keyword counts of `estimate`, bytes of HBM by use), of one device."""
    replica, data, model_axis = mesh
    config, devices = run.model, topology.devices
    rows = run.data.rows / (replica * data)  # a device's, model axis aside
    micro = rows / accumulate
    slots, patches = batches.row_shape(run)
    counted = flops.params(run)
    weights = (counted["total"] - models.kind(config).tables(config).size) / model_axis
    found = lookup(config, mesh, topology.chip.lanes, micro * slots)
    dense, held = weights / data, weights / data + found["entries"]  # parameters that a device holds

    share, apart = link_share(data, topology), topology.slices > 1
    over_replicas = 2 * (replica - 1) / replica * dense * F32
    blocking = accumulate * (found["home"] / share + found["model"] / link_share(model_axis, topology))
    between = over_replicas + accumulate * found["replicas"]
    if model_axis > 1:
        passes = 3 if remat == "full" else 2
        summed = rows * BF16 * _residual_writes(config, slots, patches)
        blocking += passes * 2 * (model_axis - 1) / model_axis * summed / link_share(model_axis, topology)
    fsdp = accumulate * weights * (data - 1) / data * (2 * BF16 + F32) / share

    executed = flops.executed_step(run, run.data.rows, slots, patches)
    again = run.data.rows * _repeated(config, slots, patches, remat)
    moved = _moved(config, slots, patches)
    vocab = config.vocab * slots * F32 / model_axis
    memory_traffic = (
        UPDATE * held
        + accumulate * (weights * (5 * BF16 + 2 * F32) + (2 * F32 * held if accumulate > 1 else 0.0))
        + rows * (moved * BF16 * 2 * {"none": 3, "dots": 3.5, "full": 4}[remat] / model_axis + 4 * vocab)
    )
    counts = dict(
        flops=(executed + again) / devices,
        useful_flops=flops.TRAIN
        * flops.count(run)["exact"]["total"]
        * run.data.rows
        * run.data.context
        / devices,
        hbm_bytes=memory_traffic,
        ici_bytes=fsdp + (0.0 if apart else between),
        ici_blocking_bytes=blocking,
        dcn_bytes=between if apart else 0.0,
        rows_gathered=accumulate * found["rows"],
        rows_scattered=accumulate * found["rows"],
        row_bytes=found["row_bytes"],
    )
    memory = dict(
        reserved=RESERVED if topology.chip.platform == "tpu" else 0.0,
        state=STATE * held,
        accumulated=F32 * held if accumulate > 1 else 0.0,
        # a layer's, the next one's, and a gradient
        weights=_largest_layer(config) / model_axis * (2 * BF16 + F32) if data > 1 else 0.0,
        activations=micro * _saved(config, slots, patches, remat, model_axis),
        logits=micro * vocab,
        gradients=F32 * held,
        layer=2 * BF16 * micro * _widest(config, slots, patches) / model_axis,
        lookup=2 * found["found_bytes"],
    )
    return counts, memory


def _peak(memory: dict) -> float:
    """The larger of two moments: when the logits are made and everything kept is there, and when the
    look-ups' gradient is, at the end."""
    always = memory["state"] + memory["accumulated"] + memory["weights"] + memory["reserved"]
    return (
        always
        + memory["layer"]
        + max(memory["activations"] + memory["logits"], memory["gradients"] + memory["lookup"])
    )


# What a model's layers move and keep, per row.


def _parts(config, slots, patches):
    """[(layers, positions of a row, width, ffn, keys per query)] of the transformer stacks."""
    positions = {"slots": slots, "patches": patches}
    return [
        (
            s.layers,
            positions[s.over],
            s.width,
            s.ffn,
            attention.executed_pairs(positions[s.over], s.window) / positions[s.over],
        )
        for s in models.kind(config).stacks(config)
    ]


def _cross(config, slots, patches):
    """[(layers, positions of the queries, positions of the keys, width)] of cross-attention."""
    return [
        (c.layers, *((patches * c.k, slots) if c.queries == "patches" else (slots, patches * c.k)), c.width)
        for c in models.kind(config).crosses(config)
    ]


def _moved(config, slots, patches) -> float:
    """Elements that a forward pass writes: two norms, q, k, v, attention's sum, its projection, two
    residuals, 3 feed-forward arrays and their projection; of cross-attention two norms, q, k, v, sum,
    projection and residual."""
    own = sum(
        layers * positions * (10 * width + 3 * ffn)
        for layers, positions, width, ffn, _ in _parts(config, slots, patches)
    )
    return own + sum(
        layers * width * (5 * queries + 3 * keys)
        for layers, queries, keys, width in _cross(config, slots, patches)
    )


def _saved(config, slots, patches, remat: str, model_axis: int) -> float:
    """Bytes that the backward pass finds kept: each layer's input, which every policy keeps; with `dots` also
    what products without batch dimensions made (q, k, v, two projections, gate and up), with `none` all of
    `_moved` too."""
    total = 0.0
    for layers, positions, width, ffn, _ in _parts(config, slots, patches):
        inner = {"full": 0.0, "dots": 5 * width + 2 * ffn, "none": 9 * width + 3 * ffn}[remat]
        total += layers * positions * BF16 * (width + inner / model_axis)
    for layers, queries, keys, width in _cross(config, slots, patches):
        inner = {"full": 0.0, "dots": 2 * queries + 2 * keys, "none": 5 * queries + 3 * keys}[remat]
        total += layers * width * BF16 * (queries + inner / model_axis)
    return total


def _widest(config, slots, patches) -> float:
    """Elements of one layer at work, forward and backward."""
    return max(
        positions * (10 * width + 4 * ffn) for _, positions, width, ffn, _ in _parts(config, slots, patches)
    )


def _residual_writes(config, slots, patches) -> float:
    """Elements that are summed over the model axis in one pass: attention's and feed-forward's output of
    every layer."""
    own = sum(
        2 * layers * positions * width for layers, positions, width, _, _ in _parts(config, slots, patches)
    )
    return own + sum(layers * queries * width for layers, queries, _, width in _cross(config, slots, patches))


def _repeated(config, slots, patches, remat: str) -> float:
    """FLOPs of a row's layers that the backward pass computes again: attention's scores and sums; with `full`
    also the products, but for the last of each layer, whose result no gradient needs."""
    if remat == "none":
        return 0.0
    total = sum(
        4 * layers * positions * width * keys
        for layers, positions, width, _, keys in _parts(config, slots, patches)
    )
    if remat == "full":
        total += sum(
            layers * positions * 2 * (4 * width**2 + 2 * width * ffn)
            for layers, positions, width, ffn, _ in _parts(config, slots, patches)
        )
        total += sum(
            layers * 2 * width**2 * (queries + 2 * keys)
            for layers, queries, keys, width in _cross(config, slots, patches)
        )
    return total


def _largest_layer(config) -> float:
    stacks = models.kind(config).stacks(config)
    head = config.vocab * stacks[0].width
    return max(head, *(4 * s.width**2 + 3 * s.width * s.ffn for s in stacks))
