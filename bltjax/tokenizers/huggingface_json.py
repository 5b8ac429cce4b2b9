"""Byte-level BPEs of Hugging Face's tokenizer.json, encoded by the `tokenizers` library."""

import functools
import json

import tokenizers

from bltjax.errors import UserError
from bltjax.tokenizers import specials
from bltjax.tokenizers.tokenizer import Tokenizer, check_exact, encode_parts


def read(path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, with BOS and EOS as specials.py finds them.

    UserError for a file that is damaged, and for a tokenizer whose tokens are not exact bytes
    (SentencePiece's, which normalises)."""
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"cannot read the tokenizer {path}: {' '.join(str(error).split())}") from None
    return of(backend, path)


def of(backend: tokenizers.Tokenizer, path, told: specials.Ends | None = None) -> Tokenizer:
    """The same of a tokenizer in memory. told: the ends that a saved one had."""
    state = json.loads(backend.to_str())
    added = {token["id"]: token["content"] for token in state.get("added_tokens", [])}
    ends = specials.said(path, added) if told is None else set(told)
    if unmarked := [t for t in state.get("added_tokens", []) if t["id"] in ends and not t["special"]]:
        for token in unmarked:  # what ends a text is no text, though its file does not say so
            token["special"] = True
        backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = True  # "<|end_of_text|>" in a text is text
    vocab = {number: text for text, number in backend.get_vocab(with_added_tokens=True).items()}
    special = {token["id"]: token["content"] for token in state.get("added_tokens", []) if token["special"]}
    byte_of = {character: byte for byte, character in byte_characters().items()}
    ends = specials.ends(path, special, told)
    plain = [text for number, text in vocab.items() if number not in added]
    if state.get("normalizer") or not all(character in byte_of for text in plain for character in text):
        raise UserError(f"{path} is no byte-level BPE: its tokens are not exact bytes")

    def spelled(number: int) -> bytes:
        if number in special or number not in vocab:
            return b""
        return added[number].encode() if number in added else bytes(byte_of[c] for c in vocab[number])

    text_ids = lambda text: backend.encode(text, add_special_tokens=False).ids
    byte_id = lambda b: backend.token_to_id(byte_characters()[b])
    found = Tokenizer(
        "huggingface",
        [spelled(number) for number in range(max(vocab, default=-1) + 1)],
        *ends,
        specials.fingerprint(json.dumps(state, sort_keys=True).encode(), special, ends),
        lambda data: encode_parts(data, text_ids, byte_id),
        {"tokenizer": state, "ends": list(ends)},
    )
    probes = [f"x {content}  y".encode() for content in added.values()]
    check_exact(found, probes, bool(state["model"].get("dropout")), path)
    return found


@functools.cache
def byte_characters() -> dict[int, str]:
    """The character by which byte-level BPEs write each byte: itself where it prints, else one from 256 on,
    in order."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (b for b in range(256) if b not in printing)
    return {**{b: chr(b) for b in printing}, **{b: chr(256 + i) for i, b in enumerate(others)}}
