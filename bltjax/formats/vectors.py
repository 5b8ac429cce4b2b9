"""Golden vectors as a model: an .npz of `config` (JSON) and `param/<released name>`, of a BLT or an entropy
model."""

import json
import pathlib

import numpy as np

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.formats import blt, imported, weights


def load(path: pathlib.Path) -> imported.Imported:
    """UserError for a file that is none of these, or whose tensors do not fit."""
    try:
        with np.load(path, allow_pickle=False) as file:
            config = json.loads(str(file["config"]))
            source = weights.Arrays(
                {key.removeprefix("param/"): file[key] for key in file.files if key.startswith("param/")}
            )
    except (
        Exception
    ) as error:  # numpy's, zipfile's and zlib's many errors, all for a file that is not what it should be
        raise UserError(
            f"{path} is no .npz of config and param/...: {' '.join(str(error).split())[:160]}"
        ) from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: its config is no JSON object")
    if "dim_local" in config:
        model, places = blt.reference_places(source, config)
        run = cfg.run(
            path.stem, "blt-entropy", model, patching_=cfg.patching("entropy", 4.5, threshold=blt.THRESHOLD)
        )
    else:
        model, places = blt.entropy_model_reference_places(source, config)
        run = cfg.run(path.stem, "entropy-model", model)
    return imported.Imported(run, f"vectors {path.name}", source, places)
