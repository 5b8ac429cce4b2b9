"""Masked cross-entropy in float32, as sums over the batch, with the nats of raw bytes and of EOS apart."""

import jax
import jax.numpy as jnp

from bltjax.models import kind, logits, states
from bltjax.models.layers import matmul

# Scores at a time, where few positions are asked for: a CPU reads them again from its cache, elsewhere there
# is work for a whole device.
SCORES, SCORES_ACCELERATOR = 1 << 20, 1 << 27


def nats_per_position(model_config, params, batch):
    """Nats of each target, float32 [B,T] ([B,N] for tokens); 0 where `loss_mask` is 0."""
    return _nats(logits(model_config, params, batch), batch)


def nats_and_likeliest(model_config, params, batch):
    """Of some positions alone: (nats of each target, whether no id is likelier), float32 and bool [S].

    batch: a batch's arrays that the model reads, and scored, int32 [S]: places in [B·T], count, int32 []: how
    many of them count, targets, int32 [S]. What is behind `count` means nothing. The head is applied to the
    places that count, some at a time: with 65,536 tokens, scores of all positions of a call are gigabytes."""
    kernel, x = kind(model_config).head(params), states(model_config, params, batch)
    x, (S,), V = x.reshape(-1, x.shape[-1]), batch["scored"].shape, kernel.shape[-1]
    together = SCORES if jax.default_backend() == "cpu" else SCORES_ACCELERATOR
    size = min(S, max(1, together // V))
    fill = lambda ids: jnp.pad(ids, (0, -S % size))
    scored, targets = fill(batch["scored"]), fill(batch["targets"])

    def some(i, found):
        part = lambda ids: jax.lax.dynamic_slice(ids, (i * size,), (size,))
        scores = matmul(x[part(scored)], kernel, model_config.dtype, "float32")
        own = jnp.take_along_axis(scores, part(targets)[:, None], axis=1)[:, 0]
        most = jnp.max(scores, axis=-1)
        nats = jnp.log(jnp.sum(jnp.exp(scores - most[:, None]), axis=-1)) + (most - own)
        return tuple(
            jax.lax.dynamic_update_slice(whole, new, (i * size,))
            for whole, new in zip(found, (nats, own >= most))
        )

    empty = jnp.zeros(scored.shape, jnp.float32), jnp.zeros(scored.shape, bool)
    found = jax.lax.fori_loop(0, -(-batch["count"] // size), some, empty)
    return tuple(whole[:S] for whole in found)


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
