"""Configs of models: a BLT, a plain transformer, and the two presets in which paper and released code differ.

`paper` is arXiv 2412.09871, `released` is what the released checkpoints compute.
"""

import math

from ml_collections import ConfigDict

from bltjax.errors import UserError

# Where the paper's text and the released code disagree (docs: README, "Two presets"). A preset only sets
# named fields.
PRESETS = {
    "paper": dict(
        cross=dict(encoder_kv="input", pool="embeddings", doubled_residual=False),
        ngrams=dict(digits="paper", raw_bytes=True, short="omit", normalise=True, reset=True),
        mask_encoder_documents=True,
    ),
    "released": dict(
        cross=dict(encoder_kv="output", pool="states", doubled_residual=True),
        ngrams=dict(digits="released", raw_bytes=False, short="pad", normalise=False, reset=False),
        mask_encoder_documents=False,
    ),
}


def ffn_width(width: int, multiple: int = 256) -> int:
    """SwiGLU hidden width, 8/3 of the model's, rounded up (paper section 4.8; released `multiple_of` 256)."""
    return multiple * math.ceil(int(8 * width / 3) / multiple)


def blt_model(
    preset: str = "paper",
    *,
    local_width: int,
    encoder_layers: int,
    decoder_layers: int,
    local_heads: int,
    global_width: int,
    global_layers: int,
    global_heads: int,
    k: int,
    cross_heads: int | None = None,
    window: int = 512,
    ngram_rows: int = 500_000,
    ngram_sizes=(3, 4, 5, 6, 7, 8),
    ffn_multiple: int = 256,
) -> ConfigDict:
    """Config of a BLT model: local encoder, global latent transformer, local decoder."""
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}; allowed: {', '.join(PRESETS)}")
    model = ConfigDict(
        dict(
            kind="blt",
            preset=preset,
            vocab=260,
            dtype="float32",
            remat="none",
            scan=True,
            norm_eps=1e-5,
            rope_theta=500_000.0,  # paper section 4.7
            local=dict(
                width=local_width,
                heads=local_heads,
                ffn=ffn_width(local_width, ffn_multiple),
                encoder_layers=encoder_layers,
                decoder_layers=decoder_layers,
                window=window,
            ),
            # rope_theta 0: the model's; rope_scaling: Llama 3.1's (factor, low, high, original length), for
            # layers that come from there.
            latent=dict(
                width=global_width,
                heads=global_heads,
                ffn=ffn_width(global_width, ffn_multiple),
                layers=global_layers,
                rope_theta=0.0,
                rope_scaling=(),
            ),
            # encoder: which layers are followed by cross-attention; "none" pools only (SpaceByte, MegaByte).
            # pool: what the first queries are made of: the bytes' embeddings, or their states, pooled; or
            # "learned": they are the same k vectors for every patch (Table 7 without pooling).
            cross=dict(
                k=k,
                heads=cross_heads or local_heads,
                encoder="last",
                decoder="all",
                encoder_kv="input",
                pool="embeddings",
                doubled_residual=False,
            ),
            ngrams=dict(
                sizes=tuple(ngram_sizes),
                rows=ngram_rows,
                functions=1,
                digits="paper",
                raw_bytes=True,
                short="omit",
                normalise=True,
                reset=True,
            ),
            mask_encoder_documents=True,
        )
    )
    model.update(ConfigDict(PRESETS[preset]))
    return model.lock()


def transformer(
    kind: str,
    *,
    vocab: int,
    width: int,
    layers: int,
    heads: int,
    window: int = 0,
    rope_theta: float = 500_000.0,
    ffn_multiple: int = 256,
    reset: str = "",
) -> ConfigDict:
    """Config of a plain Llama-style decoder: `token` (the BPE baseline) or `byte` (the LM that supplies
    entropies).

    window: how many positions a query sees, itself included; 0 means all before it. reset: "newline" lets an
    entropy model see nothing before the last newline (paper section 4.4); "": it does."""
    return ConfigDict(
        dict(
            kind=kind,
            vocab=vocab,
            dtype="float32",
            remat="none",
            scan=True,
            norm_eps=1e-5,
            rope_theta=rope_theta,
            rope_scaling=(),
            width=width,
            layers=layers,
            heads=heads,
            ffn=ffn_width(width, ffn_multiple),
            window=window,
            reset=reset,
        )
    ).lock()
