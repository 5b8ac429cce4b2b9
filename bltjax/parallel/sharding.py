"""Where every array lives on a mesh of devices: three axes, and one table from parameter path to the axes its
dimensions are cut over.

    replica   copies of the weights, at least one a slice (DCN between slices); gradients are summed over them
    data      rows of a batch; parameters and optimizer state are cut over it too and gathered where they are
              used (FSDP)
    model     heads, feed-forward columns and vocabulary (tensor parallel)

Always all three; size 1 is allowed. `active(mesh)` is entered inside the function that is traced: the models
ask this file for layouts and say nothing of devices themselves, so that without a mesh the same code is the
unsharded program."""

import contextlib
import contextvars
import math
import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bltjax.counts import counted
from bltjax.errors import UserError

AXES = ("replica", "data", "model")
BATCH = ("replica", "data")  # rows of a batch are cut over both

_active: contextvars.ContextVar = contextvars.ContextVar("mesh", default=None)
_platform: contextvars.ContextVar = contextvars.ContextVar("platform", default=None)


def parse_mesh(text: str) -> tuple[int, int, int]:
    """(replica, data, model) of "8", "4x2" (data x model) or "2x2x2" (replica x data x model). Other text:
    UserError."""
    sizes = text.lower().split("x")
    if not 1 <= len(sizes) <= 3 or not all(size.isdecimal() and int(size) >= 1 for size in sizes):
        raise UserError(
            "a mesh is DATA, DATAxMODEL or REPLICAxDATAxMODEL in whole numbers, such as 8, 4x2 or 2x2x2, not"
            f" {text!r}"
        )
    sizes = [int(size) for size in sizes]
    return tuple({1: [1, *sizes, 1], 2: [1, *sizes], 3: sizes}[len(sizes)])


SMALL_SLICE = 8  # devices


def usual_shape(platform: str, devices: int, slices: int = 1) -> tuple[int, int, int]:
    """(replica, data, model) where nobody says otherwise: FSDP over each slice; on TPU slices of more than a
    host or two, over its halves.

    Along an axis that is a whole slice of 16 chips or more, XLA:TPU writes a reduce-scatter as an all-reduce
    of the whole gradient, and on a 3D torus of 64 an all-gather too (libtpu 0.0.42; flags that cure it are
    not supported on every chip and warn of wrong results). Over half a slice it gathers and scatters. Two
    copies move no more: what the halves then sum is a shard. docs/results/compile has the numbers."""
    each = devices // slices
    halves = 2 if platform == "tpu" and each > SMALL_SLICE and each % 2 == 0 else 1
    return slices * halves, each // halves, 1


def make_mesh(shape: tuple[int, int, int], devices=None) -> Mesh:
    """A mesh of (replica, data, model) devices, neighbours on the innermost axis. devices: default all. Not
    that many: UserError."""
    devices = list(jax.devices() if devices is None else devices)
    if math.prod(shape) != len(devices):
        raise UserError(
            f"a mesh of {'x'.join(map(str, shape))} needs {counted(math.prod(shape), 'device')}; there are"
            f" {len(devices)}"
        )
    if devices[0].platform == "tpu":
        from jax.experimental import mesh_utils

        slices = len({getattr(device, "slice_index", 0) for device in devices})
        if shape[0] % slices:
            raise UserError(
                f"a mesh of {'x'.join(map(str, shape))} over {slices} slices: replica must be a multiple of"
                f" {slices}"
            )
        inside = (shape[0] // slices, *shape[1:])
        try:  # neighbours on the torus; slices apart on `replica`
            if slices > 1:
                return Mesh(
                    mesh_utils.create_hybrid_device_mesh(
                        inside, (slices, 1, 1), devices, allow_split_physical_axes=True
                    ),
                    AXES,
                )
            return Mesh(mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True), AXES)
        except (NotImplementedError, ValueError, AssertionError):  # a torus that the helper does not know
            pass
    return Mesh(np.array(devices).reshape(shape), AXES)


@contextlib.contextmanager
def active(mesh: Mesh | None):
    """Layouts inside refer to this mesh (None: to no mesh at all)."""
    tokens = _active.set(mesh), _platform.set(mesh.devices.flat[0].platform if mesh else _platform.get())
    try:
        yield
    finally:
        _active.reset(tokens[0])
        _platform.reset(tokens[1])


def current() -> Mesh | None:
    return _active.get()


