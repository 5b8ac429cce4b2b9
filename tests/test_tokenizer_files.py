"""Tokenizers of other projects: exact tokens of their files, their ends of text, or one line that says why
not."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import tokenizers as library
from tokenizer_texts import ODD, TEXT, check_exact, random_bytes

from bltjax.errors import UserError
from bltjax.tokenizers import bpe


def test_llama3_names_its_extra_when_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="llama"):
        bpe.llama3.__wrapped__()


@pytest.mark.skipif(
    not (importlib.util.find_spec("llama_models") and importlib.util.find_spec("tiktoken")),
    reason="extra `llama`",
)
def test_llama3(tmp_path):
    tokenizer = bpe.llama3()
    assert (tokenizer.vocab, tokenizer.bos, tokenizer.eos) == (128_256, 128_000, 128_001)
    assert tokenizer.encode(b"Hello world!").tolist() == [9906, 1917, 0]
    assert (tokenizer.byte_counts[:128_000] > 0).all() and not tokenizer.byte_counts[128_000:].any()
    check_exact(tokenizer, TEXT + ODD + random_bytes(20, 300))
    tokenizer.save(tmp_path / "t.json")
    assert bpe.load(tmp_path / "t.json").fingerprint == tokenizer.fingerprint


def test_a_tokenizer_json(tmp_path):
    """Byte-level BPE as Hugging Face writes it: exact bytes, specials apart, also where a text spells one,
    and where it is no UTF-8."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[
            AddedToken("<|begin_of_text|>", special=True),
            AddedToken("<|end_of_text|>", special=True),
        ],
    )
    backend.train_from_iterator(["the quick brown fox, the lazy dog; na\u00efve \u20ac"] * 50, trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    found = bpe.huggingface(tmp_path / "tokenizer.json")
    for text in (
        b"the quick brown fox",
        b"",
        b"\xff\xfe the \x80",
        "na\u00efve <|end_of_text|> \U0001f600".encode(),
        bytes(range(256)),
    ):
        ids = found.encode(text)
        assert (
            found.decode(ids) == text and found.byte_counts[ids].sum() == len(text) and found.eos not in ids
        )
    assert len(found.encode(b"the quick brown fox")) < 19 and found.token_bytes[found.bos] == b""
    backend.normalizer = normalizers.Lowercase()
    backend.save(str(tmp_path / "lower.json"))
    for name in ("lower.json", "missing.json"):
        with pytest.raises(UserError):
            bpe.huggingface(tmp_path / name)


GOLDEN = pathlib.Path(__file__).parent / "golden"


WRITING = [  # twenty writing systems: "all people are born free" or the like
    "All human beings are born free",
    "Όλοι οι άνθρωποι γεννιούνται",
    "Все люди рождаются свободными",
    "Բոլոր մարդիկ ծնվում են",
    "כל בני האדם נולדו",
    "يولد جميع الناس أحرارا",
    "ܟܠ ܒܪܢܫܐ",
    "सभी मनुष्य जन्म से",
    "সমস্ত মানুষ স্বাধীনভাবে",
    "ਸਾਰਾ ਮਨੁੱਖੀ",
    "પ્રતિષ્ઠા અને અધિકાર",
    "மனிதப் பிறவியினர்",
    "అందరు మనుష్యులు",
    "ಎಲ್ಲಾ ಮಾನವರು",
    "മനുഷ്യരെല്ലാവരും",
    "มนุษย์ทั้งหลาย",
    "ມະນຸດເກີດມາ",
    "ადამიანები იბადებიან",
    "የሰው ልጅ ሁሉ",
    "人人生而自由",
    "すべての人間は",
    "모든 인간은",
    "ᎾᏂᎥ ᎨᏒ",
    "ភ្ជាប់មនុស្ស",
    "\U00010330\U00010331 \U0001f468\u200d\U0001f469\u200d\U0001f467",
]


def given(name, tmp_path):
    if name == "sentencepiece":
        pytest.importorskip("sentencepiece")
        return bpe.read(GOLDEN / "sentencepiece.model")
    if name == "trained":
        return bpe.train_bpe(TEXT, 300)
    import test_llama

    test_llama.tokenizer_json(tmp_path / "tokenizer.json", 280)
    return bpe.read(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["trained", "sentencepiece", "huggingface"])
def test_tokens_are_exact_in_every_writing(name, tmp_path):
    tokenizer = given(name, tmp_path)
    samples = (
        [text.encode() for text in WRITING]
        + ["  ".join(WRITING).encode("utf-16")]
        + ODD
        + random_bytes(20, 300)
    )
    samples += [
        "\u2581 a \u2581\u2581b".encode(),
        b" ",
        b"   x",
        b"<0x41> <s> </s>",
        b"\n\n\t",
        b"".join(samples),
    ]
    check_exact(tokenizer, samples)
    for sample in samples:
        ids = tokenizer.encode(sample)
        assert tokenizer.byte_counts[ids].sum() == len(sample) and not {tokenizer.bos, tokenizer.eos} & set(
            ids.tolist()
        )
    tokenizer.save(tmp_path / "saved.json")
    again = bpe.load(tmp_path / "saved.json")
    assert again.fingerprint == tokenizer.fingerprint and all(
        np.array_equal(again.encode(s), tokenizer.encode(s)) for s in samples
    )


def test_sentencepiece_as_its_library_has_it():
    """Its library puts a blank before a text; here a text that begins with one gives the same ids, those of
    user-defined pieces among them. The file was made by tests/train_sentencepiece.py."""
    pytest.importorskip("sentencepiece")
    tokenizer = bpe.read(GOLDEN / "sentencepiece.model")
    assert (tokenizer.bos, tokenizer.eos, tokenizer.vocab) == (1, 2, 700)
    cases = json.loads((GOLDEN / "sentencepiece.json").read_text())
    for case in cases:
        assert tokenizer.encode((" " + case["text"]).encode()).tolist() == case["ids"], case["text"]
    assert any(b"<piece>" == tokenizer.token_bytes[i] for case in cases for i in case["ids"])


def test_sentencepiece_without_its_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else find(name)
    )
    with pytest.raises(UserError, match="extra `sentencepiece`"):
        bpe.read(GOLDEN / "sentencepiece.model")


