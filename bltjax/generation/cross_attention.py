"""Cross-attention of generation: patches that close attend to their own bytes, which lie in buffers; bytes
attend to the latents of the patch that they read.

models/cross_attention.py computes the same for whole rows. Here it is a few vectors at a time, so that
products are written to wake up no library of threads, and a patch's bytes are read PIECE at a time, however
many it has."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bltjax.generation import kv_cache
from bltjax.models.layers import rms_norm

PIECE = 16  # bytes of a patch that are read together; longer patches take several turns
LOWEST = -1e30


class Spans(NamedTuple):
    """Q patches of each row by the positions of their bytes; those that are not `real` are padding."""

    starts_BxQ: jax.Array  # int32: first byte
    ends_BxQ: jax.Array  # int32: last byte
    real_BxQ: jax.Array  # bool

    @property
    def turns(self):
        """int32 []: pieces that the longest patch has."""
        return jnp.max(jnp.where(self.real_BxQ, self.ends_BxQ - self.starts_BxQ, 0)) // PIECE + 1

    def piece(self, buffer_BxTx, turn):
        """(the turn-th PIECE bytes of every patch, [B,Q,PIECE,...]; bool [B,Q,PIECE]: is the patch's)."""
        at = self.starts_BxQ[:, :, None] + turn * PIECE + jnp.arange(PIECE, dtype=jnp.int32)[None, None]
        rows = jnp.arange(at.shape[0], dtype=jnp.int32)[:, None, None]
        return buffer_BxTx.at[rows, at].get(mode="clip"), at <= self.ends_BxQ[:, :, None]


def max_pool(buffer_BxTxD, spans: Spans):
    """The largest value of each feature over a patch's bytes, [B,Q,D]; 0 for padding."""

    def turn(i, so_far):
        x, own = spans.piece(buffer_BxTxD, i)
        return jnp.maximum(so_far, jnp.max(jnp.where(own[..., None], x, LOWEST), axis=2))

    lowest = jnp.full((*spans.real_BxQ.shape, buffer_BxTxD.shape[-1]), LOWEST, buffer_BxTxD.dtype)
    pooled = jax.lax.fori_loop(0, spans.turns, turn, lowest)
    return jnp.where(spans.real_BxQ[..., None], pooled, 0)


def patches_from_bytes(config, weights, patches_BxQxkxD, kv_BxTx2xI, spans: Spans):
    """[B,Q,k,D]: a patch's k vectors after attention to the patch's own bytes, and the residual.

    weights: of `weights_of`; kv: of `keys_and_values` of every byte, in a buffer. The softmax over the pieces
    is that of flash attention: kept are the largest score so far, the sum of weights and of weighted values.
    """
    B, Q, k, _ = patches_BxQxkxD.shape
    H = config.cross.heads
    q = each_vector(rms_norm(patches_BxQxkxD, weights["norm_q"], config.norm_eps), weights["q"])
    inner = q.shape[-1]
    q = (q * jnp.asarray((inner // H) ** -0.5, q.dtype)).reshape(B, Q, k, H, -1)
    queries = [q[:, :, i] for i in range(k)]

    def turn(i, carry):
        largest, total, out = carry  # [B,Q,k,H], [B,Q,k,H], [B,Q,k,I]
        kv, own = spans.piece(kv_BxTx2xI, i)
        kv = kv.reshape(B, Q, PIECE, 2, H, -1)
        scores = _scores(queries, kv[:, :, :, 0])
        scores = jnp.where(own[..., None, None], scores, LOWEST)
        new_largest = jnp.maximum(largest, jnp.max(scores, axis=2))
        exponentials = jnp.exp(scores - new_largest[:, :, None])
        rescale = jnp.exp(largest - new_largest)
        total = total * rescale + jnp.sum(exponentials, axis=2)
        out = out * _per_head(rescale, inner) + _weighted(exponentials, kv[:, :, :, 1]).reshape(out.shape)
        return new_largest, total, out

    zero = jnp.zeros((B, Q, k, H), jnp.float32)
    start = (zero + LOWEST, zero, jnp.zeros((B, Q, k, inner), jnp.float32))
    _, total, out = jax.lax.fori_loop(0, spans.turns, turn, start)
    o = each_vector((out / _per_head(total, inner)).astype(config.dtype), weights["out"])
    return (2 * patches_BxQxkxD if config.cross.doubled_residual else patches_BxQxkxD) + o


def _scores(queries, keys_BxQxWxHxK):
    """float32 [B,Q,W,k,H] of k queries [B,Q,H,K] and W keys, query by query."""
    one = lambda q: jnp.einsum("BQHC,BQWHC->BQWH", q, keys_BxQxWxHxK, preferred_element_type=jnp.float32)
    return jnp.stack([one(q) for q in queries], axis=3)


def _weighted(weights_BxQxWxkxH, values_BxQxWxHxK):
    """float32 [B,Q,k,H,K]: sums of values over the W bytes of a piece, query by query."""
    values = values_BxQxWxHxK.astype(jnp.float32)
    one = lambda i: jnp.einsum("BQWH,BQWHC->BQHC", weights_BxQxWxkxH[:, :, :, i], values)
    return jnp.stack([one(i) for i in range(weights_BxQxWxkxH.shape[3])], axis=2)


def bytes_from_patches(config, weights, x_BxCxD, kv_BxCxkx2xI):
    """[B,C,D]: bytes after attention to the k latents of the patch that each reads, and the residual."""
    H = config.cross.heads
    q = rms_norm(x_BxCxD, weights["norm_q"], config.norm_eps) @ weights["q"]
    inner = q.shape[-1]
    q = q * jnp.asarray((inner // H) ** -0.5, q.dtype)
    shares = jax.nn.softmax(_head_sums(q[:, :, None] * kv_BxCxkx2xI[:, :, :, 0], H), axis=2)
    mixed = jnp.sum(_per_head(shares, inner).astype(config.dtype) * kv_BxCxkx2xI[:, :, :, 1], axis=2)
    return (2 * x_BxCxD if config.cross.doubled_residual else x_BxCxD) + mixed @ weights["out"]


def weights_of(stack: dict, i: int, dtype) -> dict:
    """Layer i of a stack of cross-attentions: norms in float32, matrices [D, F] in the compute dtype."""
    return {
        "norm_q": stack["norm_q"]["scale"][i].astype(jnp.float32),
        "norm_kv": stack["norm_kv"]["scale"][i].astype(jnp.float32),
        **{name: kv_cache.matrix(stack[name]["kernel"][i], dtype) for name in ("q", "kv", "out")},
    }


def keys_and_values(weights: dict, source, eps: float):
    """[..., 2, I] of what is attended to, [..., D]."""
    kv = each_vector(rms_norm(source, weights["norm_kv"], eps), weights["kv"])
    return kv.reshape(*kv.shape[:-1], 2, -1)


def each_vector(x, matrix):
    """x @ matrix, of a patch's k vectors one after the other: XLA's CPU backend hands a few rows at once to a
    library whose threads take ten times as long to wake up as such a product takes."""
    return x @ matrix if x.ndim < 4 else jnp.stack([x[:, :, i] @ matrix for i in range(x.shape[2])], axis=2)


def _head_sums(x, heads: int):
    """models.cross_attention.head_sums without its product, which would be of a few rows."""
    return jnp.sum(x.reshape(*x.shape[:-1], heads, -1), axis=-1, dtype=jnp.float32)


def _per_head(x, C: int):
    """models.cross_attention.per_head without its product."""
    return jnp.repeat(x, C // x.shape[-1], axis=-1)
