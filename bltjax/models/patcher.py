"""The patcher: the entropy model, a small byte transformer, and where patches start from its entropies (paper
sections 2.3 and 4.2).

Pure functions of arrays on the device, to be traced with whatever uses them: entropies are computed ahead of
training (entropy/annotate.py) and byte by byte in generation, and both are cut by the same rule
(`bltjax.patching.opens`).
"""

import jax
import jax.numpy as jnp

from bltjax import patching
from bltjax.errors import UserError
from bltjax.models.shapes import NO_TABLES, Tables
from bltjax.models.token_lm import (  # noqa: F401  (the same network)
    Transformer,
    crosses,
    example,
    head,
    stacks,
    step_scales,
)
from bltjax.patching import vocab

UNIT = "byte"
SLOTS = ("bytes", "doc_ids", "targets", "loss_mask")
PATCHES = ()


class EntropyModel(Transformer):
    """config: `bltjax.config.transformer`. Called: float32 logits [B,T,V] of bytes and documents, int32
    [B,T]."""

    def entropies(self, bytes_BxT, doc_ids_BxT):
        """Entropy in nats of the next byte after each position, float32 [B,T]."""
        return entropy(self(bytes_BxT, doc_ids_BxT))

    def patch_starts(self, bytes_BxT, doc_ids_BxT, patching_config):
        """(entropies float32 [B,T], where patches start bool [B,T]) of packed rows."""
        entropies_BxT = self.entropies(bytes_BxT, doc_ids_BxT)
        return entropies_BxT, starts(patching_config, entropies_BxT, doc_ids_BxT)


def module(config):
    """The Linen module of kind "byte"."""
    return EntropyModel(config)


def inputs(batch):
    """The arrays of a byte batch that the model reads; patch arrays are ignored."""
    return batch["bytes"], batch["doc_ids"]


def entropy(logits):
    """Nats, float32 [...], over all ids of logits [...,V]."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def entropies(config, params, batch):
    """Entropy in nats of the next byte after each position, over all ids, document masked: float32 [B,T]."""
    return module(config).apply({"params": params}, *inputs(batch), method="entropies")


def starts(patching_config, entropies_BxT, doc_ids_BxT):
    """Where patches start, bool [B,T], in rows that hold documents one behind the other.

    patching_config: of scheme entropy, monotonic or both, with its numbers (static: it is read while this is
    traced). entropies_BxT: nats; doc_ids_BxT: int32, a document's first position is where the number changes;
    padding (0) is cut by the same rule. Equals `patching.lengths` of each document alone: what opens a patch
    is known before its first byte, and no document sees another. UserError for another scheme."""
    p = patching_config
    if p.scheme not in patching.NEEDS_ENTROPIES:
        raise UserError(
            f"{p.scheme!r} patches are not cut by entropies; {', '.join(patching.NEEDS_ENTROPIES)} are"
        )
    at_BxT = jax.lax.broadcasted_iota(jnp.int32, doc_ids_BxT.shape, 1)
    opens_BxT = jnp.pad(doc_ids_BxT[:, 1:] != doc_ids_BxT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    position_BxT = at_BxT - jax.lax.cummax(jnp.where(opens_BxT, at_BxT, 0), axis=1)
    entropies_BxT = patching.rounded(entropies_BxT, p.resolution, jnp)
    before_BxT = jnp.pad(entropies_BxT, ((0, 0), (1, 0)))[:, :-1]
    rise_BxT = before_BxT - jnp.pad(before_BxT, ((0, 0), (1, 0)))[:, :-1]
    natural_BxT = patching.opens(p.scheme, position_BxT, before_BxT, rise_BxT, p.threshold, p.delta)
    return patching.limited(natural_BxT, p.max_length, jnp)


def bytes_of_targets(batch):
    """Raw bytes that each target stands for, int32 [B,T]: 1, or 0 for a special."""
    return (batch["targets"] >= vocab.OFFSET).astype(jnp.int32)


def check_bytes(run):
    """UserError for a model of bytes with another vocabulary."""
    if run.model.vocab != vocab.SIZE:
        raise UserError(f"model.vocab is {run.model.vocab}; models of bytes have {vocab.SIZE} ids")


check = check_bytes


def tables(config) -> Tables:
    """None: 260 rows are gathered like any weight."""
    return NO_TABLES
