"""SentencePiece files (Llama 2's tokenizer.model) as exact tokens: BPE with byte fallback, read without the
library of that name.

A file is a protocol buffer: pieces with scores, and how text was normalised. Only what changes no byte is
taken: no normalisation, and bytes for what no piece spells. The blank that SentencePiece puts before a text
is left out: it is no byte of the text. """

import re
import struct

import tokenizers

from bltjax.errors import UserError

BLANK = "\u2581"  # a space, in a piece
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces
BPE = 2  # trainer_spec.model_type
WORDS = re.compile(rf"{BLANK}*[^{BLANK}]+|{BLANK}+")
INVALID = re.compile(
    rf"([\udc80-\udcff]+|{BLANK}+)"
)  # bytes that are no UTF-8, and the character that stands for a space


def read(data: bytes, where):
    """(token_bytes, bos, eos, encoder: bytes -> list of ids) of a file's content. UserError for what is none,
    or whose tokens are not exact."""
    try:
        pieces, model_type, fallback, normalised = _model(data)
    except (ValueError, struct.error, UnicodeDecodeError, IndexError):
        raise UserError(f"{where} is no SentencePiece file") from None
    byte_ids = {int(text[3:5], 16): i for i, (text, _, kind) in enumerate(pieces) if kind == BYTE}
    if model_type != BPE or normalised or not fallback or len(byte_ids) != 256:
        raise UserError(
            f"{where}: its tokens are not exact bytes (it takes BPE, with byte fallback, without"
            " normalisation)"
        )
    names = {text: i for i, (text, _, kind) in enumerate(pieces) if kind == CONTROL}
    if "<s>" not in names or "</s>" not in names:
        raise UserError(f"{where} has no <s> and </s> to open and end documents with")
    token_bytes = [
        (
            bytes([int(text[3:5], 16)])
            if kind == BYTE
            else text.replace(BLANK, " ").encode() if kind in (NORMAL, USER) else b""
        )
        for text, _, kind in pieces
    ]
    vocab = {text: i for i, (text, _, kind) in enumerate(pieces) if kind in (NORMAL, USER)}
    backend = tokenizers.models.BPE(
        vocab={**vocab, **{text: i for i, (text, _, kind) in enumerate(pieces) if kind in (BYTE, UNKNOWN)}},
        merges=_merges(vocab, {text: score for text, score, _ in pieces}),
        byte_fallback=True,
        unk_token=next((text for text, _, kind in pieces if kind == UNKNOWN), None),
        fuse_unk=True,
    )
    # A piece never goes on with a blank after a letter, so that a text may be cut before its blanks and every
    # word be looked up.
    cut = WORDS if not any(re.search(f"[^{BLANK}]{BLANK}", text) for text in vocab) else re.compile("(?s).+")
    remembered = {}

    def word_ids(word):
        found = remembered.get(word)
        if found is None:
            if len(remembered) > 1 << 20:
                remembered.clear()
            found = remembered[word] = [token.id for token in backend.tokenize(word)]
        return found

    def encoder(text: bytes) -> list[int]:
        ids = []
        for i, part in enumerate(INVALID.split(text.decode("utf-8", "surrogateescape"))):
            if i % 2:
                ids += [byte_ids[b] for b in part.encode("utf-8", "surrogateescape")]
            else:
                for word in cut.findall(part.replace(" ", BLANK)):
                    ids += word_ids(word)
        return ids

    return token_bytes, names["<s>"], names["</s>"], encoder


def _merges(vocab: dict, score: dict) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third, in the order in which they are joined: by the third's score,
    the best first."""
    found = []
    for text, number in vocab.items():
        ways = [(text[:i], text[i:]) for i in range(1, len(text)) if text[:i] in vocab and text[i:] in vocab]
        found += [(-score[text], vocab[left], vocab[right], (left, right)) for left, right in ways]
    return [pair for *_, pair in sorted(found)]


def _model(data: bytes):
    """([(piece, score, type)], model type, whether bytes stand for what no piece spells, whether text is
    changed first)."""
    pieces, trainer, normalizer = [], {}, {}
    for field, value in _fields(data):
        if field == 1:
            about = dict(_fields(value))
            pieces.append(
                (about[1].decode(), struct.unpack("<f", about.get(2, b"\0\0\0\0"))[0], about.get(3, NORMAL))
            )
        elif field == 2:
            trainer = dict(_fields(value))
        elif field == 3:
            normalizer = dict(_fields(value))
    if not pieces:
        raise ValueError("no pieces")
    changes = bool(normalizer.get(2)) or bool(normalizer.get(4, 1)) or not normalizer.get(5, 1)
    return pieces, trainer.get(3, 1), bool(trainer.get(35)), changes


def _fields(data: bytes):
    """(number, value) of a message's fields: an int, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = data[at : at + size], at + size
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError("wire type")
        if at > len(data):
            raise ValueError("truncated")
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
