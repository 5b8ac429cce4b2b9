"""Llama in: whole, as a BPE baseline with its tokenizer, and its layers as a global model. Also the makers of
tiny Llamas for other tests."""

import json
import pathlib
import shutil

import hf_blt
import jax
import numpy as np
import pytest
import test_generation as generation

from bltjax import api, convert, models
from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.formats import llama, safetensors


def llama_directory(folder, seed=0, kv_heads=2, scaled=True, tied=False):
    """A tiny random Llama as transformers would save it."""
    rng, width, heads, layers, ffn, vocab = np.random.default_rng(seed), 48, 4, 2, 64, 96
    config = dict(
        model_type="llama",
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=layers,
        intermediate_size=ffn,
        vocab_size=vocab,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        tie_word_embeddings=tied,
        hidden_act="silu",
        max_position_embeddings=128,
    )
    if scaled:
        config["rope_scaling"] = dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        )
    shapes = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {
            f"{at}self_attn.q_proj.weight": (width, width),
            f"{at}self_attn.k_proj.weight": (kv_heads * width // heads, width),
            f"{at}self_attn.v_proj.weight": (kv_heads * width // heads, width),
            f"{at}self_attn.o_proj.weight": (width, width),
            f"{at}mlp.gate_proj.weight": (ffn, width),
            f"{at}mlp.up_proj.weight": (ffn, width),
            f"{at}mlp.down_proj.weight": (width, ffn),
            f"{at}input_layernorm.weight": (width,),
            f"{at}post_attention_layernorm.weight": (width,),
        }
    if not tied:
        shapes["lm_head.weight"] = (vocab, width)
    arrays = {
        name: (
            (rng.normal(size=shape) * (0.2 if len(shape) > 1 else 0.3) + (len(shape) == 1)).astype(np.float32)
        )
        for name, shape in shapes.items()
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.write(
        folder / "model.safetensors",
        {name: (x.dtype, x.shape) for name, x in arrays.items()},
        lambda name: [arrays[name]],
    )
    return config, arrays


def llama_logits(config, w, ids):
    """A Llama by the book, in float64: rotary halves, grouped queries, Llama 3.1's frequencies."""
    H, kv, N = config["num_attention_heads"], config["num_key_value_heads"], len(ids)
    K = config["hidden_size"] // H
    frequency = config["rope_theta"] ** -(np.arange(0, K, 2) / K)
    if s := config.get("rope_scaling"):
        long = s["original_max_position_embeddings"]
        wave = 2 * np.pi / frequency
        smooth = (long / wave - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        between = (1 - smooth) * frequency / s["factor"] + smooth * frequency
        frequency = np.where(
            wave > long / s["low_freq_factor"],
            frequency / s["factor"],
            np.where(wave < long / s["high_freq_factor"], frequency, between),
        )
    angle = np.arange(N)[:, None] * frequency[None]
    cos, sin = (np.concatenate([f(angle)] * 2, -1)[:, None] for f in (np.cos, np.sin))
    turn = lambda x: x * cos + np.concatenate([-x[..., K // 2 :], x[..., : K // 2]], -1) * sin
    norm = lambda x, scale: x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * scale
    x = w["model.embed_tokens.weight"][ids].astype(np.float64)
    for i in range(config["num_hidden_layers"]):
        at = lambda name: w[f"model.layers.{i}.{name}.weight"].astype(np.float64)
        h = norm(x, at("input_layernorm"))
        q, k, v = (
            turn(y) if n != "v" else y
            for n, y in ((n, (h @ at(f"self_attn.{n}_proj").T).reshape(N, -1, K)) for n in "qkv")
        )
        k, v = (np.repeat(y, H // kv, axis=1) for y in (k, v))
        scores = np.einsum("ihk,jhk->hij", q, k) / np.sqrt(K) + np.where(np.tril(np.ones((N, N))), 0, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        x = (
            x
            + np.einsum("hij,jhk->ihk", p / p.sum(-1, keepdims=True), v).reshape(N, -1)
            @ at("self_attn.o_proj").T
        )
        h = norm(x, at("post_attention_layernorm"))
        gate = h @ at("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ at("mlp.up_proj").T)) @ at("mlp.down_proj").T
    head = w["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    return norm(x, w["model.norm.weight"]) @ head.T


@pytest.mark.parametrize("kv_heads, scaled, tied", [(4, False, False), (2, True, False), (1, True, True)])
def test_llama_whole(tmp_path, kv_heads, scaled, tied):
    config, arrays = llama_directory(tmp_path / "llama", kv_heads=kv_heads, scaled=scaled, tied=tied)
    ids = np.random.default_rng(0).integers(0, 96, 50)
    found = llama.load(tmp_path / "llama")
    batch = {"tokens": ids[None].astype(np.int32), "doc_ids": np.ones((1, 50), np.int32)}
    logits = np.asarray(models.logits(found.config.model, found.params, batch))[0]
    assert np.abs(logits - llama_logits(config, arrays, ids)).max() < 1e-4


def test_a_head_that_is_there_is_the_head(tmp_path):
    """tie_word_embeddings with another lm_head.weight in the file: transformers does not tie them then, nor
    do we."""
    config, arrays = llama_directory(tmp_path / "llama")
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    head = llama.load(tmp_path / "llama").params["head"]["kernel"]
    np.testing.assert_array_equal(head, arrays["lm_head.weight"].T)


def tokenizer_json(path, size, specials=("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")):
    """A byte-level BPE of `size` entries as the tokenizers library saves it."""
    import tokenizers as library

    backend = library.Tokenizer(library.models.BPE())
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(specials),
        show_progress=False,
    )
    backend.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog, and the cat sat on the mat"] * 20, trainer
    )
    backend.save(str(path))
    return backend.get_vocab_size()


def llama_with_tokenizer(folder, vocabulary, entries=270, **more):
    config, arrays = llama_directory(folder)
    rng = np.random.default_rng(1)
    arrays = {
        name: (
            rng.normal(size=(vocabulary, x.shape[1])).astype(np.float32)
            if x.shape[0] == config["vocab_size"]
            else x
        )
        for name, x in arrays.items()
    }
    safetensors.write(
        folder / "model.safetensors",
        {name: (x.dtype, x.shape) for name, x in arrays.items()},
        lambda name: [arrays[name]],
    )
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": vocabulary, **more}))
    tokenizer_json(folder / "tokenizer.json", entries)
    return folder


def test_a_vocabulary_that_is_filled_up(tmp_path, capfd):
    """A model may have more ids than its tokenizer: they are never chosen. Fewer: one line. Ids that end a
    text are the config's."""
    folder = llama_with_tokenizer(tmp_path / "llama", 288, eos_token_id=[1, 2])
    convert.bring_in(folder, tmp_path / "ours")
    for path in (folder, tmp_path / "ours"):
        model = api.load(path)
        assert model.tokenizer.vocab < 288 and model.config.tokenizer.ends == (1, 2)
        assert (
            model.generator.ends.tolist() == [1, 2]
            and model.generator.barred[:3].tolist() == [True, False, False]
            and bool(model.generator.barred[280])
        )
        (new,) = model.generate(["the "], 12)
        assert len(new) <= 12
    (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), "eos_token_id": 10**6})
    )
    assert hf_blt.run(capfd, "generate", folder, "a")[2].count("eos_token_id") == 1
    small = llama_with_tokenizer(tmp_path / "small", 262)
    for command in (("import", small, "--out", tmp_path / "out"), ("generate", small, "a")):
        code, out, error = hf_blt.run(capfd, *command)
        assert code == 2 and "entries, the model 262" in error and error.count("\n") == 1 and not out
    (small / "tokenizer.json").write_text("{}")
    code, _, error = hf_blt.run(capfd, "import", small, "--out", tmp_path / "out")
    assert code == 2 and "cannot read the tokenizer" in error and not (tmp_path / "out").exists()


def test_a_directory_with_tokenizer_model_alone(tmp_path):
    """It has that tokenizer, its ends are the config's, and import carries both along."""
    pytest.importorskip("sentencepiece")
    folder = llama_with_tokenizer(tmp_path / "llama", 700, bos_token_id=2, eos_token_id=1)
    (folder / "tokenizer.json").unlink()
    shutil.copy(pathlib.Path(__file__).parent / "golden" / "sentencepiece.model", folder / "tokenizer.model")
    convert.bring_in(folder, tmp_path / "ours")
    for path in (folder, tmp_path / "ours"):
        tokenizer = api.load(path).tokenizer
        assert (tokenizer.kind, tokenizer.bos, tokenizer.eos) == ("sentencepiece", 2, 1)
        assert tokenizer.decode(tokenizer.encode(b"some text \xff")) == b"some text \xff"


def test_of_two_tokenizers_the_one_that_is_exact(tmp_path):
    """Llama 2 comes with a tokenizer.json that normalises and with SentencePiece's file."""
    pytest.importorskip("sentencepiece")
    folder = llama_with_tokenizer(tmp_path / "llama", 700)
    state = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**state, "normalizer": {"type": "NFKC"}}))
    shutil.copy(pathlib.Path(__file__).parent / "golden" / "sentencepiece.model", folder / "tokenizer.model")
    assert api.load(folder).tokenizer.kind == "sentencepiece"


def test_llama_as_global_model(tmp_path):
    """The same layers in a BLT: the global model's output is that of the Llama's layers, at the Llama's
    positions."""
    llama_directory(tmp_path / "llama")
    found = llama.load(tmp_path / "llama")
    model = cfg.replace(
        generation.blt(),
        **{
            "latent.ffn": 64,
            "latent.rope_theta": found.config.model.rope_theta,
            "latent.rope_scaling": found.config.model.rope_scaling,
        },
    )
    fresh = models.init(model, jax.random.key(0))
    params = llama.into_global(fresh, found.config.model, found.params, model)
    from bltjax.models.global_model import GlobalModel

    x = np.random.default_rng(0).normal(size=(1, 20, 48)).astype(np.float32)
    whole = GlobalModel(model).apply(
        {"params": {"blocks": params["latent"]["blocks"]}}, x, np.ones((1, 20), np.int32)
    )
    assert np.isfinite(whole).all() and set(params) == set(fresh)
    with pytest.raises(UserError, match="must have the checkpoint's shape"):
        llama.into_global(fresh, found.config.model, found.params, generation.blt(global_layers=3))
