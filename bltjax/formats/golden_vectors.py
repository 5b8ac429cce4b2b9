"""Golden vectors as a model: an .npz of `config` (JSON) and `param/<released name>`, of a BLT or an entropy
model."""

import json
import pathlib

import numpy as np

from bltjax import config as cfg
from bltjax import models
from bltjax.errors import UserError
from bltjax.formats import blt, config_checks, imported, weights
from bltjax.patching import vocab


def load(path: pathlib.Path) -> imported.Imported:
    """UserError for a file that is none of these, or whose tensors do not fit."""
    try:
        with np.load(path, allow_pickle=False) as file:
            config = json.loads(str(file["config"]))
            source = weights.Arrays(
                {key.removeprefix("param/"): file[key] for key in file.files if key.startswith("param/")}
            )
    # numpy's, zipfile's and zlib's many errors, all for a file that is not what it should be
    except Exception as error:
        raise UserError(
            f"{path} is no .npz of config and param/...: {' '.join(str(error).split())[:160]}"
        ) from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: its config is no JSON object")
    if "dim_local" in config:
        model, places = reference_places(source, config)
        run = cfg.run(
            path.stem, "blt-entropy", model, patching_=cfg.patching("entropy", 4.5, threshold=blt.THRESHOLD)
        )
    else:
        model, places = entropy_model_reference_places(source, config)
        run = cfg.run(path.stem, "entropy-model", model)
    return imported.Imported(run, f"vectors {path.name}", source, places)


def reference_places(source, config: dict):
    """(model config, places) of a released BLT, from tensors by the released names and a config with the keys
    of the golden vectors' `config`.

    Preset `released`; feed-forward widths are read from the tensors. Raises UserError on a tensor or key that
    does not fit."""
    c = config_checks.checked(
        config,
        "dim_local",
        "dim_global",
        "cross_attn_k",
        "window",
        "heads_local",
        "heads_cross",
        "heads_global",
        "layers_encoder",
        "layers_decoder",
        "layers_global",
        "hash_vocab",
        "ngram_sizes",
        "hash_functions",
        "rope_theta",
        "norm_eps",
        "cross_attn_all_layers_encoder",
        "cross_attn_all_layers_decoder",
    )
    ffn = blt.local_ffn_widths(source)
    model = cfg.blt_model(
        "released",
        local_width=c["dim_local"],
        encoder_layers=c["layers_encoder"],
        decoder_layers=c["layers_decoder"],
        local_heads=c["heads_local"],
        global_width=c["dim_global"],
        global_layers=c["layers_global"],
        global_heads=c["heads_global"],
        k=c["cross_attn_k"],
        cross_heads=c["heads_cross"],
        window=c["window"] or 0,
        ngram_rows=c["hash_vocab"],
        ngram_sizes=c["ngram_sizes"],
    )
    model = cfg.replace(
        model,
        **{
            "local.ffn": max(ffn.values()),
            "latent.ffn": blt.rows(source, "global_transformer.layers.0.feed_forward.w1.weight"),
            "rope_theta": float(c["rope_theta"]),
            "norm_eps": float(c["norm_eps"]),
            "cross.encoder": "all" if c["cross_attn_all_layers_encoder"] else "last",
            "cross.decoder": "all" if c["cross_attn_all_layers_decoder"] else "first",
            "ngrams.functions": c["hash_functions"],
        },
    )
    places = blt.blt_places(model, ffn)
    weights.check(source, places)
    return model, places


def entropy_model_reference_places(source, config: dict):
    """The same of a released entropy model. config: dim, layers, heads, window, norm_eps; rope_theta is 1e4
    unless given."""
    c = config_checks.checked(config, "dim", "layers", "heads", "window", "norm_eps")
    model = cfg.transformer(
        "byte",
        vocab=vocab.SIZE,
        width=c["dim"],
        layers=c["layers"],
        heads=c["heads"],
        window=c["window"] or 0,
        rope_theta=float(c.get("rope_theta", 1e4)),
    )
    model = cfg.replace(
        model, ffn=blt.rows(source, "layers.0.feed_forward.w1.weight"), norm_eps=float(c["norm_eps"])
    )
    places = blt.entropy_model_places(model)
    weights.check(source, places)
    return model, places


def from_reference(arrays: dict, config: dict):
    """(model config, params) of a released BLT from arrays: see reference_places."""
    return _read(weights.Arrays(arrays), *reference_places(weights.Arrays(arrays), config))


def entropy_model_from_reference(arrays: dict, config: dict):
    """(model config, params) of a released entropy model from arrays."""
    return _read(weights.Arrays(arrays), *entropy_model_reference_places(weights.Arrays(arrays), config))


def _read(source, model, places):
    return model, weights.read(source, places, models.shapes_of(model))
