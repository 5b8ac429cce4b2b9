"""Documents into rows of fixed shape: a plan, of small arrays, made once, and what its rows hold. Batches are
filled from it by data/filling.py.

A row is a sequence of segments, laid down in order (next-fit). A segment is BOS, then units `a` to `b` of one
document; a unit is a byte or a token, EOS is a document's last. Slot j of a segment predicts the unit in slot
j + 1; the last slot predicts nothing. So a document cut into segments has every byte and its one EOS
predicted exactly once: the continuation's own BOS predicts its first unit.

A segment takes what the row has left, cut back to the start of a patch, and never only BOS: where not one
whole patch fits, the row ends. A patch longer than a whole row is cut at the row's end all the same, since it
fits nowhere. A cut that would leave a segment of EOS alone moves one patch back: such a segment would ask the
model how often documents are empty."""

import bisect
import dataclasses
import itertools
import math

import numpy as np

from bltjax import flops
from bltjax.data import balanced_packing
from bltjax.errors import UserError
from bltjax.patching import vocab

VERSION = 5  # of what plans and counts are made by: those that an older one kept are never read
COUNTS = ("bytes", *flops.UNITS)


@dataclasses.dataclass(frozen=True)
class Documents:
    """All documents end to end, each as [BOS, units, EOS]. U units in all, D documents.

    ids [U] (uint16 for bytes, int32 for tokens), ends int64 [D + 1] from 0 on, starts bool [U] or None
    (patches of one unit, unnamed), raw_bytes int32 [U] or None (one byte a unit, none for BOS and EOS), bos:
    the id a segment opens with."""

    ids: np.ndarray
    ends: np.ndarray
    starts: np.ndarray | None
    raw_bytes: np.ndarray | None
    bos: int

    def __len__(self):
        return len(self.ends) - 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows of R in all, S segments: first int64 [R + 1] (row r holds segments first[r] to first[r + 1]); per
    segment int64 [S]: source (index in Documents.ids of the slot before its first unit), length (slots, BOS
    included), offset (slot in the row), patches (0 where patches have no names). capacity: T (slots of a
    row); patch_capacity: P, or None."""

    first: np.ndarray
    source: np.ndarray
    length: np.ndarray
    offset: np.ndarray
    patches: np.ndarray
    capacity: int
    patch_capacity: int | None

    def __len__(self):
        return len(self.first) - 1


def byte_documents(documents: list[bytes], lengths=None) -> Documents:
    """Documents of byte ids. lengths: per document its patch lengths over [BOS, bytes, EOS], the first of
    them 1; None: no patches.

    ValueError where lengths do not sum to len(document) + 2, are not positive, or do not begin with 1.
    """
    sizes = np.array([len(document) + 2 for document in documents], np.int64)
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    ids = np.empty(ends[-1], np.uint16)
    inner = np.ones(len(ids), bool)
    ids[ends[:-1]], ids[ends[1:] - 1] = vocab.BOS, vocab.EOS
    inner[ends[:-1]] = inner[ends[1:] - 1] = False
    ids[inner] = np.frombuffer(b"".join(documents), np.uint8).astype(np.uint16) + vocab.OFFSET
    if lengths is None:
        return Documents(ids, ends, None, None, vocab.BOS)
    lengths = [np.asarray(one, np.int64) for one in lengths]
    for i, (one, size) in enumerate(zip(lengths, sizes, strict=True)):
        if one.sum() != size or one.min() < 1 or one[0] != 1:
            raise ValueError(
                f"patch lengths of document {i} must be positive, begin with 1 (BOS) and sum to {size}, not"
                f" {one.sum()}"
            )
    starts = np.zeros(len(ids), bool)
    if lengths:
        flat = np.concatenate(lengths)
        starts[np.cumsum(flat) - flat] = True
    return Documents(ids, ends, starts, None, vocab.BOS)


def part(documents: Documents, i: int) -> Documents:
    """Document number i alone (a copy)."""
    at = slice(documents.ends[i], documents.ends[i + 1])
    own = lambda x: None if x is None else x[at].copy()
    return Documents(
        own(documents.ids),
        np.array([0, at.stop - at.start], np.int64),
        own(documents.starts),
        own(documents.raw_bytes),
        documents.bos,
    )


def joined(parts: list[Documents]) -> Documents:
    """All documents of the parts, one after the other."""
    ends = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.ends) for part in parts]))]).astype(
        np.int64
    )
    all_of = lambda name: (
        None if getattr(parts[0], name) is None else np.concatenate([getattr(part, name) for part in parts])
    )
    return Documents(all_of("ids"), ends, all_of("starts"), all_of("raw_bytes"), parts[0].bos)


def rows_of(plan: Plan, rows) -> Plan:
    """The plan of some rows of a plan, in that order."""
    rows = np.asarray(rows, np.int64)
    per_row = plan.first[rows + 1] - plan.first[rows]
    first = np.concatenate([[0], np.cumsum(per_row)])
    segments = np.repeat(plan.first[rows] - first[:-1], per_row) + np.arange(first[-1])
    return Plan(
        first,
        *(x[segments] for x in (plan.source, plan.length, plan.offset, plan.patches)),
        plan.capacity,
        plan.patch_capacity,
    )


def token_documents(token_ids, byte_counts: np.ndarray, bos: int, eos: int) -> Documents:
    """Documents of token ids (one int32 array each, without BOS and EOS); byte_counts int32 [V], 0 for
    specials."""
    ends = np.concatenate([[0], np.cumsum([len(ids) + 2 for ids in token_ids])]).astype(np.int64)
    parts = [part for ids in token_ids for part in ([bos], ids, [eos])]
    ids = np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, np.int32)
    return Documents(ids, ends, None, np.asarray(byte_counts, np.int32)[ids], bos)


def of_lengths(lengths) -> Documents:
    """Documents of which only the bytes' number is known: to plan rows of bytes by, never to fill them."""
    ends = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64) + 2)])
    return Documents(np.broadcast_to(np.uint16(0), int(ends[-1])), ends, None, None, vocab.BOS)


