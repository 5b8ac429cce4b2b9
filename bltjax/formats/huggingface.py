"""Hugging Face's Blt directories: config.json and safetensors, read and written. Facts of the format:
transformers 5, models/blt."""

import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.formats import blt, config_checks, imported, safetensors, weights
from bltjax.patching import vocab
from bltjax.storage import json_object

# what transformers takes where a config.json is silent
THETA, PATCHER_THETA, EPS, WINDOW = 500_000.0, 10_000.0, 1e-5, 512


class Read(NamedTuple):
    """What a config.json says."""

    model: ConfigDict
    patching: ConfigDict
    patcher: ConfigDict | None
    ffn: dict  # feed-forward widths of both local modules
    cross_of: int  # the encoder's cross-attention that counts
    unread: list[str]  # tensors that the format has and no result depends on


def read_json(path: pathlib.Path) -> dict:
    """A JSON object, or UserError."""
    value, why = json_object.read(path)
    if why:
        raise UserError(f"{path} {why}")
    return value


def load(directory: pathlib.Path) -> imported.Imported:
    """The model of a Blt directory, with its patcher. UserError for anything in it that does not fit."""
    config, source = read_json(directory / "config.json"), safetensors.open_directory(directory)
    try:
        found = parse(config)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(
            f"{directory / 'config.json'} cannot be understood: {type(error).__name__}:"
            f" {' '.join(str(error).split())}"
        ) from None
    places = blt.huggingface(blt.blt_places(found.model, found.ffn, found.cross_of))
    patcher = (
        blt.huggingface(blt.entropy_model_places(found.patcher, "patcher."))
        if found.patcher is not None
        else []
    )
    weights.check(source, places + patcher, found.unread)
    origin = f"Hugging Face Blt directory {directory.name}"
    run = cfg.run(
        directory.name, imported.family(found.patching.scheme), found.model, patching_=found.patching
    )
    lm = (
        imported.Imported(cfg.run("entropy-model", "entropy-model", found.patcher), origin, source, patcher)
        if patcher
        else None
    )
    return imported.Imported(run, origin, source, places, lm)


def parse(config: dict) -> Read:
    """What a Blt config.json means here. UserError for what this project does not compute."""
    if config.get("model_type") != "blt":
        raise UserError(f"config.json is of model_type {config.get('model_type')!r}, not 'blt'")
    parts = {name: config.get(f"{name}_config") or {} for name in ("encoder", "decoder", "global", "patcher")}
    encoder, decoder, latent = parts["encoder"], parts["decoder"], parts["global"]
    width, heads, k = (
        encoder.get("hidden_size", 1024),
        encoder.get("num_attention_heads", 16),
        config.get("cross_attn_k", 2),
    )
    encoder_layers, decoder_layers = encoder.get("num_hidden_layers", 1), decoder.get("num_hidden_layers", 9)
    latent_width = latent.get("hidden_size", 2048)
    one("hidden_size of encoder and decoder", width, decoder.get("hidden_size", 1024))
    one("num_attention_heads of encoder and decoder", heads, decoder.get("num_attention_heads", 16))
    one("cross_attn_k", k, encoder.get("cross_attn_k", 2), decoder.get("cross_attn_k", 2))
    one("hidden_size_global", latent_width, decoder.get("hidden_size_global", 2048))
    one(
        "vocab_size",
        config.get("vocab_size", 260),
        encoder.get("vocab_size", 260),
        decoder.get("vocab_size", 260),
        vocab.SIZE,
    )
    for name in ("encoder", "decoder", "global"):
        plain(name, parts[name])
    config_checks.whole(
        config,
        "cross_attn_k",
        "encoder_hash_byte_group_vocab",
        "encoder_hash_byte_group_nb_functions",
        "patch_size",
    )
    config_checks.whole(config, "local_attention_window_len", "max_patch_length", least=0)
    eps = one(
        "rms_norm_eps", *(parts[name].get("rms_norm_eps", EPS) for name in ("encoder", "decoder", "global"))
    )
    theta = one("rope_theta", *(rope_theta(parts[name], THETA) for name in ("encoder", "decoder", "global")))
    ffn = {
        "local_encoder": encoder.get("intermediate_size") or int(8 * width / 3),
        "local_decoder": decoder.get("intermediate_size") or 2816,
    }
    every = bool(encoder.get("cross_attn_all_layers", False))
    model = cfg.blt_model(
        "released",
        local_width=width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        local_heads=heads,
        global_width=latent_width,
        global_layers=latent.get("num_hidden_layers", 25),
        global_heads=latent.get("num_attention_heads", 16),
        k=k,
        window=config.get("local_attention_window_len", WINDOW) or 0,
        ngram_rows=config.get("encoder_hash_byte_group_vocab", 500_002),
        ngram_sizes=tuple(config.get("encoder_hash_byte_group_size") or (3, 4, 5, 6, 7, 8)),
    )
    model = cfg.replace(
        model,
        **{
            "local.ffn": max(ffn.values()),
            "latent.ffn": latent.get("intermediate_size") or 5632,
            "norm_eps": float(eps),
            "rope_theta": float(theta),
            "cross.decoder": "all" if decoder.get("cross_attn_all_layers", True) else "first",
            "ngrams.functions": config.get("encoder_hash_byte_group_nb_functions", 1),
        },
    )
    # With cross-attention in every encoder layer, this format pools anew in each: all but the last layer's
    # are computed and forgotten.
    last = encoder_layers - 1 if every else 0
    unread = [
        place.name
        for i in range(encoder_layers if every else 0)
        if i != last
        for place in blt.huggingface(
            blt.cross_places(f"local_encoder.cross_attn_layers.{i}.", ("",), (), width, heads)
        )
    ]
    patcher = parse_patcher(parts["patcher"]) if config.get("patch_in_forward", True) else None
    return Read(model, parse_patching(config, patcher), patcher, ffn, last, unread)


