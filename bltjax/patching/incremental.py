"""Where patches start, a few ids at a time: what a patcher remembers between the pieces of a text that comes
byte by byte. The rules are those of rules.py, for every scheme but BPE."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bltjax.errors import UserError
from bltjax.patching import vocab
from bltjax.patching.rules import NEEDS_ENTROPIES, SCHEMES, heads, opens, rounded, running_max, symbols, word


class Progress(NamedTuple):
    """What a patcher remembers of the ids before, for each row (or, from `advance`, after each of the ids
    that came in)."""

    n: jax.Array  # int32: ids so far
    id: jax.Array  # int32: the last
    entropy: jax.Array  # float32: the last
    natural: jax.Array  # int32: where the last patch starts that no length limit made
    prefix: jax.Array  # uint32: hash of all ids


def begin(B: int) -> Progress:
    """Nothing seen yet, [B] each."""
    zeros = jnp.zeros((B,), jnp.int32)
    return Progress(zeros, zeros, jnp.zeros((B,), jnp.float32), zeros, jnp.zeros((B,), jnp.uint32))


def advance(config, progress: Progress, ids, entropies=None):
    """(bool [B,C]: whether the id after each of these starts a patch; Progress after each, [B,C]). `starts`
    of it all, C ids at a time.

    config: a patching config. ids: int32 [B,C] that come next; entropies: nats [B,C].
    """
    scheme, C = config.scheme, ids.shape[1]
    at = progress.n[:, None] + jnp.arange(C, dtype=jnp.int32)[None]
    position = at + 1  # of the id that comes after
    before = jnp.concatenate([progress.id[:, None], ids[:, :-1]], axis=1)
    entropies = (
        jnp.zeros(ids.shape, jnp.float32) if entropies is None else rounded(entropies, config.resolution, jnp)
    )
    rise = entropies - jnp.concatenate([progress.entropy[:, None], entropies[:, :-1]], axis=1)
    prefix = progress.prefix[:, None] + jnp.cumsum(symbols(ids, at, jnp), axis=-1, dtype=jnp.uint32)
    forced = position < 2
    if scheme == "strided":
        natural = at % int(config.size) == 0
    elif scheme == "space":
        natural = forced | (~word(ids, jnp) & (word(before, jnp) | (at == 0))) | (ids < vocab.OFFSET)
    elif scheme == "random":
        natural = forced | heads(prefix, position, config.size, config.seed, jnp)
    elif scheme in NEEDS_ENTROPIES:
        natural = opens(scheme, position, entropies, rise, config.threshold, config.delta)
    else:
        raise UserError(f"{scheme} patches cannot be made byte by byte; {', '.join(SCHEMES)} can")
    last = jnp.maximum(running_max(jnp.where(natural, position, 0), jnp), progress.natural[:, None])
    start = natural | ((position - last) % config.max_length == 0) if config.max_length else natural
    return start, Progress(position, ids, entropies, last, prefix)
