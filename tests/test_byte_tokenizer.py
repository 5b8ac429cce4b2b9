"""What an export has beside its weights: transformers loads and generates from it."""

import json

import numpy as np
import pytest
import test_generation as generation

from bltjax import config as cfg
from bltjax.formats import byte_tokenizer, huggingface_export
from bltjax.patching import vocab

TEXTS = ["", "a", "two  words\n\n\ttab", "naïve 東京 \U0001f642", "\0\x7f", "x" * 5000, "<s>struck</s> <bpe>"]


def test_ids_are_those_of_bytes_after_bos():
    import tokenizers

    files = byte_tokenizer.files()
    found = tokenizers.Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    # what transformers does with this setting: names of specials in a text are text
    found.encode_special_tokens = files["tokenizer_config.json"]["split_special_tokens"]
    assert found.get_vocab_size() == vocab.SIZE
    for text in TEXTS:
        ids = found.encode(text).ids
        assert ids == [vocab.BOS, *vocab.encode(text.encode()).tolist()]
        assert found.decode(ids) == text
        assert found.encode(text, add_special_tokens=False).ids == ids[1:]
    assert [found.token_to_id(name) for name in ("<boe>", "<s>", "</s>", "<bpe>")] == [0, 1, 2, 3]


def test_an_export_has_what_loads_and_generates(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_export, "_write_tensors", lambda folder, trees: None)
    monkeypatch.setattr(huggingface_export, "check_expressible", lambda config, loosely: None)
    model = generation.blt()
    run = cfg.run("x", "blt-space", model, patching_=cfg.patching("space", 4.0))
    params = {"encoder": {"embed": {"bytes": np.zeros(1, np.float32)}}}
    huggingface_export.save(run, params, None, tmp_path / "out")
    read = lambda name: json.loads((tmp_path / "out" / name).read_text())
    config, said = read("config.json"), read("generation_config.json")
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache"):
        assert config[key] == said[key]
    assert (said["bos_token_id"], said["eos_token_id"]) == (vocab.BOS, vocab.EOS)
    assert said["suppress_tokens"] == [0, 1, 3]  # as in generation here
    tokenizer, special = read("tokenizer_config.json"), read("special_tokens_map.json")
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    ids = read("tokenizer.json")["model"]["vocab"]
    for key in ("bos_token", "eos_token", "pad_token"):
        assert tokenizer[key] == special[key] and ids[special[key]] == config[f"{key}_id"]


def test_transformers_loads_the_tokenizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    for name, content in byte_tokenizer.files().items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blt", "vocab_size": vocab.SIZE}))
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert found(text)["input_ids"] == [vocab.BOS, *vocab.encode(text.encode()).tolist()]
        assert found.decode(found(text)["input_ids"], skip_special_tokens=True) == text
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (vocab.BOS, vocab.EOS, vocab.BOE)
