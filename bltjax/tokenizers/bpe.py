"""BPE over bytes. Tokens are exact: their bytes join to the input, whatever the input, invalid UTF-8
included.

The small tokenizers are trained by the `tokenizers` library on text read as Latin-1, where a character is a
byte: nothing is normalised and nothing can fail to decode. Words are cut by Llama 3's pattern, transcribed to
bytes: 0x80 to 0xff are letters, since that is what most UTF-8 sequences spell. """

import base64
import dataclasses
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import re
import secrets
from pathlib import Path

import numpy as np
import tokenizers

from bltjax.errors import UserError
from bltjax.tokenizers import sentencepiece

LETTERS, SPACES = (
    "A-Za-z\x80-\xff",
    " \t\n\x0b\x0c\r",
)  # the characters themselves: two regular expression engines read the pattern
PATTERN = (
    rf"'(?:[sdmtSDMT]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\n{LETTERS}0-9]?[{LETTERS}]+|[0-9]{{1,3}}"
    rf"| ?[^{SPACES}{LETTERS}0-9]+[\r\n]*|[{SPACES}]*[\r\n]+|[{SPACES}]+(?![^{SPACES}])|[{SPACES}]+"
)
WORDS = re.compile(PATTERN.encode("latin-1"))
REMEMBERED = 1 << 20  # words
SMALLEST = 258  # 256 bytes, BOS, EOS
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_RANKS, LLAMA3_VOCAB = (
    128_000,
    128_256,
)  # llama-models, models/llama3/tokenizer.py: 256 special tokens after the ranks
INVALID = re.compile("([\udc80-\udcff]+)")
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Ids 0 to vocab - 1, among them bos and eos. token_bytes: what each id stands for (b"" for specials)."""

    kind: str  # trained | llama3 | huggingface | sentencepiece
    token_bytes: list[bytes]
    bos: int
    eos: int
    fingerprint: str
    encoder: object  # bytes -> list of ids
    state: dict  # what `save` writes beside the kind

    @property
    def vocab(self) -> int:
        return len(self.token_bytes)

    @functools.cached_property
    def byte_counts(self) -> np.ndarray:
        """Raw bytes per id, int32 [V]; 0 for specials."""
        return np.array([len(token) for token in self.token_bytes], np.int32)

    def encode(self, data: bytes) -> np.ndarray:
        """Token ids, int32 [N]; their bytes join to `data`. Adds no BOS and no EOS. UserError where they are
        not as many."""
        ids = np.asarray(self.encoder(data), np.int32)
        if (size := int(self.byte_counts[ids].sum())) != len(data):
            raise UserError(
                f"the tokenizer makes tokens of {size:,} bytes of {len(data):,}: its tokens are not exact"
                " bytes"
            )
        return ids

    def decode(self, ids) -> bytes:
        """The bytes that ids stand for; specials stand for none."""
        return b"".join(self.token_bytes[i] for i in np.asarray(ids).tolist())

    def save(self, path) -> None:
        """Writes a JSON file that `load` reads; it appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        partial.write_text(
            json.dumps(
                {
                    "schema_version": SCHEMA_VERSION,
                    "kind": self.kind,
                    "fingerprint": self.fingerprint,
                    **self.state,
                }
            )
        )
        os.replace(partial, path)


def train_bpe(documents: list[bytes], vocab: int) -> Tokenizer:
    """Trains a tokenizer of `vocab` ids in all: 256 bytes, merges, BOS and EOS (the last two). The same
    documents, the same tokenizer.

    UserError where vocab is below 258, or more than the documents have pairs to merge for.
    """
    if vocab < SMALLEST:
        raise UserError(
            f"tokenizer.vocab={vocab}: a byte-level vocabulary has at least {SMALLEST} entries (256 bytes,"
            " BOS, EOS)"
        )
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab - 2,
        initial_alphabet=[chr(b) for b in range(256)],
        limit_alphabet=256,
        min_frequency=1,
        show_progress=False,
    )
    backend.train_from_iterator((document.decode("latin-1") for document in documents), trainer)
    if backend.get_vocab_size() < vocab - 2:
        raise UserError(
            f"tokenizer.vocab={vocab}: these documents only give {backend.get_vocab_size() + 2} entries;"
            " choose fewer"
        )
    return _trained(backend)


