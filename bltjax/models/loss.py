"""Masked cross-entropy in float32, as sums over the batch, with the nats of raw bytes and of EOS apart."""

import jax
import jax.numpy as jnp

from bltjax.models import kind, logits


def nats_per_position(model_config, params, batch):
    """Nats of each target, float32 [B,T] ([B,N] for tokens); 0 where `loss_mask` is 0."""
    return _nats(logits(model_config, params, batch), batch)


def nats_and_likeliest(model_config, params, batch):
    """(`nats_per_position`, whether each target is the likeliest id, bool [B,T])."""
    scores = logits(model_config, params, batch)
    return _nats(scores, batch), jnp.argmax(scores, axis=-1) == batch["targets"]


def _nats(scores, batch):
    # A comparison instead of a gather: it fuses with the reduction, and its gradient is no scatter.
    hit = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2) == batch["targets"][..., None]
    nats = jax.nn.logsumexp(scores, axis=-1) - jnp.sum(jnp.where(hit, scores, 0.0), axis=-1)
    return jnp.where(batch["loss_mask"] > 0, nats, 0.0)


def nats(model_config, params, batch) -> dict:
    """Sums over the batch, float32 scalars: loss and targets (all targets), byte_nats and bytes (targets that
    stand for raw bytes, and how many bytes they stand for), eos_nats and eos (the others: ends of
    documents)."""
    each = nats_per_position(model_config, params, batch)
    kept = batch["loss_mask"] > 0
    bytes_each = jnp.where(kept, kind(model_config).bytes_of_targets(batch), 0)
    raw = bytes_each > 0
    total = lambda x: jnp.sum(x, dtype=jnp.float32)
    return dict(
        loss=total(each),
        targets=total(kept),
        byte_nats=total(jnp.where(raw, each, 0.0)),
        bytes=total(bytes_each),
        eos_nats=total(jnp.where(raw, 0.0, each)),
        eos=total(kept & ~raw),
    )
