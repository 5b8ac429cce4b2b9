"""Directories of the released code: params.json with consolidated weights, and what it put on the Hub
(config.json with "args").

Weights are consolidated.pth or safetensors, by the released names. Which model it is, BLT or entropy model,
the tensors say."""

import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.formats import blt, config_checks, consolidated, imported, safetensors, weights
from bltjax.formats.huggingface import read_json
from bltjax.patching import vocab

CONFIGS = ("params.json", "config.json")
ENTROPY_MODEL = "entropy_model"  # where the released folder has it: inside, or beside
LM_WINDOW, LM_THETA = 512, 10_000.0  # the released loader sets the one and never the other


def is_original(directory: pathlib.Path) -> bool:
    """Whether a directory is of this kind: params.json, or a config.json that holds "args"."""
    return (
        (directory / "params.json").exists()
        or (directory / "config.json").exists()
        and "args" in read_json(directory / "config.json")
    )


def load(directory: pathlib.Path) -> imported.Imported:
    """The model of a directory, with the entropy model that lies in it or beside it. UserError for what does
    not fit."""
    path = next(directory / name for name in CONFIGS if (directory / name).exists())
    source, found = open_weights(directory), read_json(path)
    try:
        run, places = (_blt if "local_encoder.tok_embeddings.weight" in set(source) else _entropy_model)(
            directory.name, found, source
        )
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(
            f"{path} cannot be understood: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from None
    weights.check(source, places)
    model = imported.Imported(run, f"released checkpoint {directory.name}", source, places)
    if run.model.kind == "blt":
        inside = [
            folder
            for folder in (directory / ENTROPY_MODEL, directory.parent / ENTROPY_MODEL)
            if (folder / "params.json").exists()
        ]
        model.entropy_model = (
            load(inside[0]) if inside and inside[0].resolve() != directory.resolve() else None
        )
    return model


def open_weights(directory: pathlib.Path):
    """consolidated.pth (or the only .pth), else safetensors."""
    paths = (
        [directory / "consolidated.pth"]
        if (directory / "consolidated.pth").exists()
        else sorted(directory.glob("*.pth"))
    )
    if len(paths) == 1:
        return consolidated.Archive(paths[0])
    if (directory / "consolidated.safetensors").exists():
        return safetensors.Files(safetensors.header(directory / "consolidated.safetensors"))
    return safetensors.open_directory(directory)


def arguments(found: dict, part: str) -> dict:
    """The model's arguments, wherever a file has them."""
    for key in (part, "args"):
        if isinstance(found.get(key), dict):
            return arguments(found[key], part)
    return found


# What says the shape of a BLT: whole numbers that must be there.
SHAPE = (
    "dim_global",
    "dim_local_encoder",
    "dim_local_decoder",
    "n_layers_global",
    "n_layers_local_encoder",
    "n_layers_local_decoder",
    "n_heads_global",
    "n_heads_local_encoder",
    "n_heads_local_decoder",
    "cross_attn_k",
)


def _blt(name: str, found: dict, source):
    a = config_checks.checked(arguments(found, "model"), *SHAPE)
    config_checks.whole(
        a,
        *SHAPE,
        "cross_attn_nheads",
        "encoder_hash_byte_group_vocab",
        "encoder_hash_byte_group_nb_functions",
    )
    config_checks.whole(a, "local_attention_window_len", "max_patch_length", least=0)
    for left, right in (
        ("dim_local_encoder", "dim_local_decoder"),
        ("n_heads_local_encoder", "n_heads_local_decoder"),
    ):
        if a[left] != a[right]:
            raise UserError(f"{left} is {a[left]} and {right} {a[right]}; the two must be equal here")
    for key in ("cross_attn_window_encoder", "cross_attn_window_decoder"):
        if a.get(key):
            raise UserError(f"{key} is {a[key]}: cross-attention over several patches is not computed here")
    for key in ("n_kv_heads", "n_kv_heads_global"):
        if a.get(key) not in (None, a["n_heads_global"]):
            raise UserError(f"{key} is {a[key]}: keys and values must have as many heads as queries here")
    ffn = blt.local_ffn_widths(source)
    model = cfg.blt_model(
        "released",
        local_width=a["dim_local_encoder"],
        encoder_layers=a["n_layers_local_encoder"],
        decoder_layers=a["n_layers_local_decoder"],
        local_heads=a["n_heads_local_encoder"],
        global_width=a["dim_global"],
        global_layers=a["n_layers_global"],
        global_heads=a["n_heads_global"],
        k=a["cross_attn_k"],
        cross_heads=a.get("cross_attn_nheads") or a["n_heads_local_encoder"],
        window=a.get("local_attention_window_len") or 0,
        ngram_rows=a.get("encoder_hash_byte_group_vocab", 30_000),
        ngram_sizes=tuple(a.get("encoder_hash_byte_group_size") or ()),
    )
    model = cfg.replace(
        model,
        **{
            "local.ffn": max(ffn.values()),
            "latent.ffn": blt.rows(source, "global_transformer.layers.0.feed_forward.w1.weight"),
            "rope_theta": float(a.get("rope_theta", 10_000.0)),
            "norm_eps": float(a.get("norm_eps", 1e-5)),
            "cross.encoder": "all" if a.get("cross_attn_all_layers_encoder") else "last",
            "cross.decoder": "all" if a.get("cross_attn_all_layers_decoder") else "first",
            "ngrams.functions": a.get("encoder_hash_byte_group_nb_functions", 3),
        },
    )
    patching = parse_patching(a)
    return cfg.run(name, imported.family(patching.scheme), model, patching_=patching), blt.blt_places(
        model, ffn
    )


def _entropy_model(name: str, found: dict, source):
    a = config_checks.checked(
        arguments(found, "entropy_model" if "entropy_model" in found else "model"),
        "dim",
        "n_layers",
        "n_heads",
    )
    config_checks.whole(a, "dim", "n_layers", "n_heads")
    model = cfg.transformer(
        "byte",
        vocab=vocab.SIZE,
        width=a["dim"],
        layers=a["n_layers"],
        heads=a["n_heads"],
        window=LM_WINDOW,
        rope_theta=LM_THETA,
    )
    model = cfg.replace(
        model,
        ffn=blt.rows(source, "layers.0.feed_forward.w1.weight"),
        norm_eps=float(a.get("norm_eps", 1e-5)),
    )
    return cfg.run(name, "entropy-model", model), blt.entropy_model_places(model)


def parse_patching(a: dict) -> ConfigDict:
    """How a released model's bytes become patches."""
    mode, size, limit = (
        a.get("patching_mode") or "entropy",
        a.get("patch_size") or 4.5,
        a.get("max_patch_length") or 0,
    )
    threshold = float(blt.THRESHOLD if a.get("patching_threshold") is None else a["patching_threshold"])
    if mode == "entropy":
        if a.get("patching_threshold_add"):
            return cfg.patching(
                "both", size, threshold=threshold, delta=float(a["patching_threshold_add"]), max_length=limit
            )
        if a.get("monotonicity"):
            return cfg.patching("monotonic", size, delta=threshold, max_length=limit)
        return cfg.patching("entropy", size, threshold=threshold, max_length=limit)
    schemes = {"space": "space", "static": "strided", "byte": "strided"}
    if mode not in schemes:
        raise UserError(f"patching_mode {mode!r} is not known here; {', '.join(('entropy', *schemes))} are")
    return cfg.patching(
        schemes[mode], 1 if mode == "byte" else round(size) if mode == "static" else size, max_length=limit
    )
