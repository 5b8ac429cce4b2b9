"""The entropy model whose next-byte entropies decide where patches start (paper section 4.2)."""

import jax
import jax.numpy as jnp

from bltjax.models.token_lm import Transformer, example  # noqa: F401  (same network, other inputs)


def module(config):
    """The Linen module of kind "byte"."""
    return Transformer(config)


def inputs(batch):
    """The arrays of a byte batch that the model reads; patch arrays are ignored."""
    return batch["bytes"], batch["doc_ids"]


def entropies(config, params, batch):
    """Entropy in nats of the next byte after each position, over all ids, document masked: float32 [B,T]."""
    log_p = jax.nn.log_softmax(module(config).apply({"params": params}, *inputs(batch)), axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
