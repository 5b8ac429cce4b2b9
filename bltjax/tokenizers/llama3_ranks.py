"""Llama 3's tokenizer: a file of tokens and ranks, encoded by the package tiktoken (extra `llama`)."""

import base64
import functools
import importlib.util
from pathlib import Path

from bltjax.errors import UserError
from bltjax.tokenizers import specials
from bltjax.tokenizers.tokenizer import Tokenizer, encode_parts

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama-models, models/llama3/tokenizer.py: 256 special tokens after the ranks
RANKS, VOCAB = 128_000, 128_256
SPECIAL = {
    **{i: f"<|reserved {i}|>" for i in range(RANKS, VOCAB)},
    RANKS: "<|begin_of_text|>",
    RANKS + 1: "<|end_of_text|>",
}


@functools.cache
def packaged() -> Tokenizer:
    """Llama 3's tokenizer of 128,256 entries, from the file in the package `llama-models`. UserError where
    the extra is not installed."""
    # Found, not imported: the package asks for much more than its file.
    spec = importlib.util.find_spec("llama_models")
    folders = spec.submodule_search_locations if spec else ()
    paths = [path for folder in folders for path in sorted(Path(folder).glob("llama3/**/tokenizer.model"))]
    if importlib.util.find_spec("tiktoken") is None or not paths:
        raise UserError(
            "Llama 3's tokenizer needs the extra `llama` (packages llama-models and tiktoken): make setup"
            " EXTRAS=llama"
        )
    return of(paths[0].read_bytes(), paths[0])


def of(data: bytes, path, told: specials.Ends | None = None) -> Tokenizer:
    """The tokenizer of a file's content: a line for each token, base64 and rank. UserError for another."""
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
    if sorted(ranks.values()) != list(range(RANKS)):
        raise UserError(f"{path} is not Llama 3's tokenizer: it has {len(ranks)} entries, not {RANKS}")
    backend = tiktoken.Encoding("llama3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    ends = specials.ends(path, SPECIAL, told)
    return Tokenizer(
        "llama3",
        sorted(ranks, key=ranks.get) + [b""] * len(SPECIAL),
        *ends,
        specials.fingerprint(data, SPECIAL, ends),
        lambda text: encode_parts(text, backend.encode_ordinary, lambda b: ranks[bytes([b])]),
        {"file": base64.b64encode(data).decode(), "ends": list(ends)},
    )