def _trained(backend: tokenizers.Tokenizer) -> Tokenizer:
    by_id = {number: token.encode("latin-1") for token, number in backend.get_vocab().items()}
    count = len(by_id)
    token_bytes = [by_id[i] for i in range(count)] + [b"", b""]
    state = {"tokenizer": json.loads(backend.to_str())}
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:12]
    encoder = functools.partial(_encode_words, _Words(backend.model))
    return Tokenizer("trained", token_bytes, count, count + 1, digest, encoder, state)


class _Words(dict):
    """Word (bytes) to its token ids, worked out at first sight: words repeat, and a dictionary is faster than
    the library's merges."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def __missing__(self, word: bytes) -> list[int]:
        if len(self) >= REMEMBERED:
            self.clear()
        self[word] = ids = [token.id for token in self.model.tokenize(word.decode("latin-1"))]
        return ids


def _encode_words(words: _Words, data: bytes) -> list[int]:
    return list(itertools.chain.from_iterable(map(words.__getitem__, WORDS.findall(data))))


def load(path) -> Tokenizer:
    """Reads what `save` wrote. UserError for a file that is missing, damaged or not a tokenizer."""
    try:
        saved = json.loads(Path(path).read_text())
        kind = saved["kind"]
        if kind in CONTENTS:
            found = CONTENTS[kind](base64.b64decode(saved["file"]), path)
        else:
            backend = tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer"]))
            found = _huggingface(backend, path) if kind == "huggingface" else _trained(backend)
        same = found.fingerprint == saved["fingerprint"]
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(
            f"cannot read the tokenizer {path}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from None
    if not same:
        raise UserError(
            f"the tokenizer {path} is damaged: its content gives {found.fingerprint}, its file says"
            f" {saved['fingerprint']}"
        )
    return found


def read(path) -> Tokenizer:
    """The tokenizer of a file: tokenizer.json of Hugging Face, Llama 3's ranks, or a SentencePiece file such
    as Llama 2's tokenizer.model.

    UserError for a file that is missing or none of these, and for a tokenizer whose tokens are not exact
    bytes. """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {path}: {error.strerror or error}") from None
    if data.lstrip()[:1] == b"{":
        return huggingface(path)
    return CONTENTS["llama3" if re.match(rb"[A-Za-z0-9+/=]+ \d+\r?\n", data) else "sentencepiece"](data, path)


def _sentencepiece(data: bytes, path) -> Tokenizer:
    token_bytes, bos, eos, encoder = sentencepiece.read(data, path)
    return Tokenizer(
        "sentencepiece",
        token_bytes,
        bos,
        eos,
        hashlib.sha256(data).hexdigest()[:12],
        encoder,
        {"file": base64.b64encode(data).decode()},
    )


def huggingface(path) -> Tokenizer:
    """A byte-level BPE of a Hugging Face tokenizer.json, with the first of its specials that is called so as
    BOS and EOS.

    UserError for a file that is damaged, and for a tokenizer whose tokens are not exact bytes
    (SentencePiece's, which normalises). """
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"cannot read the tokenizer {path}: {' '.join(str(error).split())}") from None
    return _huggingface(backend, path)


def _huggingface(backend: tokenizers.Tokenizer, path) -> Tokenizer:
    backend.encode_special_tokens = True  # "<|end_of_text|>" in a text is text
    state = json.loads(backend.to_str())
    vocab = {number: text for text, number in backend.get_vocab(with_added_tokens=True).items()}
    added = {token["id"]: token["content"] for token in state.get("added_tokens", [])}
    special = {token["id"]: token["content"] for token in state.get("added_tokens", []) if token["special"]}
    byte_of = {character: byte for byte, character in _byte_characters().items()}
    names = {name: number for number, name in special.items()}
    bos, eos = (
        next((names[name] for name in wanted if name in names), None) for wanted in (BOS_NAMES, EOS_NAMES)
    )
    count = max(vocab, default=-1) + 1
    plain = [text for number, text in vocab.items() if number not in added]
    if bos is None or eos is None:
        raise UserError(
            f"{path} has no special tokens for the beginning and the end of a text; looked for were"
            f" {', '.join(BOS_NAMES)} and {', '.join(EOS_NAMES)}"
        )
    if state.get("normalizer") or not all(character in byte_of for text in plain for character in text):
        raise UserError(f"{path} is no byte-level BPE: its tokens are not exact bytes")
    own = lambda number: (
        added[number].encode() if number in added else bytes(byte_of[c] for c in vocab[number])
    )
    token_bytes = [
        b"" if number in special or number not in vocab else own(number) for number in range(count)
    ]

    def encoder(data: bytes) -> list[int]:
        ids = []
        for i, part in enumerate(INVALID.split(data.decode("utf-8", "surrogateescape"))):
            if i % 2:  # bytes that are no UTF-8, one by one
                ids += [
                    backend.token_to_id(_byte_characters()[b])
                    for b in part.encode("utf-8", "surrogateescape")
                ]
            else:
                ids += backend.encode(part, add_special_tokens=False).ids
        return ids

    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:12]
    found = Tokenizer("huggingface", token_bytes, bos, eos, digest, encoder, {"tokenizer": state})
    _check_exact(
        found,
        [f"x {content}  y".encode() for content in added.values()],
        bool(state["model"].get("dropout")),
        path,
    )
    return found


