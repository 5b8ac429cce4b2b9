"""Cross-attention between bytes and the patches that hold them, O(T): one dispatch function each way, one
dense reference.

On TPU both are kernels of block-local products (kernels/patch_attention_tpu.py): compiled for a v5p chip,
forward and gradient of one row of the 8B move 0.5 GB each way, where segment operations move 6.3 GB (encoder)
and 4.2 GB (decoder) and leave scatters, a splash kernel 5.9 and 6.1 GB, dense attention 50 GB
(benchmarks/cross_attention_tpu.py).

Elsewhere they are segment operations and gathers. Each byte has one patch, so that the encoder's attention is
a softmax within contiguous segments and the decoder's a look-up of the k latents of a byte's patch: nothing
of size T x P is ever made. Heads stay side by side in the last axis (H·K wide); a sum over each head, and its
opposite, are products with a matrix of ones and zeros. Of ways to say the same this is the one that XLA's CPU
backend runs fast: forward and gradient of one decoder layer at T 4096, width 128, k 2 take 4 ms, where a
reduction over an axis of k and one over an axis of K took 44."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from bltjax.models.kernels.segments import segment_broadcast, segment_max, segment_sum
from bltjax.models.layers import Linear, RMSNorm
from bltjax.parallel import sharding


def patches_from_bytes(q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads: int, implementation: str = "auto"):
    """Every query of a patch attends to the bytes of its own patch: [B,P,k,C]. Without bytes it gets 0.

    C = heads · K. patch_ids: nondecreasing, P where a byte belongs to no patch. Softmax in float32.
    implementation: "reference" (dense), "segments", "blocks" (TPU) or "auto": "blocks" where the platform
    being traced for is TPU, else "segments". Another: KeyError. Arrays are one device's own."""
    ways = {"reference": _patches_dense, "segments": _patches_by_segments, "blocks": _patches_on_tpu}
    return ways[_chosen(implementation, "segments")](q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads)


def bytes_from_patches(
    q_BxTxC, k_BxPxkxC, v_BxPxkxC, latent_ids_BxT, heads: int, implementation: str = "auto"
):
    """Every byte attends to the k latents of the patch that it reads: [B,T,C]. A byte that reads none (id P)
    gets 0.

    C = heads · K. latent_ids: nondecreasing. Softmax in float32. implementation: "reference" (dense),
    "gather", "blocks" (TPU) or "auto": "blocks" where the platform being traced for is TPU, else "gather".
    Another: KeyError. Arrays are one device's own."""
    ways = {"reference": _bytes_dense, "gather": _bytes_by_gather, "blocks": _bytes_on_tpu}
    return ways[_chosen(implementation, "gather")](q_BxTxC, k_BxPxkxC, v_BxPxkxC, latent_ids_BxT, heads)


def _chosen(implementation: str, elsewhere: str) -> str:
    if implementation != "auto":
        return implementation
    return "blocks" if sharding.platform() == "tpu" else elsewhere


# Pallas takes a second to import, and most processes need none of it.


def _patches_on_tpu(*args):
    from bltjax.models.kernels import patch_attention_tpu_encoder

    return patch_attention_tpu_encoder.patches_from_bytes(*args)


def _bytes_on_tpu(*args):
    from bltjax.models.kernels import patch_attention_tpu_decoder

    return patch_attention_tpu_decoder.bytes_from_patches(*args)


def _patches_dense(q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads: int):
    B, P, k, C = q_BxPxkxC.shape
    seen = patch_ids_BxT[:, None, :] == jnp.arange(P, dtype=jnp.int32)[None, :, None]
    queries, seen = q_BxPxkxC.reshape(B, P * k, C), jnp.repeat(seen, k, axis=1)
    return dense(queries, k_BxTxC, v_BxTxC, seen, heads).reshape(B, P, k, C)


def _bytes_dense(q_BxTxC, k_BxPxkxC, v_BxPxkxC, latent_ids_BxT, heads: int):
    B, P, k, C = k_BxPxkxC.shape
    seen = latent_ids_BxT[:, :, None] == jnp.arange(P, dtype=jnp.int32)[None, None, :]
    keys, values = (x.reshape(B, P * k, C) for x in (k_BxPxkxC, v_BxPxkxC))
    return dense(q_BxTxC, keys, values, jnp.repeat(seen, k, axis=2), heads)


