"""Cross-attention between bytes and the patches that hold them, O(T): one dispatch function each way, one dense reference.

Each byte has one patch, so that the encoder's attention is a softmax within contiguous segments and the decoder's a look-up of
the k latents of a byte's patch: nothing of size T x P is ever made.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bltjax.models.layers import Linear, RMSNorm
from bltjax.models.segments import collect, maximum, spread


def patches_from_bytes(q_BxPxkxHxK, k_BxTxHxK, v_BxTxHxK, patch_ids_BxT, implementation: str = "auto"):
    """Every query of a patch attends to the bytes of its own patch: [B,P,k,H,K]. Without bytes it gets 0.

    patch_ids: P where a byte belongs to no patch. implementation: "reference" (dense), "segments" or "auto". Softmax in float32.
    """
    B, P, k, H, K = q_BxPxkxHxK.shape
    T = k_BxTxHxK.shape[1]
    if implementation == "reference":
        seen = patch_ids_BxT[:, None, :] == jnp.arange(P, dtype=jnp.int32)[None, :, None]
        return dense(q_BxPxkxHxK.reshape(B, P * k, H, K), k_BxTxHxK, v_BxTxHxK, jnp.repeat(seen, k, axis=1)).reshape(B, P, k, H, K)
    q_BxTxkxHxK = spread(q_BxPxkxHxK.reshape(B, P, -1), patch_ids_BxT).reshape(B, T, k, H, K)
    scores = jnp.sum((q_BxTxkxHxK * k_BxTxHxK[:, :, None]).astype(jnp.float32), -1).reshape(B, T, k * H) * K ** -0.5
    most = jax.lax.stop_gradient(spread(maximum(scores, patch_ids_BxT, P), patch_ids_BxT))
    # A byte of no patch gets weight 0 and a patch without bytes divides by 1: 0 / 0 would be a NaN gradient behind any mask.
    weights = jnp.where((patch_ids_BxT < P)[..., None], jnp.exp(scores - most), 0)
    total = collect(weights, patch_ids_BxT, P).reshape(B, P, k, H, 1)
    weighted = weights.astype(v_BxTxHxK.dtype).reshape(B, T, k, H, 1) * v_BxTxHxK[:, :, None]
    sums = collect(weighted.astype(jnp.float32).reshape(B, T, -1), patch_ids_BxT, P).reshape(B, P, k, H, K)
    return (sums / jnp.where(total > 0, total, 1)).astype(v_BxTxHxK.dtype)


def bytes_from_patches(q_BxTxHxK, k_BxPxkxHxK, v_BxPxkxHxK, latent_ids_BxT, implementation: str = "auto"):
    """Every byte attends to the k latents of the patch that it reads: [B,T,H,K]. A byte that reads none (id P) gets 0.

    implementation: "reference" (dense), "gather" or "auto". Softmax in float32.
    """
    B, P, k, H, K = k_BxPxkxHxK.shape
    T = q_BxTxHxK.shape[1]
    if implementation == "reference":
        seen = latent_ids_BxT[:, :, None] == jnp.arange(P, dtype=jnp.int32)[None, None, :]
        return dense(q_BxTxHxK, k_BxPxkxHxK.reshape(B, P * k, H, K), v_BxPxkxHxK.reshape(B, P * k, H, K), jnp.repeat(seen, k, axis=2))
    near_k = spread(k_BxPxkxHxK.reshape(B, P, -1), latent_ids_BxT).reshape(B, T, k, H, K)
    near_v = spread(v_BxPxkxHxK.reshape(B, P, -1), latent_ids_BxT).reshape(B, T, k, H, K)
    scores = jnp.sum((q_BxTxHxK[:, :, None] * near_k).astype(jnp.float32), -1) * K ** -0.5
    weights = jax.nn.softmax(scores, axis=2).astype(near_v.dtype)
    return jnp.sum(weights[..., None] * near_v, axis=2)


def dense(q_BxQxHxK, k_BxSxHxK, v_BxSxHxK, seen_BxQxS):
    """Plain masked attention; a query that sees nothing gets 0."""
    scores = jnp.einsum("BqHK,BsHK->BHqs", q_BxQxHxK, k_BxSxHxK, preferred_element_type=jnp.float32) * q_BxQxHxK.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen_BxQxS[:, None], scores, -1e30), axis=-1) * seen_BxQxS[:, None]
    return jnp.einsum("BHqs,BsHK->BqHK", weights.astype(v_BxSxHxK.dtype), v_BxSxHxK)


class CrossAttention(nn.Module):
    """Pre-norm cross-attention without positions; the residual is added once, or twice in `released` (paper Eq. 5-8).

    attend: `patches_from_bytes` (x is [B,P,k,D], source [B,T,D]) or `bytes_from_patches` (x is [B,T,D], source [B,P,k,D]).
    Heads that do not divide the width have a head dimension rounded down (400M of Table 10: 10 heads, width 768).
    """
    attend: object
    heads: int
    doubled_residual: bool
    eps: float
    dtype: str

    @nn.compact
    def __call__(self, x, source, ids_BxT):
        width = x.shape[-1]
        heads = (self.heads, width // self.heads)
        inner = heads[0] * heads[1]
        q = Linear((inner,), self.dtype, name="q")(RMSNorm(self.eps, name="norm_q")(x))
        kv = Linear((2, inner), self.dtype, name="kv")(RMSNorm(self.eps, name="norm_kv")(source))
        k, v = kv[..., 0, :], kv[..., 1, :]
        o = self.attend(*(part.reshape(*part.shape[:-1], *heads) for part in (q, k, v)), ids_BxT)
        o = Linear((width,), self.dtype, std=width ** -0.5, name="out")(o.reshape(*x.shape[:-1], inner))
        return (2 * x if self.doubled_residual else x) + o