def platform() -> str:
    """cpu, gpu or tpu: what the function that is being traced will run on."""
    return _platform.get() or jax.default_backend()


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of every array of a batch: rows over replica and data, positions whole."""
    return NamedSharding(mesh, P(BATCH))


# Path of a parameter (its end) -> the mesh axis that each dimension is cut over. The first line that matches
# counts; a path that none matches is an error, and so is an axis that does not divide its dimension, unless
# it is marked "?": then the dimension stays whole. A stack's parameters have a leading axis of layers, which
# is never cut; kernels of several maps are listed with their middle axis. What is cut over "data" is gathered
# where it is used, but for look-up tables: those stay where they are and the ids travel
# (kernels/hash_lookup.py).
TABLE = (
    (r"ngrams", (None, "data", ("replica", "model"))),  # tables, rows, features
    (r"embed/bytes", (None, "data")),  # 260 rows: gathered like any weight
    (r"embed", ("data?", ("replica?", "model?"))),  # of tokens: looked up like n-grams
    (r"(norm|norm_q|norm_kv|attention_norm|ffn_norm)/scale", (None,)),
    # columns: heads, or feed-forward features
    (r"(attention/qkv|ffn/gate_up|kv)/kernel", ("data", None, "model")),
    (r"(attention|cross)/q/kernel", ("data", "model")),
    # Rows: sums over "model" follow. A large one is cut over data along its rows too: XLA:TPU scatters no
    # gradient along its last axis.
    (r"ffn/down/kernel", (("model", "data"), None)),
    (r"(attention|cross)/out/kernel", ("model", "data")),
    (r"head/kernel", ("data", "model?")),
    (r"(pool|project|latents)/kernel", ("data", ...)),  # whatever follows stays whole
    (r"encoder/queries", (None, None)),  # a few vectors
)


def spec(path: str, shape: tuple[int, ...], sizes) -> P:
    """The table's answer for one parameter: path such as "latent/blocks/ffn/down/kernel", sizes {axis:
    devices}.

    Raises UserError for a path that the table does not know, an axis named twice, and a dimension that its
    axis does not divide."""
    for pattern, axes in TABLE:
        if re.search(rf"(^|/)({pattern})$", path):
            break
    else:
        raise UserError(f"no layout is known for the parameter {path}")
    if axes[-1] is ...:
        axes = axes[:-1] + (None,) * (len(shape) - len(axes) + 1)
    if not len(axes) <= len(shape) <= len(axes) + 1:
        raise UserError(f"the parameter {path} has {len(shape)} dimensions, its layout {len(axes)}")
    axes = (None,) * (len(shape) - len(axes)) + axes
    cuts, used = [], []
    for dim, entry in zip(shape, axes):
        kept = []
        for axis in (entry,) if isinstance(entry, str) else entry or ():
            optional, axis = axis.endswith("?"), axis.rstrip("?")
            parts = math.prod(sizes[a] for a in kept) * sizes[axis]
            if dim % parts:
                if optional:
                    continue
                raise UserError(
                    f"a mesh with {axis}={sizes[axis]} cannot cut the parameter {path}: {dim} is no multiple"
                    f" of {parts}"
                )
            kept.append(axis)
        used += kept
        cuts.append(tuple(kept) if len(kept) > 1 else kept[0] if kept else None)
    if len(set(used)) != len(used):
        raise UserError(f"the layout of the parameter {path} names an axis twice: {cuts}")
    return P(*cuts)


def parameter_path(path) -> str:
    """Of a leaf of parameters or of optimizer state (whose moments are trees like the parameters): the names,
    joined by "/"."""
    return "/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def state_shardings(mesh: Mesh, like):
    """A tree of NamedSharding for a tree of parameters or a whole TrainState (arrays or shapes). Scalars,
    and what belongs to no parameter (training/outliers.py), are on every device."""

    def one(path, leaf):
        name = parameter_path(path)
        return NamedSharding(mesh, spec(name, leaf.shape, mesh.shape) if name and leaf.ndim else P())

    return jax.tree_util.tree_map_with_path(one, like)


# What the models ask while they are traced. Without a mesh all of it does nothing.


def rows(x):
    """x with its first axis, rows of a batch, cut over replica and data, and everything else whole."""
    return x if current() is None else jax.lax.with_sharding_constraint(x, batch_sharding(current()))


def layout(path: tuple[str, ...], shape: tuple[int, ...]):
    """(cut, whole): NamedSharding of a parameter as it is kept, and gathered over `data` as it is used. None
    without a mesh."""
    mesh = current()
    if mesh is None:
        return None
    cut = spec("/".join(path), shape, mesh.shape)
    return NamedSharding(mesh, cut), NamedSharding(mesh, P(*(_without_data(axis) for axis in cut)))


def _without_data(axis):
    return (
        None if axis == "data" else tuple(a for a in axis if a != "data") if isinstance(axis, tuple) else axis
    )


def gathered(x, path: tuple[str, ...]):
    """A small parameter, whole on every device of its data axis."""
    where = layout(path, x.shape)
    return x if where is None else jax.lax.with_sharding_constraint(x, where[1])


def local(function, in_specs, out_specs):
    """The function as each device runs it on its own part of the arrays. Entries of the specs are axes, or
    BATCH."""
    mesh = current()
    if mesh is None:
        return function

    def own(*arrays):
        with active(None):
            return function(*arrays)

    return jax.shard_map(own, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def by_rows(function):
    """`local`, of a function whose arrays, in and out, are cut by rows of the batch and by nothing else."""
    return local(function, P(BATCH), P(BATCH))


def parts(axis: str) -> int:
    """Devices along an axis: 1 without a mesh."""
    return 1 if current() is None else current().shape[axis]


def check(name: str, shape: tuple[int, int, int], *, heads: dict, rows: int, accumulate: int, parameters):
    """UserError, in one line, if a run cannot be cut over a mesh of this shape. Nothing is computed.

    name: of the run. heads: {config key: attention heads}. rows: of a batch, in `accumulate` microbatches.
    parameters: a tree of arrays or shapes."""
    sizes, where = dict(zip(AXES, shape)), "x".join(map(str, shape))
    for key, count in heads.items():
        if count % sizes["model"]:
            raise UserError(
                f"run {name}: a mesh of {where} has model={sizes['model']}, which does not divide {key}"
                f" ({count})"
            )
    if rows % (sizes["replica"] * sizes["data"] * accumulate):
        raise UserError(
            f"run {name}: {rows} rows (data.rows) cannot be cut over replica x data = "
            f"{sizes['replica'] * sizes['data']} devices and {accumulate} microbatches"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        try:
            spec(parameter_path(path), leaf.shape, sizes)
        except UserError as error:
            raise UserError(f"run {name}: {error}") from None
