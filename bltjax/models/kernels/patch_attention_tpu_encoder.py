"""Every latent of a patch over the patch's bytes, as one kernel forward and one backward
(patch_attention_tpu.py).

A patch may go on in the tiles below: its softmax is kept as in flash attention, by the largest score so far,
the sum of weights and the weighted sum of values, each per patch. """

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bltjax.models.kernels import patch_attention_tpu

UNSEEN = -1e30


def patches_from_bytes(q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads: int, interpret: bool = False):
    """`cross_attention.patches_from_bytes`: [B,P,k,C]. patch_ids: nondecreasing along a row.

    interpret: run the kernels' steps as plain JAX, on any platform (slow: tests).
    """
    B, P, k, C = q_BxPxkxC.shape
    plan = patch_attention_tpu.Plan(patch_ids_BxT, P, k, C, heads, interpret)
    out = _patches_from_bytes(
        plan.of_patches(q_BxPxkxC),
        plan.of_bytes(k_BxTxC),
        plan.of_bytes(v_BxTxC),
        plan.ids,
        plan.rows,
        plan.static,
    )
    out = out.reshape(B, -1, plan.static.groups, k, plan.static.width).swapaxes(2, 3)
    return out.reshape(B, -1, k, plan.static.groups * plan.static.width)[:, :P, :, :C]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _patches_from_bytes(q, k, v, ids, rows, static):
    return _patches_forward(q, k, v, ids, rows, static)[0]


def _patches_forward(q, k, v, ids, rows, static):
    lanes = static.lanes

    def body(rows_ref, member, ids_ref, q_ref, v_ref, k_ref, out_ref, log_total_ref, most, total, acc):
        step = patch_attention_tpu.Step(rows_ref)
        whose, anyones = step.whose(ids_ref)
        patch_attention_tpu.clear(step.new_patches, total, acc)

        @pl.when(step.new_patches)
        def _():
            most[...] = jnp.full_like(most, UNSEEN)

        dtype = member.dtype
        here = patch_attention_tpu.collect(whose, jnp.ones((patch_attention_tpu.BYTES, lanes), dtype)) > 0
        keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
        for l in range(static.k):
            wide, narrow = static.features(l), static.per_head(l)
            scores = (
                patch_attention_tpu.head_sums(
                    patch_attention_tpu.spread(whose, q_ref[:, wide]) * keys, member
                )
                * static.scale
            )
            before = most[:, narrow]
            # Any number near the largest will do if all that follows uses the same, and a rounded one is
            # spread by one product. For the same reason weights and fading are rounded before they are
            # summed: what is divided by is what was multiplied with.
            now = jnp.where(here, jnp.maximum(before, _largest(scores, ids_ref, whose, dtype)), before)
            weights = jnp.where(
                anyones, jnp.exp(scores - patch_attention_tpu.spread(whose, now.astype(dtype))), 0
            ).astype(dtype)
            fade = jnp.exp(before - now).astype(dtype)
            most[:, narrow] = now
            total[:, narrow] = fade.astype(jnp.float32) * total[:, narrow] + patch_attention_tpu.collect(
                whose, weights
            )
            acc[:, wide] = patch_attention_tpu.per_head(fade, member) * acc[
                :, wide
            ] + patch_attention_tpu.collect(
                whose, (patch_attention_tpu.per_head(weights, member) * values).astype(dtype)
            )

        @pl.when(step.done_with_patches)
        def _():
            for l in range(static.k):
                wide, narrow = static.features(l), static.per_head(l)
                seen = total[:, narrow] > 0
                sums = jnp.where(seen, total[:, narrow], 1)
                out_ref[:, wide] = (
                    acc[:, wide] * patch_attention_tpu.dot(1 / sums, member[...].astype(jnp.float32), (1, 1))
                ).astype(out_ref.dtype)
                log_total_ref[:, narrow] = jnp.where(seen, most[:, narrow] + jnp.log(sums), 0)

    log_total = jax.ShapeDtypeStruct((*q.shape[:2], static.groups * static.k * lanes), jnp.float32)
    inputs, outputs = (
        [("t", ids), ("p", q), ("t", v), ("t", k)],
        [("p", patch_attention_tpu.like(q)), ("p", log_total)],
    )
    scratch = [static.k * lanes, static.k * lanes, static.k * static.width]
    out, log_total = patch_attention_tpu.walk(
        body, "patches_from_bytes", rows, inputs, outputs, scratch, static
    )
    return out, (q, k, v, ids, rows, out, log_total)


