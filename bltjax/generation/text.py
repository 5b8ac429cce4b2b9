"""What the ids of a generated text stand for: bytes, or the tokens of a tokenizer."""

import numpy as np

from bltjax import models
from bltjax.errors import UserError
from bltjax.patching import vocab


class Bytes:
    """Ids of bytes. unit: what one id is called. ends: ids at which a text ends, sorted. barred: bool [V],
    ids that are never drawn."""

    unit = "byte"

    def __init__(self, model):
        self.ends = [vocab.EOS]
        self.barred = np.arange(model.config.model.vocab) < vocab.OFFSET
        self.barred[self.ends] = False

    def encode(self, prompt: bytes) -> np.ndarray:
        """BOS and the prompt, int32."""
        return np.concatenate([np.int32([vocab.BOS]), vocab.encode(prompt)])

    def decode(self, ids: np.ndarray) -> bytes:
        return vocab.decode(ids)


class Tokens:
    """The same of a tokenizer's ids. UserError where it has more than the model, whose vocabulary may be
    filled up beyond it."""

    unit = "token"

    def __init__(self, model):
        self.tokenizer, entries = model.tokenizer, model.config.model.vocab
        if self.tokenizer.vocab > entries:
            raise UserError(
                f"{model.folder}: the tokenizer has {self.tokenizer.vocab:,} entries, the model {entries:,}"
            )
        self.ends = sorted({self.tokenizer.eos, *model.config.tokenizer.ends})
        self.barred = np.ones(entries, bool)
        self.barred[: self.tokenizer.vocab] = self.tokenizer.byte_counts == 0
        self.barred[self.ends] = False

    def encode(self, prompt: bytes) -> np.ndarray:
        return np.concatenate([np.int32([self.tokenizer.bos]), self.tokenizer.encode(prompt)])

    def decode(self, ids: np.ndarray) -> bytes:
        return self.tokenizer.decode(ids)


def of(model) -> Bytes | Tokens:
    """Of an api.Model."""
    return {"byte": Bytes, "token": Tokens}[models.kind(model.config.model).UNIT](model)
