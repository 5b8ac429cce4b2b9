"""Log-likelihoods of continuations behind contexts, many at once, in few compiled shapes.

A row is one text, a context and its continuation. Its patches are those of the text alone (row_patches.py),
so that no batch and no padding moves a boundary."""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax import models
from bltjax.errors import RunFailed, UserError
from bltjax.evaluation import encoding, row_patches
from bltjax.models import loss
from bltjax.models.padded_lengths import bucket

SLOTS = 1 << 13  # ids in one call, where no batch size is given
LEAST = 16  # slots of a row


class Likelihood(NamedTuple):
    """value: nats, below 0. greedy: whether each id is the likeliest. cut: ids that did not fit the model and
    were left out on the left. positions, patches: of the row, bytes and patches (of tokens: ids twice)."""

    value: float
    greedy: bool
    cut: int
    positions: int
    patches: int


class Row(NamedTuple):
    """ids int32 [n + 1], the last one a target alone; scored: how many targets at its end; cut, see above."""

    ids: np.ndarray
    scored: int
    cut: int


def loglikelihoods(
    model, pairs, max_length: int = 0, batch_size: int = 0, least: int = LEAST, progress=None
) -> list[Likelihood]:
    """One Likelihood a pair (context ids, continuation ids), in their order.

    model: an api.Model. A context has one id at least (BOS). max_length: ids of a row at most; 0: as many as
    the model has. batch_size: rows of a call; 0: by their length. least: slots of a row at least. progress:
    called with the number of pairs done. A text that is too long loses its left, as in lm-eval's hf adapter;
    `cut` counts it. UserError for ids that the model has not, and for an empty context."""
    length = max_length or encoding.longest(model)
    if length < 2 or batch_size < 0:
        raise UserError(f"max_length is {length} and batch_size {batch_size}; at least 2 and 0 are needed")
    rows = [_row(context, continuation, length) for context, continuation in pairs]
    _check([row.ids for row in rows], model.config.model.vocab)
    found = [Likelihood(0.0, True, row.cut, 0, 0) if not row.scored else None for row in rows]
    score = _scorer(FrozenConfigDict(model.config.model))
    starts = row_patches.starts(model, [row.ids for row in rows])
    patches = [int(own[:-1].sum()) for own in starts] if starts else [0] * len(rows)
    for slots, numbers in _calls(rows, patches, least, batch_size):
        size, pending = batch_size or max(1, SLOTS // slots), None
        for at in [*range(0, len(numbers), size), None]:  # one call behind: the device works meanwhile
            if pending is not None:
                some, counts, result = pending
                _keep(found, rows, some, counts, *map(np.asarray, result))
                progress and progress(len(some))
            if at is not None:
                some = numbers[at : at + size]
                own = starts and [starts[i] for i in some]
                batch, counts = _batch(model, [rows[i] for i in some], own, slots, size)
                pending = some, counts, score(model.params, batch)
    if not all(math.isfinite(one.value) for one in found):
        raise RunFailed(f"{model.folder} gives no numbers: a log-likelihood is not finite")
    return found


def _row(context, continuation, length: int) -> Row:
    if not len(context):
        raise UserError("a context has no ids: BOS at least is needed to predict what follows")
    whole = np.concatenate([np.asarray(context, np.int32), np.asarray(continuation, np.int32)])
    ids = whole[-(length + 1) :]
    return Row(ids, min(len(continuation), len(ids) - 1), len(whole) - len(ids))


def _check(ids, vocabulary: int) -> None:
    whole = np.concatenate([np.zeros(0, np.int32), *ids])
    if whole.size and (whole.min() < 0 or whole.max() >= vocabulary):
        raise UserError(f"ids must be 0 to {vocabulary - 1}; there are {whole.min()} to {whole.max()}")


def _calls(rows, patches, least: int, batch_size: int):
    """(slots, numbers of the rows that are scored in so many), the longest first, and of these those of the
    most patches. Rows that do not fill a call go into rows of the next size, where that is no more than twice
    theirs: a shape less."""
    buckets, waiting, found = {}, [], []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i].ids)):
        if rows[i].scored:
            buckets.setdefault(bucket(len(rows[i].ids) - 1, least), []).append(i)
    for slots, longer in itertools.pairwise([*sorted(buckets), math.inf]):
        waiting = waiting + buckets[slots]
        rest = len(waiting) % (batch_size or max(1, SLOTS // slots)) if longer <= 2 * slots else 0
        now, waiting = waiting[: len(waiting) - rest], waiting[len(waiting) - rest :]
        if now:
            found.append((slots, sorted(now[::-1], key=lambda i: -patches[i])))
    return found[::-1]


@functools.lru_cache(maxsize=8)
def _scorer(model_config):
    return jax.jit(functools.partial(loss.nats_and_likeliest, model_config))


def _batch(model, rows: list[Row], starts, slots: int, size: int):
    """(a batch of these rows, of `slots`, as loss.nats_and_likeliest wants it, the patches of each row). A
    call has `size` rows, or, where few are left, an eighth of it. starts: of each row, or None."""
    few = max(1, size // 8)
    count = few if len(rows) <= few else size
    read, scored = np.zeros((2, count, 1), np.int32)
    read[: len(rows), 0] = [len(row.ids) - 1 for row in rows]
    scored[: len(rows), 0] = [row.scored for row in rows]
    at = np.arange(slots, dtype=np.int32)
    real = at < read
    asked = np.flatnonzero(real & (at >= read - scored))
    batch = {
        models.kind(model.config.model).SLOTS[0]: row_patches.padded([r.ids for r in rows], count, slots),
        "doc_ids": real.astype(np.int32),
        "scored": _filled(asked, real.size),
        "targets": _filled(np.concatenate([row.ids[-row.scored :] for row in rows]), real.size),
        "count": np.int32(len(asked)),
    }
    if starts is None:
        return batch, read[: len(rows), 0].tolist()
    opens = np.zeros((count, slots + 1), np.int32)
    for row, own in zip(opens, starts):
        row[: len(own)] = own
    patch_of = np.cumsum(opens, axis=1, dtype=np.int32) - 1
    patch_ids, latent_ids = patch_of[:, :-1], patch_of[:, 1:] - 1
    counts = 1 + np.where(real, patch_ids, -1).max(axis=1)
    # few sizes: a row's patches are an eighth of its slots, a quarter, a half, or as many
    patches = next(p for p in (slots // 8, slots // 4, slots // 2, slots) if p >= counts.max())
    batch |= {
        "patch_ids": np.where(real, patch_ids, patches).astype(np.int32),
        "latent_ids": np.where(real, latent_ids, 0).astype(np.int32),
        "patch_doc_ids": (np.arange(patches) < counts[:, None]).astype(np.int32),
    }
    return batch, counts[: len(rows)].tolist()


def _filled(values, size: int) -> np.ndarray:
    """int32 [size], 0 behind the values."""
    return np.pad(values.astype(np.int32), (0, size - len(values)))


def _keep(found, rows, numbers, patches, nats, likeliest) -> None:
    """Of one call: nats and likeliest of its rows' targets, one row behind the other."""
    ends = np.cumsum([rows[number].scored for number in numbers])
    first = np.append(0, ends[:-1])
    values = np.add.reduceat(nats[: ends[-1]], first, dtype=np.float64).tolist()
    greedy = np.logical_and.reduceat(likeliest[: ends[-1]], first).tolist()
    for number, count, value, all_likeliest in zip(numbers, patches, values, greedy, strict=True):
        row = rows[number]
        found[number] = Likelihood(-value, all_likeliest, row.cut, len(row.ids) - 1, count)