def parse_patcher(config: dict) -> ConfigDict:
    plain("patcher", config)
    model = cfg.transformer(
        "byte",
        vocab=config.get("vocab_size", 260),
        width=config.get("hidden_size", 768),
        layers=config.get("num_hidden_layers", 14),
        heads=config.get("num_attention_heads", 12),
        window=config.get("sliding_window", WINDOW) or 0,
        rope_theta=float(rope_theta(config, PATCHER_THETA)),
    )
    return cfg.replace(
        model, ffn=config.get("intermediate_size") or 2048, norm_eps=float(config.get("rms_norm_eps", EPS))
    )


def parse_patching(config: dict, patcher) -> ConfigDict:
    """transformers knows entropy patches, and patches of one byte where it has no patcher."""
    limit = config.get("max_patch_length") or 0
    if patcher is None or config.get("patching_mode", "entropy") != "entropy":
        return cfg.patching("strided", 1.0)
    threshold = float(config.get("patching_threshold", blt.THRESHOLD))
    if threshold != threshold:
        raise UserError("config.json: patching_threshold is no number")
    return cfg.patching("entropy", config.get("patch_size") or 4, threshold=threshold, max_length=limit)


def rope_theta(part: dict, default: float) -> float:
    """theta of a part's rotary positions. UserError for scaled ones."""
    rope = part.get("rope_parameters") or part.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise UserError(
            f"rotary positions of type {rope['rope_type']!r} are not computed here; only 'default'"
        )
    return rope.get("rope_theta", part.get("rope_theta", default))


def plain(name: str, part: dict) -> None:
    """UserError for a part whose layers differ from those here."""
    config_checks.whole(
        part,
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "cross_attn_k",
        "hidden_size_global",
        "vocab_size",
        what=f"{name}_config.",
    )
    config_checks.whole(part, "sliding_window", least=0, what=f"{name}_config.")
    heads = part.get("num_attention_heads")
    if (
        part.get("head_dim")
        and heads
        and part.get("hidden_size")
        and part["head_dim"] != part["hidden_size"] // heads
    ):
        raise UserError(
            f"{name}_config: {heads} heads of {part['head_dim']} do not fit a width of {part['hidden_size']}"
        )
    if part.get("num_key_value_heads") not in (None, heads):
        raise UserError(
            f"{name}_config has {part['num_key_value_heads']} key-value heads for {heads} heads; the two must"
            " be equal"
        )
    if part.get("hidden_act", "silu") != "silu":
        raise UserError(f"{name}_config has hidden_act {part['hidden_act']!r}; only 'silu' is computed here")


def one(what: str, *values):
    """The value that all share. UserError where they differ."""
    if any(value != values[0] for value in values):
        raise UserError(
            f"config.json: {what} must be one value here, not {', '.join(map(str, dict.fromkeys(values)))}"
        )
    return values[0]
