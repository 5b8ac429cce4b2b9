"""Rows planned by blocks of documents, each from the seed and its place alone, so that anyone may plan any of
them: the one way from documents to rows, however many they are.

Plans are kept in files, and of a block that is not being filled no more is in memory than what its rows hold:
text of terabytes has tens of thousands of blocks. Processes of a run plan different ones, and find those of
the others."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import threading
from collections.abc import Callable

import numpy as np

from bltjax.data import filling, packing
from bltjax.errors import UserError
from bltjax.storage import atomic

FIRST = 1 << 20  # units of documents in the first block, so that a short run plans little that it never reads
BLOCK = 1 << 25  # and at most: what is in memory while they are planned
PLANS = 16  # blocks whose plans are in memory, where they are kept in files


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Rows that were planned together. counts: packing.counts. longest: packing.longest_segments. plan: () ->
    packing.Plan. fill: numbers of rows of the plan -> their batch."""

    counts: dict
    longest: dict
    plan: Callable
    fill: Callable

    def __len__(self):
        return len(self.counts["slots"])


def order_of(seed: int, epoch, count: int) -> np.ndarray:
    """Permutation of documents, int64 [count]; epoch: 0.. or "cut", the order drawn before the first."""
    if seed < 0:
        raise UserError(f"data.seed={seed}: a seed is 0 or more")
    key = 0 if epoch == "cut" else epoch + 1
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, key]))).permutation(count)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What of a run decides how its documents become rows: slots and patches of a row (None: no limit), the
    rows of a packing buffer, what its self-attention sees: `window`, and whether every line is on its own
    (packing.counts), and to how many slots rows are filled on average (packing.plan_rows)."""

    slots: int
    patches: int | None = None
    buffer: int = 0
    window: int = 0
    newlines: bool = False
    filled: float | None = None  # None: all


class Blocks:
    """Yields a Chunk for every block of documents, without end."""

    def __init__(self, units, shape: Shape, seed: int, plans: pathlib.Path | None = None):
        """units: unit_cache.UnitCache, or anything with its `documents`, `read` and `take`. plans: a folder
        where plans are kept and found again."""
        self._units, self._shape, self._seed, self._plans = units, shape, seed, plans
        self._coming = (mixed if units.documents.parts else one_by_one)(units.documents, seed)
        self._blocks, self._lock = [], threading.Lock()
        self._planned = functools.lru_cache(PLANS if plans else None)(self._found_or_made)

    def __iter__(self):
        for block in itertools.count():
            planned = self._planned(block)
            yield Chunk(
                planned.counts,
                packing.longest_segments(planned.plan),
                functools.partial(self._plan, block),
                functools.partial(self._fill, block),
            )

    def ahead(self, share: float, part: int, parts: int) -> None:
        """Plans the first blocks, so many that they hold `share` times what the first does, but for those
        that are there already: each of `parts` that do so begins at a place of its own, and goes round."""
        if self._plans is None or parts == 1:
            return
        lengths, held, count = self._units.documents.lengths, [], 0
        while not held or sum(held) < share * held[0]:
            held.append(int(lengths[self._block(count)[1]].sum()) + 1)
            count += 1
        begin = count * part // parts
        for block in itertools.chain(range(begin, count), range(begin)):
            if not self._path(block).exists():
                self._found_or_made(block)

    def _block(self, block: int):
        """(name, numbers of documents) of a block."""
        with self._lock:
            while len(self._blocks) <= block:
                self._blocks.append(next(self._coming))
        return self._blocks[block]

    def _path(self, block: int) -> pathlib.Path | None:
        return self._plans / f"{'-'.join(map(str, self._block(block)[0]))}.npz" if self._plans else None

    def _found_or_made(self, block: int) -> "Planned":
        (name, numbers), path = self._block(block), self._path(block)
        found = path and _kept(path, self._shape)
        if not found:
            shape, documents = self._shape, self._units.read(numbers)
            plan = packing.plan_rows(
                documents,
                shape.slots,
                shape.patches,
                buffer=shape.buffer,
                seed=(self._seed, *name),
                filled=shape.filled,
            )
            owners = np.searchsorted(documents.ends, plan.source, side="right") - 1
            counts = packing.counts(documents, plan, shape.window, shape.newlines)
            found = Planned(plan, counts, numbers[owners], plan.source - documents.ends[owners])
            if path:
                _keep(path, found)
        return found

    def _plan(self, block: int) -> packing.Plan:
        return self._planned(block).plan

    def _fill(self, block: int, rows) -> dict:
        """Reads the documents that are in these rows, and no others."""
        planned = self._planned(block)
        plan = planned.plan
        some = packing.rows_of(dataclasses.replace(plan, source=np.arange(len(plan.source))), rows)
        wanted, place = np.unique(planned.document[some.source], return_inverse=True)
        units = self._units.take(wanted)
        return filling.fill(
            units,
            dataclasses.replace(some, source=units.ends[place] + planned.within[some.source]),
            np.arange(len(some)),
        )


@dataclasses.dataclass(frozen=True)
class Planned:
    """A block's plan, what its rows hold (packing.counts), and of each segment its document's number and
    where in that it begins, int64 [S]."""

    plan: packing.Plan
    counts: dict
    document: np.ndarray
    within: np.ndarray


def sizes():
    """Units of one block after the other: each as large as all before it, up to BLOCK."""
    held = 0
    while True:
        size = min(BLOCK, held or FIRST)
        yield size
        held += size


def one_by_one(choice, seed: int):
    """((epoch, first), numbers) of blocks of documents, of about so many units as `sizes` says: epoch after
    epoch, each in its own order. UserError where there are none."""
    if not len(choice):
        raise UserError("there are no training documents; nothing to train on")
    size = sizes()
    for epoch in itertools.count():
        order = order_of(seed, epoch, len(choice))
        ends = np.cumsum(choice.lengths[order] + 2)
        first = 0
        while first < len(order):
            stop = (ends[first - 1] if first else 0) + next(size)
            last = max(first + 1, int(np.searchsorted(ends, stop)))
            yield (epoch, first), order[first:last]
            first = last


def mixed(choice, seed: int):
    """((block,), numbers) of blocks in which every source has its share of bytes; each source goes through
    epochs of its own."""
    whole = int(choice.lengths.sum())
    ends = itertools.accumulate(min(size, whole) for size in sizes())
    sources = [
        _Endless(choice.lengths, first, last, seed + 7919 * number)
        for number, (first, last, _) in enumerate(choice.parts)
    ]
    for block, end in enumerate(ends):
        numbers = np.concatenate(
            [source.upto(weight * end) for source, (_, _, weight) in zip(sources, choice.parts)]
        )
        yield (block,), numbers[np.random.default_rng((seed, block)).permutation(len(numbers))]


class _Endless:
    """The documents first to last - 1, epoch after epoch, each in its own order."""

    def __init__(self, lengths, first: int, last: int, seed: int):
        self._lengths, self._first, self._count, self._seed = lengths, first, last - first, seed
        self._epoch, self._at, self._given = 0, 0, 0
        self._begin()

    def _begin(self):
        self._order = self._first + order_of(self._seed, self._epoch, self._count)
        self._ends = self._given + np.cumsum(self._lengths[self._order])

    def upto(self, size: float) -> np.ndarray:
        """The next documents, until `size` bytes were given in all."""
        found = [np.zeros(0, np.int64)]
        while self._given < size:
            stop = min(self._count, int(np.searchsorted(self._ends, size)) + 1)
            found.append(self._order[self._at : stop])
            self._given, self._at = int(self._ends[stop - 1]), stop
            if stop == self._count:
                self._epoch, self._at = self._epoch + 1, 0
                self._begin()
        return np.concatenate(found)


PLAN = ("first", "source", "length", "offset", "patches")  # arrays of a plan


def _keep(path: pathlib.Path, planned: Planned) -> None:
    """Plans are a cache: one that cannot be kept is made again where it is wanted."""
    arrays = {name: getattr(planned.plan, name) for name in PLAN}
    arrays |= {f"counts_{name}": values for name, values in planned.counts.items()}
    with contextlib.suppress(OSError), atomic.replacing(path) as part, part.open("wb") as file:
        np.savez(file, version=packing.VERSION, document=planned.document, within=planned.within, **arrays)


def _kept(path: pathlib.Path, shape: Shape) -> Planned | None:
    """What _keep wrote; None where it is not there, not whole, or of another version."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            found = {name: kept[name] for name in kept.files}
        if found["version"] != packing.VERSION:
            return None
        plan = packing.Plan(*(found[name] for name in PLAN), shape.slots, shape.patches)
        counts = {name: found[f"counts_{name}"] for name in packing.COUNTS}
        return Planned(plan, counts, found["document"], found["within"])
    # a cache: whichever of numpy's, zipfile's and zlib's errors it is, the answer is to plan again
    except Exception:
        return None
