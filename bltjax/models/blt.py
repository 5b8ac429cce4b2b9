"""The Byte Latent Transformer: local encoder, global latent transformer, local decoder.

SpaceByte- and MegaByte-like models are configurations: cross-attention "none", no n-grams, another patching.
"""

import flax.linen as nn
import jax.numpy as jnp

from bltjax.errors import UserError
from bltjax.models.decoder import Decoder
from bltjax.models.encoder import Encoder, divisor
from bltjax.models.global_model import GlobalModel
from bltjax.models.patcher import bytes_of_targets, check_bytes  # noqa: F401  (its targets are bytes too)
from bltjax.models.shapes import NO_TABLES, Cross, Stack, Tables
from bltjax.patching import NEEDS_ENTROPIES

UNIT = "byte"
ARRAYS = ("bytes", "patch_ids", "latent_ids", "doc_ids", "patch_doc_ids")  # that the model reads
SLOTS = ("bytes", "patch_ids", "latent_ids", "doc_ids", "targets", "loss_mask")
PATCHES = ("patch_doc_ids",)


class BLT(nn.Module):
    """config: `bltjax.config.blt_model`."""

    config: object

    @nn.compact
    def __call__(
        self, bytes_BxT, patch_ids_BxT, latent_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP, head: bool = True
    ):
        """int32 arrays of a BLT batch -> float32 logits [B,T,V]; without `head`, what it reads [B,T,D]. The
        arrays are obeyed as given."""
        states_BxTxD, patches = Encoder(self.config, name="encoder")(
            bytes_BxT, patch_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP
        )
        latents_BxPxG = GlobalModel(self.config, name="latent")(patches, patch_doc_ids_BxP)
        return Decoder(self.config, name="decoder")(
            states_BxTxD, latents_BxPxG, latent_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP, head
        )


def module(config):
    """The Linen module of kind "blt"."""
    return BLT(config)


def inputs(batch):
    """The arrays of a BLT batch that the model reads."""
    return tuple(batch[name] for name in ARRAYS)


def example():
    """Smallest batch arrays, for initialisation."""
    zeros, ones = jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), jnp.int32)
    return ones, zeros, zeros, ones, ones


def head(params):
    """The matrix that makes scores of states, float32 [D,V]."""
    return params["decoder"]["head"]["kernel"]


def check(run):
    """UserError for a BLT's config that cannot be."""
    model, patching = run.model, run.patching
    check_bytes(run)
    if model.cross.heads > model.local.width:
        raise UserError(
            f"model.cross.heads is {model.cross.heads}; no more than model.local.width ({model.local.width})"
        )
    if any(not isinstance(n, int) or n < 1 for n in model.ngrams.sizes):
        raise UserError(f"model.ngrams.sizes is {tuple(model.ngrams.sizes)!r}; whole numbers of 1 or more")
    if patching.scheme == "strided" and patching.size != int(patching.size):
        raise UserError(f"patching.size is {patching.size:g}; strided patches have a whole number of bytes")
    if patching.scheme in NEEDS_ENTROPIES and not len(run.entropy_model):
        raise UserError(f"patching.scheme {patching.scheme!r} needs entropies: give the run an entropy_model")
    if patching.scheme == "bpe" and run.tokenizer.kind == "none":
        raise UserError("patching.scheme 'bpe' needs a tokenizer: tokenizer.kind trained or llama3")


def stacks(config) -> tuple[Stack, ...]:
    """Encoder and decoder, whose layers are alike, and the latent transformer."""
    l, g = config.local, config.latent
    layers = l.encoder_layers + l.decoder_layers
    return (
        Stack("model.local", layers, l.heads, l.width, l.ffn, l.window, "slots"),
        Stack("model.latent", g.layers, g.heads, g.width, g.ffn, 0, "patches"),
    )


def crosses(config) -> tuple[Cross, ...]:
    """The encoder's, where patches ask, and the decoder's, where bytes do."""
    c, l = config.cross, config.local
    encoder = {"none": 0, "last": 1, "all": l.encoder_layers}[c.encoder]
    decoder = {"none": 0, "first": 1, "all": l.decoder_layers}[c.decoder]
    return (
        Cross("model.cross", encoder, c.heads, l.width, c.k, "patches"),
        Cross("model.cross", decoder, c.heads, l.width, c.k, "slots"),
    )


def step_scales(config) -> dict[str, float]:
    """The embeddings that are summed and divided learn as many times as fast, where that is compensated."""
    parts = divisor(config) if config.ngrams.compensate else 1
    return {"encoder/embed": float(parts)} if parts > 1 else {}


def tables(config) -> Tables:
    """Of hash n-grams."""
    n = config.ngrams
    return Tables(n.functions * len(n.sizes), n.rows, config.local.width) if n.sizes else NO_TABLES
