"""The loops of generation, each one compiled program: a prompt is read in pieces, then one id follows
another, or drafts are checked.

An engine is a BLT (blt.py) or an LM (lm.py): begin, forward, commit, and for a BLT draft, full and grown.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bltjax.generation import kv_cache, sampling

PIECE = 128  # ids of a prompt that go in at once


class Loop(NamedTuple):
    """What goes round."""

    state: Any  # the engine's
    logits_BxV: jax.Array  # of the next id of each row
    ids_BxT: jax.Array  # prompt and what followed
    n_B: jax.Array  # ids done
    stop_B: jax.Array  # ids there may be at most
    done_B: jax.Array
    drafted: jax.Array  # int32 []: ids that were guessed,
    agreed: jax.Array  # and that were right


@functools.partial(jax.jit, static_argnums=0)
def begin(engine, ids_BxT, stop_B, done_B) -> Loop:
    """Before the first id is read."""
    B = ids_BxT.shape[0]
    return Loop(
        engine.begin(B),
        jnp.zeros((B, engine.config.vocab), jnp.float32),
        ids_BxT,
        jnp.zeros((B,), jnp.int32),
        stop_B,
        done_B,
        jnp.int32(0),
        jnp.int32(0),
    )


def read(engine, params, loop: Loop, length_B) -> Loop:
    """Reads each row's prompt of `length` ids, which is in `ids`; ends early where the engine is full."""

    def piece(loop):
        at = loop.n_B[:, None] + jnp.arange(PIECE, dtype=jnp.int32)[None]
        ids = jnp.take_along_axis(loop.ids_BxT, jnp.minimum(at, loop.ids_BxT.shape[1] - 1), axis=1)
        count_B = jnp.clip(length_B - loop.n_B, 0, PIECE)
        logits, state, trail = engine.forward(params, loop.state, ids, count_B)
        last = jnp.take_along_axis(logits, jnp.maximum(count_B - 1, 0)[:, None, None], axis=1)[:, 0]
        return loop._replace(
            state=engine.commit(state, trail, count_B),
            logits_BxV=jnp.where(count_B[:, None] > 0, last, loop.logits_BxV),
            n_B=loop.n_B + count_B,
        )

    return jax.lax.while_loop(
        lambda loop: jnp.any(loop.n_B < length_B) & jnp.logical_not(engine.full(loop.state, PIECE)),
        piece,
        loop,
    )


def _among(ids, ends_E):
    """Whether each id is one of those that end a text."""
    return jnp.any(ids[..., None] == ends_E.reshape((1,) * ids.ndim + (-1,)), axis=-1)


def follow(
    engine, greedy: bool, params, loop: Loop, steps, ends_E, barred_V, rule: sampling.Rule, keys_B
) -> Loop:
    """`steps` ids more in every row, or until all are done or the engine is full. EOS ends a row and is not
    kept."""

    def one(carry):
        step, loop = carry
        new_B = (
            sampling.likeliest(loop.logits_BxV, barred_V)
            if greedy
            else sampling.draw(loop.logits_BxV, barred_V, rule, keys_B, loop.n_B)
        )
        done_B = loop.done_B | _among(new_B, ends_E)
        count_B = jnp.where(done_B, 0, 1).astype(jnp.int32)
        logits, state, trail = engine.forward(params, loop.state, new_B[:, None], count_B)
        n_B = loop.n_B + count_B
        return step + 1, loop._replace(
            state=engine.commit(state, trail, count_B),
            logits_BxV=jnp.where(done_B[:, None], loop.logits_BxV, logits[:, 0]),
            ids_BxT=kv_cache.put(loop.ids_BxT, new_B[:, None], kv_cache.positions(loop.n_B, count_B, 1)),
            n_B=n_B,
            done_B=done_B | (n_B >= loop.stop_B),
        )

    goes_on = lambda carry: (
        (carry[0] < steps) & jnp.any(~carry[1].done_B) & jnp.logical_not(engine.full(carry[1].state, 1))
    )
    return jax.lax.while_loop(goes_on, one, (jnp.int32(0), loop))[1]


def speculate(engine, k: int, params, loop: Loop, steps, ends_E, barred_V) -> Loop:
    """BLT-S (arXiv 2605.08044): `follow`, greedily, in turns. A turn drafts k bytes by encoder and decoder
    alone, with the latent that there is, then one pass of everything checks them: what the draft agrees on is
    kept, and the byte after it is known from the same pass."""

    def turn(carry):
        step, loop = carry
        first_B = sampling.likeliest(loop.logits_BxV, barred_V)
        going_B = (~loop.done_B & ~_among(first_B, ends_E)).astype(jnp.int32)
        committed = loop.state

        def guess(i, carry):
            state, ids = carry
            logits, state = engine.draft(
                params, state, jax.lax.dynamic_slice_in_dim(ids, i, 1, axis=1), going_B
            )
            return state, jax.lax.dynamic_update_slice_in_dim(
                ids, sampling.likeliest(logits[:, 0], barred_V)[:, None], i + 1, axis=1
            )

        drafted, ids = jax.lax.fori_loop(
            0, k, guess, (committed, jnp.zeros((first_B.shape[0], k + 1), jnp.int32).at[:, 0].set(first_B))
        )
        # back to what is certain; caches and buffers are written over
        state = drafted._replace(n_B=committed.n_B)
        logits, state, trail = engine.forward(params, state, ids, going_B * (k + 1))
        right = jnp.argmax(jnp.where(barred_V[None, None], -jnp.inf, logits), axis=-1).astype(jnp.int32)
        agrees = jnp.cumprod(
            (right[:, :-1] == ids[:, 1:]) & ~_among(ids[:, 1:], ends_E), axis=1, dtype=jnp.int32
        )
        agreed_B = jnp.sum(agrees, axis=1) * going_B
        kept_B = jnp.minimum(agreed_B + going_B, loop.stop_B - loop.n_B)
        n_B = loop.n_B + kept_B
        last = jnp.take_along_axis(logits, jnp.maximum(kept_B - 1, 0)[:, None, None], axis=1)[:, 0]
        return step + 1, Loop(
            engine.commit(state, trail, kept_B),
            jnp.where(going_B[:, None] > 0, last, loop.logits_BxV),
            kv_cache.put(loop.ids_BxT, ids, kv_cache.positions(loop.n_B, kept_B, k + 1)),
            n_B,
            loop.stop_B,
            (going_B == 0) | (n_B >= loop.stop_B),
            loop.drafted + k * jnp.sum(going_B),
            loop.agreed + jnp.sum(agreed_B),
        )

    goes_on = lambda carry: (
        (carry[0] < steps) & jnp.any(~carry[1].done_B) & jnp.logical_not(engine.full(carry[1].state, k + 1))
    )
    return jax.lax.while_loop(goes_on, turn, (jnp.int32(0), loop))[1]
