"""The global latent transformer: one position per patch, causal within its document (paper section 3.1)."""

import flax.linen as nn

from bltjax.models.layers import Block, Linear, rope_table, stack


class GlobalModel(nn.Module):
    """Patch vectors [B,P,*] -> latents [B,P,G]; positions count patches in the row; no final norm."""

    config: object

    @nn.compact
    def __call__(self, patches_BxPxC, patch_doc_ids_BxP):
        c, g = self.config, self.config.latent
        x = (
            patches_BxPxC
            if patches_BxPxC.shape[-1] == g.width
            else Linear((g.width,), c.dtype, name="project")(patches_BxPxC)
        )
        rope = rope_table(x.shape[1], g.width // g.heads, g.rope_theta or c.rope_theta, g.rope_scaling)
        blocks = stack(Block, g.layers, c)
        return blocks(g.heads, g.ffn, 0, c.norm_eps, c.dtype, name="blocks")(x, patch_doc_ids_BxP, rope)[0]
