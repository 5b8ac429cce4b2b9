"""Look-up tables: hash n-grams and token embeddings. Most of a model's parameters, and none of its FLOPs.

On a mesh a table is never gathered, nor is its gradient summed over devices: every device owns some rows (cut
over `data`) and some features of them (cut over `replica` and `model`). In short:

    forward     every device lists the rows that its positions name, each once, by owner (Requests)
                all-to-all of the lists; owners gather the rows; all-to-all of the rows back
                every position gathers its rows from what came back, and they are summed over the tables
    backward    gradients are summed by row here (scatter-add into the lists), sent to the owners by the same
                all-to-all, and added to the rows there

So a device looks up about as many rows as its own bytes name, whatever the number of devices, and what moves
is a few activations each way, whatever the size of the tables.

Lists have a fixed length, SHARE of the longest that evenly distributed hashes could need. If some owner is
asked for more, there is another round, and another: what is computed never depends on the length, only the
time does."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from bltjax.parallel import sharding

# Requests that an owner's list holds, of those that would be its share if no row were named twice. Of 262,144
# bytes of English text some 40% of the n-grams of 3 to 8 bytes are different ones, so that one round is
# enough; a few rows of text take two.
SHARE = 0.5


def lookup(tables_SxRxD, ids_BxSxT, dtype: str, path: tuple[str, ...]):
    """Sum over the tables S of the rows that the ids name: `dtype` [B,T,D]. An id below 0 names no row and
    adds 0.

    tables float32, ids int32 below R. path: the parameter's, by which its layout is found.
    """
    where = sharding.layout(path, tables_SxRxD.shape)
    if where is None or where[0].mesh.size == 1:
        return reference(tables_SxRxD, ids_BxSxT).astype(dtype)
    mesh, (_, rows, features) = where[0].mesh, where[0].spec
    if rows != "data":  # a table of so few rows that they cannot be cut: like any weight
        whole = jax.lax.with_sharding_constraint(tables_SxRxD, jax.sharding.NamedSharding(mesh, P()))
        return sharding.rows(reference(whole, ids_BxSxT).astype(dtype))
    features = (features,) if isinstance(features, str) else features or ()
    return _sharded(tables_SxRxD, ids_BxSxT, dtype, Layout(mesh, features))


@jax.custom_vjp
def reference(tables_SxRxD, ids_BxSxT):
    """What the sharded path must equal: float32 [B,T,D]. A sum table by table: one look-up of all would write
    [B,S,T,D] first."""
    return functools.reduce(
        jnp.add,
        (
            _found(jnp.asarray(tables_SxRxD)[s], ids_BxSxT[:, s]).astype(jnp.float32)
            for s in range(tables_SxRxD.shape[0])
        ),
    )


def _reference_forward(tables, ids):
    return reference(tables, ids), (tables, ids)


def _reference_backward(kept, g_BxTxD):
    """Added up in the place of all tables: JAX's own gradient adds up each table apart, and then writes all
    of them again, padded to the whole."""
    tables, ids_BxSxT = kept
    S, R, D = tables.shape
    g, total = g_BxTxD.reshape(-1, D).astype(tables.dtype), jnp.zeros((S * R, D), tables.dtype)
    for s in range(S):
        ids = ids_BxSxT[:, s].reshape(-1)
        total = _added(total, jnp.where((ids >= 0) & (ids < R), ids + s * R, -1), g)
    return total.reshape(S, R, D), None


reference.defvjp(_reference_forward, _reference_backward)


def _found(table_RxD, ids):
    """Rows by id; 0 for an id that is no row here."""
    here = (ids >= 0) & (ids < table_RxD.shape[0])
    return jnp.where(here[..., None], table_RxD.at[jnp.where(here, ids, 0)].get(mode="promise_in_bounds"), 0)


class Layout(NamedTuple):
    """How a table lies on the mesh: rows cut over `data`, features over these axes ("replica", "model")."""

    mesh: jax.sharding.Mesh
    features: tuple[str, ...]

    @property
    def owners(self) -> int:
        """Devices that a table's rows are cut over."""
        return self.mesh.shape["data"]

    def parts(self, axis: str) -> int:
        """Parts that features are cut into over an axis."""
        return self.mesh.shape[axis] if axis in self.features else 1

    @property
    def table_spec(self) -> P:
        return P(None, "data", self.features or None)


