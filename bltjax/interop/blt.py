"""Released BLT and entropy-model tensors as parameters of ours, and the released row rules as a batch.

Tensors go by the released code's names. Its linear weights are [out, in], so every kernel is transposed; rotary pairs are
(2i, 2i + 1) on both sides, so nothing is permuted. Every tensor is accounted for: an unknown, missing or misshapen one is an error.
"""

import jax
import numpy as np

from bltjax import config as configs
from bltjax import vocab
from bltjax.errors import UserError


class Tensors:
    """Named arrays that are taken one by one; what is left over at the end is an error."""

    def __init__(self, arrays):
        self.left = dict(arrays)

    def rows(self, name: str) -> int:
        """How long the tensor's first axis is."""
        if name not in self.left:
            raise UserError(f"missing tensor {name}")
        return np.shape(self.left[name])[0]

    def take(self, name: str, *shape: int) -> np.ndarray:
        """The tensor in float32, which must have this shape."""
        if name not in self.left:
            raise UserError(f"missing tensor {name}")
        array = np.asarray(self.left.pop(name))
        if array.shape != shape:
            raise UserError(f"tensor {name} has shape {list(array.shape)}, expected {list(shape)}")
        return array.astype(np.float32)

    def kernel(self, prefix: str, *names: str, inner: int, outer: int) -> dict:
        """Linear weights [outer, inner] as one of our kernels: [inner, outer], or [inner, names, outer] of several names."""
        parts = [self.take(f"{prefix}{name}.weight", outer, inner).T for name in names]
        return dict(kernel=parts[0] if len(parts) == 1 else np.stack(parts, axis=1))

    def scale(self, name: str, width: int) -> dict:
        return dict(scale=self.take(f"{name}.weight", width))

    def finish(self):
        if self.left:
            raise UserError(f"unknown tensor {', '.join(sorted(self.left)[:4])}{' and more' if len(self.left) > 4 else ''}")


