"""Claim: cross-attention to latents in the decoder helps most, and the encoder's only where its queries are
pooled from the patch's bytes.

Figure     Table 7 of arXiv 2412.09871: 1B, 100B bytes; cross-attention in the decoder and in the encoder, in
           the first, last or all layers, with and without pooled queries.
Hardware   paper's scale: 64 accelerators. cross_attention:gpu: one GPU. --runlocal: two CPU cores.
Time       as planned: 6 runs of 1.8e21 FLOPs in all, 2,700 hours of one v5p chip at 40% utilization; gpu: 6
           runs, 9.1e16; runlocal: 6 runs, 5.5e12, some 6 minutes of two cores beside what is compiled
Expect     bits per byte on the training distribution fall down the table, from 0.891 to 0.844 (its row labels
           are not certain)
Command    bltjax run cross_attention --runlocal && bltjax report cross_attention --runlocal

Where the paper is silent: the encoder has three layers here, since in one the last layer is all of them;
n-grams are off, as the table's values are close to those of Tables 8 and 9 without them; queries that are not
pooled are learned, the same for every patch; patches are by entropy, 4.5 bytes."""

from ml_collections import ConfigDict

from bltjax.sweep import ladder, scales

ROWS = (  # decoder, encoder, whether queries are pooled
    ("none", "all", "no"),
    ("none", "last", "no"),
    ("none", "none", "no"),
    ("first", "last", "yes"),
    ("all", "last", "yes"),
    ("all", "all", "yes"),
)
ENCODER_LAYERS = 3
AT = {"": ("1B", 100e9), "gpu": ("11M", 4e8), "runlocal": ("S", 1e6)}  # size, bytes


def one(scale: ladder.Scale, decoder: str, encoder: str, pooled: str) -> ConfigDict:
    size, data = AT[scale.name]
    intervention = {"model.cross.decoder": decoder, "model.cross.encoder": encoder}
    if pooled == "no" and encoder != "none":
        intervention["model.cross.pool"] = "learned"
    row = f"{decoder}|{encoder}|{pooled if encoder != 'none' else 'none'}"
    return ladder.run(
        scale,
        f"decoder-{decoder}-encoder-{encoder}-pooled-{pooled}",
        "blt-entropy",
        size,
        patch=4.5,
        data_bytes=data,
        encoder_layers=ENCODER_LAYERS,
        changes={"model.ngrams.sizes": (), **intervention},
        series=row.replace("|", ", "),
        figure="Table 7",
        row=row,
    )


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("cross_attention", arg)
    return ConfigDict(
        dict(
            claim="the decoder's cross-attention helps most, the encoder's where queries are pooled",
            figure="Table 7",
            runs=tuple(one(scale, *row) for row in ROWS),
        )
    ).lock()
