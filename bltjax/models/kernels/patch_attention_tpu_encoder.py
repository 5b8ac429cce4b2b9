"""Every latent of a patch over the patch's bytes, as one kernel forward and one backward
(patch_attention_tpu.py).

A patch may go on in the tiles below: its softmax is kept as in flash attention, by the largest score so far,
the sum of weights and the weighted sum of values, each per patch."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bltjax.models.kernels import patch_attention_tpu as tpu

UNSEEN = -1e30


def patches_from_bytes(q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads: int, interpret: bool = False):
    """`cross_attention.patches_from_bytes`: [B,P,k,C]. patch_ids: nondecreasing along a row.

    interpret: run the kernels' steps as plain JAX, on any platform (slow: tests).
    """
    B, P, k, C = q_BxPxkxC.shape
    plan = tpu.Plan(patch_ids_BxT, P, k, C, heads, interpret)
    static = plan.static
    q, keys, values = plan.of_patches(q_BxPxkxC), plan.of_bytes(k_BxTxC), plan.of_bytes(v_BxTxC)
    out = _patches_from_bytes(q, keys, values, plan.ids, plan.rows, static)
    out = out.reshape(B, -1, static.groups, k, static.width).swapaxes(2, 3)
    return out.reshape(B, -1, k, static.groups * static.width)[:, :P, :, :C]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _patches_from_bytes(q, k, v, ids, rows, static):
    return _forward(q, k, v, ids, rows, static)[0]


def _forward(q, k, v, ids, rows, static):
    log_total = jax.ShapeDtypeStruct((*q.shape[:2], static.groups * static.k * static.lanes), jnp.float32)
    inputs = [("bytes", ids), ("patches", q), ("bytes", v), ("bytes", k)]
    outputs = [("patches", tpu.like(q)), ("patches", log_total)]
    scratch = [static.k * static.lanes, static.k * static.lanes, static.k * static.width]
    body = functools.partial(_forward_tile, static)
    out, log_total = tpu.run(body, "patches_from_bytes", rows, inputs, outputs, scratch, static)
    return out, (q, k, v, ids, rows, out, log_total)


def _forward_tile(
    static, rows_ref, head_of, ids_ref, q_ref, v_ref, k_ref, out_ref, log_total_ref, largest, total, acc
):
    """largest, total [patches, k·lanes] and acc [patches, k·width]: the softmax so far, see above."""
    tile = tpu.Tile(rows_ref, ids_ref)
    tpu.clear(tile.first_of_patches, total, acc)

    @pl.when(tile.first_of_patches)
    def _():
        largest[...] = jnp.full_like(largest, UNSEEN)

    dtype = head_of.dtype
    has_bytes = tile.segment_sum(jnp.ones((tpu.BYTES, static.lanes), dtype)) > 0
    keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
    for l in range(static.k):
        wide, narrow = static.features(l), static.per_head(l)
        queries = tile.segment_broadcast(q_ref[:, wide])
        scores = tpu.head_sums(queries * keys, head_of) * static.scale
        before = largest[:, narrow]
        # Any number near the largest will do if all that follows uses the same, and a rounded one is
        # broadcast by one product. For the same reason weights and rescaling are rounded before they are
        # summed: what is divided by is what was multiplied with.
        now = jnp.where(has_bytes, jnp.maximum(before, _segment_max(scores, ids_ref, tile, dtype)), before)
        shifted = scores - tile.segment_broadcast(now.astype(dtype))
        weights = jnp.where(tile.owned, jnp.exp(shifted), 0).astype(dtype)
        rescale = jnp.exp(before - now).astype(dtype)
        weighted = (tpu.per_head(weights, head_of) * values).astype(dtype)
        largest[:, narrow] = now
        total[:, narrow] = rescale.astype(jnp.float32) * total[:, narrow] + tile.segment_sum(weights)
        acc[:, wide] = tpu.per_head(rescale, head_of) * acc[:, wide] + tile.segment_sum(weighted)

    @pl.when(tile.last_of_patches)
    def _():
        for l in range(static.k):
            wide, narrow = static.features(l), static.per_head(l)
            seen = total[:, narrow] > 0  # a patch without bytes gets 0
            sums = jnp.where(seen, total[:, narrow], 1)
            share = tpu.dot(1 / sums, head_of[...].astype(jnp.float32), (1, 1))
            out_ref[:, wide] = (acc[:, wide] * share).astype(out_ref.dtype)
            log_total_ref[:, narrow] = jnp.where(seen, largest[:, narrow] + jnp.log(sums), 0)


def _segment_max(scores, ids_ref, tile, dtype):
    """Each patch's largest score in the tile, rounded to dtype, [patches, lanes]: running maxima along each
    patch's bytes, by steps of 1, 2, 4, ..., read at its last."""
    ids = jnp.broadcast_to(ids_ref[...], scores.shape)
    place = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    distance = 1
    while distance < tpu.BYTES:
        same = (place >= distance) & (pltpu.roll(ids, distance, 0) == ids)
        scores = jnp.where(same, jnp.maximum(scores, pltpu.roll(scores, distance, 0)), scores)
        distance *= 2
    last = (place == tpu.BYTES - 1) | (pltpu.roll(ids, tpu.BYTES - 1, 0) != ids)
    return tile.segment_sum(jnp.where(last, scores, 0).astype(dtype))