def from_reference(arrays: dict, config: dict):
    """(model config, params) of a released BLT: arrays by the released names, config with the keys of the golden vectors' `config`.

    Preset `released`; feed-forward widths are read from the tensors. Raises UserError on a tensor or key that does not fit.
    """
    c = checked(config, "dim_local", "dim_global", "cross_attn_k", "window", "heads_local", "heads_cross", "heads_global",
                "layers_encoder", "layers_decoder", "layers_global", "hash_vocab", "ngram_sizes", "hash_functions", "rope_theta",
                "norm_eps", "cross_attn_all_layers_encoder", "cross_attn_all_layers_decoder")
    t, d, g, k = Tensors(arrays), c["dim_local"], c["dim_global"], c["cross_attn_k"]
    # The encoder's feed-forward may be narrower than the decoder's (Hugging Face's default): zeros make up the difference exactly.
    ffn = max(t.rows(f"local_{part}.layers.0.feed_forward.w1.weight") for part in ("encoder", "decoder"))
    latent_ffn = t.rows("global_transformer.layers.0.feed_forward.w1.weight")
    model = configs.blt_model("released", local_width=d, encoder_layers=c["layers_encoder"], decoder_layers=c["layers_decoder"],
                              local_heads=c["heads_local"], global_width=g, global_layers=c["layers_global"],
                              global_heads=c["heads_global"], k=k, cross_heads=c["heads_cross"], window=c["window"] or 0,
                              ngram_rows=c["hash_vocab"], ngram_sizes=c["ngram_sizes"])
    every_encoder, every_decoder = c["cross_attn_all_layers_encoder"], c["cross_attn_all_layers_decoder"]
    model = configs.replace(model, **{
        "local.ffn": ffn, "latent.ffn": latent_ffn, "rope_theta": float(c["rope_theta"]), "norm_eps": float(c["norm_eps"]),
        "cross.encoder": "all" if every_encoder else "last", "cross.decoder": "all" if every_decoder else "first",
        "ngrams.functions": c["hash_functions"]})

    embed = dict(bytes=t.take("local_encoder.tok_embeddings.weight", vocab.SIZE, d))
    tables = c["hash_functions"] * len(c["ngram_sizes"])  # function outer, size inner, as ours
    if tables:
        embed["ngrams"] = np.stack([t.take(f"encoder_hash_tok_embedding.{i}.weight", c["hash_vocab"], d) for i in range(tables)])
    encoder = dict(
        embed=embed,
        blocks=stacked(block(t, f"local_encoder.layers.{i}.", d, ffn) for i in range(c["layers_encoder"])),
        pool=split(t.kernel("local_encoder.", "patch_embedding_projection", inner=d, outer=k * d), k),
        cross=stacked(dict(attention=cross(t, f"local_encoder.cross_attn_layers.{i}.", d))
                      for i in range(c["layers_encoder"] if every_encoder else 1)))
    latent = dict(blocks=stacked(block(t, f"global_transformer.layers.{i}.", g, latent_ffn) for i in range(c["layers_global"])))
    if k * d != g:
        latent["project"] = t.kernel("global_transformer.", "token_embedding_projection", inner=k * d, outer=g)
    decoder = dict(
        latents=split(t.kernel("local_decoder.", "patch_embedding_projection", inner=g, outer=k * d), k),
        norm=t.scale("local_decoder.norm", d),
        head=t.kernel("local_decoder.", "output", inner=d, outer=vocab.SIZE))
    blocks = [block(t, f"local_decoder.layers.{i}.", d, ffn) for i in range(c["layers_decoder"])]
    crosses = [cross(t, f"local_decoder.cross_attn_layers.{i}.", d) for i in range(c["layers_decoder"] if every_decoder else 1)]
    if every_decoder:
        decoder["layers"] = stacked(dict(cross=x, block=b) for x, b in zip(crosses, blocks))
    else:
        decoder |= dict(cross=crosses[0], blocks=stacked(blocks))
    t.finish()
    return model, dict(encoder=encoder, latent=latent, decoder=decoder)


def byte_lm_from_reference(arrays: dict, config: dict):
    """(model config, params) of a released entropy model. config: dim, layers, heads, window, norm_eps; rope_theta is 1e4 unless given."""
    c = checked(config, "dim", "layers", "heads", "window", "norm_eps")
    t, d = Tensors(arrays), c["dim"]
    ffn = t.rows("layers.0.feed_forward.w1.weight")
    model = configs.transformer("byte", vocab=vocab.SIZE, width=d, layers=c["layers"], heads=c["heads"], window=c["window"] or 0,
                                rope_theta=float(c.get("rope_theta", 1e4)))
    model = configs.replace(model, ffn=ffn, norm_eps=float(c["norm_eps"]))
    params = dict(
        embed=t.take("tok_embeddings.weight", vocab.SIZE, d),
        blocks=stacked(block(t, f"layers.{i}.", d, ffn) for i in range(c["layers"])),
        norm=t.scale("norm", d),
        head=t.kernel("", "output", inner=d, outer=vocab.SIZE))
    t.finish()
    return model, params


