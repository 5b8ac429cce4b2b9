"""Where patches start in texts that are scored: by the text alone, whatever is scored beside it.

Entropies are computed in rows of many texts, one behind the other as in training, and a text's place moves
their last bits. Where that could move a boundary, the text's entropies are computed once more in a call of
its own, whose shape hangs on its length alone: what decides is then the same each time."""

import bisect
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
ROW = 512  # slots of its rows; a longer text has a longer row
LEAST = 64  # slots to which texts are filled up, to be cut together
CLOSE = 1e-4  # nats that places in a call do not move an entropy by: in float32, on a CPU, it is some 1e-6


def starts(model, texts: list[np.ndarray]) -> list[np.ndarray] | None:
    """Of each text, int32 [n + 1], where patches start, bool [n + 1]; None for a model without patches.

    The model reads n ids; whether the last opens a patch hangs on those before it. UserError for a text that
    its scheme cannot cut."""
    if not models.kind(model.config.model).PATCHES:
        return None
    rule, buckets = model.config.patching, {}
    if rule.scheme == "bpe":
        return [_by_tokens(model, text) for text in texts]
    known = {}  # choices of one letter are read alike: what a model only predicts hangs on none of this
    which = [known.setdefault(text[:-1].tobytes(), len(known)) for text in texts]
    read = [texts[i] for i in np.unique(which, return_index=True)[1]]
    found, entropies = [None] * len(read), [None] * len(read)
    if rule.scheme in patching.NEEDS_ENTROPIES:
        entropies = _entropies(model.entropy_model, read)
    for i, text in enumerate(read):
        buckets.setdefault(bucket(len(text) - 1, LEAST), []).append(i)
    for slots, numbers in buckets.items():
        some = [read[i] for i in numbers], [entropies[i] for i in numbers]
        for i, own in zip(numbers, _of_one_length(model, *some, slots), strict=True):
            found[i] = own[: len(read[i])]
    return [found[i] for i in which]


def padded(texts: list[np.ndarray], count: int, slots: int) -> np.ndarray:
    """The ids that a model reads, all but each text's last: int32 [count, slots], 0 behind them."""
    ids = np.zeros((count, slots), np.int32)
    for row, text in zip(ids, texts):
        row[: len(text) - 1] = text[:-1]
    return ids


def _of_one_length(model, texts, entropies, slots: int) -> np.ndarray:
    """Where patches start, bool [texts, slots + 1]. entropies: of each text, or None."""
    rule, ids, filled = model.config.patching, padded(texts, len(texts), slots), None
    arguments = dict(scheme=rule.scheme, include_next=True, xp=np, **segmentation.rule(rule))
    if rule.scheme in patching.NEEDS_ENTROPIES:
        filled = np.zeros(ids.shape, np.float32)
        for row, own in zip(filled, entropies, strict=True):
            row[: len(own)] = own
        for i in np.flatnonzero(_doubtful(texts, ids, filled, arguments)):
            filled[i, : len(entropies[i])] = _entropies(model.entropy_model, [texts[i]])[0]
    return patching.starts(ids, entropies=filled, **arguments)


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


def _entropies(lm, texts) -> list[np.ndarray]:
    """Nats after each id that is read, float32 [n] of each text, in calls of one shape for all texts of up to
    ROW ids, however many."""
    compute = _compiled(FrozenConfigDict(lm.config.model))
    found, parts, by_length = [None] * len(texts), [], {}
    for i, text in enumerate(texts):
        by_length.setdefault(bucket(len(text) - 1, ROW), []).append(i)
    for slots, numbers in by_length.items():
        rows = _rows({i: len(texts[i]) - 1 for i in numbers}, slots)
        count = max(1, SLOTS // slots)
        for at in range(0, len(rows), count):
            batch = {name: np.zeros((count, slots), np.int32) for name in ("bytes", "doc_ids")}
            for row, (held, begins) in enumerate(rows[at : at + count]):
                ids = np.concatenate([texts[i][:-1] for i in held])
                batch["bytes"][row, : len(ids)] = ids
                batch["doc_ids"][row, : len(ids)] = 1 + np.repeat(np.arange(len(held)), np.diff(begins))
            parts.append((rows[at : at + count], compute(lm.params, batch)))
    for some, values in parts:
        for (held, begins), row in zip(some, np.asarray(values)):
            for i, begin, end in zip(held, begins, begins[1:]):
                found[i] = row[begin:end]
    return found


def _rows(sizes: dict[int, int], slots: int) -> list[tuple[list[int], list[int]]]:
    """Rows of texts: (their numbers, where each begins and the last ends). The longest first; a row is filled
    up with the longest that still fits. sizes: by number, at most `slots`."""
    left = sorted(sizes, key=sizes.get)
    found, lengths = [], sorted(sizes.values())
    while left:
        held, begins = [], [0]
        while at := bisect.bisect_right(lengths, slots - begins[-1]):
            held.append(left.pop(at - 1))
            begins.append(begins[-1] + lengths.pop(at - 1))
        found.append((held, begins))
    return found


def _by_tokens(model, text: np.ndarray) -> np.ndarray:
    """Of one text, the bytes behind BOS, by the tokens of all of it."""
    if text[0] != vocab.BOS or (text[1:] < vocab.OFFSET).any():
        raise UserError("patches by tokens need a text behind BOS that fits the model")
    data = vocab.decode(text)
    counts = model.tokenizer.byte_counts[model.tokenizer.encode(data)]
    return np.asarray(patching.bpe_starts(counts, len(data) + 2))[: len(text)]
