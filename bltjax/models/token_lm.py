"""A plain Llama-style decoder: the BPE baseline, and (in patcher.py) the entropy model."""

import flax.linen as nn
import jax.numpy as jnp

from bltjax.errors import UserError
from bltjax.models.kernels.hash_lookup import lookup
from bltjax.models.layers import Block, Linear, RMSNorm, normal, rope_table, stack
from bltjax.models.shapes import Cross, Stack, Tables
from bltjax.patching import vocab

UNIT = "token"
SLOTS = ("tokens", "doc_ids", "targets", "loss_mask", "target_bytes")
PATCHES = ()


class Transformer(nn.Module):
    """Embedding, blocks, norm, head. config: `bltjax.config.transformer`."""

    config: object

    @nn.compact
    def __call__(self, ids_BxN, doc_ids_BxN, head: bool = True):
        """ids and document ids, int32 [B,N] -> float32 logits [B,N,V]; without `head`, what it reads
        [B,N,D]."""
        c = self.config
        if c.reset:
            doc_ids_BxN = byte_lines(ids_BxN, doc_ids_BxN)
        table = self.param("embed", normal(c.width**-0.5), (c.vocab, c.width))
        x = lookup(table[None], ids_BxN[:, None], c.dtype, (*self.path, "embed"))
        rope = rope_table(ids_BxN.shape[1], c.width // c.heads, c.rope_theta, c.rope_scaling)
        blocks = stack(Block, c.layers, c)
        x, _ = blocks(c.heads, c.ffn, c.window, c.norm_eps, c.dtype, name="blocks")(x, doc_ids_BxN, rope)
        x = RMSNorm(c.norm_eps, name="norm")(x)
        return Linear((c.vocab,), c.dtype, out="float32", name="head")(x) if head else x


def byte_lines(ids, doc_ids):
    """Document ids int32 [B,T] that a newline raises as well: what follows it, itself included, is a document
    of its own. Padding stays 0."""
    lines = jnp.cumsum(ids == vocab.NEWLINE, axis=-1, dtype=jnp.int32)
    return jnp.where(doc_ids > 0, doc_ids + lines, 0)


def module(config):
    """The Linen module of kind "token"."""
    return Transformer(config)


def inputs(batch):
    """The arrays of a token batch that the model reads."""
    return batch["tokens"], batch["doc_ids"]


def example():
    """Smallest batch arrays, for initialisation."""
    return jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), jnp.int32)


def head(params):
    """The matrix that makes scores of states, float32 [D,V]."""
    return params["head"]["kernel"]


def bytes_of_targets(batch):
    """Raw bytes that each target stands for, int32 [B,N]."""
    return batch["target_bytes"]


def check(run):
    """UserError for a token model's config that cannot be."""
    model, tokenizer = run.model, run.tokenizer
    if tokenizer.kind == "none" or model.vocab != tokenizer.vocab:
        raise UserError(
            f"model.vocab is {model.vocab} and tokenizer.vocab {tokenizer.vocab} ({tokenizer.kind}); they"
            " must be equal"
        )
    if not 1 <= tokenizer.bytes_per_token <= run.data.context:
        raise UserError(
            f"tokenizer.bytes_per_token is {tokenizer.bytes_per_token:g}; it must be from 1 to data.context"
            f" ({run.data.context}): the plan's guess of how many bytes a token has"
        )
    if model.reset:
        raise UserError(
            f"model.reset is {model.reset!r}; only models of bytes have newlines to begin anew at"
        )


def stacks(config) -> tuple[Stack, ...]:
    c = config
    return (Stack("model", c.layers, c.heads, c.width, c.ffn, c.window, "slots"),)


def crosses(config) -> tuple[Cross, ...]:
    return ()


def step_scales(config) -> dict[str, float]:
    """All parameters learn at one rate."""
    return {}


def tables(config) -> Tables:
    """Of token embeddings."""
    return Tables(1, config.vocab, config.width)
