"""Log-likelihoods of continuations behind contexts, many at once, in few compiled shapes.

A row is one text, a context and its continuation. Patches are those of the whole text, from entropies that
are computed in rows whose shape only the text's own length decides, so that no batch and no padding moves a
boundary."""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax import models, patching
from bltjax.errors import RunFailed, UserError
from bltjax.evaluation import encoding
from bltjax.models import loss, patcher
from bltjax.models.padded_lengths import bucket
from bltjax.patching import segmentation, vocab

SLOTS = 1 << 13  # ids in one call, where no batch size is given
ENTROPY_SLOTS = 1 << 10  # ids in one call of the entropy model, whatever the batch size
LEAST = 64  # slots of a row


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
    score, starts = _scorer(FrozenConfigDict(model.config.model)), _starts(model, rows)
    for slots, numbers in _calls(rows, least, batch_size):
        size, pending = batch_size or max(1, SLOTS // slots), None
        for at in [*range(0, len(numbers), size), None]:  # one call behind: the device works meanwhile
            if pending is not None:
                some, counts, result = pending
                _keep(found, rows, some, counts, *map(np.asarray, result))
                progress and progress(len(some))
            if at is not None:
                some = numbers[at : at + size]
                batch, counts = _batch(model, rows, starts, some, slots, size)
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
    least = min((int(i.min()) for i in ids), default=0)
    most = max((int(i.max()) for i in ids), default=0)
    if least < 0 or most >= vocabulary:
        raise UserError(f"ids must be 0 to {vocabulary - 1}; there are {least} to {most}")


def _calls(rows, least: int, batch_size: int):
    """(slots, numbers of the rows that are scored in so many), the longest first. Rows that would not fill
    half a call go into rows twice as long, where there are any: a call more, and a shape less."""
    buckets, waiting, found = {}, [], []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i].ids)):
        if rows[i].scored:
            buckets.setdefault(1 << (max(least, len(rows[i].ids) - 1) - 1).bit_length(), []).append(i)
    for slots in sorted(buckets):
        waiting = waiting + buckets[slots]
        if slots == max(buckets) or len(waiting) > (batch_size or SLOTS // slots) // 2:
            found.append((slots, waiting[::-1]))
            waiting = []
    return found[::-1]


@functools.lru_cache(maxsize=8)
def _scorer(model_config):
    return jax.jit(functools.partial(loss.nats_and_likeliest, model_config))


@functools.lru_cache(maxsize=8)
def _entropies(model_config):
    return jax.jit(functools.partial(patcher.entropies, model_config))


def _padded(rows, count: int, slots: int) -> np.ndarray:
    """The ids that the model reads, int32 [count, slots], 0 behind them."""
    ids = np.zeros((count, slots), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids) - 1] = row.ids[:-1]
    return ids


def _starts(model, rows: list[Row]) -> list | None:
    """Where patches start, bool [n + 1] of a row that the model reads n ids of: of the id after the last,
    too. None for a model without patches."""
    if not models.kind(model.config.model).PATCHES:
        return None
    rule, found, buckets = model.config.patching, [None] * len(rows), {}
    if rule.scheme == "bpe":
        return [_bpe_starts(model, row) for row in rows]
    for i, row in enumerate(rows):
        buckets.setdefault(bucket(len(row.ids) - 1, LEAST), []).append(i)
    for slots, numbers in buckets.items():
        some, entropies = [rows[i] for i in numbers], None
        if rule.scheme in patching.NEEDS_ENTROPIES:
            entropies = _entropies_of(model.entropy_model, some, slots)
        ids = _padded(some, len(some), slots)
        arguments = segmentation.rule(rule)
        starts = patching.starts(
            ids, rule.scheme, entropies=entropies, include_next=True, xp=np, **arguments
        )
        for i, row, own in zip(numbers, some, starts):
            found[i] = own[: len(row.ids)]
    return found


def _entropies_of(lm, rows: list[Row], slots: int) -> np.ndarray:
    """Nats, float32 [rows, slots], in calls of one shape for all rows of this length, whatever is asked."""
    count, parts = max(1, ENTROPY_SLOTS // slots), []
    compute = _entropies(FrozenConfigDict(lm.config.model))
    for at in range(0, len(rows), count):
        some = rows[at : at + count]
        docs = np.zeros((count, slots), np.int32)
        for i, row in enumerate(some):
            docs[i, : len(row.ids) - 1] = 1
        batch = {"bytes": _padded(some, count, slots), "doc_ids": docs}
        parts.append((compute(lm.params, batch), len(some)))
    return np.concatenate([np.asarray(values)[:n] for values, n in parts])


def _bpe_starts(model, row: Row) -> np.ndarray:
    """Of one text, the bytes behind BOS, by the tokens of all of it."""
    if row.ids[0] != vocab.BOS or (row.ids[1:] < vocab.OFFSET).any():
        raise UserError("patches by tokens need a text behind BOS that fits the model")
    data = vocab.decode(row.ids)
    counts = model.tokenizer.byte_counts[model.tokenizer.encode(data)]
    return np.asarray(patching.bpe_starts(counts, len(data) + 2))[: len(row.ids)]


def _batch(model, all_rows: list[Row], starts, numbers, slots: int, size: int):
    """(a batch of these rows, of `slots`, the patches of each). A call has `size` rows, or, where few are
    left, an eighth of it."""
    rows = [all_rows[i] for i in numbers]
    few = max(1, size // 8)
    count = few if len(rows) <= few else size
    ids = _padded(rows, count, slots)
    targets, mask, docs = np.zeros_like(ids), np.zeros_like(ids), np.zeros_like(ids)
    for i, row in enumerate(rows):
        n = len(row.ids) - 1
        docs[i, :n] = 1
        targets[i, n - row.scored : n] = row.ids[n + 1 - row.scored :]
        mask[i, n - row.scored : n] = 1
    batch = {"doc_ids": docs, "targets": targets, "loss_mask": mask}
    name = models.kind(model.config.model).SLOTS[0]
    if starts is None:
        return {name: ids, **batch}, [len(row.ids) - 1 for row in rows]
    real = docs[: len(rows)] > 0
    patch_of = np.zeros((count, slots + 1), np.int32)
    for i, number in enumerate(numbers):
        patch_of[i, : len(starts[number])] = np.cumsum(starts[number]) - 1
    patch_ids, latent_ids = patch_of[:, :-1], patch_of[:, 1:] - 1
    counts = 1 + np.where(real, patch_ids[: len(rows)], 0).max(axis=1)
    # few sizes: a row's patches are a quarter of its slots, a half, or as many
    patches = next(p for p in (slots // 4, slots // 2, slots) if p >= counts.max())
    padding = docs == 0
    batch |= {
        name: ids,
        "patch_ids": np.where(padding, patches, patch_ids).astype(np.int32),
        "latent_ids": np.where(padding, 0, latent_ids).astype(np.int32),
        "patch_doc_ids": np.zeros((count, patches), np.int32),
    }
    batch["patch_doc_ids"][: len(rows)] = np.arange(patches)[None] < counts[:, None]
    return batch, counts.tolist()


def _keep(found, rows, numbers, patches, nats, likeliest) -> None:
    for i, number in enumerate(numbers):
        row = rows[number]
        n = len(row.ids) - 1
        scored = slice(n - row.scored, n)
        value, greedy = -float(nats[i, scored].astype(np.float64).sum()), bool(likeliest[i, scored].all())
        found[number] = Likelihood(value, greedy, row.cut, n, int(patches[i]))