class Requests(NamedTuple):
    """The rows that a device asks for: N = S·M ids of S tables at M positions, equal ones once.

    First in the order of rows, owner by owner [N], then in that of the positions [S,M]. A slot counts within
    the list of its owner; owners count along `data`, and there is one more for ids below 0."""

    row_N: jax.Array  # int32: table · rows + row, as the owner counts its own
    owner_N: jax.Array  # int32
    slot_N: jax.Array  # int32
    first_N: jax.Array  # bool: not the same as the one before
    owner_SxM: jax.Array
    slot_SxM: jax.Array
    longest: jax.Array  # int32 []: list


def _requests(ids_SxM, rows: int, owners: int) -> Requests:
    """rows: of a table, that each owner has."""
    S, M = ids_SxM.shape
    each = S * rows
    table = jnp.arange(S, dtype=jnp.int32)[:, None]
    key_SxM = jnp.where(ids_SxM >= 0, ids_SxM // rows * each + table * rows + ids_SxM % rows, owners * each)
    # Sorted, equal requests stand side by side and owners one behind the other.
    positions = jnp.arange(S * M, dtype=jnp.int32)
    key, order = jax.lax.sort((key_SxM.reshape(-1), positions), num_keys=1)
    owner = key // each
    first = jnp.concatenate([jnp.ones((1,), bool), key[1:] != key[:-1]])
    number = jnp.cumsum(first, dtype=jnp.int32) - 1  # equal requests share one
    counts = _counts(owner, first, owners)
    starts = jnp.concatenate([jnp.zeros((1,), jnp.int32), jnp.cumsum(counts, dtype=jnp.int32)])
    slot = number - starts[owner]
    _, owner_back, slot_back = jax.lax.sort((order, owner, slot), num_keys=1)  # in the order of positions
    return Requests(
        key % each,
        owner,
        slot,
        first & (owner < owners),
        owner_back.reshape(S, M),
        slot_back.reshape(S, M),
        jnp.max(counts),
    )


def _counts(owner_N, first_N, owners: int):
    """Different requests to each owner, int32 [owners]."""
    own = owner_N[None] == jnp.arange(owners, dtype=jnp.int32)[:, None]
    return jnp.sum(own & first_N[None], axis=1, dtype=jnp.int32)


def list_length(requests: int, owners: int, rows: int) -> int:
    """Of an owner's list in one round; it has no more than its rows to give."""
    return min(max(8, -(-int(SHARE * requests) // owners)), rows)


def _rounds(asked: Requests, length: int):
    """How many rounds it takes, the same on all devices."""
    return jax.lax.pmax(-(-asked.longest // length), sharding.AXES)


def _exchanged_requests(asked: Requests, turn, length: int, owners: int):
    """The rows that every device wants of this one in a round, int32 [owners, length]; -1 where a list is
    shorter."""
    now = asked.first_N & (asked.slot_N // length == turn)
    at = jnp.where(now, asked.owner_N * length + asked.slot_N % length, owners * length)
    lists = jnp.full((owners * length,), -1, jnp.int32).at[at].set(asked.row_N, mode="drop")
    return _exchanged(lists.reshape(owners, length))


def _slots(asked: Requests, s: int, turn, length: int, owners: int):
    """Where the row of table s for each position stands among all lists of a round, int32 [M]; -1: not in
    this round, or nowhere."""
    now = (asked.slot_SxM[s] // length == turn) & (asked.owner_SxM[s] < owners)
    return jnp.where(now, asked.owner_SxM[s] * length + asked.slot_SxM[s] % length, -1)


def _exchanged(lists):
    """List i of this device goes to device i along `data`, whose list for this one comes in its place."""
    return jax.lax.all_to_all(lists, "data", split_axis=0, concat_axis=0)


def _shared_ids(ids_bxSxT, layout: Layout):
    """The ids [S,M] of the positions that this device looks up: its own, and those of the replicas that hold
    other features of the same rows."""
    ids = jax.lax.all_gather(ids_bxSxT, "replica") if "replica" in layout.features else ids_bxSxT[None]
    return jnp.moveaxis(ids, 2, 0).reshape(ids.shape[2], -1)


def _all_features_of_own_positions(x_MxD, b: int, T: int, layout: Layout):
    """[b,T,features] from this device's features of everybody's positions."""
    x = x_MxD.reshape(-1, b, T, x_MxD.shape[-1])
    if "replica" in layout.features:
        x = jax.lax.all_to_all(x, "replica", split_axis=0, concat_axis=2)
    else:
        x = x[0][:, :, None]
    if "model" in layout.features:
        x = jax.lax.all_gather(x, "model", axis=3)
    return x.reshape(b, T, -1)


def _own_features_of_all_positions(g_bxTxF, width: int, layout: Layout):
    """[M,width]: the same back, for gradients."""
    b, T, _ = g_bxTxF.shape
    g = g_bxTxF.reshape(b, T, layout.parts("replica"), layout.parts("model"), width)
    mine = jax.lax.axis_index("model") if "model" in layout.features else 0
    g = jax.lax.dynamic_index_in_dim(g, mine, axis=3, keepdims=False)
    if "replica" in layout.features:
        g = jax.lax.all_to_all(g, "replica", split_axis=2, concat_axis=0)
    else:
        g = g[:, :, 0]
    return g.reshape(-1, width)


def _look_up(tables_SxRxD, ids_bxSxT, dtype, layout: Layout):
    """What one device does of a look-up: `dtype` [b,T,all features] of its own rows of the batch."""
    S, rows, width = tables_SxRxD.shape
    b, _, T = ids_bxSxT.shape
    ids_SxM, owners = _shared_ids(ids_bxSxT, layout), layout.owners
    asked = _requests(ids_SxM, rows, owners)
    length = list_length(ids_SxM.size, owners, S * rows)
    table, rounds = tables_SxRxD.reshape(S * rows, width), _rounds(asked, length)

    def round_(carry):
        turn, total = carry
        wanted = _exchanged_requests(asked, turn, length, owners)
        given = _exchanged(_found(table, wanted).astype(dtype)).reshape(owners * length, width)
        for s in range(S):
            total = total + _found(given, _slots(asked, s, turn, length, owners)).astype(total.dtype)
        return turn + 1, total

    start = jnp.int32(0), jnp.zeros((ids_SxM.shape[1], width), jnp.float32)
    _, total = jax.lax.while_loop(lambda carry: carry[0] < rounds, round_, start)
    return _all_features_of_own_positions(total.astype(dtype), b, T, layout)


def _add_up(tables_SxRxD, ids_bxSxT, g_bxTxF, layout: Layout):
    """What one device does of a look-up's gradient: that of its rows and features, like its tables."""
    S, rows, width = tables_SxRxD.shape
    owners, dtype = layout.owners, tables_SxRxD.dtype
    g_MxD = _own_features_of_all_positions(g_bxTxF, width, layout).astype(dtype)
    ids_SxM = _shared_ids(ids_bxSxT, layout)
    asked = _requests(ids_SxM, rows, owners)
    length = list_length(ids_SxM.size, owners, S * rows)
    rounds = _rounds(asked, length)

    def round_(carry):
        turn, total = carry
        sums = jnp.zeros((owners * length, width), dtype)
        for s in range(S):
            sums = _added(sums, _slots(asked, s, turn, length, owners), g_MxD)
        sent = _exchanged(sums.reshape(owners, length, width)).reshape(-1, width)
        wanted = _exchanged_requests(asked, turn, length, owners).reshape(-1)
        return turn + 1, _added(total, wanted, sent)

    start = jnp.int32(0), jnp.zeros((S * rows, width), dtype)
    _, total = jax.lax.while_loop(lambda carry: carry[0] < rounds, round_, start)
    if "replica" not in layout.features:
        total = jax.lax.psum(total, "replica")
    return total.reshape(S, rows, width)


def _added(x, at, rows):
    """x with rows added at its places `at`; a place below 0 is none."""
    return x.at[jnp.where(at >= 0, at, x.shape[0])].add(rows, mode="drop")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sharded(tables, ids, dtype, layout: Layout):
    """`lookup` on a mesh whose devices own parts of the tables."""
    by_row = P(sharding.BATCH)
    run = jax.shard_map(
        lambda tables, ids: _look_up(tables, ids, dtype, layout),
        mesh=layout.mesh,
        in_specs=(layout.table_spec, by_row),
        out_specs=by_row,
        check_vma=False,
    )
    return run(tables, ids)


def _sharded_forward(tables, ids, dtype, layout):
    return _sharded(tables, ids, dtype, layout), (tables, ids)


def _sharded_backward(dtype, layout, kept, g):
    by_row = P(sharding.BATCH)
    run = jax.shard_map(
        lambda tables, ids, g: _add_up(tables, ids, g, layout),
        mesh=layout.mesh,
        in_specs=(layout.table_spec, by_row, by_row),
        out_specs=layout.table_spec,
        check_vma=False,
    )
    return run(*kept, g), None


_sharded.defvjp(_sharded_forward, _sharded_backward)
