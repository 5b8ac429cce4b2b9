"""Whole documents in evaluation windows: every byte, and one EOS a document, is scored once, with the same
mean left context in bytes in every family, and at no position that training rows do not reach.

A window is a row's one segment: BOS, bytes of context, bytes that are scored. It holds at most C = context -
2 bytes (BOS and EOS need a slot each), and no more slots (bytes or tokens) and patches than the model trained
on. The first of a document scores as much as it holds. Each later one aims at scored bytes whose left context
is, on average, MEAN of C: half a window of context and half of scored bytes, or where text is so dense in
tokens or patches that this does not fit, less of what is scored and more of context. Text denser than that
gets as much context as fits.

Context begins at the patch (or token) that starts nearest to where it is to begin; a patch that began before
and goes on past is cut there, as a row would. A token belongs to the window in which its first byte lies."""

import bisect
import dataclasses

import numpy as np

from bltjax.data import filling, packing
from bltjax.errors import UserError
from bltjax.models import padded_lengths

# Where no limit says P or N, they are rounded up to one of few sizes, the least of which is this, so that
# texts share a compiled program.
MULTIPLE = 32
# In 32ths of a window's C bytes: how many are scored (the first that fits), their mean left context (a 32th
# is left for starts that are not quite where they are wanted), and how much further back than wanted a
# context may begin.
SCORED = (16, 14, 12, 10, 8, 6, 4, 3, 2)
MEAN = 23
NEAR = 1


