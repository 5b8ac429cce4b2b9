"""Tokenizers: exact on any bytes, as many entries as asked for, the same from the same text, whole after a
round trip through a file."""

import json

import numpy as np
import pytest
import tokenizers as library
from tokenizer_texts import ODD, TEXT, check_exact, random_bytes

from bltjax.errors import UserError
from bltjax.tokenizers import bpe


@pytest.fixture(scope="module")
def trained():
    return bpe.train_bpe(TEXT, 300)


def test_arbitrary_bytes_round_trip(trained):
    check_exact(trained, TEXT + ODD + random_bytes(50, 300))


def test_vocabulary_counts_the_specials(trained):
    assert trained.vocab == 300 == len(trained.token_bytes) and (trained.bos, trained.eos) == (298, 299)
    assert trained.byte_counts.dtype == np.int32 and np.flatnonzero(trained.byte_counts == 0).tolist() == [
        298,
        299,
    ]
    assert {bytes([b]) for b in range(256)} <= set(trained.token_bytes)
    assert len(trained.encode(TEXT[0])) < len(TEXT[0]) / 1.5  # it does merge
    assert bpe.train_bpe(TEXT, 258).encode(b"ab\xff").size == 3


def test_words_are_encoded_as_the_library_encodes_the_text(trained):
    backend = library.Tokenizer.from_str(json.dumps(trained.state["tokenizer"]))
    for sample in TEXT + ODD + random_bytes(20, 400, seed=1):
        assert (
            backend.encode(sample.decode("latin-1"), add_special_tokens=False).ids
            == trained.encode(sample).tolist()
        )


def test_the_pattern_loses_no_byte_and_merges_stay_within_words(trained):
    for sample in TEXT + ODD + random_bytes(20, 400, seed=2):
        assert b"".join(bpe.WORDS.findall(sample)) == sample
    words = bpe.WORDS.findall(b"    return x1 + 1234\n\n  y")
    assert words == [b"   ", b" return", b" x", b"1", b" +", b" ", b"123", b"4", b"\n\n", b" ", b" y"]


def test_the_same_text_gives_the_same_tokenizer(trained):
    again = bpe.train_bpe(TEXT, 300)
    assert again.fingerprint == trained.fingerprint and again.token_bytes == trained.token_bytes
    assert bpe.train_bpe(TEXT, 290).fingerprint != trained.fingerprint


def test_save_and_load(trained, tmp_path):
    path = tmp_path / "made" / "tokenizer.json"
    trained.save(path)
    loaded = bpe.load(path)
    assert [p.name for p in path.parent.iterdir()] == ["tokenizer.json"]
    assert (loaded.fingerprint, loaded.bos, loaded.eos, loaded.token_bytes) == (
        trained.fingerprint,
        298,
        299,
        trained.token_bytes,
    )
    for sample in TEXT + ODD:
        assert np.array_equal(loaded.encode(sample), trained.encode(sample))


def test_bad_input(trained, tmp_path):
    with pytest.raises(UserError, match="258"):
        bpe.train_bpe(TEXT, 257)
    with pytest.raises(UserError, match="choose fewer"):
        bpe.train_bpe([b"aaaa bbbb"], 4096)
    with pytest.raises(UserError, match="nowhere"):
        bpe.load(tmp_path / "nowhere.json")
    good = tmp_path / "good.json"
    trained.save(good)
    whole = good.read_text()
    changed = json.loads(whole)
    merges = changed["tokenizer"]["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    for text in (
        "",
        "{}",
        "[1]",
        "null",
        whole[:-200],
        '{"kind": "trained", "tokenizer": {}, "fingerprint": "x"}',
        json.dumps(changed),
    ):
        bad = tmp_path / "bad.json"
        bad.write_text(text)
        with pytest.raises(UserError) as error:
            bpe.load(bad)
        assert "\n" not in str(error.value)


def test_words_are_cut_for_training():
    """Text without spaces is one word; uncut, every merge reads all of it again, for minutes."""
    text = [b"a" * 256 * 400]
    assert max(bpe.train_bpe(text, 266).byte_counts) == bpe.LONGEST_WORD == 256
    with pytest.raises(UserError, match="only give 266"):  # a longer token would need a longer word
        bpe.train_bpe(text, 270)


def spaceless(characters: str, files: int, size: int) -> list[bytes]:
    rng, letters = np.random.default_rng(0), np.array(list(characters))
    return ["".join(letters[rng.integers(0, len(letters), size)]).encode() for _ in range(files)]


@pytest.mark.parametrize("characters", ["ACGT", "人生而自由平等東京"])
def test_text_without_spaces_says_how_it_was_cut(characters, tmp_path, capfd):
    documents = spaceless(characters, 30, 3000)
    said = []
    found = bpe.train_bpe(documents, 400, said.append)
    size = len(documents[0])
    assert len(said) == 1 and f"{size:,} bytes were cut at 256" in said[0] and not capfd.readouterr().err
    facts = found.state["trained"]
    assert facts == dict(documents=30, bytes=30 * size, longest_word=size, words_cut_at=256)
    check_exact(found, documents[:3])
    found.save(tmp_path / "t.json")
    again = bpe.load(tmp_path / "t.json")
    assert again.state == found.state and again.fingerprint == found.fingerprint
    assert np.array_equal(again.encode(documents[0]), found.encode(documents[0]))


def test_facts_of_training_are_no_part_of_a_tokenizer(trained, tmp_path):
    """Files that were written before have none, and are the same tokenizers."""
    trained.save(tmp_path / "t.json")
    saved = json.loads((tmp_path / "t.json").read_text())
    assert saved.pop("trained")["words_cut_at"] == 256
    (tmp_path / "t.json").write_text(json.dumps(saved))
    assert bpe.load(tmp_path / "t.json").fingerprint == trained.fingerprint


def test_training_that_takes_long_says_so(monkeypatch):
    monkeypatch.setattr(bpe, "EVERY_SECONDS", 0.01)
    said = []
    bpe.train_bpe(spaceless("ACGT", 30, 10_000), 1000, said.append)
    assert any("training a vocabulary of 1,000 entries on 300,000 bytes:" in text for text in said)


def test_long_words_are_not_remembered(trained):
    words = trained.encoder.args[0]
    words.clear()
    trained.encode(b"short " + b"x" * 1000)
    assert b"x" * 1000 not in words and all(len(word) <= bpe.LONGEST_WORD for word in words) and words
