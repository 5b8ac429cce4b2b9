"""Causal self-attention within documents and within a window: one dispatch function, one plain reference.

Each platform has its own way: "splash" on TPU (attention_tpu.py), "cudnn" on NVIDIA GPUs (attention_gpu.py),
"blocks" on CPU and wherever else.

"blocks" costs O(T · window), and O(T) memory: a loop over blocks of queries, each with the keys that it can
reach, whose scores stay in the cache and are computed again in the backward pass. Measured on one core
(forward and gradient; B 4, T 1024, 4 heads of 32, window 512): 32 ms, against 95 ms for an unrolled loop of
256 queries a block whose scores are kept."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bltjax.parallel import sharding

# Queries handled together: the fastest of 64, 128 and 256 for windows of 512 and for none. For windows of up
# to NARROW keys, blocks of 32 are as fast or faster (forward and gradient, T 512, window 128: 2.69 against
# 2.82 ms for one head and two rows, 9.35 against 9.46 for two heads and four rows) and multiply a sixth fewer
# pairs; for a window of 512 they are slower (41 against 36 ms).
BLOCK, NARROW_BLOCK, NARROW = 64, 32, 128
ONE_TILE = 160  # up to here, all positions are one block: padding would cost more than the mask wastes
HIDDEN = -1e30  # added to a score that a query may not see; finite, so that a row without any stays finite


def self_attention(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window: int, implementation: str = "auto"):
    """softmax(q k / sqrt(K)) v over the keys a query may see: its own document's, not later than itself, and
    among the last `window` positions, itself included (0: all). Softmax in float32; result [B,H,T,K] in v's
    dtype.

    implementation: "reference" (dense T x T), "blocks" (O(T · window), or about 5/8 of dense without a
    window), "splash" (TPU), "cudnn" (NVIDIA GPUs, 16-bit floats) or "auto": what the platform being traced
    for does best. Another: KeyError. Arrays are one device's own."""
    if implementation == "auto":
        implementation = chosen(sharding.platform(), q_BxHxTxK.dtype)
    attend = {"reference": reference, "blocks": blocks, "splash": _splash, "cudnn": _cudnn}[implementation]
    return attend(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window)


def chosen(platform: str, dtype) -> str:
    """The implementation that "auto" stands for on cpu, gpu or tpu. cuDNN has no float32."""
    if platform == "gpu" and dtype in (jnp.bfloat16, jnp.float16):
        return "cudnn"
    return "splash" if platform == "tpu" else "blocks"


def _splash(*args):
    # Pallas takes a second to import, and most processes need none of it
    from bltjax.models.kernels import attention_tpu

    return attention_tpu.attend(*args)


def _cudnn(*args):
    from bltjax.models.kernels import attention_gpu

    return attention_gpu.attend(*args)


def reference(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window: int):
    """What every implementation must equal."""
    T, K = q_BxHxTxK.shape[2:]
    distance = jnp.arange(T)[:, None] - jnp.arange(T)[None]
    near = (distance >= 0) & (distance < (window or T))
    seen = near[None] & (doc_ids_BxT[:, :, None] == doc_ids_BxT[:, None, :])
    scores = jnp.einsum("BHqK,BHsK->BHqs", q_BxHxTxK, k_BxHxTxK, preferred_element_type=jnp.float32) * K**-0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, HIDDEN), axis=-1)
    return jnp.einsum("BHqs,BHsK->BHqK", weights.astype(v_BxHxTxK.dtype), v_BxHxTxK)