class Windows:
    """Yields (batch, score, doc_index) in document order: batch, filling.fill's int32 arrays [rows, slots]
    and [rows, P]; score: bool [rows, slots], where a target is scored (an EOS among them); doc_index: int32
    [rows, slots], index of the document, -1 where not scored. The last batch is padded with empty rows.

    mean_context_bytes: over all scored bytes, how many bytes of its document a byte has before it in its
    window (None where there are none). largest_position: {"slots", "patches"}, the largest index in its
    window of a slot that predicts a scored target, and of its patch (None without patches): BOS is 0."""

    def __init__(
        self, packed: packing.Documents, plan: packing.Plan, scored, document, byte_spans, rows: int
    ):
        """scored int64 [S]: the first slot whose target is scored; document int64 [S]; byte_spans int64 [S,
        3]: where in its document a window's context, its scored bytes and their end are; rows: of a batch."""
        self._packed, self._plan, self._scored, self._document = packed, plan, scored, document
        self._rows = rows
        begin, first, stop = byte_spans.T
        bytes_S = stop - first
        self.mean_context_bytes = None
        self.largest_position = {"slots": None, "patches": None}
        if bytes_S.sum():
            left = bytes_S * (first - begin) + bytes_S * (bytes_S - 1) / 2
            self.mean_context_bytes = float(left.sum() / bytes_S.sum())
            self.largest_position["slots"] = int(plan.length.max()) - 2  # the last slot predicts nothing
            if plan.patch_capacity is not None:
                self.largest_position["patches"] = int(plan.patches.max()) - 1

    @property
    def batches(self) -> int:
        return -(-len(self._plan) // self._rows)

    def __iter__(self):
        rows, plan, slot_T = self._rows, self._plan, np.arange(self._plan.capacity)[None, :]
        for start in range(0, len(plan), rows):
            numbers = np.arange(start, start + rows)
            these = np.minimum(numbers, len(plan.length) - 1)[:, None]
            score = (
                (slot_T >= self._scored[these])
                & (slot_T < plan.length[these] - 1)
                & (numbers[:, None] < len(plan.length))
            )
            doc_index = np.where(score, self._document[these], -1).astype(np.int32)
            yield filling.fill(self._packed, plan, numbers), score, doc_index


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a window holds at most: bytes (EOS, which is counted as one, apart), slots and patches, with
    BOS."""

    bytes: int
    slots: int
    patches: int | None


def byte_windows(
    documents: list[bytes], lengths, context: int, rows: int, longest: dict | None = None
) -> Windows:
    """Windows of rows of `context` slots.

    lengths: per document its patch lengths over [BOS, bytes, EOS]; None for kind `byte`. longest: {"slots",
    "patches"} of the longest segment that the model trained on (data.batches.Rows.longest), which no window
    exceeds; None: no such limit."""
    packed = packing.byte_documents(documents, lengths)
    begins = [np.arange(len(document) + 1) for document in documents]
    longest = longest or {"slots": context, "patches": None}
    limit = Limit(
        context - 2, min(context, longest["slots"]), None if lengths is None else longest["patches"]
    )
    return _windows(packed, begins, limit, rows, context)


def token_windows(
    documents: list[bytes],
    token_ids,
    byte_counts,
    context: int,
    rows: int,
    bos: int,
    eos: int,
    longest: dict | None = None,
) -> Windows:
    """The same windows for tokens: token_ids, one int32 array a document (no BOS, no EOS); byte_counts int32
    [V].

    longest: as in `byte_windows`; its slots are tokens, and what a row has. EOS are the scored targets whose
    target_bytes is 0."""
    packed = packing.token_documents(token_ids, byte_counts, bos, eos)
    begins = [
        np.concatenate([[0], np.cumsum(np.asarray(byte_counts)[ids])]).astype(np.int64) for ids in token_ids
    ]
    for document, begin in zip(documents, begins, strict=True):
        if begin[-1] != len(document):
            raise ValueError(f"tokens of a document stand for {begin[-1]} bytes; it has {len(document)}")
    slots = longest["slots"] if longest else None
    return _windows(packed, begins, Limit(context - 2, slots or context, None), rows, slots)


def _windows(packed, begins, limit: Limit, rows: int, slots: int | None) -> Windows:
    """slots: of a row; None: as many as the fullest window needs."""
    if limit.bytes < 4 or limit.slots < 4 or limit.patches is not None and limit.patches < 4:
        raise UserError(
            f"evaluation windows need at least 6 bytes, 4 slots and 4 patches, not {limit.bytes + 2},"
            f" {limit.slots} and {limit.patches}"
        )
    found = [
        (i, *window)
        for i, begin in enumerate(begins)
        if begin[-1]
        for window in Document(packed, i, begin, limit).windows()
    ]
    document, context, first, stop = np.array(found, np.int64).reshape(-1, 4).T
    source = packed.ends[document] + context
    length = stop - context + 1
    spans = [[begins[i][a], begins[i][b], begins[i][min(c, len(begins[i]) - 1)]] for i, a, b, c in found]
    patches_S, patch_capacity = np.zeros(len(found), np.int64), None
    if packed.starts is not None:
        before = np.concatenate([[0], np.cumsum(packed.starts)])
        # BOS, that of the first unit, the others
        patches_S = 2 + before[source + length] - before[source + 2]
        patch_capacity = limit.patches or _round_up(int(patches_S.max(initial=1)))
    plan = packing.Plan(
        np.minimum(np.arange(rows * -(-len(found) // rows) + 1), len(found)),
        source,
        length,
        np.zeros_like(length),
        patches_S,
        slots or _round_up(int(length.max(initial=1))),
        patch_capacity,
    )
    return Windows(packed, plan, first - context, document, np.array(spans, np.int64).reshape(-1, 3), rows)


class Document:
    """One document, cut into windows. Units are its bytes or tokens, and EOS, which counts as the byte after
    the last."""

    def __init__(self, packed: packing.Documents, i: int, begins: np.ndarray, limit: Limit):
        """begins: where each token or byte of document i begins, and its size, int64 [units + 1]."""
        self._begins, self._limit, self._count = begins, limit, len(begins)  # units, EOS among them
        self._starts = None
        if packed.starts is not None:
            first = int(packed.ends[i]) + 1
            self._starts = np.flatnonzero(packed.starts[first : first + self._count])

    def windows(self):
        """Yields (first unit of context, first scored unit, unit after the last): each begins to score where
        the one before has stopped."""
        at = 0
        while at < self._count:
            context, stop = self._next(at)
            yield context, at, stop
            at = stop

    def _next(self, at: int) -> tuple[int, int]:
        """(first unit of context, end) of the window that scores from unit `at` on."""
        if at == 0:
            return 0, max(1, self._furthest(0))
        size, begin = self._limit.bytes, int(self._begins[at])
        for share in SCORED:
            scored = max(1, size * share // 32)
            context = self._opening(max(0, begin - (size * MEAN // 32 - scored // 2)), at)
            stop = self._unit_at(begin + scored)
            if at < stop <= self._furthest(context):
                return context, stop
        stop = max(at + 1, min(stop, self._furthest(at)))
        context = bisect.bisect_left(range(at), stop, context, at, key=self._furthest)
        if self._starts is not None and (j := int(np.searchsorted(self._starts, context))) < len(
            self._starts
        ):
            context = int(self._starts[j]) if self._starts[j] <= at else context
        return context, stop

    def _unit_at(self, byte: int) -> int:
        """The first unit that begins at this byte or later; at the document's end, what follows EOS."""
        return self._count if byte >= self._begins[-1] else int(np.searchsorted(self._begins, byte))

    def _opening(self, byte: int, at: int) -> int:
        """The unit at which a context opens that is to begin at this byte: the nearest that starts a patch or
        token; where one long patch reaches from before it to `at`, it is cut there."""
        unit = self._unit_at(byte)
        units = np.arange(max(0, unit - 1), unit + 1)
        if self._starts is not None:
            j = int(np.searchsorted(self._starts, unit))
            units = self._starts[max(0, j - 1) : j + 1]
        units = [
            u for u in units.tolist() if u <= at and self._begins[u] >= byte - NEAR * self._limit.bytes / 32
        ]
        return min(units, key=lambda u: abs(int(self._begins[u]) - byte), default=min(unit, at))

    def _furthest(self, context: int) -> int:
        """The end of the longest window that begins with this unit."""
        limit = self._limit
        byte = int(self._begins[context]) + limit.bytes
        stop = self._count  # EOS has a slot of its own
        if byte < self._begins[-1]:  # what ends by then
            stop = int(np.searchsorted(self._begins, byte, side="right")) - 1
        stop = min(stop, context + limit.slots - 1)
        if limit.patches is not None:  # less BOS's and that of the first unit
            later = int(np.searchsorted(self._starts, context, side="right")) + limit.patches - 2
            stop = min(stop, int(self._starts[later]) if later < len(self._starts) else self._count)
        return stop


def _round_up(count: int) -> int:
    return padded_lengths.bucket(count, MULTIPLE)
