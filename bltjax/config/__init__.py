"""The config of one run, as experiments write it: `from bltjax import config as cfg`.

Legend of dimensions, used in names such as `x_BxTxD`:

    B rows in a batch     T bytes in a row      P patches in a row    N tokens in a row
    D local width         G global width        F feed-forward width  V vocabulary
    H heads               K head dimension      L layers              k latents per patch (cross-attention)
"""

from bltjax.config.families import Family, family
from bltjax.config.presets import PRESETS, blt_model, ffn_width, transformer
from bltjax.config.schema import (
    LABELS,
    SCHEMA_VERSION,
    SCHEMES,
    SWEPT,
    TEXT_KEYS,
    data,
    evaluation,
    flat,
    lr_scales,
    parse_set,
    patching,
    replace,
    run,
    sibling,
    tokenizer,
    training,
)
from bltjax.config.sizes import SIZES, Size, sized_blt
from bltjax.config.stored import completed, fingerprint, from_dict, identified, recorded, to_dict

__all__ = [
    "Family",
    "LABELS",
    "PRESETS",
    "SCHEMA_VERSION",
    "SCHEMES",
    "SIZES",
    "SWEPT",
    "Size",
    "TEXT_KEYS",
    "blt_model",
    "completed",
    "data",
    "evaluation",
    "family",
    "ffn_width",
    "fingerprint",
    "flat",
    "from_dict",
    "identified",
    "lr_scales",
    "parse_set",
    "patching",
    "recorded",
    "replace",
    "run",
    "sibling",
    "sized_blt",
    "to_dict",
    "tokenizer",
    "training",
    "transformer",
]