def test_a_golden_file_names_no_folder():
    assert b"/" + b"tmp" not in (GOLDEN / "sentencepiece.model").read_bytes()


def test_files_that_are_no_tokenizers(tmp_path):
    pytest.importorskip("sentencepiece")
    whole = (GOLDEN / "sentencepiece.model").read_bytes()
    no_bytes = whole.replace(b"\x98\x02\x01", b"\x98\x02\x00")  # byte_fallback
    normalised = whole.replace(b"identity", b"identity") + b"\x1a\x04\x12\x02ab"
    for content, says in (
        (b"", "SentencePiece"),
        (whole[:-3], "SentencePiece"),
        (b"\xff" * 50, "SentencePiece"),
        (no_bytes, "not exact bytes"),
        (normalised, "not exact bytes"),
        (b"{", "cannot read"),
        (b"{}", "cannot read"),
        (b"aGk= 0\naGk= x\n", "ranks|tiktoken"),
    ):
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(UserError, match=says):
            bpe.read(tmp_path / "t")
    with pytest.raises(UserError, match="No such file"):
        bpe.read(tmp_path / "none")


def byte_level(tmp_path, **changes):
    """A byte-level tokenizer.json with some of its sections changed."""
    backend = library.Tokenizer(library.models.BPE())
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=["<s>", "</s>"],
    )
    backend.train_from_iterator(["to be or not to be"], trainer)
    state = json.loads(backend.to_str())
    state["model"] |= changes.pop("model", {})
    state["added_tokens"] += changes.pop("added", [])
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(json.dumps({**state, **changes}))
    return tmp_path / "tokenizer.json"


