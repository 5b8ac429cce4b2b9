"""The shape of the peer's model (hf_blt_peer.py states it) as a BLT of ours, preset `released`."""

from ml_collections import ConfigDict

from bltjax import config as cfg


def blt_model(global_layers: int = 6) -> ConfigDict:
    model = cfg.blt_model(
        "released",
        local_width=128,
        encoder_layers=1,
        decoder_layers=3,
        local_heads=4,
        global_width=256,
        global_layers=global_layers,
        global_heads=4,
        k=2,
        window=512,
        ngram_rows=8192,
    )
    return cfg.replace(model, **{"local.ffn": 512, "latent.ffn": 768})
