"""The state of a BLT that generates: what it keeps between ids, and which patches close among those that come
in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bltjax import patching
from bltjax.generation import cross_attention, kv_cache
from bltjax.generation import lm as lms

ROOM = 64  # slots of the global model's cache are a multiple of this


class State(NamedTuple):
    n_B: jax.Array  # bytes done, BOS included
    ids_BxT: jax.Array
    progress: patching.Progress
    lm: lms.State | None
    encoder: tuple
    pooled_BxTxD: jax.Array  # what patches pool
    keys: tuple  # [B,T,2,C] of each of the encoder's cross-attentions
    patches_B: jax.Array  # closed
    opened_B: jax.Array  # where the open patch starts
    latent: tuple
    # of the last closed patch, what the decoder reads: [B,k,2,C] of each cross-attention, or one [B,D]
    read: tuple
    decoder: tuple
    passes: dict  # int32 []: how often each module's weights were read; "patches", "bytes": summed over rows


class Trail(NamedTuple):
    """What a state would be after each of the ids that came in last."""

    progress: patching.Progress
    lm: jax.Array | None  # the entropy model's
    closed_BxC: jax.Array  # patches closed until here
    opened_BxC: jax.Array
    read: (
        tuple  # as in State, [B,1+C,...]: of the patch that was closed before, and of those that closed here
    )


def begin(c, B: int, capacity: int, patches: int, most: int, lm: lms.State | None) -> State:
    """Of B rows before their first id. c: a frozen blt_model; capacity: bytes at most; patches: at most;
    most: bytes that may come at once; lm: the entropy model's state."""
    l, g = c.local, c.latent
    R = kv_cache.slots(l.window, capacity, most)
    local = lambda layers: kv_cache.begin(layers, B, l.heads, l.width // l.heads, R, c.dtype)
    inner = c.cross.heads * (l.width // c.cross.heads)
    zeros = lambda *shape: jnp.zeros((B, *shape), c.dtype)
    keys = {"none": 0, "last": 1, "all": l.encoder_layers}[c.cross.encoder]
    reads = {"none": 0, "first": 1, "all": l.decoder_layers}[c.cross.decoder]
    return State(
        jnp.zeros((B,), jnp.int32),
        jnp.zeros((B, capacity), jnp.int32),
        patching.begin(B),
        lm,
        local(l.encoder_layers),
        zeros(capacity, l.width),
        tuple(zeros(capacity, 2, inner) for _ in range(keys)),
        jnp.zeros((B,), jnp.int32),
        jnp.zeros((B,), jnp.int32),
        kv_cache.begin(g.layers, B, g.heads, g.width // g.heads, patches, c.dtype),
        tuple(zeros(c.cross.k, 2, inner) for _ in range(reads)) or (zeros(l.width),),
        local(l.decoder_layers),
        {name: jnp.int32(0) for name in ("lm", "encoder", "global", "decoder", "patches", "bytes")},
    )


def closing(closes_BxC, where, opened_B, room_Q: int):
    """(spans of the patches that close, in order, [B,room]; int32 [B,C]: patches closed until each id).

    A patch that closes at an id ends with it, and starts behind the one that closed before it."""
    closed_BxC = jnp.cumsum(closes_BxC, axis=1, dtype=jnp.int32)
    B = closes_BxC.shape[0]
    rows = jnp.arange(B, dtype=jnp.int32)[:, None]
    slot_BxC = jnp.where(closes_BxC, closed_BxC - 1, room_Q)
    ends = jnp.zeros((B, room_Q), jnp.int32).at[rows, slot_BxC].set(where.positions_BxC, mode="drop")
    starts = jnp.concatenate([opened_B[:, None], ends[:, :-1] + 1], axis=1)
    real = jnp.arange(room_Q, dtype=jnp.int32)[None] < closed_BxC[:, -1:]
    return cross_attention.Spans(starts, ends, real), closed_BxC


def room(patches: int) -> int:
    """Slots for so many patches: attention reads all that there are, used or not, so that they are few more
    than needed."""
    step = max(ROOM, 1 << max(0, patches.bit_length() - 6))  # a thirtieth or so of what is needed
    return -(-patches // step) * step


def own(values_BxNx, index_BxC):
    """values[b, index[b, c]]."""
    return jax.vmap(lambda values, index: values[index])(values_BxNx, index_BxC)


def added(passes: dict, **more) -> dict:
    """The counts of State.passes with more of some."""
    return {name: value + jnp.int32(more.get(name, 0)) for name, value in passes.items()}
