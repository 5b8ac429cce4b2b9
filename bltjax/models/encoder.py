"""The local encoder: bytes with hash n-grams through a few windowed layers, then one vector per patch (paper
section 3.2)."""

import flax.linen as nn
import jax.numpy as jnp

from bltjax.models.cross_attention import CrossAttention, patches_from_bytes
from bltjax.models.kernels.hash_lookup import lookup
from bltjax.models.kernels.segments import segment_broadcast_ids, segment_max
from bltjax.models.layers import Block, Linear, normal, rope_table, stack
from bltjax.parallel import sharding
from bltjax.patching import hashing


class Embedding(nn.Module):
    """Byte embedding plus hash n-gram embeddings, [B,T] ids -> [B,T,D]. config: the model's."""

    config: object

    @nn.compact
    def __call__(self, bytes_BxT, doc_ids_BxT):
        width, n = self.config.local.width, self.config.ngrams
        bytes_VxD = self.param("bytes", normal(width**-0.5), (self.config.vocab, width))
        x = sharding.rows(sharding.gathered(bytes_VxD, (*self.path, "bytes"))[bytes_BxT])
        if not n.sizes:
            return x.astype(self.config.dtype)
        tables = self.param("ngrams", normal(width**-0.5), (n.functions * len(n.sizes), n.rows, width))
        docs = doc_ids_BxT if n.reset else None
        ids_BxSxT = jnp.concatenate(
            [
                hashing.ngram_hashes(
                    bytes_BxT, n.sizes, n.rows, function, n.digits, doc_ids=docs, raw_bytes=n.raw_bytes
                )
                for function in range(n.functions)
            ],
            axis=1,
        )
        if n.short == "omit":
            present = hashing.ngram_present(doc_ids_BxT if n.reset else jnp.ones_like(bytes_BxT), n.sizes)
            ids_BxSxT = jnp.where(jnp.concatenate([present] * n.functions, axis=1), ids_BxSxT, -1)
        x = x + lookup(tables, ids_BxSxT, self.config.dtype, (*self.path, "ngrams"))
        # Paper: "divided by the number of n-gram sizes plus one"; the released code adds up and leaves it
        # there.
        return (x / (tables.shape[0] + 1) if n.normalise else x).astype(self.config.dtype)


class EncoderCross(nn.Module):
    """One cross-attention of a stack: patches gather from the byte states of their layer."""

    config: object

    @nn.compact
    def __call__(self, patches_BxPxkxD, states_BxTxD, patch_ids_BxT):
        c = self.config
        cross = CrossAttention(
            patches_from_bytes, c.cross.heads, c.cross.doubled_residual, c.norm_eps, c.dtype, name="attention"
        )
        return cross(patches_BxPxkxD, states_BxTxD, patch_ids_BxT), None


class Encoder(nn.Module):
    """bytes [B,T] -> byte states [B,T,D] and patch vectors [B,P,k·D] ([B,P,D] where cross.encoder is
    "none")."""

    config: object

    @nn.compact
    def __call__(self, bytes_BxT, patch_ids_BxT, doc_ids_BxT, patch_doc_ids_BxP):
        c = self.config
        B, P = patch_doc_ids_BxP.shape
        D, k = c.local.width, c.cross.k
        embedded = Embedding(c, name="embed")(bytes_BxT, doc_ids_BxT)
        rope = rope_table(bytes_BxT.shape[1], D // c.local.heads, c.rope_theta)
        blocks = stack(Block, c.local.encoder_layers, c)
        states, sources_LxBxTxD = blocks(
            c.local.heads, c.local.ffn, c.local.window, c.norm_eps, c.dtype, c.cross.encoder_kv, name="blocks"
        )(embedded, doc_ids_BxT, rope)
        if c.mask_encoder_documents:
            patch_ids_BxT = jnp.where(
                segment_broadcast_ids(patch_doc_ids_BxP, patch_ids_BxT) == doc_ids_BxT, patch_ids_BxT, P
            )
        if c.cross.encoder == "none":
            return states, segment_max(states, patch_ids_BxT, P)
        every = c.cross.encoder == "all"
        pooled = None if c.cross.pool == "learned" else embedded
        if c.cross.pool == "states":  # after the block that the first cross-attention follows
            after_LxBxTxD = (
                sources_LxBxTxD
                if c.cross.encoder_kv == "output"
                else jnp.append(sources_LxBxTxD[1:], states[None], axis=0)
            )
            pooled = after_LxBxTxD[0 if every else -1]
        if pooled is None:
            queries_kxD = self.param("queries", normal(D**-0.5), (k, D))
            patches = sharding.rows(jnp.broadcast_to(queries_kxD.astype(c.dtype), (B, P, k, D)))
        else:
            patches = Linear((k, D), c.dtype, name="pool")(segment_max(pooled, patch_ids_BxT, P))
        layers = stack(EncoderCross, c.local.encoder_layers if every else 1, c, in_axes=(0, nn.broadcast))
        patches, _ = layers(c, name="cross")(
            patches, sources_LxBxTxD if every else sources_LxBxTxD[-1:], patch_ids_BxT
        )
        return states, patches.reshape(B, P, k * D)