def test_tokenizers_of_files_that_are_not_exact(tmp_path):
    added = dict(
        id=400, content="    ", single_word=False, lstrip=False, rstrip=False, normalized=False, special=False
    )
    found = bpe.read(byte_level(tmp_path, added=[added]))
    text = b"def f():\n        return 1\xff <s> x"
    assert found.decode(found.encode(text)) == text and b"    " in [
        found.token_bytes[i] for i in found.encode(text)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    whole = json.loads(byte_level(tmp_path).read_text())["model"]["vocab"]
    for changes in (
        dict(pre_tokenizer=level),
        dict(model=dict(dropout=0.5)),
        dict(added=[{**added, "lstrip": True, "content": "xyz"}]),
        dict(truncation=dict(direction="Right", max_length=5, strategy="LongestFirst", stride=0)),
        dict(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [{"type": "Whitespace"}, {**level, "add_prefix_space": False}],
            }
        ),
        dict(model=dict(vocab={k: v for k, v in whole.items() if k != "q"})),
    ):
        with pytest.raises(UserError, match="not exact bytes"):
            bpe.read(byte_level(tmp_path, **changes))
    with pytest.raises(UserError, match="special tokens"):
        path = byte_level(tmp_path)
        path.write_text(path.read_text().replace('"<s>"', '"<bos>"'))
        bpe.read(path)


@pytest.mark.parametrize(
    "files, wanted",
    [
        ({}, ("<s>", "</s>")),
        ({"config.json": {"bos_token_id": "<|im_start|>"}}, ("<s>", "</s>")),  # an id is a number
        ({"config.json": {"bos_token_id": 0, "eos_token_id": [1, 300]}}, ("<s>", "</s>")),
        ({"tokenizer_config.json": {"eos_token": {"content": "<|im_end|>"}}}, ("<s>", "<|im_end|>")),
        ({"tokenizer_config.json": {"bos_token": "<|im_end|>"}}, ("<|im_end|>", "</s>")),
        ({"generation_config.json": {"eos_token_id": 300}}, ("<s>", "<|im_end|>")),
        (
            {"config.json": {"eos_token_id": 1}, "tokenizer_config.json": {"eos_token": "<|im_end|>"}},
            ("<s>", "</s>"),
        ),
        ({"config.json": {"eos_token_id": 50, "bos_token_id": 10**6}}, ("<s>", "</s>")),  # no specials
        ({"config.json": ["damaged"]}, ("<s>", "</s>")),
    ],
)
def test_files_beside_say_which_ids_end_a_text(tmp_path, files, wanted):
    added = dict(id=300, content="<|im_end|>", single_word=False, lstrip=False, rstrip=False)
    path = byte_level(tmp_path, added=[{**added, "normalized": False, "special": True}])
    end = library.Tokenizer.from_file(str(path)).token_to_id("<|im_end|>")  # 300, if the file had as many
    ids = {"<s>": 0, "</s>": 1, "<|im_end|>": end}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content).replace("300", str(end)))
    found = bpe.read(path)
    assert (found.bos, found.eos) == tuple(ids[name] for name in wanted)
    found.save(tmp_path / "elsewhere" / "t.json")  # where nothing lies beside
    again = bpe.load(tmp_path / "elsewhere" / "t.json")
    assert (again.bos, again.eos, again.fingerprint) == (found.bos, found.eos, found.fingerprint)
    plain = bpe.read(byte_level(tmp_path / "plain", added=[{**added, "normalized": False, "special": True}]))
    assert (plain.fingerprint == found.fingerprint) == (wanted == ("<s>", "</s>"))