def plan_rows(
    documents: Documents,
    capacity: int,
    patch_capacity: int | None = None,
    order=None,
    buffer: int = 0,
    seed=0,
    filled: float | None = None,
) -> Plan:
    """Rows of `capacity` slots (bytes or tokens) and at most `patch_capacity` patches, over documents in
    `order` (indices; None: all as they come).

    filled: slots that may be filled, of a row on average (None: all); what is above them stays empty, so that
    rows of a whole number of tokens hold any number of bytes.

    buffer: rows whose documents wait to be packed together, so that rows are full of slots and of patches at
    once (data/balanced_packing.py), and which then come in an order drawn from `seed`, rows of tokens so that
    any stretch has its share of bytes; 0: rows are filled one after the other and stay so. ValueError for a
    limit of patches on documents without."""
    if patch_capacity is not None and documents.starts is None:
        raise ValueError("a limit of patches needs documents with patches")
    if capacity < 4 or (patch_capacity is not None and patch_capacity < 3):
        raise UserError(
            f"a row of {capacity} slots and {patch_capacity} patches is too small (at least 4 and 3)"
        )
    filled = capacity if filled is None else filled
    if not 4 <= filled <= capacity:
        raise ValueError(f"rows of {capacity} slots cannot be filled to {filled:g}; to 4 or more of them")
    order = np.arange(len(documents)) if order is None else np.asarray(order, np.int64)
    order = order[np.diff(documents.ends)[order] > 2]  # an empty document predicts nothing but its emptiness
    if buffer and patch_capacity is not None:
        rows = balanced_packing.rows(
            documents.ends, documents.starts, order, _rooms(filled), patch_capacity, buffer
        )
    else:
        rows = _rows_in_order(documents, _rooms(filled), patch_capacity, order)
    plan = _plan_of(rows, capacity, patch_capacity)
    if not buffer:
        return plan
    rng = np.random.default_rng(seed)
    buffers = np.array_split(np.arange(len(plan)), np.arange(buffer, len(plan), buffer))
    if documents.raw_bytes is None:  # of bytes, all rows are full
        return rows_of(plan, np.concatenate([rng.permutation(numbers) for numbers in buffers]))
    sizes = counts(documents, plan)["bytes"]
    return rows_of(plan, np.concatenate([_spread(numbers, sizes, rng) for numbers in buffers]))


def _spread(numbers, sizes, rng) -> np.ndarray:
    """Numbers in a random order of which any stretch has its share of `sizes` (of all numbers): of two
    neighbours by size one comes in the first half and the other in the second, and so in each half again. A
    run that reads a fifth of a buffer reads as many bytes as its like."""
    ordered = numbers[np.argsort(sizes[numbers], kind="stable")]
    levels = max(1, len(ordered) - 1).bit_length()
    spread = np.append(ordered, np.full((1 << levels) - len(ordered), -1))
    for level in range(levels):
        pairs = rng.permuted(spread.reshape(1 << level, -1, 2), axis=2)
        spread = pairs.swapaxes(1, 2).reshape(-1)
    return spread[spread >= 0]


def _rooms(filled: float):
    """Slots that each row may fill: the whole numbers beside `filled`, in turns that have it as mean."""
    for row in itertools.count():
        yield math.floor((row + 1) * filled) - math.floor(row * filled)


def _plan_of(rows, capacity: int, patch_capacity: int | None) -> Plan:
    """rows: lists of segments (source, length, patches)."""
    first, segments = [0], []
    for row in rows:
        segments.extend(row)
        first.append(len(segments))
    first = np.array(first, np.int64)
    source, length, patches = np.array(segments, np.int64).reshape(-1, 3).T
    before = np.concatenate([[0], np.cumsum(length)])[:-1]
    offset = before - np.repeat(before[first[:-1]], np.diff(first)) if len(segments) else before
    return Plan(first, source, length, offset, patches, capacity, patch_capacity)


