"""Look-up tables: hash n-grams and token embeddings. Most of a model's parameters, and none of its FLOPs.

On a mesh a table is never gathered, nor is its gradient summed over devices. Each device keeps some features of some rows: features
are cut over `data`, rows over `replica` and `model`. The ids of all rows of the batch travel to every device, each looks up its share for
all of them, and one all-to-all takes the sums home; a gradient goes the same way back. What moves is one activation each way (times the
number of replicas, where rows are cut over them), whatever the size of the table. The price: over n devices, each looks up n times as
many rows, n times narrower.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from bltjax import sharding


def lookup(tables_SxRxD, ids_BxSxT, dtype: str, path: tuple[str, ...]):
    """Sum over the tables S of the rows that the ids name: `dtype` [B,T,D]. An id below 0 names no row and adds 0.

    tables float32, ids int32 below R. path: the parameter's, by which its layout is found.
    """
    where = sharding.layout(path, tables_SxRxD.shape)
    if where is None or where[0].mesh.size == 1:
        return reference(tables_SxRxD, ids_BxSxT).astype(dtype)
    row_axes = where[0].spec[1] or ()
    return _sharded(tables_SxRxD, ids_BxSxT, dtype, where[0].mesh, (row_axes,) if isinstance(row_axes, str) else row_axes)


def reference(tables_SxRxD, ids_BxSxT):
    """What the sharded path must equal: float32 [B,T,D]. A sum table by table: one look-up of all would write [B,S,T,D] first."""
    return functools.reduce(jnp.add, (_found(tables_SxRxD[s], ids_BxSxT[:, s]) for s in range(tables_SxRxD.shape[0])))


def _found(table_RxD, ids):
    """Rows by id; 0 for an id that is no row here."""
    here = (ids >= 0) & (ids < table_RxD.shape[0])
    return jnp.where(here[..., None], jnp.asarray(table_RxD).at[jnp.where(here, ids, 0)].get(mode="promise_in_bounds"), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _sharded(tables, ids, dtype, mesh, row_axes):
    def own(tables, ids):
        ids = _everyones(ids, row_axes, tables.shape[1])
        sums = functools.reduce(jnp.add, (_found(tables[s], ids[..., s, :]) for s in range(tables.shape[0]))).astype(dtype)
        if "replica" in row_axes:  # [replicas, data, b, T, features]
            sums = jax.lax.psum_scatter(sums, "replica", scatter_dimension=0)
        if "model" in row_axes:
            sums = jax.lax.psum(sums, "model")
        home = jax.lax.all_to_all(sums, "data", split_axis=0, concat_axis=2)
        return home.reshape(*home.shape[:2], -1)

    layout = P(None, row_axes or None, "data")
    return jax.shard_map(own, mesh=mesh, in_specs=(layout, P(sharding.BATCH)), out_specs=P(sharding.BATCH), check_vma=False)(tables, ids)


def _everyones(ids_bxSxT, row_axes, rows: int):
    """Ids of all devices that this one looks up for, counted from its first row: [replicas,] data, b, S, T."""
    ids = jax.lax.all_gather(ids_bxSxT, "data")
    if "replica" in row_axes:
        ids = jax.lax.all_gather(ids, "replica")
    first = jax.lax.axis_index(row_axes) * rows if row_axes else 0
    return jnp.where(ids >= 0, ids - first, -1)


def _sharded_forward(tables, ids, dtype, mesh, row_axes):
    return _sharded(tables, ids, dtype, mesh, row_axes), (tables, ids)


def _sharded_backward(dtype, mesh, row_axes, kept, g):
    tables, ids = kept

    def own(tables, ids, g):
        S, rows, features = tables.shape
        ids = _everyones(ids, row_axes, rows)
        g = jax.lax.all_to_all(g.reshape(*g.shape[:2], -1, features), "data", split_axis=2, concat_axis=0)
        if "replica" in row_axes:
            g = jax.lax.all_gather(g, "replica")
        g, total = g.reshape(-1, features).astype(tables.dtype), jnp.zeros_like(tables)
        for s in range(S):
            mine = ids[..., s, :].reshape(-1)
            total = total.at[s, jnp.where((mine >= 0) & (mine < rows), mine, rows)].add(g, mode="drop")
        return total if "replica" in row_axes else jax.lax.psum(total, "replica")

    layout = P(None, row_axes or None, "data")
    run = jax.shard_map(own, mesh=mesh, in_specs=(layout, P(sharding.BATCH), P(sharding.BATCH)), out_specs=layout, check_vma=False)
    return run(tables, ids, g), None


_sharded.defvjp(_sharded_forward, _sharded_backward)
