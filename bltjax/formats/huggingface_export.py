"""A BLT of ours as a Hugging Face Blt directory. What that format cannot say is refused, or written on
demand."""

import json
import pathlib

import numpy as np
from ml_collections import ConfigDict

from bltjax.errors import UserError
from bltjax.formats import blt, byte_tokenizer, imported, safetensors, weights
from bltjax.patching import vocab

# what transformers takes where a config.json is silent
THETA, PATCHER_THETA, EPS, WINDOW = 500_000.0, 10_000.0, 1e-5, 512
# greedy unless asked otherwise; the specials that never come out here never come out there
GENERATION = {
    "bos_token_id": vocab.BOS,
    "eos_token_id": vocab.EOS,
    "pad_token_id": vocab.BOE,
    "suppress_tokens": [vocab.BOE, vocab.BOS, vocab.DELIMITER],
    "use_cache": False,
}
SHARD = 4 * 2**30  # bytes of a file, about: a tensor is never cut


def save(config: ConfigDict, params: dict, entropy_model, out: pathlib.Path, loosely: bool = False) -> None:
    """Writes a directory that transformers loads and generates from: config.json, generation_config.json,
    weights, and the bytes' tokenizer. entropy_model: (model config, params) or None.

    Refuses what the format cannot express with a UserError that lists it; loosely: writes all the same what
    does not change shapes."""
    check_expressible(config, loosely)
    places = blt.huggingface(blt.blt_places(config.model))
    trees = [(place, params) for place in places]
    if entropy_model:
        trees += [
            (place, entropy_model[1])
            for place in blt.huggingface(blt.entropy_model_places(entropy_model[0], "patcher."))
        ]
    with imported.appearing(out) as part:
        part.mkdir(parents=True)
        (part / "config.json").write_text(
            json.dumps(
                to_config(
                    config, entropy_model and entropy_model[0], params["encoder"]["embed"]["bytes"].dtype
                ),
                indent=2,
            )
            + "\n",
            encoding="utf-8",
        )
        for name, content in {"generation_config.json": GENERATION, **byte_tokenizer.files()}.items():
            (part / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        _write_tensors(part, trees)


def check_expressible(config: ConfigDict, loosely: bool = False) -> None:
    """UserError, with all that stands in the way, for a model that cannot be written."""
    lacking, fatal = inexpressible(config)
    if fatal or lacking and not loosely:
        raise UserError(
            f"Hugging Face's Blt cannot express {'; '.join(fatal + lacking)}"
            + ("" if fatal else "; --loosely writes it all the same, with other results")
        )


def inexpressible(config: ConfigDict) -> tuple[list[str], list[str]]:
    """(what would be computed otherwise, what cannot be written at all)."""
    m = config.model
    if m.kind != "blt":
        return [], [f"a model of kind {m.kind!r}"]
    fatal = (
        [] if m.cross.encoder != "none" and m.cross.decoder != "none" else ["a model without cross-attention"]
    )
    fatal += [] if m.ngrams.sizes else ["a model without hash n-grams"]
    fatal += (
        []
        if m.cross.heads == m.local.heads
        else [f"{m.cross.heads} heads of cross-attention beside {m.local.heads} local heads"]
    )
    fatal += (
        []
        if m.cross.encoder == "last" or m.local.encoder_layers == 1
        else ["encoder cross-attention in every layer, each refining the last"]
    )
    fatal += ["learned queries of the encoder's cross-attention"] if m.cross.pool == "learned" else []
    lacking = [
        f"{what} (preset `{m.preset}`)"
        for what, differs in (
            ("encoder keys and values from the block's input", m.cross.encoder_kv != "output"),
            ("pooled embeddings", m.cross.pool == "embeddings"),
            ("a single residual around cross-attention", not m.cross.doubled_residual),
            ("newest-first n-gram digits", m.ngrams.digits != "released"),
            ("raw bytes in n-grams", m.ngrams.raw_bytes),
            ("omitted short n-grams", m.ngrams.short != "pad"),
            ("normalised n-grams", m.ngrams.normalise),
            ("n-grams that start anew with a document", m.ngrams.reset),
            ("document masks in cross-attention", m.mask_encoder_documents),
        )
        if differs
    ]
    if config.patching.scheme != "entropy" and not (
        config.patching.scheme == "strided" and config.patching.size == 1
    ):
        lacking.append(f"{config.patching.scheme} patches")
    return lacking, fatal


def to_config(config: ConfigDict, patcher, dtype) -> dict:
    """The config.json of a model."""
    m, p = config.model, config.patching
    rope = lambda theta: {"rope_theta": theta, "rope_type": "default"}
    part = lambda kind, width, heads, layers, ffn, theta=m.rope_theta, eps=m.norm_eps, **more: {
        "model_type": kind,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": ffn,
        "rms_norm_eps": eps,
        "rope_parameters": rope(theta),
        "hidden_act": "silu",
        "dropout": 0.0,
        **more,
    }
    window = m.local.window or None
    local = dict(vocab_size=m.vocab, cross_attn_k=m.cross.k, hidden_size_global=m.latent.width)
    written = {
        "architectures": ["BltForCausalLM"],
        "model_type": "blt",
        "dtype": str(np.dtype(dtype)),
        "vocab_size": m.vocab,
        "cross_attn_k": m.cross.k,
        "local_attention_window_len": window,
        "rope_parameters": rope(m.rope_theta),
        "use_cache": False,
        "tie_word_embeddings": False,
        "bos_token_id": vocab.BOS,
        "eos_token_id": vocab.EOS,
        "pad_token_id": vocab.BOE,
        "encoder_hash_byte_group_size": list(m.ngrams.sizes),
        "encoder_hash_byte_group_vocab": m.ngrams.rows,
        "encoder_hash_byte_group_nb_functions": m.ngrams.functions,
        "patch_in_forward": patcher is not None,
        "patching_mode": "entropy",
        "patch_size": max(1, round(p.size)),
        "patching_threshold": p.threshold if p.threshold == p.threshold else blt.THRESHOLD,
        "max_patch_length": p.max_length or None,
        "encoder_config": part(
            "blt_local_encoder",
            m.local.width,
            m.local.heads,
            m.local.encoder_layers,
            m.local.ffn,
            sliding_window=window,
            cross_attn_all_layers=False,
            **local,
        ),
        "decoder_config": part(
            "blt_local_decoder",
            m.local.width,
            m.local.heads,
            m.local.decoder_layers,
            m.local.ffn,
            cross_attn_all_layers=m.cross.decoder == "all",
            **local,
        ),
        "global_config": part(
            "blt_global_transformer", m.latent.width, m.latent.heads, m.latent.layers, m.latent.ffn
        ),
    }
    if patcher is not None:
        written["patcher_config"] = part(
            "blt_patcher",
            patcher.width,
            patcher.heads,
            patcher.layers,
            patcher.ffn,
            patcher.rope_theta,
            patcher.norm_eps,
            vocab_size=patcher.vocab,
            sliding_window=patcher.window or None,
        )
    return written


def _write_tensors(folder: pathlib.Path, trees: list) -> None:
    """One model.safetensors, or shards with an index; the hash tables are one tensor."""
    groups, dtypes = {}, {}
    for place, params in trees:
        groups.setdefault(place.name, []).append((place, params))
        leaf = params
        for key in place.path:
            leaf = leaf[key]
        dtypes[place.name] = leaf.dtype
    size = lambda name: int(np.prod(groups[name][0][0].shape, dtype=np.int64)) * dtypes[name].itemsize
    shards, filled = [[]], 0
    for name in groups:
        if shards[-1] and filled + size(name) > SHARD:
            shards, filled = [*shards, []], 0
        shards[-1].append(name)
        filled += size(name)
    rows = lambda name: (part for place, params in groups[name] for part in weights.theirs(place, params))
    names = (
        ["model.safetensors"]
        if len(shards) == 1
        else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    for file, shard in zip(names, shards):
        safetensors.write(
            folder / file, {name: (dtypes[name], groups[name][0][0].shape) for name in shard}, rows
        )
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(map(size, groups))},
            "weight_map": {name: file for file, shard in zip(names, shards) for name in shard},
        }
        (folder / safetensors.INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
