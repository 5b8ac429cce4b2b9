"""Which tensor of a released BLT or entropy model is which parameter of ours, and the released row rules as a
batch.

Tensors go by the released code's names; `huggingface` gives those of transformers. Linear weights are [out,
in] there, so every kernel is transposed; rotary pairs are (2i, 2i + 1) on both sides, so nothing is permuted.
"""

import functools
import re

import jax
import numpy as np

from bltjax import config as configs
from bltjax import models
from bltjax.errors import UserError
from bltjax.formats import weights
from bltjax.formats.weights import Place
from bltjax.patching import vocab

THRESHOLD = 1.335442066192627  # nats: the released default of entropy patches


def blt_places(model, ffn: dict | None = None, cross_of: int = 0) -> list[Place]:
    """Every tensor of a released BLT of this model config, by the released code's names.

    ffn: feed-forward widths of {"local_encoder", "local_decoder"} where they are narrower than
    model.local.ffn; the rest is zeros, which change no result. cross_of: number of the encoder's only
    cross-attention. """
    l, g, k, ffn = model.local, model.latent, model.cross.k, ffn or {}
    tables = model.ngrams.functions * len(model.ngrams.sizes)  # function outer, size inner, as ours
    places = [
        Place("local_encoder.tok_embeddings.weight", (model.vocab, l.width), ("encoder", "embed", "bytes"))
    ]
    places += [
        Place(
            f"encoder_hash_tok_embedding.{t}.weight",
            (model.ngrams.rows, l.width),
            ("encoder", "embed", "ngrams"),
            (t,),
        )
        for t in range(tables)
    ]
    places += [
        p
        for i in range(l.encoder_layers)
        for p in block_places(
            f"local_encoder.layers.{i}.",
            ("encoder", "blocks"),
            i,
            l.width,
            l.heads,
            ffn.get("local_encoder", l.ffn),
        )
    ]
    places.append(
        Place(
            "local_encoder.patch_embedding_projection.weight",
            (k * l.width, l.width),
            ("encoder", "pool", "kernel"),
            linear=True,
        )
    )
    crosses = range(l.encoder_layers) if model.cross.encoder == "all" else [cross_of]
    places += [
        p
        for n, i in enumerate(crosses)
        for p in cross_places(
            f"local_encoder.cross_attn_layers.{i}.",
            ("encoder", "cross", "attention"),
            (n,),
            l.width,
            model.cross.heads,
        )
    ]
    if k * l.width != g.width:
        places.append(
            Place(
                "global_transformer.token_embedding_projection.weight",
                (g.width, k * l.width),
                ("latent", "project", "kernel"),
                linear=True,
            )
        )
    places += [
        p
        for i in range(g.layers)
        for p in block_places(
            f"global_transformer.layers.{i}.", ("latent", "blocks"), i, g.width, g.heads, g.ffn
        )
    ]
    places.append(
        Place(
            "local_decoder.patch_embedding_projection.weight",
            (k * l.width, g.width),
            ("decoder", "latents", "kernel"),
            linear=True,
        )
    )
    every = model.cross.decoder == "all"
    for i in range(l.decoder_layers):
        path = ("decoder", "layers", "block") if every else ("decoder", "blocks")
        places += block_places(
            f"local_decoder.layers.{i}.", path, i, l.width, l.heads, ffn.get("local_decoder", l.ffn)
        )
        if every or i == 0:
            path, index = (("decoder", "layers", "cross"), (i,)) if every else (("decoder", "cross"), ())
            places += cross_places(
                f"local_decoder.cross_attn_layers.{i}.", path, index, l.width, model.cross.heads
            )
    places.append(Place("local_decoder.norm.weight", (l.width,), ("decoder", "norm", "scale")))
    places.append(
        Place(
            "local_decoder.output.weight", (model.vocab, l.width), ("decoder", "head", "kernel"), linear=True
        )
    )
    return places


def entropy_model_places(model, prefix: str = "") -> list[Place]:
    """Every tensor of a released entropy model of this config."""
    places = [Place(f"{prefix}tok_embeddings.weight", (model.vocab, model.width), ("embed",))]
    places += [
        p
        for i in range(model.layers)
        for p in block_places(f"{prefix}layers.{i}.", ("blocks",), i, model.width, model.heads, model.ffn)
    ]
    places.append(Place(f"{prefix}norm.weight", (model.width,), ("norm", "scale")))
    places.append(
        Place(f"{prefix}output.weight", (model.vocab, model.width), ("head", "kernel"), linear=True)
    )
    return places


