"""The Byte Latent Transformer: local encoder, global latent transformer, local decoder.

SpaceByte- and MegaByte-like models are configurations: cross-attention "none", no n-grams, another patching.
"""

import flax.linen as nn
import jax.numpy as jnp

from bltjax.models.decoder import Decoder
from bltjax.models.encoder import Encoder
from bltjax.models.global_model import GlobalModel

ARRAYS = ("bytes", "patch_ids", "latent_ids", "doc_ids", "patch_doc_ids")


class BLT(nn.Module):
    """config: `bltjax.config.blt_model`."""

    config: object

    @nn.compact
    def __call__(self, bytes_BxT, patch_ids_BxT, latent_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP):
        """int32 arrays of a BLT batch -> float32 logits [B,T,V]. The arrays are obeyed as given."""
        states_BxTxD, patches = Encoder(self.config, name="encoder")(
            bytes_BxT, patch_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP
        )
        latents_BxPxG = GlobalModel(self.config, name="latent")(patches, patch_doc_ids_BxP)
        return Decoder(self.config, name="decoder")(
            states_BxTxD, latents_BxPxG, latent_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP
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