def _largest(scores, ids_ref, whose, dtype):
    """Each patch's largest score in the tile, rounded to dtype, [patches, lanes]: running maxima along each
    patch's bytes, read at its last."""
    ids = jnp.broadcast_to(ids_ref[...], scores.shape)
    place = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    distance = 1
    while distance < patch_attention_tpu.BYTES:
        same = (place >= distance) & (pltpu.roll(ids, distance, 0) == ids)
        scores = jnp.where(same, jnp.maximum(scores, pltpu.roll(scores, distance, 0)), scores)
        distance *= 2
    last = (place == patch_attention_tpu.BYTES - 1) | (
        pltpu.roll(ids, patch_attention_tpu.BYTES - 1, 0) != ids
    )
    return patch_attention_tpu.collect(whose, jnp.where(last, scores, 0).astype(dtype))


def _patches_backward(static, kept, g):
    q, k, v, ids, rows, out, log_total = kept

    def body(
        rows_ref,
        member,
        ids_ref,
        q_ref,
        g_ref,
        out_ref,
        log_total_ref,
        v_ref,
        k_ref,
        to_k_ref,
        to_v_ref,
        to_q_ref,
        inner,
        sum_q,
    ):
        step = patch_attention_tpu.Step(rows_ref)
        whose, anyones = step.whose(ids_ref)
        patch_attention_tpu.clear(step.new_patches, sum_q)

        @pl.when(step.new_patches)
        def _():
            for l in range(static.k):
                wide = static.features(l)
                product = g_ref[:, wide].astype(jnp.float32) * out_ref[:, wide].astype(jnp.float32)
                inner[:, static.per_head(l)] = patch_attention_tpu.head_sums(product, member)

        keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
        to_k = to_v = 0
        for l in range(static.k):
            wide, narrow = static.features(l), static.per_head(l)
            queries, g = (
                patch_attention_tpu.spread(whose, q_ref[:, wide]),
                patch_attention_tpu.spread(whose, g_ref[:, wide]),
            )
            scores = patch_attention_tpu.head_sums(queries * keys, member) * static.scale
            weights = jnp.where(
                anyones,
                jnp.exp(
                    scores - patch_attention_tpu.spread_finely(whose, log_total_ref[:, narrow], member.dtype)
                ),
                0,
            )
            slopes = patch_attention_tpu.head_sums(g * values, member) - patch_attention_tpu.spread_finely(
                whose, inner[:, narrow], member.dtype
            )
            to_score = patch_attention_tpu.per_head(weights * slopes * static.scale, member)
            to_k += to_score * queries
            to_v += patch_attention_tpu.per_head(weights, member) * g
            sum_q[:, wide] += patch_attention_tpu.collect(whose, (to_score * keys).astype(k_ref.dtype))
        patch_attention_tpu.add(step.new_bytes, to_k_ref, to_k)
        patch_attention_tpu.add(step.new_bytes, to_v_ref, to_v)

        @pl.when(step.done_with_patches)
        def _():
            to_q_ref[...] = sum_q[...].astype(to_q_ref.dtype)

    inputs = [("t", ids), ("p", q), ("p", g), ("p", out), ("p", log_total), ("t", v), ("t", k)]
    outputs, scratch = (
        [
            ("t", patch_attention_tpu.like(k)),
            ("t", patch_attention_tpu.like(v)),
            ("p", patch_attention_tpu.like(q)),
        ],
        [static.k * static.lanes, static.k * static.width],
    )
    to_k, to_v, to_q = patch_attention_tpu.walk(
        body, "patches_from_bytes_backward", rows, inputs, outputs, scratch, static
    )
    return to_q, to_k, to_v, None, None


_patches_from_bytes.defvjp(_patches_forward, _patches_backward)