@pytest.mark.parametrize(
    "name, content",
    [
        ("config.json", {"eos_token_id": [300, 50, 10**6]}),
        ("config.json", {"eos_token_id": [10**6, 300]}),  # of a list the first that is a special
        ("generation_config.json", {"eos_token_id": [300, 1]}),
        ("special_tokens_map.json", {"eos_token": {"content": "<|im_end|>", "lstrip": False}}),
        ("special_tokens_map.json", {"eos_token": "<|im_end|>"}),
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_ends_in_lists_and_maps_also_where_they_are_not_marked_special(tmp_path, name, content, marked):
    added = dict(id=300, content="<|im_end|>", single_word=False, lstrip=False, rstrip=False)
    path = byte_level(tmp_path, added=[{**added, "normalized": False, "special": marked}])
    end = library.Tokenizer.from_file(str(path)).token_to_id("<|im_end|>")
    (tmp_path / name).write_text(json.dumps(content).replace("300", str(end)))
    found = bpe.read(path)
    assert (found.bos, found.eos) == (0, end) and found.byte_counts[end] == 0
    assert end not in found.encode(b"to be <|im_end|> or")  # in a text it is text
    found.save(tmp_path / "elsewhere" / "t.json")
    again = bpe.load(tmp_path / "elsewhere" / "t.json")
    assert (again.eos, again.fingerprint) == (end, found.fingerprint)


def sentencepiece_of(tmp_path, **options):
    """A small SentencePiece file, and its library's own reading of it."""
    import io

    own = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    settings = dict(
        model_type="bpe",
        vocab_size=330,
        byte_fallback=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
        num_threads=1,
    )
    lines = ["to be or not to be", "that is the question", "the <tool> and the   spaces"] * 4
    trainer = own.SentencePieceTrainer
    trainer.train(sentence_iterator=iter(lines), model_writer=written, **{**settings, **options})
    (tmp_path / "tokenizer.model").write_bytes(written.getvalue())
    return tmp_path / "tokenizer.model", own.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.mark.parametrize("options", [{}, {"model_type": "unigram", "hard_vocab_limit": False}])
@pytest.mark.parametrize(
    "pieces", [["<tool>"], ["<a", "<a>", "the"], ["\u2581\u2581", "\u2581\u2581\u2581", "é"]]
)
def test_user_defined_pieces_have_the_ids_of_the_library(tmp_path, options, pieces):
    path, own = sentencepiece_of(tmp_path, add_dummy_prefix=False, user_defined_symbols=pieces, **options)
    found = bpe.read(path)
    for text in ("<tool>", "a<tool><tool> b", "<a><a <a", "the theme<a>", "  x   y    é", "<a>é<tool>"):
        assert found.encode(text.encode()).tolist() == own.encode(text), text
        assert found.decode(found.encode(text.encode())) == text.encode()
    for piece in pieces:
        assert found.token_bytes[own.piece_to_id(piece)] == piece.replace("\u2581", " ").encode()


def test_sentencepiece_says_its_own_ends_and_its_files_say_others(tmp_path):
    pieces = dict(bos_id=3, eos_id=5, unk_id=0, pad_id=-1, control_symbols=["<turn>"])
    path, own = sentencepiece_of(tmp_path, **pieces)
    found = bpe.read(path)
    assert (found.bos, found.eos) == (3, 5)
    turn = own.piece_to_id("<turn>")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [turn, 5]}))
    assert bpe.read(path).eos == turn


def test_a_sentencepiece_whose_protobuf_is_missing_is_one_line(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    with pytest.raises(UserError, match="extra `sentencepiece`"):
        bpe.read(GOLDEN / "sentencepiece.model")


def test_of_two_files_that_cannot_be_read_each_is_said(tmp_path, monkeypatch):
    """Llama 2 where the extra is not installed: its tokenizer.json normalises, and that is not the news."""
    path = byte_level(tmp_path, normalizer={"type": "NFKC"})
    path.with_name("tokenizer.model").write_bytes((GOLDEN / "sentencepiece.model").read_bytes())
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "sentencepiece" else find(n))
    with pytest.raises(UserError, match="byte-level BPE.*extra `sentencepiece`"):
        bpe.in_folder(tmp_path)
