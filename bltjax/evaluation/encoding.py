"""Text as a model's ids, and a context with its continuation as one text that is cut in two: the rules of
lm-eval's hf adapter, for bytes and tokens alike."""

import json

import numpy as np

from bltjax import models
from bltjax.errors import UserError
from bltjax.formats import detect
from bltjax.patching import vocab

LONGEST = 4096  # ids of a row, of a model that does not say


class Encoding:
    """bos, eos: ids. unit: what one id is, "byte" or "token"."""

    def __init__(self, model):
        self.unit = models.kind(model.config.model).UNIT
        tokenizer = model.tokenizer if self.unit == "token" else None
        self.bos, self.eos = (tokenizer.bos, tokenizer.eos) if tokenizer else (vocab.BOS, vocab.EOS)
        self._ids = tokenizer.encode if tokenizer else vocab.encode
        self._counts = tokenizer.byte_counts if tokenizer else None  # bytes of each token
        if tokenizer and tokenizer.vocab > model.config.model.vocab:
            raise UserError(
                f"{model.folder}: the tokenizer has {tokenizer.vocab:,} entries, the model"
                f" {model.config.model.vocab:,}"
            )

    def encode(self, text: str | bytes, bos: bool = False) -> list[int]:
        """Ids of a text, with BOS before them if `bos`."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
        return [self.bos] * bos + self._ids(data).tolist()

    def pair(self, context: str, continuation: str, bos: bool = True) -> tuple[list[int], list[int]]:
        """(ids of the context, of what is scored after it); both together are those of the whole text.

        White space at the end of the context is scored with the continuation, since that is where tokens
        have it. An empty context is BOS, whatever `bos` says."""
        head = self.encode(context.rstrip(), bos)
        whole = self.encode(context + continuation, bos)
        return head or [self.bos], whole[len(head) :]

    def apart(self, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
        """(ids of a prompt behind BOS, of what follows it), each encoded alone: what a model reads that is
        given the prompt as it is, white space at its end and half a word too."""
        return self.encode(prompt, bos=True), self.encode(continuation)

    def aligned(self, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
        """(ids of the whole text, behind BOS, that end within the prompt; all those after them): the prompt
        is cut back to where one of the text's own tokens ends. Of bytes: as `apart`."""
        whole, size = self.encode(prompt + continuation), len(self.encode(prompt))
        if self.unit == "token":
            size = len(prompt.encode("utf-8", "surrogateescape"))
            size = int(np.searchsorted(np.cumsum(self._counts[whole]), size, side="right"))
        return [self.bos, *whole[:size]], whole[size:]


def longest(model) -> int:
    """Ids that a row has at most: as many as the model trained on, or as its config says."""
    if model.positions:
        return int(model.positions["slots"])
    told = _json(model.folder / "config.json").get("max_position_embeddings")
    return told if isinstance(told, int) and told > 1 else LONGEST


def adds_bos(model) -> bool | None:
    """Whether the tokenizer of a Hugging Face directory puts BOS before a text; None: it is no such one, or
    does not say."""
    if detect.of(model.folder) == detect.OURS:
        return None
    told = _json(model.folder / "tokenizer_config.json").get("add_bos_token")
    path = model.folder / "tokenizer.json"
    if isinstance(told, bool) or not path.exists():
        return told if isinstance(told, bool) else None
    import tokenizers

    try:
        ids = tokenizers.Tokenizer.from_file(str(path)).encode("a").ids
    except Exception:  # the library raises nothing more special
        return None
    return bool(ids) and ids[0] == Encoding(model).bos


def _json(path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
