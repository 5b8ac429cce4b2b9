"""Llama 2 and 3.x in Hugging Face's layout: whole, as a BPE baseline, and its layers alone, as the global
model of a BLT (paper section 6.2).

There a rotary pair is (i, i + K/2), here (2i, 2i + 1): the rows of queries and keys are put in another order,
which changes no result. Keys and values of grouped queries are repeated, one for each query head: the same
function, with more weights."""

import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.formats import blt, config_checks, imported, safetensors, weights
from bltjax.formats.huggingface import read_json
from bltjax.formats.weights import Place
from bltjax.tokenizers import bpe


def load(directory: pathlib.Path) -> imported.Imported:
    """A Llama directory as a token model, with its tokenizer where there is a file of one. UserError for
    what does not fit."""
    config, source = read_json(directory / "config.json"), safetensors.open_directory(directory)
    try:
        model, kv_heads = parse(config)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(
            f"{directory / 'config.json'} cannot be understood: {type(error).__name__}:"
            f" {' '.join(str(error).split())}"
        ) from None
    # a head that is there is the head
    tied = bool(config.get("tie_word_embeddings", False)) and "lm_head.weight" not in set(source)
    places = token_places(model, kv_heads, tied)
    # written by old versions, computed here
    buffers = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(model.layers)]
    weights.check(source, places, buffers)
    return imported.Imported(
        cfg.run(
            directory.name,
            "bpe",
            model,
            tokenizer_=cfg.tokenizer("given", model.vocab, ends=ends(directory, config)),
        ),
        f"Hugging Face Llama directory {directory.name}",
        source,
        places,
        tokenizer=bpe.in_folder(directory),
    )


def ends(directory: pathlib.Path, config: dict) -> tuple[int, ...]:
    """The ids that end a text, by generation_config.json or config.json. UserError for what are no ids."""
    path = directory / "generation_config.json"
    told = (read_json(path) if path.exists() else {}).get("eos_token_id", config.get("eos_token_id"))
    told = [] if told is None else told if isinstance(told, list) else [told]
    if any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < config["vocab_size"] for i in told):
        raise UserError(
            f"eos_token_id is {told}; ids of a vocabulary of {config['vocab_size']} are 0 to"
            f" {config['vocab_size'] - 1}"
        )
    return tuple(told)


def parse(config: dict) -> tuple[ConfigDict, int]:
    """(a token model's config, heads of keys and values) of a Llama config.json. UserError for what is not
    computed here."""
    c = config_checks.checked(
        config, "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"
    )
    config_checks.whole(
        c,
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
    )
    width, heads = c["hidden_size"], c["num_attention_heads"]
    kv_heads = c.get("num_key_value_heads") or heads
    if c.get("hidden_act", "silu") != "silu" or c.get("attention_bias") or c.get("mlp_bias"):
        raise UserError("a Llama with biases, or another activation than silu, is not computed here")
    if c.get("head_dim") not in (None, width // heads) or width % heads or heads % kv_heads:
        raise UserError(
            f"{heads} heads of {c.get('head_dim') or width / heads:g}, {kv_heads} of them with keys and"
            f" values, do not fit a width of {width}"
        )
    rope = c.get("rope_parameters") or {
        "rope_theta": c.get("rope_theta", 10_000.0),
        **(c.get("rope_scaling") or {}),
    }
    model = cfg.transformer(
        "token",
        vocab=c["vocab_size"],
        width=width,
        layers=c["num_hidden_layers"],
        heads=heads,
        rope_theta=float(rope.get("rope_theta", c.get("rope_theta", 10_000.0))),
    )
    return (
        cfg.replace(
            model,
            ffn=c["intermediate_size"],
            norm_eps=float(c.get("rms_norm_eps", 1e-6)),
            rope_scaling=scaling(rope),
        ),
        kv_heads,
    )


def scaling(rope: dict) -> tuple[float, ...]:
    """(factor, low, high, original length) of Llama 3.1's scaled rotary positions, or (). UserError for
    another kind."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return ()
    if kind != "llama3":
        raise UserError(
            f"rotary positions of type {kind!r} are not computed here; 'default' and 'llama3' are"
        )
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return tuple(float(config_checks.checked(rope, *keys)[key]) for key in keys)


def token_places(model, kv_heads: int, tied: bool) -> list[Place]:
    """Every tensor of a Llama. tied: the head is the embedding."""
    places = [
        Place("model.embed_tokens.weight", (model.vocab, model.width), ("embed",)),
        *layer_places(model, kv_heads),
        Place("model.norm.weight", (model.width,), ("norm", "scale")),
    ]
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    return [*places, Place(head, (model.vocab, model.width), ("head", "kernel"), linear=True)]


def layer_places(model, kv_heads: int) -> list[Place]:
    """The tensors of all layers."""
    places = []
    for place in (
        p
        for i in range(model.layers)
        for p in blt.block_places(f"model.layers.{i}.", ("blocks",), i, model.width, model.heads, model.ffn)
    ):
        [place] = blt.huggingface([place], prefix="")
        if ".q_proj." in place.name:
            place = place._replace(heads=(model.heads, model.heads), halves=True)
        if ".k_proj." in place.name or ".v_proj." in place.name:
            place = place._replace(
                shape=(kv_heads * (model.width // model.heads), model.width),
                heads=(kv_heads, model.heads),
                halves=".k_proj." in place.name,
            )
        places.append(place)
    return places


def check_shape(token_model, model) -> None:
    """UserError where a token model's layers cannot be a BLT's global model."""
    g = model.latent
    theirs, ours = ((m.layers, m.width, m.heads, m.ffn) for m in (token_model, g))
    if theirs != ours:
        raise UserError(
            "the global model must have the checkpoint's shape: layers, width, heads, feed-forward "
            f"{', '.join(map(str, theirs))}, not {', '.join(map(str, ours))}"
        )


def into_global(params: dict, token_model, token_params: dict, model) -> dict:
    """A BLT's parameters with the layers of a token model as its global model. UserError where the two do not
    have the same shape."""
    check_shape(token_model, model)
    return {**params, "latent": {**params["latent"], "blocks": token_params["blocks"]}}
