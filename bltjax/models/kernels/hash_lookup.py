"""Look-up tables: hash n-grams and token embeddings. Most of a model's parameters, and none of its FLOPs.

On a mesh a table is never gathered, nor is its gradient summed over devices: every device owns some rows (cut
over `data`) and some features of them (cut over `replica` and `model`). A device asks the owners for the rows
that its bytes name, each once, however often they occur; what comes back is spread and summed over the tables
here. A gradient goes the same way: summed here by row, sent to the row's owner, added there. So a device
looks up about as many rows as its own bytes name, whatever the number of devices, and what moves is a few
activations each way, whatever the size of the tables.

Lists of requests have a fixed length, SHARE of the longest that evenly spread hashes could need. If some
owner is asked for more, there is another round, and another: what is computed never depends on the length,
only the time does. """

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
    return _sharded(
        tables_SxRxD, ids_BxSxT, dtype, mesh, (features,) if isinstance(features, str) else features or ()
    )


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


def _found(table_RxD, ids):
    """Rows by id; 0 for an id that is no row here."""
    here = (ids >= 0) & (ids < table_RxD.shape[0])
    return jnp.where(here[..., None], table_RxD.at[jnp.where(here, ids, 0)].get(mode="promise_in_bounds"), 0)


class Requests(NamedTuple):
    """What one device asks for: N = S·M ids of S tables at M positions, equal ones once. First in the order
    of what is asked for, owner by owner, then in that of the positions. Places count within an owner's list;
    owners, along `data`; there is one more for ids below 0. """

    row_N: jax.Array  # int32: table · rows + row, as the owner counts its own
    owner_N: jax.Array  # int32
    place_N: jax.Array  # int32
    first_N: jax.Array  # bool: not the same as the one before
    owner_SxM: jax.Array
    place_SxM: jax.Array
    longest: jax.Array  # int32 []: list


def _requests(ids_SxM, rows: int, owners: int) -> Requests:
    """rows: of a table, that each owner has."""
    S, M = ids_SxM.shape
    each = S * rows
    table = jnp.arange(S, dtype=jnp.int32)[:, None]
    key = jnp.where(
        ids_SxM >= 0, ids_SxM // rows * each + table * rows + ids_SxM % rows, owners * each
    ).reshape(-1)
    key, order = jax.lax.sort((key, jnp.arange(S * M, dtype=jnp.int32)), num_keys=1)
    owner = key // each
    first = jnp.concatenate([jnp.ones((1,), bool), key[1:] != key[:-1]])
    number = jnp.cumsum(first, dtype=jnp.int32) - 1  # equal requests share one
    counts = jnp.sum(
        (owner[None] == jnp.arange(owners, dtype=jnp.int32)[:, None]) & first[None], axis=1, dtype=jnp.int32
    )
    place = number - jnp.concatenate([jnp.zeros((1,), jnp.int32), jnp.cumsum(counts, dtype=jnp.int32)])[owner]
    _, owner_back, place_back = jax.lax.sort((order, owner, place), num_keys=1)
    return Requests(
        key % each,
        owner,
        place,
        first & (owner < owners),
        owner_back.reshape(S, M),
        place_back.reshape(S, M),
        jnp.max(counts),
    )