def block_places(prefix: str, path: tuple, i: int, width: int, heads: int, ffn: int) -> list[Place]:
    """One transformer layer, number i of its stack."""
    inner = heads * (width // heads)
    places = [
        Place(
            f"{prefix}attention.{name}.weight",
            (inner, width),
            (*path, "attention", "qkv", "kernel"),
            (i, slice(None), j),
            True,
        )
        for j, name in enumerate(("wq", "wk", "wv"))
    ]
    places.append(
        Place(
            f"{prefix}attention.wo.weight", (width, inner), (*path, "attention", "out", "kernel"), (i,), True
        )
    )
    places += [
        Place(
            f"{prefix}feed_forward.{name}.weight",
            (ffn, width),
            (*path, "ffn", "gate_up", "kernel"),
            (i, slice(None), j, slice(0, ffn)),
            True,
        )
        for j, name in enumerate(("w1", "w3"))
    ]
    places.append(
        Place(
            f"{prefix}feed_forward.w2.weight",
            (width, ffn),
            (*path, "ffn", "down", "kernel"),
            (i, slice(0, ffn)),
            True,
        )
    )
    return places + [
        Place(f"{prefix}{name}.weight", (width,), (*path, name, "scale"), (i,))
        for name in ("attention_norm", "ffn_norm")
    ]


def cross_places(prefix: str, path: tuple, index: tuple, width: int, heads: int) -> list[Place]:
    """One cross-attention layer."""
    inner = heads * (width // heads)
    return [
        Place(f"{prefix}wq.weight", (inner, width), (*path, "q", "kernel"), index, True),
        *(
            Place(
                f"{prefix}{name}.weight",
                (inner, width),
                (*path, "kv", "kernel"),
                (*index, slice(None), j),
                True,
            )
            for j, name in enumerate(("wk", "wv"))
        ),
        Place(f"{prefix}wo.weight", (width, inner), (*path, "out", "kernel"), index, True),
        *(
            Place(f"{prefix}cross_attn_{name}.weight", (width,), (*path, name, "scale"), index)
            for name in ("norm_q", "norm_kv")
        ),
    ]


RENAMED = (  # released code -> transformers
    (r"\.attention\.w([qkvo])\.", r".self_attn.\1_proj."),
    (r"\.feed_forward\.w1\.", ".mlp.gate_proj."),
    (r"\.feed_forward\.w3\.", ".mlp.up_proj."),
    (r"\.feed_forward\.w2\.", ".mlp.down_proj."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"(cross_attn_layers\.\d+)\.w([qkvo])\.", r"\1.\2_proj."),
    (r"\.cross_attn_norm_q\.", ".q_norm."),
    (r"\.cross_attn_norm_kv\.", ".k_norm."),
    (r"tok_embeddings\.", "embed_tokens."),
)


def huggingface(places: list[Place], prefix: str = "model.") -> list[Place]:
    """The same places by the names of transformers' Blt, where all hash tables are one tensor."""
    tables = sum(p.path[-1] == "ngrams" for p in places)
    renamed = []
    for place in places:
        name = functools.reduce(lambda text, rule: re.sub(rule[0], rule[1], text), RENAMED, place.name)
        if place.path[-1] == "ngrams":
            rows, width = place.shape
            name, place = (
                "encoder_hash_tok_embedding.weight",
                place._replace(
                    shape=(tables * rows, width), rows=(place.index[0] * rows, (place.index[0] + 1) * rows)
                ),
            )
        renamed.append(
            place._replace(
                name=(
                    "lm_head.weight"
                    if name == "local_decoder.output.weight"
                    else prefix + name.replace("output.", "lm_head.")
                )
            )
        )
    return renamed


def like(model):
    """Shapes of a model's parameters."""
    return jax.eval_shape(lambda: models.init(model, jax.random.key(0)))


def reference_places(source, config: dict):
    """(model config, places) of a released BLT, from tensors by the released names and a config with the keys
    of the golden vectors' `config`.

    Preset `released`; feed-forward widths are read from the tensors. Raises UserError on a tensor or key that
    does not fit. """
    c = checked(
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
    ffn = {
        part: rows(source, f"{part}.layers.0.feed_forward.w1.weight")
        for part in ("local_encoder", "local_decoder")
    }
    model = configs.blt_model(
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
    model = configs.replace(
        model,
        **{
            "local.ffn": max(ffn.values()),
            "latent.ffn": rows(source, "global_transformer.layers.0.feed_forward.w1.weight"),
            "rope_theta": float(c["rope_theta"]),
            "norm_eps": float(c["norm_eps"]),
            "cross.encoder": "all" if c["cross_attn_all_layers_encoder"] else "last",
            "cross.decoder": "all" if c["cross_attn_all_layers_decoder"] else "first",
            "ngrams.functions": c["hash_functions"],
        },
    )
    places = blt_places(model, ffn)
    weights.check(source, places)
    return model, places


def entropy_model_reference_places(source, config: dict):
    """The same of a released entropy model. config: dim, layers, heads, window, norm_eps; rope_theta is 1e4
    unless given."""
    c = checked(config, "dim", "layers", "heads", "window", "norm_eps")
    model = configs.transformer(
        "byte",
        vocab=vocab.SIZE,
        width=c["dim"],
        layers=c["layers"],
        heads=c["heads"],
        window=c["window"] or 0,
        rope_theta=float(c.get("rope_theta", 1e4)),
    )
    model = configs.replace(
        model, ffn=rows(source, "layers.0.feed_forward.w1.weight"), norm_eps=float(c["norm_eps"])
    )
    places = entropy_model_places(model)
    weights.check(source, places)
    return model, places


def from_reference(arrays: dict, config: dict):
    """(model config, params) of a released BLT from arrays: see reference_places."""
    return _read(weights.Arrays(arrays), *reference_places(weights.Arrays(arrays), config))


def entropy_model_from_reference(arrays: dict, config: dict):
    """(model config, params) of a released entropy model from arrays."""
    return _read(weights.Arrays(arrays), *entropy_model_reference_places(weights.Arrays(arrays), config))


def _read(source, model, places):
    return model, weights.read(source, places, like(model))


def rows(source, name: str) -> int:
    """How long a tensor's first axis is. UserError where it is not there."""
    if name not in set(source):
        raise UserError(f"missing tensor {name}")
    return source.shape(name)[0]


def batch_from_lengths(ids, patch_lengths, eos_id: int = vocab.EOS) -> dict:
    """Model inputs by the released rules: int32 arrays of a BLT batch, without targets.

    ids [B,N]; patch_lengths [B,P], rows sum to N + 1 (the next byte's patch is decided too), the first patch
    is one byte, zeros at the end. Byte t reads the latent of the patch before its next byte's. EOS ends its
    document and belongs to it; a patch's document is its first byte's. Raises UserError where lengths break
    the rules. """
    ids, lengths = np.asarray(ids, np.int32), np.asarray(patch_lengths, np.int64)
    if ids.ndim != 2 or lengths.ndim != 2 or len(ids) != len(lengths):
        raise UserError(
            f"ids {list(ids.shape)} and patch lengths {list(lengths.shape)} must be [B,N] and [B,P] of the"
            " same B"
        )
    (B, N), P = ids.shape, lengths.shape[1]
    if (lengths < 0).any() or (lengths.sum(1) != N + 1).any():
        raise UserError(
            f"patch lengths must sum to {N + 1} (bytes plus the next one) in every row, not"
            f" {lengths.sum(1).tolist()[:4]}"
        )
    if (lengths[:, 0] != 1).any():
        raise UserError(
            "the first patch must be one byte long: a longer one would show a byte to its own prediction"
        )
    if (lengths[:, :-1] == 0)[lengths[:, 1:] > 0].any():
        raise UserError("patch lengths of 0 may only stand at the end of a row")
    of_byte = np.repeat(np.tile(np.arange(P, dtype=np.int32), B), lengths.reshape(-1)).reshape(B, N + 1)
    doc_ids = documents_at(ids, eos_id)
    first = np.cumsum(lengths, axis=1) - lengths
    patch_docs = np.where(
        (lengths > 0) & (first < N), np.take_along_axis(doc_ids, np.minimum(first, N - 1), axis=1), 0
    )
    return dict(
        bytes=ids,
        patch_ids=of_byte[:, :-1],
        latent_ids=of_byte[:, 1:] - 1,
        doc_ids=doc_ids,
        patch_doc_ids=patch_docs.astype(np.int32),
    )


def documents_at(ids, eos_id: int) -> np.ndarray:
    """Number of each id's document in its row, from 1, int32 [B,N]: EOS ends a document and belongs to it."""
    return 1 + np.cumsum(np.pad(ids == eos_id, ((0, 0), (1, 0)))[:, :-1], axis=1, dtype=np.int32)


MOST = {"layers": 10_000}  # more is a mistake, and would be listed tensor by tensor before it is found out


def whole(config: dict, *keys: str, least: int = 1, what: str = "") -> None:
    """UserError for a key that is there and is no whole number of at least `least`."""
    for key in keys:
        value, most = config.get(key), MOST["layers"] if "layers" in key else 2**40
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most
        ):
            raise UserError(f"{what}{key} is {value!r}; it must be a whole number from {least} to {most}")


def checked(config: dict, *keys: str) -> dict:
    missing = [key for key in keys if key not in config]
    if missing:
        raise UserError(f"config has no {', '.join(missing)}")
    return config
