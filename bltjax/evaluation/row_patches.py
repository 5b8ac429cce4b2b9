"""Where patches start in texts that are scored: by the text alone, whatever is scored beside it.

Entropies of many texts share calls, and a text's place in a call moves their last bits. Where that could move
a boundary, the text's entropies are computed once more in a call of its own, whose shape hangs on its length
alone: what decides is then the same each time."""

import functools

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax import models, patching
from bltjax.errors import UserError
from bltjax.models import patcher
from bltjax.models.padded_lengths import bucket
from bltjax.patching import segmentation, vocab

SLOTS = 1 << 10  # ids in one call of the entropy model
LEAST = 64  # slots of a row
CLOSE = 1e-4  # nats that places in a call do not move an entropy by: in float32, on a CPU, it is some 1e-6


def starts(model, texts: list[np.ndarray]) -> list[np.ndarray] | None:
    """Of each text, int32 [n + 1], where patches start, bool [n + 1]; None for a model without patches.

    The model reads n ids; whether the last opens a patch hangs on those before it. UserError for a text that
    its scheme cannot cut."""
    if not models.kind(model.config.model).PATCHES:
        return None
    rule, found, buckets = model.config.patching, [None] * len(texts), {}
    if rule.scheme == "bpe":
        return [_by_tokens(model, text) for text in texts]
    for i, text in enumerate(texts):
        buckets.setdefault(bucket(len(text) - 1, LEAST), []).append(i)
    for slots, numbers in buckets.items():
        some = [texts[i] for i in numbers]
        for i, own in zip(numbers, _of_one_length(model, some, slots), strict=True):
            found[i] = own[: len(texts[i])]
    return found


def padded(texts: list[np.ndarray], count: int, slots: int) -> np.ndarray:
    """The ids that a model reads, all but each text's last: int32 [count, slots], 0 behind them."""
    ids = np.zeros((count, slots), np.int32)
    for row, text in zip(ids, texts):
        row[: len(text) - 1] = text[:-1]
    return ids


def _of_one_length(model, texts, slots: int) -> np.ndarray:
    """Where patches start, bool [texts, slots + 1]."""
    rule, ids, entropies = model.config.patching, padded(texts, len(texts), slots), None
    arguments = dict(scheme=rule.scheme, include_next=True, xp=np, **segmentation.rule(rule))
    if rule.scheme in patching.NEEDS_ENTROPIES:
        entropies = _entropies(model.entropy_model, texts, slots)
        for i in np.flatnonzero(_doubtful(texts, ids, entropies, arguments)):
            entropies[i] = _entropies(model.entropy_model, [texts[i]], slots)[0]
    return patching.starts(ids, entropies=entropies, **arguments)


def _doubtful(texts, ids, entropies, arguments) -> np.ndarray:
    """Whether a text's patches could be others if its entropies were moved by up to CLOSE, bool [texts].

    A start is the likelier the higher the entropy before it and the lower the one before that: to move every
    second one up and the others down, and the other way round, is to try the most and the least at each."""
    moves = np.where(np.arange(ids.shape[1]) % 2, CLOSE, -CLOSE).astype(np.float32)
    natural = arguments | {"max_length": 0}  # a limit hides starts that differ
    one, other = (patching.starts(ids, entropies=entropies + move, **natural) for move in (moves, -moves))
    lengths = np.array([len(text) for text in texts])
    return ((one != other) & (np.arange(one.shape[1]) < lengths[:, None])).any(axis=1)


@functools.lru_cache(maxsize=8)
def _compiled(model_config):
    return jax.jit(functools.partial(patcher.entropies, model_config))


def _entropies(lm, texts, slots: int) -> np.ndarray:
    """Nats, float32 [texts, slots], in calls of one shape for all texts of this length, however many."""
    count, parts = max(1, SLOTS // slots), []
    compute = _compiled(FrozenConfigDict(lm.config.model))
    for at in range(0, len(texts), count):
        some = texts[at : at + count]
        read = np.array([len(text) - 1 for text in some] + [0] * (count - len(some)))
        docs = (np.arange(slots) < read[:, None]).astype(np.int32)
        batch = {"bytes": padded(some, count, slots), "doc_ids": docs}
        parts.append((compute(lm.params, batch), len(some)))
    return np.concatenate([np.asarray(values)[:n] for values, n in parts])


def _by_tokens(model, text: np.ndarray) -> np.ndarray:
    """Of one text, the bytes behind BOS, by the tokens of all of it."""
    if text[0] != vocab.BOS or (text[1:] < vocab.OFFSET).any():
        raise UserError("patches by tokens need a text behind BOS that fits the model")
    data = vocab.decode(text)
    counts = model.tokenizer.byte_counts[model.tokenizer.encode(data)]
    return np.asarray(patching.bpe_starts(counts, len(data) + 2))[: len(text)]