def _length(requests: int, owners: int, rows: int) -> int:
    """Of an owner's list in one round; it has no more than its rows to give."""
    return min(max(8, -(-int(SHARE * requests) // owners)), rows)


def _wanted(asked: Requests, turn, length: int, owners: int):
    """Rows that every device wants of this one in a round, int32 [owners, length]; -1 where a list is
    shorter."""
    now = asked.first_N & (asked.place_N // length == turn)
    at = jnp.where(now, asked.owner_N * length + asked.place_N % length, owners * length)
    lists = (
        jnp.full((owners * length,), -1, jnp.int32)
        .at[at]
        .set(asked.row_N, mode="drop")
        .reshape(owners, length)
    )
    return jax.lax.all_to_all(lists, "data", split_axis=0, concat_axis=0)


def _places(asked: Requests, s: int, turn, length: int, owners: int):
    """Where the rows of table s stand among all lists of a round, int32 [M]; -1: not in this round, or
    nowhere."""
    now = (asked.place_SxM[s] // length == turn) & (asked.owner_SxM[s] < owners)
    return jnp.where(now, asked.owner_SxM[s] * length + asked.place_SxM[s] % length, -1)


def _rounds(asked: Requests, length: int):
    """How many it takes, the same on all devices."""
    return jax.lax.pmax(-(-asked.longest // length), sharding.AXES)


def _everyones(ids_bxSxT, features):
    """Ids of the devices that share a row's features, [S, positions]."""
    ids = jax.lax.all_gather(ids_bxSxT, "replica") if "replica" in features else ids_bxSxT[None]
    return jnp.moveaxis(ids, 2, 0).reshape(ids.shape[2], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _sharded(tables, ids, dtype, mesh, features):
    owners = mesh.shape["data"]

    def own(tables, ids):
        S, rows, width = tables.shape
        (b, _, T), everyones = ids.shape, _everyones(ids, features)
        asked = _requests(everyones, rows, owners)
        length = _length(everyones.size, owners, S * rows)
        flat, rounds = tables.reshape(S * rows, width), _rounds(asked, length)

        def round_(state):
            turn, total = state
            found = _found(flat, _wanted(asked, turn, length, owners)).astype(dtype)
            given = jax.lax.all_to_all(found, "data", split_axis=0, concat_axis=0).reshape(
                owners * length, width
            )
            for s in range(S):
                total = total + _found(given, _places(asked, s, turn, length, owners)).astype(total.dtype)
            return turn + 1, total

        start = jnp.int32(0), jnp.zeros((everyones.shape[1], width), jnp.float32)
        total = (
            jax.lax.while_loop(lambda state: state[0] < rounds, round_, start)[1]
            .astype(dtype)
            .reshape(-1, b, T, width)
        )
        home = (
            jax.lax.all_to_all(total, "replica", split_axis=0, concat_axis=2)
            if "replica" in features
            else total[0][:, :, None]
        )
        home = jax.lax.all_gather(home, "model", axis=3) if "model" in features else home
        return home.reshape(b, T, -1)

    layout, by_row = P(None, "data", features or None), P(sharding.BATCH)
    return jax.shard_map(own, mesh=mesh, in_specs=(layout, by_row), out_specs=by_row, check_vma=False)(
        tables, ids
    )


def _sharded_forward(tables, ids, dtype, mesh, features):
    return _sharded(tables, ids, dtype, mesh, features), (tables, ids)


def _sharded_backward(dtype, mesh, features, kept, g):
    tables, ids = kept
    owners = mesh.shape["data"]

    def own(tables, ids, g):
        S, rows, width = tables.shape
        b, T, _ = g.shape
        replicas, parts = (mesh.shape[axis] if axis in features else 1 for axis in ("replica", "model"))
        mine = jax.lax.axis_index("model") if "model" in features else 0
        g = jax.lax.dynamic_index_in_dim(
            g.reshape(b, T, replicas, parts, width), mine, axis=3, keepdims=False
        )
        g = (
            jax.lax.all_to_all(g, "replica", split_axis=2, concat_axis=0)
            if "replica" in features
            else g[:, :, 0]
        )
        g = g.reshape(-1, width).astype(tables.dtype)
        everyones = _everyones(ids, features)
        asked = _requests(everyones, rows, owners)
        length = _length(everyones.size, owners, S * rows)
        rounds = _rounds(asked, length)

        def round_(state):
            turn, total = state
            sums = jnp.zeros((owners * length, width), tables.dtype)
            for s in range(S):
                sums = _added(sums, _places(asked, s, turn, length, owners), g)
            sent = jax.lax.all_to_all(
                sums.reshape(owners, length, width), "data", split_axis=0, concat_axis=0
            )
            return turn + 1, _added(
                total, _wanted(asked, turn, length, owners).reshape(-1), sent.reshape(-1, width)
            )

        total = jax.lax.while_loop(
            lambda state: state[0] < rounds,
            round_,
            (jnp.int32(0), jnp.zeros((S * rows, width), tables.dtype)),
        )[1]
        return (total if "replica" in features else jax.lax.psum(total, "replica")).reshape(S, rows, width)

    layout, by_row = P(None, "data", features or None), P(sharding.BATCH)
    run = jax.shard_map(own, mesh=mesh, in_specs=(layout, by_row, by_row), out_specs=layout, check_vma=False)
    return run(tables, ids, g), None


def _added(x, at, rows):
    """x with rows added at its places `at`; a place below 0 is none."""
    return x.at[jnp.where(at >= 0, at, x.shape[0])].add(rows, mode="drop")


_sharded.defvjp(_sharded_forward, _sharded_backward)
