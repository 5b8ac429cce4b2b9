"""Every byte over the k latents of its patch, as one kernel forward and one backward
(patch_attention_tpu.py). A byte's softmax lies in one tile."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bltjax.models.kernels import patch_attention_tpu


def bytes_from_patches(q_BxTxC, k_BxPxkxC, v_BxPxkxC, latent_ids_BxT, heads: int, interpret: bool = False):
    """`cross_attention.bytes_from_patches`: [B,T,C]. latent_ids: nondecreasing along a row. interpret: as in
    staircase_encoder.py."""
    B, P, k, C = k_BxPxkxC.shape
    plan = patch_attention_tpu.Plan(latent_ids_BxT, P, k, C, heads, interpret)
    k, v = plan.of_patches(k_BxPxkxC), plan.of_patches(v_BxPxkxC)
    out = _bytes_from_patches(plan.of_bytes(q_BxTxC), k, v, plan.ids, plan.rows, plan.static)
    return out[:, : q_BxTxC.shape[1], :C]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _bytes_from_patches(q, k, v, ids, rows, static):
    return _bytes_forward(q, k, v, ids, rows, static)[0]


def _bytes_forward(q, k, v, ids, rows, static):
    def body(rows_ref, member, ids_ref, k_ref, v_ref, q_ref, out_ref):
        step = patch_attention_tpu.Step(rows_ref)
        whose, _ = step.whose(ids_ref)
        _, weights = _byte_weights(whose, q_ref, k_ref, member, static)
        out = sum(
            patch_attention_tpu.per_head(weights[l], member)
            * patch_attention_tpu.spread(whose, v_ref[:, static.features(l)])
            for l in range(static.k)
        )
        patch_attention_tpu.add(step.new_bytes, out_ref, out)

    (out,) = patch_attention_tpu.walk(
        body,
        "bytes_from_patches",
        rows,
        [("t", ids), ("p", k), ("p", v), ("t", q)],
        [("t", patch_attention_tpu.like(q))],
        [],
        static,
    )
    return out, (q, k, v, ids, rows)


def _byte_weights(whose, q_ref, k_ref, member, static):
    """Keys of each byte, and its weights [bytes, lanes], by latent."""
    keys = [patch_attention_tpu.spread(whose, k_ref[:, static.features(l)]) for l in range(static.k)]
    q = q_ref[...].astype(jnp.float32)
    scores = [patch_attention_tpu.head_sums(q * key, member) * static.scale for key in keys]
    most = functools.reduce(jnp.maximum, scores)
    weights = [jnp.exp(score - most) for score in scores]
    share = 1 / sum(weights)
    return keys, [weight * share for weight in weights]


def _bytes_backward(static, kept, g):
    q, k, v, ids, rows = kept

    def body(
        rows_ref, member, ids_ref, k_ref, v_ref, g_ref, q_ref, to_q_ref, to_k_ref, to_v_ref, sum_k, sum_v
    ):
        step = patch_attention_tpu.Step(rows_ref)
        whose, _ = step.whose(ids_ref)
        patch_attention_tpu.clear(step.new_patches, sum_k, sum_v)
        keys, weights = _byte_weights(whose, q_ref, k_ref, member, static)
        g, q = g_ref[...].astype(jnp.float32), q_ref[...].astype(jnp.float32)
        slopes = [
            patch_attention_tpu.head_sums(
                g * patch_attention_tpu.spread(whose, v_ref[:, static.features(l)]), member
            )
            for l in range(static.k)
        ]
        inner = sum(weight * slope for weight, slope in zip(weights, slopes))
        to_q = 0
        for l in range(static.k):
            to_score = patch_attention_tpu.per_head(weights[l] * (slopes[l] - inner) * static.scale, member)
            to_q += to_score * keys[l]
            own = static.features(l)
            sum_k[:, own] += patch_attention_tpu.collect(whose, (to_score * q).astype(q_ref.dtype))
            sum_v[:, own] += patch_attention_tpu.collect(
                whose, (patch_attention_tpu.per_head(weights[l], member) * g).astype(q_ref.dtype)
            )
        patch_attention_tpu.add(step.new_bytes, to_q_ref, to_q)

        @pl.when(step.done_with_patches)
        def _():
            to_k_ref[...], to_v_ref[...] = (
                sum_k[...].astype(to_k_ref.dtype),
                sum_v[...].astype(to_v_ref.dtype),
            )

    inputs = [("t", ids), ("p", k), ("p", v), ("t", g), ("t", q)]
    outputs = [
        ("t", patch_attention_tpu.like(q)),
        ("p", patch_attention_tpu.like(k)),
        ("p", patch_attention_tpu.like(v)),
    ]
    return (
        *patch_attention_tpu.walk(
            body, "bytes_from_patches_backward", rows, inputs, outputs, [static.k * static.width] * 2, static
        ),
        None,
        None,
    )


_bytes_from_patches.defvjp(_bytes_forward, _bytes_backward)