def _check_exact(found: Tokenizer, more: list[bytes], random: bool, path) -> None:
    """UserError where tokens of PROBES and more texts are not exactly their bytes, or not the same each
    time."""
    for probe in (*more, *PROBES):
        try:
            same = not random and found.decode(found.encode(probe)) == probe
        except Exception:  # of the library, or None for a byte without an id
            same = False
        if not same:
            raise UserError(
                f"{path}: its tokens are not exact bytes: not those of {probe[:24]!r} (added spaces, words"
                " cut away, truncation, dropout?)"
            )


PROBES = (
    bytes(range(256)),
    b"two  words,\tand a line\r\n\n  'quoted' 12345 ",
    " \u00e9\u4f60\u597d \U0001f642".encode() * 100,
    b"a" * 3000,
    b"",
)
BOS_NAMES, EOS_NAMES = (
    ("<|begin_of_text|>", "<s>", "<|endoftext|>"),
    ("<|end_of_text|>", "</s>", "<|endoftext|>"),
)


@functools.cache
def _byte_characters() -> dict[int, str]:
    """The character by which byte-level BPEs write each byte: itself where it prints, else one from 256 on,
    in order."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (b for b in range(256) if b not in printing)
    return {**{b: chr(b) for b in printing}, **{b: chr(256 + i) for i, b in enumerate(others)}}


@functools.cache
def llama3() -> Tokenizer:
    """Llama 3's tokenizer of 128,256 entries, from the file in the package `llama-models`. UserError where
    the extra is not installed."""
    spec = importlib.util.find_spec(
        "llama_models"
    )  # found, not imported: the package asks for much more than its file
    folders = spec.submodule_search_locations if spec else ()
    paths = [path for folder in folders for path in sorted(Path(folder).glob("llama3/**/tokenizer.model"))]
    if importlib.util.find_spec("tiktoken") is None or not paths:
        raise UserError(
            "Llama 3's tokenizer needs the extra `llama` (packages llama-models and tiktoken): make setup"
            " EXTRAS=llama"
        )
    return _llama3(paths[0].read_bytes(), paths[0])


def _llama3(data: bytes, path) -> Tokenizer:
    """Llama 3's tokenizer from the content of its file: a line for each token, base64 and rank."""
    try:
        import tiktoken
    except ImportError:
        raise UserError(f"{path} needs the package tiktoken: make setup EXTRAS=llama") from None
    try:
        ranks = {
            base64.b64decode(token, validate=True): int(rank)
            for token, rank in (line.split() for line in data.splitlines() if line)
        }
    except ValueError:
        raise UserError(f"{path} is no file of tokens and ranks") from None
    if sorted(ranks.values()) != list(range(LLAMA3_RANKS)):
        raise UserError(f"{path} is not Llama 3's tokenizer: it has {len(ranks)} entries, not {LLAMA3_RANKS}")
    bos, eos = LLAMA3_RANKS, LLAMA3_RANKS + 1  # <|begin_of_text|>, <|end_of_text|>
    backend = tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={})
    token_bytes = sorted(ranks, key=ranks.get) + [b""] * (LLAMA3_VOCAB - LLAMA3_RANKS)

    def encoder(data: bytes) -> list[int]:
        # A byte that is no UTF-8 decodes to a lone surrogate. What is valid goes through the pattern, the
        # rest byte by byte.
        ids = []
        for i, part in enumerate(INVALID.split(data.decode("utf-8", "surrogateescape"))):
            ids += (
                [ranks[bytes([b])] for b in part.encode("utf-8", "surrogateescape")]
                if i % 2
                else backend.encode_ordinary(part)
            )
        return ids

    return Tokenizer(
        "llama3",
        token_bytes,
        bos,
        eos,
        hashlib.sha256(data).hexdigest()[:12],
        encoder,
        {"file": base64.b64encode(data).decode()},
    )


CONTENTS = {"llama3": _llama3, "sentencepiece": _sentencepiece}  # by kind: how a file's content is read
