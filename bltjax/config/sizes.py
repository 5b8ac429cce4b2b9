"""The paper's sizes: Table 10 of arXiv 2412.09871."""

import dataclasses

from ml_collections import ConfigDict

from bltjax.config.presets import blt_model


@dataclasses.dataclass(frozen=True)
class Size:
    """One row of Table 10 (paper appendix); counts of parameters follow from 12·l·h²."""

    encoder_layers: int
    local_heads: int
    local_width: int
    global_layers: int
    global_heads: int
    global_width: int
    decoder_layers: int
    cross_heads: int
    k: int


SIZES = {  # Table 10
    "400M": Size(1, 12, 768, 24, 10, 1280, 7, 10, 2),
    "1B": Size(1, 16, 1024, 25, 16, 2048, 9, 16, 2),
    "2B": Size(1, 16, 1024, 26, 20, 2560, 9, 16, 3),
    "4B": Size(1, 16, 1024, 36, 24, 3072, 9, 16, 3),
    "8B": Size(1, 20, 1280, 32, 32, 4096, 6, 20, 4),
}


def sized_blt(size: str | Size, preset: str = "paper", **changes) -> ConfigDict:
    """The BLT of one row of Table 10, by its name, or of a row of one's own. changes: as in blt_model."""
    s = SIZES[size] if isinstance(size, str) else size
    shape = dict(
        local_width=s.local_width,
        encoder_layers=s.encoder_layers,
        decoder_layers=s.decoder_layers,
        local_heads=s.local_heads,
        global_width=s.global_width,
        global_layers=s.global_layers,
        global_heads=s.global_heads,
        k=s.k,
        cross_heads=s.cross_heads,
    )
    return blt_model(preset, **{**shape, **changes})