def batch_from_lengths(ids, patch_lengths, eos_id: int = vocab.EOS) -> dict:
    """Model inputs by the released rules: int32 arrays of a BLT batch, without targets.

    ids [B,N]; patch_lengths [B,P], rows sum to N + 1 (the next byte's patch is decided too), the first patch is one byte, zeros
    at the end. Byte t reads the latent of the patch before its next byte's. EOS ends its document and belongs to it; a patch's
    document is its first byte's. Raises UserError where lengths break the rules.
    """
    ids, lengths = np.asarray(ids, np.int32), np.asarray(patch_lengths, np.int64)
    if ids.ndim != 2 or lengths.ndim != 2 or len(ids) != len(lengths):
        raise UserError(f"ids {list(ids.shape)} and patch lengths {list(lengths.shape)} must be [B,N] and [B,P] of the same B")
    (B, N), P = ids.shape, lengths.shape[1]
    if (lengths < 0).any() or (lengths.sum(1) != N + 1).any():
        raise UserError(f"patch lengths must sum to {N + 1} (bytes plus the next one) in every row, not {lengths.sum(1).tolist()[:4]}")
    if (lengths[:, 0] != 1).any():
        raise UserError("the first patch must be one byte long: a longer one would show a byte to its own prediction")
    if (lengths[:, :-1] == 0)[lengths[:, 1:] > 0].any():
        raise UserError("patch lengths of 0 may only stand at the end of a row")
    of_byte = np.repeat(np.tile(np.arange(P, dtype=np.int32), B), lengths.reshape(-1)).reshape(B, N + 1)
    doc_ids = documents_at(ids, eos_id)
    first = np.cumsum(lengths, axis=1) - lengths
    patch_docs = np.where((lengths > 0) & (first < N), np.take_along_axis(doc_ids, np.minimum(first, N - 1), axis=1), 0)
    return dict(bytes=ids, patch_ids=of_byte[:, :-1], latent_ids=of_byte[:, 1:] - 1, doc_ids=doc_ids,
                patch_doc_ids=patch_docs.astype(np.int32))


def documents_at(ids, eos_id: int) -> np.ndarray:
    """Number of each id's document in its row, from 1, int32 [B,N]: EOS ends a document and belongs to it."""
    return 1 + np.cumsum(np.pad(ids == eos_id, ((0, 0), (1, 0)))[:, :-1], axis=1, dtype=np.int32)


def checked(config: dict, *keys: str) -> dict:
    missing = [key for key in keys if key not in config]
    if missing:
        raise UserError(f"config has no {', '.join(missing)}")
    return config


def block(t: Tensors, prefix: str, width: int, ffn: int) -> dict:
    """One transformer layer; a feed-forward narrower than `ffn` is filled up with zeros, which changes no result."""
    own = t.rows(f"{prefix}feed_forward.w1.weight")
    gate_up = t.kernel(f"{prefix}feed_forward.", "w1", "w3", inner=width, outer=own)["kernel"]
    down = t.kernel(f"{prefix}feed_forward.", "w2", inner=own, outer=width)["kernel"]
    return dict(
        attention=dict(qkv=t.kernel(f"{prefix}attention.", "wq", "wk", "wv", inner=width, outer=width),
                       out=t.kernel(f"{prefix}attention.", "wo", inner=width, outer=width)),
        attention_norm=t.scale(f"{prefix}attention_norm", width),
        ffn=dict(gate_up=dict(kernel=np.pad(gate_up, ((0, 0), (0, 0), (0, ffn - own)))),
                 down=dict(kernel=np.pad(down, ((0, ffn - own), (0, 0))))),
        ffn_norm=t.scale(f"{prefix}ffn_norm", width))


def cross(t: Tensors, prefix: str, width: int) -> dict:
    """One cross-attention layer."""
    return dict(norm_q=t.scale(f"{prefix}cross_attn_norm_q", width), norm_kv=t.scale(f"{prefix}cross_attn_norm_kv", width),
                q=t.kernel(prefix, "wq", inner=width, outer=width), kv=t.kernel(prefix, "wk", "wv", inner=width, outer=width),
                out=t.kernel(prefix, "wo", inner=width, outer=width))


def split(linear: dict, k: int) -> dict:
    """A kernel onto k·width as one onto [k, width]: slice j is query (or key) j."""
    kernel = linear["kernel"]
    return dict(kernel=kernel.reshape(kernel.shape[0], k, -1))


def stacked(layers) -> dict:
    """Layers on a leading axis, as our modules keep them."""
    return jax.tree.map(lambda *parts: np.stack(parts), *layers)
