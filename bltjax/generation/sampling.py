"""The next id from scores: the likeliest, or drawn with a temperature among the likeliest k, or those that
hold a share p."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rule(NamedTuple):
    """temperature: above 0, a normal float32. k 0 and p 1: no limit."""

    temperature: jax.Array
    k: jax.Array
    p: jax.Array


@functools.partial(jax.jit, static_argnums=1)
def keys(seed, B: int):
    """A key for each row of a batch."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(B))


def likeliest(logits_BxV, barred_V):
    """int32 [B]."""
    return jnp.argmax(jnp.where(barred_V[None], -jnp.inf, logits_BxV), axis=-1).astype(jnp.int32)


def draw(logits_BxV, barred_V, rule: Rule, keys_B, n_B):
    """int32 [B]. keys: one of each row; n: how many ids each row has, so that what a row draws depends on
    nothing but its own text and key."""
    scores = jnp.where(barred_V[None], -jnp.inf, logits_BxV)
    # from the likeliest on, so that a low temperature makes others impossible and overflows nothing
    scores = (scores - jnp.max(scores, axis=-1, keepdims=True)) / rule.temperature
    V = scores.shape[-1]
    ordered = jnp.sort(scores, axis=-1, descending=True)
    k = jnp.where(rule.k > 0, jnp.minimum(rule.k, V), V)
    shares = jax.nn.softmax(jnp.where(jnp.arange(V)[None] < k, ordered, -jnp.inf), axis=-1)
    # what the likelier ones hold: an id is in as long as that is below p
    before = jnp.cumsum(shares, axis=-1) - shares
    last = jnp.clip(jnp.sum(before < rule.p, axis=-1) - 1, 0, k - 1)
    least = jnp.take_along_axis(ordered, last[:, None], axis=-1)
    kept = jnp.where(scores >= least, scores, -jnp.inf)
    return jax.vmap(lambda key, n, row: jax.random.categorical(jax.random.fold_in(key, n), row))(
        keys_B, n_B, kept
    ).astype(jnp.int32)
