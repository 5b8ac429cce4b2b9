"""BPE over bytes. Tokens are exact: their bytes join to the input, whatever the input, invalid UTF-8
included.

The small tokenizers are trained by the `tokenizers` library on text read as Latin-1, where a character is a
byte: nothing is normalised and nothing can fail to decode. Words are cut by Llama 3's pattern, transcribed to
bytes: 0x80 to 0xff are letters, since that is what most UTF-8 sequences spell."""

import base64
import contextlib
import functools
import hashlib
import itertools
import json
import re
import sys
import threading
import time
from pathlib import Path

import tokenizers

from bltjax.errors import UserError
from bltjax.tokenizers import huggingface_json, llama3_ranks, sentencepiece, specials
from bltjax.tokenizers.huggingface_json import read as huggingface
from bltjax.tokenizers.llama3_ranks import packaged as llama3
from bltjax.tokenizers.tokenizer import Tokenizer

__all__ = ["Tokenizer", "huggingface", "in_folder", "llama3", "load", "read", "train_bpe"]

# the characters themselves: two regular expression engines read the pattern
LETTERS, SPACES = "A-Za-z\x80-\xff", " \t\n\x0b\x0c\r"
PATTERN = (
    rf"'(?:[sdmtSDMT]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\n{LETTERS}0-9]?[{LETTERS}]+|[0-9]{{1,3}}"
    rf"| ?[^{SPACES}{LETTERS}0-9]+[\r\n]*|[{SPACES}]*[\r\n]+|[{SPACES}]+(?![^{SPACES}])|[{SPACES}]+"
)
WORDS = re.compile(PATTERN.encode("latin-1"))
REMEMBERED = 1 << 20  # words
SMALLEST = 258  # 256 bytes, BOS, EOS
LONGEST_WORD = 256  # bytes of a word in training: a merge reads every word that has its pair from end to end
EVERY_SECONDS = 10  # a line while a vocabulary is trained, where no terminal shows a bar
LONG = rf"[\s\S]{{{LONGEST_WORD}}}"  # pieces of so many bytes, and what is left


def train_bpe(documents: list[bytes], vocab: int, say=None) -> Tokenizer:
    """Trains a tokenizer of `vocab` ids in all: 256 bytes, merges, BOS and EOS (the last two). The same
    documents, the same tokenizer. Long words, those of text without spaces, are cut for it, which its state
    has in "trained". A terminal is shown how far it is; elsewhere say(text) (to standard error) has a line
    now and then.

    UserError where vocab is below 258, or more than the documents have pairs to merge for.
    """
    if vocab < SMALLEST:
        raise UserError(
            f"tokenizer.vocab={vocab}: a byte-level vocabulary has at least {SMALLEST} entries (256 bytes,"
            " BOS, EOS)"
        )
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    pattern = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab - 2,
        initial_alphabet=[chr(b) for b in range(256)],
        limit_alphabet=256,
        min_frequency=1,
        show_progress=sys.stderr.isatty(),
    )
    cut = tokenizers.pre_tokenizers.Split(tokenizers.Regex(LONG), "isolated")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([pattern, cut])
    size = sum(map(len, documents))
    with _still_at_it(f"a vocabulary of {vocab:,} entries on {size:,} bytes", say):
        backend.train_from_iterator((document.decode("latin-1") for document in documents), trainer)
    backend.pre_tokenizer = pattern
    if backend.get_vocab_size() < vocab - 2:
        raise UserError(
            f"tokenizer.vocab={vocab}: these documents only give {backend.get_vocab_size() + 2} entries;"
            " choose fewer"
        )
    longest = max((len(word) for document in documents for word in WORDS.findall(document)), default=0)
    facts = {
        "documents": len(documents),
        "bytes": size,
        "longest_word": longest,
        "words_cut_at": LONGEST_WORD,
    }
    if longest > LONGEST_WORD:
        _say(say, f"words of up to {longest:,} bytes were cut at {LONGEST_WORD}: there are few spaces")
    return _trained(backend, facts)


def _say(say, text: str) -> None:
    if say:
        say(text)
    else:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _still_at_it(what: str, say):
    """Says every now and then that something takes its time; on a terminal the library shows a bar itself."""
    began, ended = time.monotonic(), threading.Event()

    def wait():
        while not ended.wait(EVERY_SECONDS):
            _say(say, f"training {what}: {time.monotonic() - began:.0f} s")

    thread = threading.Thread(target=wait, daemon=True)
    if not sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident:
            thread.join()


def _trained(backend: tokenizers.Tokenizer, facts: dict) -> Tokenizer:
    """facts: of its training, no part of what the tokenizer is."""
    by_id = {number: token.encode("latin-1") for token, number in backend.get_vocab().items()}
    count = len(by_id)
    token_bytes = [by_id[i] for i in range(count)] + [b"", b""]
    state = {"tokenizer": json.loads(backend.to_str())}
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:12]
    encoder = functools.partial(_encode_words, _Words(backend.model))
    return Tokenizer("trained", token_bytes, count, count + 1, digest, encoder, state | {"trained": facts})


class _Words(dict):
    """Word (bytes) to its token ids, worked out at first sight: words repeat, and a dictionary is faster than
    the library's merges."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def __missing__(self, word: bytes) -> list[int]:
        ids = [token.id for token in self.model.tokenize(word.decode("latin-1"))]
        if len(word) <= LONGEST_WORD:  # longer ones do not repeat, and fill the memory
            if len(self) >= REMEMBERED:
                self.clear()
            self[word] = ids
        return ids


def _encode_words(words: _Words, data: bytes) -> list[int]:
    return list(itertools.chain.from_iterable(map(words.__getitem__, WORDS.findall(data))))


def load(path) -> Tokenizer:
    """Reads what `save` wrote. UserError for a file that is missing, damaged or not a tokenizer."""
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        found = _saved(saved, path)
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


def _saved(saved: dict, path) -> Tokenizer:
    kind, told = saved["kind"], specials.Ends(*saved["ends"]) if "ends" in saved else None
    if kind in CONTENTS:
        return CONTENTS[kind](base64.b64decode(saved["file"]), path, told)
    backend = tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer"]))
    if kind == "huggingface":
        return huggingface_json.of(backend, path, told)
    return _trained(backend, saved.get("trained", {}))


def read(path) -> Tokenizer:
    """The tokenizer of a file: tokenizer.json of Hugging Face, Llama 3's ranks, or a SentencePiece file such
    as Llama 2's tokenizer.model.

    UserError for a file that is missing or none of these, and for a tokenizer whose tokens are not exact
    bytes."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer {path}: {error.strerror or error}") from None
    if data.lstrip()[:1] == b"{":
        return huggingface(path)
    return CONTENTS["llama3" if re.match(rb"[A-Za-z0-9+/=]+ \d+\r?\n", data) else "sentencepiece"](data, path)


# by kind: how a file's content is read
CONTENTS = {"llama3": llama3_ranks.of, "sentencepiece": sentencepiece.of}
FILES = ("tokenizer.json", "tokenizer.model")  # what a checkpoint's folder may have


def in_folder(folder: Path) -> Path | None:
    """The file of a checkpoint's tokenizer: of several the first that can be read; None where there is none.
    Llama 2 comes with both, and its tokenizer.json normalises. UserError, with what is wrong with each, where
    none of several can be read."""
    there = [folder / name for name in FILES if (folder / name).exists()]
    if len(there) < 2:
        return there[0] if there else None
    wrong = []
    for path in there:
        try:
            read(path)
            return path
        except UserError as error:
            wrong.append(str(error))
    raise UserError("; ".join(wrong))
