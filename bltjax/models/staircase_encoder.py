"""Every latent of a patch over the patch's bytes, as one kernel forward and one backward (staircase.py).

A patch may go on in the tiles below: its softmax is kept as in flash attention, by the largest score so far, the sum of weights and the
weighted sum of values, each per patch.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bltjax.models import staircase

UNSEEN = -1e30


def patches_from_bytes(q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads: int, interpret: bool = False):
    """`cross_attention.patches_from_bytes`: [B,P,k,C]. patch_ids: nondecreasing along a row.

    interpret: run the kernels' steps as plain JAX, on any platform (slow: tests).
    """
    B, P, k, C = q_BxPxkxC.shape
    plan = staircase.Plan(patch_ids_BxT, P, k, C, heads, interpret)
    out = _patches_from_bytes(plan.of_patches(q_BxPxkxC), plan.of_bytes(k_BxTxC), plan.of_bytes(v_BxTxC), plan.ids, plan.rows, plan.static)
    out = out.reshape(B, -1, plan.static.groups, k, plan.static.width).swapaxes(2, 3)
    return out.reshape(B, -1, k, plan.static.groups * plan.static.width)[:, :P, :, :C]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _patches_from_bytes(q, k, v, ids, rows, static):
    return _patches_forward(q, k, v, ids, rows, static)[0]


def _patches_forward(q, k, v, ids, rows, static):
    lanes = static.lanes

    def body(rows_ref, member, ids_ref, q_ref, v_ref, k_ref, out_ref, log_total_ref, most, total, acc):
        step = staircase.Step(rows_ref)
        whose, anyones = step.whose(ids_ref)
        staircase.clear(step.new_patches, total, acc)

        @pl.when(step.new_patches)
        def _():
            most[...] = jnp.full_like(most, UNSEEN)

        dtype = member.dtype
        here = staircase.collect(whose, jnp.ones((staircase.BYTES, lanes), dtype)) > 0
        keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
        for l in range(static.k):
            wide, narrow = static.features(l), static.per_head(l)
            scores = staircase.head_sums(staircase.spread(whose, q_ref[:, wide]) * keys, member) * static.scale
            before = most[:, narrow]
            # Any number near the largest will do if all that follows uses the same, and a rounded one is spread by one product. For
            # the same reason weights and fading are rounded before they are summed: what is divided by is what was multiplied with.
            now = jnp.where(here, jnp.maximum(before, _largest(scores, ids_ref, whose, dtype)), before)
            weights = jnp.where(anyones, jnp.exp(scores - staircase.spread(whose, now.astype(dtype))), 0).astype(dtype)
            fade = jnp.exp(before - now).astype(dtype)
            most[:, narrow] = now
            total[:, narrow] = fade.astype(jnp.float32) * total[:, narrow] + staircase.collect(whose, weights)
            acc[:, wide] = staircase.per_head(fade, member) * acc[:, wide] + staircase.collect(whose, (staircase.per_head(weights, member) * values).astype(dtype))

        @pl.when(step.done_with_patches)
        def _():
            for l in range(static.k):
                wide, narrow = static.features(l), static.per_head(l)
                seen = total[:, narrow] > 0
                sums = jnp.where(seen, total[:, narrow], 1)
                out_ref[:, wide] = (acc[:, wide] * staircase.dot(1 / sums, member[...].astype(jnp.float32), (1, 1))).astype(out_ref.dtype)
                log_total_ref[:, narrow] = jnp.where(seen, most[:, narrow] + jnp.log(sums), 0)

    log_total = jax.ShapeDtypeStruct((*q.shape[:2], static.groups * static.k * lanes), jnp.float32)
    inputs, outputs = [("t", ids), ("p", q), ("t", v), ("t", k)], [("p", staircase.like(q)), ("p", log_total)]
    scratch = [static.k * lanes, static.k * lanes, static.k * static.width]
    out, log_total = staircase.walk(body, "patches_from_bytes", rows, inputs, outputs, scratch, static)
    return out, (q, k, v, ids, rows, out, log_total)


def _largest(scores, ids_ref, whose, dtype):
    """Each patch's largest score in the tile, rounded to dtype, [patches, lanes]: running maxima along each patch's bytes, read at
    its last."""
    ids = jnp.broadcast_to(ids_ref[...], scores.shape)
    place = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    distance = 1
    while distance < staircase.BYTES:
        same = (place >= distance) & (pltpu.roll(ids, distance, 0) == ids)
        scores = jnp.where(same, jnp.maximum(scores, pltpu.roll(scores, distance, 0)), scores)
        distance *= 2
    last = (place == staircase.BYTES - 1) | (pltpu.roll(ids, staircase.BYTES - 1, 0) != ids)
    return staircase.collect(whose, jnp.where(last, scores, 0).astype(dtype))


def _patches_backward(static, kept, g):
    q, k, v, ids, rows, out, log_total = kept

    def body(rows_ref, member, ids_ref, q_ref, g_ref, out_ref, log_total_ref, v_ref, k_ref, to_k_ref, to_v_ref, to_q_ref, inner, sum_q):
        step = staircase.Step(rows_ref)
        whose, anyones = step.whose(ids_ref)
        staircase.clear(step.new_patches, sum_q)

        @pl.when(step.new_patches)
        def _():
            for l in range(static.k):
                wide = static.features(l)
                product = g_ref[:, wide].astype(jnp.float32) * out_ref[:, wide].astype(jnp.float32)
                inner[:, static.per_head(l)] = staircase.head_sums(product, member)

        keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
        to_k = to_v = 0
        for l in range(static.k):
            wide, narrow = static.features(l), static.per_head(l)
            queries, g = staircase.spread(whose, q_ref[:, wide]), staircase.spread(whose, g_ref[:, wide])
            scores = staircase.head_sums(queries * keys, member) * static.scale
            weights = jnp.where(anyones, jnp.exp(scores - staircase.spread_finely(whose, log_total_ref[:, narrow], member.dtype)), 0)
            slopes = staircase.head_sums(g * values, member) - staircase.spread_finely(whose, inner[:, narrow], member.dtype)
            to_score = staircase.per_head(weights * slopes * static.scale, member)
            to_k += to_score * queries
            to_v += staircase.per_head(weights, member) * g
            sum_q[:, wide] += staircase.collect(whose, (to_score * keys).astype(k_ref.dtype))
        staircase.add(step.new_bytes, to_k_ref, to_k)
        staircase.add(step.new_bytes, to_v_ref, to_v)

        @pl.when(step.done_with_patches)
        def _():
            to_q_ref[...] = sum_q[...].astype(to_q_ref.dtype)

    inputs = [("t", ids), ("p", q), ("p", g), ("p", out), ("p", log_total), ("t", v), ("t", k)]
    outputs, scratch = [("t", staircase.like(k)), ("t", staircase.like(v)), ("p", staircase.like(q))], [static.k * static.lanes, static.k * static.width]
    to_k, to_v, to_q = staircase.walk(body, "patches_from_bytes_backward", rows, inputs, outputs, scratch, static)
    return to_q, to_k, to_v, None, None


_patches_from_bytes.defvjp(_patches_forward, _patches_backward)