def _backward(static, kept, g):
    q, k, v, ids, rows, out, log_total = kept
    inputs = [("bytes", ids), ("patches", q), ("patches", g), ("patches", out), ("patches", log_total)]
    inputs += [("bytes", v), ("bytes", k)]
    outputs = [("bytes", tpu.like(k)), ("bytes", tpu.like(v)), ("patches", tpu.like(q))]
    scratch = [static.k * static.lanes, static.k * static.width]
    body = functools.partial(_backward_tile, static)
    grad_k, grad_v, grad_q = tpu.run(
        body, "patches_from_bytes_backward", rows, inputs, outputs, scratch, static
    )
    return grad_q, grad_k, grad_v, None, None


def _backward_tile(
    static,
    rows_ref,
    head_of,
    ids_ref,
    q_ref,
    g_ref,
    out_ref,
    log_total_ref,
    v_ref,
    k_ref,
    grad_k_ref,
    grad_v_ref,
    grad_q_ref,
    mean,
    sum_q,
):
    """mean [patches, k·lanes]: each head's product of output and its gradient, the weighted mean of slopes.
    sum_q [patches, k·width]: the gradient of queries so far."""
    tile = tpu.Tile(rows_ref, ids_ref)
    tpu.clear(tile.first_of_patches, sum_q)

    @pl.when(tile.first_of_patches)
    def _():
        for l in range(static.k):
            wide = static.features(l)
            product = g_ref[:, wide].astype(jnp.float32) * out_ref[:, wide].astype(jnp.float32)
            mean[:, static.per_head(l)] = tpu.head_sums(product, head_of)

    dtype = head_of.dtype
    keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
    grad_k = grad_v = 0
    for l in range(static.k):
        wide, narrow = static.features(l), static.per_head(l)
        queries, g = tile.segment_broadcast(q_ref[:, wide]), tile.segment_broadcast(g_ref[:, wide])
        scores = tpu.head_sums(queries * keys, head_of) * static.scale
        log_total = tile.segment_broadcast_float32(log_total_ref[:, narrow], dtype)
        weights = jnp.where(tile.owned, jnp.exp(scores - log_total), 0)
        slopes = tpu.head_sums(g * values, head_of) - tile.segment_broadcast_float32(mean[:, narrow], dtype)
        grad_score = tpu.per_head(weights * slopes * static.scale, head_of)
        grad_k += grad_score * queries
        grad_v += tpu.per_head(weights, head_of) * g
        sum_q[:, wide] += tile.segment_sum((grad_score * keys).astype(k_ref.dtype))
    tpu.write_or_add(tile.first_of_bytes, grad_k_ref, grad_k)
    tpu.write_or_add(tile.first_of_bytes, grad_v_ref, grad_v)

    @pl.when(tile.last_of_patches)
    def _():
        grad_q_ref[...] = sum_q[...].astype(grad_q_ref.dtype)


_patches_from_bytes.defvjp(_forward, _backward)