def blocks(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window: int):
    """[B,H,T,K] in and out. Windowed: one loop whose keys slide along. Else: some loops, each over a part of
    the queries with all keys up to its end, so that most of what the causal mask hides is never computed."""
    T = q_BxHxTxK.shape[2]
    if 0 < window < T:
        count, size, span = _windows(T, window)
        q, k, v = (_longer(x, 2, count * size) for x in (q_BxHxTxK, k_BxHxTxK, v_BxHxTxK))
        query_docs, key_docs = (_longer(doc_ids_BxT, 1, count * size, none) for none in (-2, -1))
        out = loop(q, k, v, query_docs, key_docs, Tiles(count, size, span, 0, window))
        return out[:, :, :T]
    outs = []
    for start, stop, count, size in _parts(T):
        q, query_docs = (
            _longer(q_BxHxTxK[:, :, start:stop], 2, size * count),
            _longer(doc_ids_BxT[:, start:stop], 1, size * count, -2),
        )
        out = loop(
            q,
            k_BxHxTxK[:, :, :stop],
            v_BxHxTxK[:, :, :stop],
            query_docs,
            doc_ids_BxT[:, :stop],
            Tiles(count, size, stop, start, T),
        )
        outs.append(out[:, :, : stop - start])
    return jnp.concatenate(outs, axis=2) if len(outs) > 1 else outs[0]


def _longer(x, axis: int, length: int, value=0):
    """x filled up to `length` along an axis."""
    return jnp.pad(
        x, [(0, length - x.shape[axis] if i == axis else 0) for i in range(x.ndim)], constant_values=value
    )


def executed_pairs(T: int, window: int) -> int:
    """Query-key pairs that `blocks` multiplies in one row of T positions, padded and masked ones included."""
    if 0 < window < T:
        count, size, span = _windows(T, window)
        return count * size * span
    return sum(count * size * stop for _, stop, count, size in _parts(T))


