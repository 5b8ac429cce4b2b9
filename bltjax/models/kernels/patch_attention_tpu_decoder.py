"""Every byte over the k latents of its patch, as one kernel forward and one backward
(patch_attention_tpu.py). A byte's softmax lies in one tile."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bltjax.models.kernels import patch_attention_tpu as tpu


def bytes_from_patches(q_BxTxC, k_BxPxkxC, v_BxPxkxC, latent_ids_BxT, heads: int, interpret: bool = False):
    """`cross_attention.bytes_from_patches`: [B,T,C]. latent_ids: nondecreasing along a row. interpret: as in
    patch_attention_tpu_encoder.py."""
    B, P, k, C = k_BxPxkxC.shape
    plan = tpu.Plan(latent_ids_BxT, P, k, C, heads, interpret)
    k, v = plan.of_patches(k_BxPxkxC), plan.of_patches(v_BxPxkxC)
    out = _bytes_from_patches(plan.of_bytes(q_BxTxC), k, v, plan.ids, plan.rows, plan.static)
    return out[:, : q_BxTxC.shape[1], :C]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _bytes_from_patches(q, k, v, ids, rows, static):
    return _forward(q, k, v, ids, rows, static)[0]


def _forward(q, k, v, ids, rows, static):
    inputs = [("bytes", ids), ("patches", k), ("patches", v), ("bytes", q)]
    body = functools.partial(_forward_tile, static)
    (out,) = tpu.run(body, "bytes_from_patches", rows, inputs, [("bytes", tpu.like(q))], [], static)
    return out, (q, k, v, ids, rows)


def _forward_tile(static, rows_ref, head_of, ids_ref, k_ref, v_ref, q_ref, out_ref):
    tile = tpu.Tile(rows_ref, ids_ref)
    _, weights = _weights(tile, q_ref, k_ref, head_of, static)
    values = [tile.segment_broadcast(v_ref[:, static.features(l)]) for l in range(static.k)]
    out = sum(tpu.per_head(weight, head_of) * value for weight, value in zip(weights, values))
    tpu.write_or_add(tile.first_of_bytes, out_ref, out)


def _weights(tile, q_ref, k_ref, head_of, static):
    """By latent: the key that each byte reads [bytes, width], and its softmax weight [bytes, lanes]."""
    keys = [tile.segment_broadcast(k_ref[:, static.features(l)]) for l in range(static.k)]
    q = q_ref[...].astype(jnp.float32)
    scores = [tpu.head_sums(q * key, head_of) * static.scale for key in keys]
    largest = functools.reduce(jnp.maximum, scores)
    exponentials = [jnp.exp(score - largest) for score in scores]
    share = 1 / sum(exponentials)
    return keys, [exponential * share for exponential in exponentials]


def _backward(static, kept, g):
    q, k, v, ids, rows = kept
    inputs = [("bytes", ids), ("patches", k), ("patches", v), ("bytes", g), ("bytes", q)]
    outputs = [("bytes", tpu.like(q)), ("patches", tpu.like(k)), ("patches", tpu.like(v))]
    scratch = [static.k * static.width] * 2
    body = functools.partial(_backward_tile, static)
    gradients = tpu.run(body, "bytes_from_patches_backward", rows, inputs, outputs, scratch, static)
    return (*gradients, None, None)


def _backward_tile(
    static,
    rows_ref,
    head_of,
    ids_ref,
    k_ref,
    v_ref,
    g_ref,
    q_ref,
    grad_q_ref,
    grad_k_ref,
    grad_v_ref,
    sum_k,
    sum_v,
):
    tile = tpu.Tile(rows_ref, ids_ref)
    tpu.clear(tile.first_of_patches, sum_k, sum_v)
    keys, weights = _weights(tile, q_ref, k_ref, head_of, static)
    g, q = g_ref[...].astype(jnp.float32), q_ref[...].astype(jnp.float32)
    # The softmax's backward pass: a score's gradient is weight · (its slope - the weighted mean of slopes).
    slopes = [
        tpu.head_sums(g * tile.segment_broadcast(v_ref[:, static.features(l)]), head_of)
        for l in range(static.k)
    ]
    mean = sum(weight * slope for weight, slope in zip(weights, slopes))
    grad_q = 0
    for l in range(static.k):
        own = static.features(l)
        grad_score = tpu.per_head(weights[l] * (slopes[l] - mean) * static.scale, head_of)
        grad_q += grad_score * keys[l]
        sum_k[:, own] += tile.segment_sum((grad_score * q).astype(q_ref.dtype))
        sum_v[:, own] += tile.segment_sum((tpu.per_head(weights[l], head_of) * g).astype(q_ref.dtype))
    tpu.write_or_add(tile.first_of_bytes, grad_q_ref, grad_q)

    @pl.when(tile.last_of_patches)
    def _():
        grad_k_ref[...] = sum_k[...].astype(grad_k_ref.dtype)
        grad_v_ref[...] = sum_v[...].astype(grad_v_ref.dtype)


_bytes_from_patches.defvjp(_forward, _backward)
