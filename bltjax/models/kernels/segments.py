"""Segment operations over contiguous patches of bytes, all O(T): sum and maximum over each patch's bytes, and
the broadcast of a patch's row to its bytes. The pieces of cross-attention.

`ids_BxT` holds each byte's patch; P means "no patch". A patch without bytes sums to 0.
"""

import jax
import jax.numpy as jnp

from bltjax.parallel import sharding


def _flat(ids_BxT, patches: int):
    row = jnp.arange(ids_BxT.shape[0], dtype=jnp.int32)[:, None]
    return (ids_BxT + row * (patches + 1)).reshape(-1)


def segment_sum(x_BxTxC, ids_BxT, patches: int):
    """Sum over each patch's bytes, [B,P,C]."""
    B, T, C = x_BxTxC.shape
    total = jax.ops.segment_sum(x_BxTxC.reshape(B * T, C), _flat(ids_BxT, patches), B * (patches + 1))
    return total.reshape(B, patches + 1, C)[:, :patches]


@jax.custom_vjp
def segment_broadcast(x_BxPxC, ids_BxT):
    """Each byte's patch's row, [B,T,C]; 0 for a byte of no patch.

    Its gradient is a float32 sum over each patch's bytes, whatever the dtype: 16-bit sums would round after
    every byte, and a GPU has no fast 16-bit atomic addition (on an H200 the sums took 10 ms for 512 MB, by
    which a step of the 1B model was a tenth longer)."""
    return jnp.take_along_axis(x_BxPxC, ids_BxT[:, :, None], axis=1, mode="fill", fill_value=0)


def _segment_broadcast_backward(kept, g_BxTxC):
    like, ids_BxT = kept
    return segment_sum(g_BxTxC.astype(jnp.float32), ids_BxT, len(like)).astype(like.dtype), None


segment_broadcast.defvjp(
    lambda x, ids: (segment_broadcast(x, ids), (jnp.zeros(x.shape[1], x.dtype), ids)),
    _segment_broadcast_backward,
)


@jax.custom_vjp
def _segment_max(x_BxTxC, ids_BxT, like_P):
    return _segment_max_forward(x_BxTxC, ids_BxT, like_P)[0]


def _segment_max_forward(x, ids, like):
    B, T, C = x.shape
    P = like.shape[0]
    most = jax.ops.segment_max(x.reshape(B * T, C), _flat(ids, P), B * (P + 1)).reshape(B, P + 1, C)[:, :P]
    most = jnp.where(jnp.isneginf(most), 0, most)
    return most, (x, ids, most)


def _segment_max_backward(kept, g):
    x, ids, most = kept
    # Ties share the gradient.
    hit = (x == segment_broadcast(most, ids)) & (ids < most.shape[1])[:, :, None]
    share = g / jnp.maximum(segment_sum(hit.astype(g.dtype), ids, most.shape[1]), 1)
    return jnp.where(hit, segment_broadcast(share, ids), 0), None, None


_segment_max.defvjp(_segment_max_forward, _segment_max_backward)


# Rows of a batch know nothing of one another, which a partitioner cannot see in a flat list of segments: on a
# mesh these three run on every device's own rows.


def segment_max(x_BxTxC, ids_BxT, patches: int):
    """Largest value over each patch's bytes, [B,P,C]; 0 for a patch without bytes."""
    own = lambda x, ids: _segment_max(x, ids, jnp.zeros((patches,), jnp.int8))
    return sharding.by_rows(own)(x_BxTxC, ids_BxT)


def segment_broadcast_rows(x_BxPxC, ids_BxT):
    """`segment_broadcast` for whole batches: on a mesh, every device does its own rows."""
    return sharding.by_rows(segment_broadcast)(x_BxPxC, ids_BxT)


def segment_broadcast_ids(values_BxP, ids_BxT):
    """Each byte's patch's number, int32 [B,T]; -1 for a byte of no patch."""
    own = lambda values, ids: jnp.take_along_axis(values, ids, axis=1, mode="fill", fill_value=-1)
    return sharding.by_rows(own)(values_BxP, ids_BxT)