def _patches_by_segments(q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads: int):
    """A softmax within contiguous segments: the k queries of a patch stand side by side, heads within
    them."""
    P, k, C = q_BxPxkxC.shape[1:]
    queries = [segment_broadcast(q_BxPxkxC[:, :, j], patch_ids_BxT) for j in range(k)]
    scores = jnp.concatenate([head_sums(q * k_BxTxC, heads) for q in queries], -1) * (C // heads) ** -0.5
    largest = segment_broadcast(segment_max(scores, patch_ids_BxT, P), patch_ids_BxT)
    # A byte of no patch gets weight 0 and a patch without bytes divides by 1: 0 / 0 would be a NaN gradient
    # behind any mask.
    owned = (patch_ids_BxT < P)[..., None]
    weights = jnp.where(owned, jnp.exp(scores - jax.lax.stop_gradient(largest)), 0)
    total = segment_sum(weights, patch_ids_BxT, P)
    share = 1 / jnp.where(total > 0, total, 1)
    outs = []
    for j in range(k):
        own = slice(j * heads, (j + 1) * heads)
        weighted = per_head(weights[..., own], C) * v_BxTxC.astype(jnp.float32)
        outs.append(segment_sum(weighted, patch_ids_BxT, P) * per_head(share[..., own], C))
    return jnp.stack(outs, axis=2).astype(v_BxTxC.dtype)


def _bytes_by_gather(q_BxTxC, k_BxPxkxC, v_BxPxkxC, latent_ids_BxT, heads: int):
    """A softmax over the k latents that each byte gathers."""
    k, C = k_BxPxkxC.shape[2:]
    keys, values = (
        [segment_broadcast(x[:, :, j], latent_ids_BxT) for j in range(k)] for x in (k_BxPxkxC, v_BxPxkxC)
    )
    scores = [head_sums(q_BxTxC * key, heads) * (C // heads) ** -0.5 for key in keys]
    largest = jax.lax.stop_gradient(functools.reduce(jnp.maximum, scores))
    weights = [jnp.exp(score - largest) for score in scores]
    total = sum(weights)
    return sum(
        per_head(weight / total, C).astype(v_BxPxkxC.dtype) * value
        for weight, value in zip(weights, values, strict=True)
    )


def _membership(heads: int, C: int, dtype):
    """1 where a feature belongs to a head, [C, heads]."""
    return (jnp.arange(C)[:, None] // (C // heads) == jnp.arange(heads)[None]).astype(dtype)


def head_sums(x, heads: int):
    """Sum over each head's features: [..., C] -> float32 [..., heads]."""
    return jnp.matmul(x, _membership(heads, x.shape[-1], x.dtype), preferred_element_type=jnp.float32)


def per_head(x, C: int):
    """Each head's value at each of its features: float32 [..., heads] -> [..., C]."""
    return jnp.matmul(x, _membership(x.shape[-1], C, x.dtype).T)


def dense(q_BxQxC, k_BxSxC, v_BxSxC, seen_BxQxS, heads: int):
    """Plain masked attention; a query that sees nothing gets 0."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q_BxQxC, k_BxSxC, v_BxSxC))
    scores = jnp.einsum("BqHK,BsHK->BHqs", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen_BxQxS[:, None], scores, -1e30), axis=-1) * seen_BxQxS[:, None]
    return jnp.einsum("BHqs,BsHK->BqHK", weights.astype(v.dtype), v).reshape(q_BxQxC.shape)


class CrossAttention(nn.Module):
    """Pre-norm cross-attention without positions; the residual is added once, or twice in `released` (paper
    Eq. 5-8).

    attend: `patches_from_bytes` (x is [B,P,k,D], source [B,T,D]) or `bytes_from_patches` (x is [B,T,D],
    source [B,P,k,D]). Heads that do not divide the width have a head dimension rounded down (400M of Table
    10: 10 heads, width 768)."""

    attend: object
    heads: int
    doubled_residual: bool
    eps: float
    dtype: str

    @nn.compact
    def __call__(self, x, source, ids_BxT):
        width = x.shape[-1]
        inner = self.heads * (width // self.heads)
        q = Linear((inner,), self.dtype, name="q")(RMSNorm(self.eps, name="norm_q")(x))
        kv = Linear((2, inner), self.dtype, name="kv")(RMSNorm(self.eps, name="norm_kv")(source))
        k, v = kv[..., 0, :], kv[..., 1, :]
        attend = functools.partial(self.attend, heads=self.heads // sharding.parts("model"))
        own_heads = lambda x: P(sharding.BATCH, *(None,) * (x.ndim - 2), "model")
        o = sharding.local(
            attend, (own_heads(q), own_heads(k), own_heads(v), P(sharding.BATCH)), own_heads(q)
        )(q, k, v, ids_BxT)
        o = sharding.rows(Linear((width,), self.dtype, std=width**-0.5, name="out")(o))
        return (2 * x if self.doubled_residual else x) + o
