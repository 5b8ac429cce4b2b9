"""A patch's vector from the bytes it holds, however many: the maximum of what they are, and the encoder's
cross-attention, a few bytes a turn. And what all cross-attention of generation shares."""

import jax
import jax.numpy as jnp

from bltjax.generation import kv_cache
from bltjax.models.layers import rms_norm

PIECE = 16  # bytes of a patch that are pooled together; longer patches take several turns
LOWEST = -1e30


def pool(c, params, pooled_BxTxD, keys, starts_BxQ, ends_BxQ, real_BxQ):
    """Patch vectors [B,Q,*] of bytes starts..ends, PIECE bytes a turn.

    c: the model's config. params: as BLT.prepare has them. pooled_BxTxD: what patches take the maximum of;
    keys: [B,T,2,C] of each cross-attention, what they attend to. real_BxQ: False for what is no patch."""
    B, Q = starts_BxQ.shape
    turns = jnp.max(jnp.where(real_BxQ, ends_BxQ - starts_BxQ, 0)) // PIECE + 1

    def piece(buffer_BxTx, i):
        at = starts_BxQ[:, :, None] + i * PIECE + jnp.arange(PIECE, dtype=jnp.int32)[None, None]
        rows = jnp.arange(B, dtype=jnp.int32)[:, None, None]
        return buffer_BxTx.at[rows, at].get(mode="clip"), at <= ends_BxQ[:, :, None]

    def most(i, so_far):
        x, here = piece(pooled_BxTxD, i)
        return jnp.maximum(so_far, jnp.max(jnp.where(here[..., None], x, LOWEST), axis=2))

    D = c.local.width
    pooled = jax.lax.fori_loop(0, turns, most, jnp.full((B, Q, D), LOWEST, c.dtype))
    pooled = jnp.where(real_BxQ[..., None], pooled, 0)
    if c.cross.encoder == "none":
        return pooled
    patches = (pooled @ params["pool"]).reshape(B, Q, c.cross.k, D)
    for cross, buffer in zip(params["patch_cross"], keys, strict=True):
        q = each(rms_norm(patches, cross["norm_q"], c.norm_eps), cross["q"])
        inner, H = q.shape[-1], c.cross.heads
        q = (q * jnp.asarray((inner // H) ** -0.5, q.dtype)).reshape(B, Q, c.cross.k, H, -1)
        q = [q[:, :, i] for i in range(c.cross.k)]

        def turn(i, carry):
            top, total, out = carry
            kv, here = piece(buffer, i)  # [B,Q,W,2,C]
            kv = kv.reshape(B, Q, PIECE, 2, H, -1)
            scores = jnp.stack(
                [
                    jnp.einsum("BQHC,BQWHC->BQWH", one, kv[:, :, :, 0], preferred_element_type=jnp.float32)
                    for one in q
                ],
                axis=3,
            )
            scores = jnp.where(here[..., None, None], scores, LOWEST)
            new = jnp.maximum(top, jnp.max(scores, axis=2))
            weights, fade = jnp.exp(scores - new[:, :, None]), jnp.exp(top - new)
            seen = jnp.stack(
                [
                    jnp.einsum("BQWH,BQWHC->BQHC", weights[:, :, :, i], kv[:, :, :, 1].astype(jnp.float32))
                    for i in range(c.cross.k)
                ],
                axis=2,
            ).reshape(out.shape)
            return new, total * fade + jnp.sum(weights, axis=2), out * per_head(fade, inner) + seen

        zero = jnp.zeros((B, Q, c.cross.k, H), jnp.float32)
        _, total, out = jax.lax.fori_loop(
            0, turns, turn, (zero + LOWEST, zero, jnp.zeros((B, Q, c.cross.k, inner), jnp.float32))
        )
        o = each((out / per_head(total, inner)).astype(c.dtype), cross["out"])
        patches = (2 * patches if c.cross.doubled_residual else patches) + o
    return patches.reshape(B, Q, -1)


def cross_weights(stack: dict, i: int, dtype) -> dict:
    return {
        "norm_q": stack["norm_q"]["scale"][i].astype(jnp.float32),
        "norm_kv": stack["norm_kv"]["scale"][i].astype(jnp.float32),
        **{name: kv_cache.matrix(stack[name]["kernel"][i], dtype) for name in ("q", "kv", "out")},
    }


def keys_and_values(cross: dict, source, eps: float):
    """Keys and values [..., 2, inner] of what is attended to."""
    kv = each(rms_norm(source, cross["norm_kv"], eps), cross["kv"])
    return kv.reshape(*kv.shape[:-1], 2, -1)


def each(x, matrix):
    """x @ matrix, of a patch's k vectors one after the other: XLA's CPU backend hands a few rows at once to a
    library whose threads take ten times as long to wake up as such a product takes."""
    return x @ matrix if x.ndim < 4 else jnp.stack([x[:, :, i] @ matrix for i in range(x.shape[2])], axis=2)


def per_head(x, C: int):
    """cross_attention.per_head without its product."""
    return jnp.repeat(x, C // x.shape[-1], axis=-1)
