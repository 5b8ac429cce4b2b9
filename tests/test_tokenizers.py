"""Tokenizers: exact on any bytes, as many entries as asked for, the same from the same text, whole after a round trip through a file."""

import importlib.util
import json

import numpy as np
import pytest
import tokenizers as library

from bltjax.data import tokenizers
from bltjax.errors import UserError

TEXT = [b"def first(x):\n    return x + 1  # the first of them\n\n\ndef second(y):\n    return first(y) - 12345\n" * 3,
        "Straße, naïve café; 東京 and Ελλάδα aren't one word — they're 7.\r\n\r\n\t end".encode() * 3]
ODD = [b"", b"\0", b"\xff", b"\x85\xa0\x1c\x1f \xc3", bytes(range(256)), bytes(reversed(range(256))), b" " * 1000, b"\n \n\t \r\n  x",
       b"'s 'S 'Re x'll 'tis can't", "naïve €\N{GRINNING FACE}".encode()[:-1], b"1234567 12 3", b"<|begin_of_text|>"]


def random_bytes(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size).astype(np.uint8).tobytes() for _ in range(count)]


@pytest.fixture(scope="module")
def trained():
    return tokenizers.train_bpe(TEXT, 300)


def check_exact(tokenizer, samples):
    for sample in samples:
        ids = tokenizer.encode(sample)
        assert ids.dtype == np.int32 and ids.ndim == 1
        assert tokenizer.decode(ids) == sample
        assert tokenizer.byte_counts[ids].sum() == len(sample)
        assert not np.isin(ids, (tokenizer.bos, tokenizer.eos)).any()


def test_arbitrary_bytes_round_trip(trained):
    check_exact(trained, TEXT + ODD + random_bytes(50, 300))


def test_vocabulary_counts_the_specials(trained):
    assert trained.vocab == 300 == len(trained.token_bytes) and (trained.bos, trained.eos) == (298, 299)
    assert trained.byte_counts.dtype == np.int32 and np.flatnonzero(trained.byte_counts == 0).tolist() == [298, 299]
    assert {bytes([b]) for b in range(256)} <= set(trained.token_bytes)
    assert len(trained.encode(TEXT[0])) < len(TEXT[0]) / 1.5  # it does merge
    assert tokenizers.train_bpe(TEXT, 258).encode(b"ab\xff").size == 3


def test_words_are_encoded_as_the_library_encodes_the_text(trained):
    backend = library.Tokenizer.from_str(json.dumps(trained.state["tokenizer"]))
    for sample in TEXT + ODD + random_bytes(20, 400, seed=1):
        assert backend.encode(sample.decode("latin-1"), add_special_tokens=False).ids == trained.encode(sample).tolist()


def test_the_pattern_loses_no_byte_and_merges_stay_within_words(trained):
    for sample in TEXT + ODD + random_bytes(20, 400, seed=2):
        assert b"".join(tokenizers.WORDS.findall(sample)) == sample
    words = tokenizers.WORDS.findall(b"    return x1 + 1234\n\n  y")
    assert words == [b"   ", b" return", b" x", b"1", b" +", b" ", b"123", b"4", b"\n\n", b" ", b" y"]


def test_the_same_text_gives_the_same_tokenizer(trained):
    again = tokenizers.train_bpe(TEXT, 300)
    assert again.fingerprint == trained.fingerprint and again.token_bytes == trained.token_bytes
    assert tokenizers.train_bpe(TEXT, 290).fingerprint != trained.fingerprint


def test_save_and_load(trained, tmp_path):
    path = tmp_path / "made" / "tokenizer.json"
    trained.save(path)
    loaded = tokenizers.load(path)
    assert [p.name for p in path.parent.iterdir()] == ["tokenizer.json"]
    assert (loaded.fingerprint, loaded.bos, loaded.eos, loaded.token_bytes) == (trained.fingerprint, 298, 299, trained.token_bytes)
    for sample in TEXT + ODD:
        assert np.array_equal(loaded.encode(sample), trained.encode(sample))


def test_bad_input(trained, tmp_path):
    with pytest.raises(UserError, match="258"):
        tokenizers.train_bpe(TEXT, 257)
    with pytest.raises(UserError, match="choose fewer"):
        tokenizers.train_bpe([b"aaaa bbbb"], 4096)
    with pytest.raises(UserError, match="nowhere"):
        tokenizers.load(tmp_path / "nowhere.json")
    good = tmp_path / "good.json"
    trained.save(good)
    whole = good.read_text()
    changed = json.loads(whole)
    merges = changed["tokenizer"]["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    for text in ("", "{}", "[1]", "null", whole[:-200], '{"kind": "trained", "tokenizer": {}, "fingerprint": "x"}', json.dumps(changed)):
        bad = tmp_path / "bad.json"
        bad.write_text(text)
        with pytest.raises(UserError) as error:
            tokenizers.load(bad)
        assert "\n" not in str(error.value)


def test_llama3_names_its_extra_when_missing(monkeypatch):
    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="llama"):
        tokenizers.llama3.__wrapped__()


@pytest.mark.skipif(not (importlib.util.find_spec("llama_models") and importlib.util.find_spec("tiktoken")), reason="extra `llama`")
def test_llama3(tmp_path):
    tokenizer = tokenizers.llama3()
    assert (tokenizer.vocab, tokenizer.bos, tokenizer.eos) == (128_256, 128_000, 128_001)
    assert tokenizer.encode(b"Hello world!").tolist() == [9906, 1917, 0]
    assert (tokenizer.byte_counts[:128_000] > 0).all() and not tokenizer.byte_counts[128_000:].any()
    check_exact(tokenizer, TEXT + ODD + random_bytes(20, 300))
    tokenizer.save(tmp_path / "t.json")
    assert tokenizers.load(tmp_path / "t.json") is tokenizer


def test_a_tokenizer_json(tmp_path):
    """Byte-level BPE as Hugging Face writes it: exact bytes, specials apart, also where a text spells one, and where it is no UTF-8."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=[AddedToken("<|begin_of_text|>", special=True), AddedToken("<|end_of_text|>", special=True)])
    backend.train_from_iterator(["the quick brown fox, the lazy dog; na\u00efve \u20ac"] * 50, trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    found = tokenizers.huggingface(tmp_path / "tokenizer.json")
    for text in (b"the quick brown fox", b"", b"\xff\xfe the \x80", "na\u00efve <|end_of_text|> \U0001f600".encode(), bytes(range(256))):
        ids = found.encode(text)
        assert found.decode(ids) == text and found.byte_counts[ids].sum() == len(text) and found.eos not in ids
    assert len(found.encode(b"the quick brown fox")) < 19 and found.token_bytes[found.bos] == b""
    backend.normalizer = normalizers.Lowercase()
    backend.save(str(tmp_path / "lower.json"))
    for name in ("lower.json", "missing.json"):
        with pytest.raises(UserError):
            tokenizers.huggingface(tmp_path / name)