def _windows(T: int, window: int):
    """(count, size, span): blocks of so many queries, and keys for each."""
    size = NARROW_BLOCK if window <= NARROW else BLOCK
    count = -(-T // size)
    return count, size, min(count, 1 + -(-(window - 1) // size)) * size


def _parts(T: int):
    """(start, stop, count, size): queries start to stop in `count` blocks of `size`, against all keys before
    stop."""
    parts = 1 if T <= 2 * ONE_TILE else 2 if T <= 1024 else 4
    for part in range(parts):
        start, stop = -(-T * part // parts), -(-T * (part + 1) // parts)
        count = 1 if stop - start <= ONE_TILE else -(-(stop - start) // BLOCK)
        yield start, stop, count, -(-(stop - start) // count)


class Tiles(NamedTuple):
    """How a loop goes over its queries: `count` blocks of `size`, the first at position `first`; each has the
    `span` keys that end with its own last position, or the row's first `span`. A query sees `window` keys,
    itself included."""

    count: int
    size: int
    span: int
    first: int
    window: int

    def keys_of(self, i, length: int):
        """Where block i's keys start, of `length` keys in all."""
        return jnp.clip(self.first + (i + 1) * self.size - self.span, 0, length - self.span)


def _tile(i, q, k, v, query_docs, key_docs, tiles):
    """Queries, keys, values and mask (what to add to scores, [B,1,q,s]) of block i."""
    start = tiles.keys_of(i, k.shape[2])
    queries = lambda x, axis: (
        jax.lax.dynamic_slice_in_dim(x, i * tiles.size, tiles.size, axis) if tiles.count > 1 else x
    )
    keys = lambda x, axis: (
        jax.lax.dynamic_slice_in_dim(x, start, tiles.span, axis) if tiles.span < x.shape[axis] else x
    )
    distance = (
        jnp.arange(tiles.size, dtype=jnp.int32)[:, None] - jnp.arange(tiles.span, dtype=jnp.int32)[None]
    )
    distance = distance + (tiles.first + i * tiles.size - start)
    near = (distance >= 0) & (distance < tiles.window)
    seen = near[None] & (queries(query_docs, 1)[:, :, None] == keys(key_docs, 1)[:, None, :])
    return (
        queries(q, 2) * jnp.asarray(q.shape[-1] ** -0.5, q.dtype),
        keys(k, 2),
        keys(v, 2),
        jnp.where(seen, 0.0, HIDDEN)[:, None],
    )


def _scores(q, k, mask):
    return jnp.einsum("BHqK,BHsK->BHqs", q, k, preferred_element_type=jnp.float32) + mask


def _each(body, carry, count: int):
    """scan over block numbers; one block needs no loop."""
    if count > 1:
        carry, outs = jax.lax.scan(body, carry, jnp.arange(count, dtype=jnp.int32))
    else:
        carry, outs = body(carry, jnp.int32(0))
        outs = jax.tree.map(lambda x: x[None], outs)
    return carry, outs


def _in_line(blocks_NxBxHxq):
    """[N,B,H,q,...] of a loop -> [B,H,N·q,...]."""
    x = jnp.moveaxis(blocks_NxBxHxq, 0, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], *x.shape[4:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def loop(q, k, v, query_docs, key_docs, tiles):
    """Attention of q [B,H,count·size,K] over k, v [B,H,S,K] by the plan `tiles`."""
    return _loop_forward(q, k, v, query_docs, key_docs, tiles)[0]


def _loop_forward(q, k, v, query_docs, key_docs, tiles):
    def body(_, i):
        q_i, k_i, v_i, mask = _tile(i, q, k, v, query_docs, key_docs, tiles)
        scores = _scores(q_i, k_i, mask)
        most = jnp.max(scores, -1, keepdims=True)
        weights = jnp.exp(scores - most)
        total = jnp.sum(weights, -1, keepdims=True)
        out = (
            jnp.einsum("BHqs,BHsK->BHqK", weights.astype(v.dtype), v_i, preferred_element_type=jnp.float32)
            / total
        )
        return None, (out.astype(v.dtype), (most + jnp.log(total))[..., 0])

    _, (out, log_total) = _each(body, None, tiles.count)
    out, log_total = _in_line(out), _in_line(log_total)
    return out, (q, k, v, query_docs, key_docs, out, log_total)


def _loop_backward(tiles, kept, g):
    q, k, v, query_docs, key_docs, out, log_total = kept
    inner = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), -1)
    cut = lambda x, i: (
        jax.lax.dynamic_slice_in_dim(x, i * tiles.size, tiles.size, 2) if tiles.count > 1 else x
    )

    def body(sums, i):
        q_i, k_i, v_i, mask = _tile(i, q, k, v, query_docs, key_docs, tiles)
        g_i = cut(g, i)
        weights = jnp.exp(_scores(q_i, k_i, mask) - cut(log_total, i)[..., None])
        slopes = (
            jnp.einsum("BHqK,BHsK->BHqs", g_i, v_i, preferred_element_type=jnp.float32)
            - cut(inner, i)[..., None]
        )
        slopes = (weights * slopes).astype(q.dtype)
        to_q = (
            jnp.einsum("BHqs,BHsK->BHqK", slopes, k_i, preferred_element_type=jnp.float32)
            * q.shape[-1] ** -0.5
        )
        # Keys last: a product that contracts its rows runs several times faster on CPU when its long side
        # comes out last.
        to_k = jnp.einsum("BHqK,BHqs->BHKs", q_i, slopes, preferred_element_type=jnp.float32)
        to_v = jnp.einsum("BHqK,BHqs->BHKs", g_i, weights.astype(q.dtype), preferred_element_type=jnp.float32)
        if tiles.count == 1:
            return (to_k, to_v), to_q
        start = tiles.keys_of(i, k.shape[2])
        add = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
            whole, jax.lax.dynamic_slice_in_dim(whole, start, tiles.span, 3) + part, start, 3
        )
        return (add(sums[0], to_k), add(sums[1], to_v)), to_q

    zeros = jnp.zeros((*k.shape[:2], k.shape[3], k.shape[2]), jnp.float32)
    (to_k, to_v), to_q = _each(body, (zeros, zeros), tiles.count)
    return (
        _in_line(to_q).astype(q.dtype),
        to_k.swapaxes(2, 3).astype(k.dtype),
        to_v.swapaxes(2, 3).astype(v.dtype),
        None,
        None,
    )


loop.defvjp(_loop_forward, _loop_backward)
