"""Which tensor of a released BLT or entropy model is which parameter of ours.

Tensors go by the released code's names; `huggingface` gives those of transformers. Linear weights are [out,
in] there, so every kernel is transposed; rotary pairs are (2i, 2i + 1) on both sides, so nothing is permuted.
"""

import functools
import re

from bltjax.errors import UserError
from bltjax.formats.weights import Place

THRESHOLD = 1.335442066192627  # nats: the released default of entropy patches


def blt_places(model, ffn: dict | None = None, cross_of: int = 0) -> list[Place]:
    """Every tensor of a released BLT of this model config, by the released code's names.

    ffn: feed-forward widths of {"local_encoder", "local_decoder"} where they are narrower than
    model.local.ffn; the rest is zeros, which change no result. cross_of: number of the encoder's only
    cross-attention."""
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


def rows(source, name: str) -> int:
    """How long a tensor's first axis is. UserError where it is not there."""
    if name not in set(source):
        raise UserError(f"missing tensor {name}")
    return source.shape(name)[0]


def local_ffn_widths(source) -> dict[str, int]:
    """Feed-forward widths {"local_encoder", "local_decoder"} of a model with released names, as its tensors
    have them: configs do not say."""
    name = "{}.layers.0.feed_forward.w1.weight"
    return {part: rows(source, name.format(part)) for part in ("local_encoder", "local_decoder")}
