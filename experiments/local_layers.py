"""Claim: with hash n-grams a single encoder layer is enough, and layers serve better in the decoder.

Figure     Table 9 of arXiv 2412.09871: 1B, 100B bytes; layers of encoder and decoder, with and without
           n-grams.
Hardware   paper's scale: 64 accelerators. local_layers:gpu: one GPU. --runlocal: two CPU cores.
Time       as planned: 5 runs of 1.4e21 FLOPs in all, 2,100 hours of one v5p chip at 40% utilization; gpu: 5
           runs, 1.2e17; runlocal: 5 runs, 9.0e12, some 10 minutes of two cores beside what is compiled
Expect     on the training distribution 0.850, 0.843 without n-grams, 0.844, 0.824, 0.822 with
Command    bltjax run local_layers --runlocal && bltjax report local_layers --runlocal

Cross-attention follows the encoder's last layer. Patches are by entropy, 4.5 bytes (the paper does not
say)."""

from ml_collections import ConfigDict

from bltjax.sweep import ladder, scales

ROWS = (("no", 1, 9), ("no", 5, 5), ("yes", 5, 5), ("yes", 3, 7), ("yes", 1, 9))  # n-grams, encoder, decoder
AT = {"": ("1B", 100e9), "gpu": ("11M", 4e8), "runlocal": ("S", 1e6)}  # size, bytes


def one(scale: ladder.Scale, ngrams: str, encoder: int, decoder: int) -> ConfigDict:
    size, data = AT[scale.name]
    intervention = {"model.local.encoder_layers": encoder, "model.local.decoder_layers": decoder}
    if ngrams == "no":
        intervention["model.ngrams.sizes"] = ()
    return ladder.run(
        scale,
        f"ngrams-{ngrams}-encoder-{encoder}-decoder-{decoder}",
        "blt-entropy",
        size,
        patch=4.5,
        data_bytes=data,
        changes=intervention,
        series=f"n-grams {ngrams}, {encoder} and {decoder} layers",
        figure="Table 9",
        row=f"{ngrams}|{encoder}|{decoder}",
    )


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("local_layers", arg)
    return ConfigDict(
        dict(
            claim="with n-grams one encoder layer is enough",
            figure="Table 9",
            runs=tuple(one(scale, *row) for row in ROWS),
        )
    ).lock()