def _rows_in_order(documents: Documents, rooms, patch_capacity: int | None, order):
    """Yields rows, each a list of segments (source, length, patches): documents are laid down one after the
    other, and cut where a row ends. rooms: yields each row's slots."""
    cuts = _Cuts(documents)
    limit = patch_capacity if patch_capacity is not None else len(documents.ids) + 2
    row, slots, patches = [], next(rooms), limit  # what the row has left
    for d in order.tolist():
        at, end = int(documents.ends[d]) + 1, int(documents.ends[d + 1])
        while at < end:
            stop, count = cuts.last_that_fits(at, end, slots - 1, patches - 1, whole_row=not row)
            if stop <= at:
                if row:
                    yield row
                    row, slots, patches = [], next(rooms), limit
                    continue
                stop, count = min(at + slots - 1, end), 1  # one patch longer than a row
                stop -= stop == end - 1
            row.append((at - 1, stop - at + 1, count + 1 if cuts.named else 0))
            slots, patches, at = slots - (stop - at + 1), patches - (count + 1), stop
    if row:
        yield row


class _Cuts:
    """Where documents may be cut: at the starts of their patches, or where those have no names anywhere."""

    def __init__(self, documents: Documents):
        self.named = documents.starts is not None
        self._starts = (
            np.append(np.flatnonzero(documents.starts), len(documents.ids)).tolist() if self.named else []
        )

    def last_that_fits(self, at: int, end: int, slots: int, patches: int, whole_row: bool):
        """(stop, patches up to it) of the longest piece from `at` on of a document that ends at `end` which
        has at most so many slots and patches, and does not leave EOS alone; stop <= at where there is none.
        whole_row: a single patch is taken although EOS is then left alone, since no row has more room."""
        room = at + slots
        if not self.named:
            stop = min(room, end)
            return stop - (stop == end - 1), 1
        i = bisect.bisect_right(self._starts, at)  # the next patch
        last = bisect.bisect_left(self._starts, end, i)
        j = (
            bisect.bisect_right(self._starts, room, i - 1, min(last, i - 1 + patches) + 1) - 1
            if slots > 0
            else i - 1
        )
        if j < i or self._starts[j] <= at:
            return at, 0
        if self._starts[j] == end - 1 and (not whole_row or j > i):
            j -= 1
        return (self._starts[j], j - i + 1) if j >= i else (at, 0)


def counts(documents: Documents, plan: Plan, window: int = 0, newlines: bool = False) -> dict:
    """Useful units of every row, [R]: "bytes" raw bytes predicted, "slots" and "patches" that are not padding
    (int64), and the pairs of a query and a key that no mask hides (float64, whole numbers): "pairs" of slots
    of a segment that are less than `window` apart (0: all), "patch_pairs" of patches of a segment.

    newlines: attention begins anew at every newline (`model.reset`)."""
    if documents.raw_bytes is None:
        raw_S = plan.length - 1 - _closes(documents, plan)
    else:
        total = np.concatenate([[0], np.cumsum(documents.raw_bytes, dtype=np.int64)])
        raw_S = total[plan.source + plan.length] - total[plan.source + 1]
    of_segments = {
        "bytes": raw_S,
        "slots": plan.length,
        "patches": plan.patches,
        "pairs": (
            _pairs_of_lines(documents, plan, window)
            if newlines
            else flops.causal_pairs(plan.length.astype(np.float64), window)
        ),
        "patch_pairs": flops.causal_pairs(plan.patches.astype(np.float64)),
    }
    sums = {name: np.concatenate([[0], np.cumsum(part)]) for name, part in of_segments.items()}
    return {name: total[plan.first[1:]] - total[plan.first[:-1]] for name, total in sums.items()}


def longest_segments(plan: Plan) -> dict:
    """{"slots", "patches"} of the longest segment of each row, int64 [R]."""
    if not len(plan.length):
        return {"slots": plan.length, "patches": plan.patches}
    return {
        "slots": np.maximum.reduceat(plan.length, plan.first[:-1]),
        "patches": np.maximum.reduceat(plan.patches, plan.first[:-1]),
    }


def _pairs_of_lines(documents: Documents, plan: Plan, window: int) -> np.ndarray:
    """Pairs of every segment, float64 [S], where each line is on its own; a newline belongs to what
    follows."""
    newlines = np.flatnonzero(documents.ids == vocab.NEWLINE)
    low = np.searchsorted(newlines, plan.source + 1)
    lines = np.searchsorted(newlines, plan.source + plan.length) - low + 1
    segment = np.repeat(np.arange(len(lines)), lines)
    first_line = np.cumsum(lines) - lines
    begin = np.empty(len(segment), np.int64)
    number = np.arange(len(segment)) - first_line[segment]  # of a line in its segment
    inner = number > 0
    begin[~inner] = plan.source
    begin[inner] = newlines[(low[segment] + number - 1)[inner]]
    end = np.append(begin[1:], 0)
    end[first_line + lines - 1] = plan.source + plan.length
    return np.bincount(segment, flops.causal_pairs((end - begin).astype(np.float64), window), len(lines))


def _closes(documents: Documents, plan: Plan) -> np.ndarray:
    """Whether a segment holds its document's EOS, bool [S]."""
    stop = plan.source + plan.length
    return documents.ends[np.searchsorted(documents.ends, stop)] == stop
