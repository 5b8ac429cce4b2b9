"""Sums, maxima and look-ups over contiguous patches of bytes, all O(T): the pieces of cross-attention.

`ids_BxT` holds each byte's patch; P means "no patch". A patch without bytes sums to 0.
"""

import jax
import jax.numpy as jnp

from bltjax.parallel import sharding


def _flat(ids_BxT, patches: int):
    row = jnp.arange(ids_BxT.shape[0], dtype=jnp.int32)[:, None]
    return (ids_BxT + row * (patches + 1)).reshape(-1)


def collect(x_BxTxC, ids_BxT, patches: int):
    """Sum over each patch's bytes, [B,P,C]."""
    B, T, C = x_BxTxC.shape
    total = jax.ops.segment_sum(x_BxTxC.reshape(B * T, C), _flat(ids_BxT, patches), B * (patches + 1))
    return total.reshape(B, patches + 1, C)[:, :patches]


def spread(x_BxPxC, ids_BxT):
    """Each byte's patch's row, [B,T,C]; 0 for a byte of no patch."""
    return jnp.take_along_axis(x_BxPxC, ids_BxT[:, :, None], axis=1, mode="fill", fill_value=0)


@jax.custom_vjp
def _maximum(x_BxTxC, ids_BxT, like_P):
    return _maximum_forward(x_BxTxC, ids_BxT, like_P)[0]


def _maximum_forward(x, ids, like):
    B, T, C = x.shape
    P = like.shape[0]
    most = jax.ops.segment_max(x.reshape(B * T, C), _flat(ids, P), B * (P + 1)).reshape(B, P + 1, C)[:, :P]
    most = jnp.where(jnp.isneginf(most), 0, most)
    return most, (x, ids, most)


def _maximum_backward(kept, g):
    x, ids, most = kept
    # Ties share the gradient.
    hit = (x == spread(most, ids)) & (ids < most.shape[1])[:, :, None]
    share = g / jnp.maximum(collect(hit.astype(g.dtype), ids, most.shape[1]), 1)
    return jnp.where(hit, spread(share, ids), 0), None, None


_maximum.defvjp(_maximum_forward, _maximum_backward)


# Rows of a batch know nothing of one another, which a partitioner cannot see in a flat list of segments: on a
# mesh these three run on every device's own rows.


def maximum(x_BxTxC, ids_BxT, patches: int):
    """Largest value over each patch's bytes, [B,P,C]; 0 for a patch without bytes."""
    own = lambda x, ids: _maximum(x, ids, jnp.zeros((patches,), jnp.int8))
    return sharding.by_rows(own)(x_BxTxC, ids_BxT)


def look_up(x_BxPxC, ids_BxT):
    """`spread`, on a mesh."""
    return sharding.by_rows(spread)(x_BxPxC, ids_BxT)


def spread_ids(values_BxP, ids_BxT):
    """Each byte's patch's number, int32 [B,T]; -1 for a byte of no patch."""
    own = lambda values, ids: jnp.take_along_axis(values, ids, axis=1, mode="fill", fill_value=-1)
    return sharding.by_rows(own)(values_BxP, ids_BxT)
