"""The local decoder: byte states read the latents of the patch before, then windowed layers and the byte head
(paper section 3.3)."""

import flax.linen as nn
import jax.numpy as jnp

from bltjax.models.cross_attention import CrossAttention, bytes_from_patches
from bltjax.models.kernels.segments import segment_broadcast_ids, segment_broadcast_rows
from bltjax.models.layers import Block, Linear, RMSNorm, rope_table, stack


class DecoderLayer(nn.Module):
    """Cross-attention to latents first, then a block."""

    config: object

    @nn.compact
    def __call__(self, x_BxTxD, latents_BxPxkxD, latent_ids_BxT, doc_ids_BxT, rope):
        return local_block(self.config)(
            read_latents(self.config)(x_BxTxD, latents_BxPxkxD, latent_ids_BxT), doc_ids_BxT, rope
        )


def read_latents(c):
    return CrossAttention(
        bytes_from_patches, c.cross.heads, c.cross.doubled_residual, c.norm_eps, c.dtype, name="cross"
    )


def local_block(c, module=Block, name="block"):
    return module(c.local.heads, c.local.ffn, c.local.window, c.norm_eps, c.dtype, name=name)


class Decoder(nn.Module):
    """Byte states [B,T,D] and latents [B,P,G] -> float32 logits [B,T,V]; without `head`, what it reads
    [B,T,D]."""

    config: object

    @nn.compact
    def __call__(
        self, states_BxTxD, latents_BxPxG, latent_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP, head: bool = True
    ):
        c = self.config
        P, D = latents_BxPxG.shape[1], c.local.width
        rope = rope_table(states_BxTxD.shape[1], D // c.local.heads, c.rope_theta)
        if c.mask_encoder_documents:
            latent_ids_BxT = jnp.where(
                segment_broadcast_ids(patch_doc_ids_BxP, latent_ids_BxT) == doc_ids_BxT, latent_ids_BxT, P
            )
        x = states_BxTxD
        if c.cross.decoder == "none":
            x = x + segment_broadcast_rows(
                Linear((D,), c.dtype, name="latents")(latents_BxPxG), latent_ids_BxT
            )
        else:
            latents_BxPxkxD = Linear((c.cross.k, D), c.dtype, name="latents")(latents_BxPxG)
        if c.cross.decoder == "first":
            x = read_latents(c)(x, latents_BxPxkxD, latent_ids_BxT)
        if c.cross.decoder == "all":
            layers = stack(DecoderLayer, c.local.decoder_layers, c, in_axes=(nn.broadcast,) * 4)(
                c, name="layers"
            )
            x, _ = layers(x, latents_BxPxkxD, latent_ids_BxT, doc_ids_BxT, rope)
        else:
            x, _ = local_block(c, stack(Block, c.local.decoder_layers, c), "blocks")(x, doc_ids_BxT, rope)
        x = RMSNorm(c.norm_eps, name="norm")(x)
        return Linear((c.vocab,), c.dtype, out="float32", name="head")(x) if head else x
