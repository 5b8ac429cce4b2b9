"""Rows that are full of bytes and of patches at once: documents with many patches a byte go with documents
that have few.

A row has room for T bytes and P patches. Filled in order, it ends when either runs out, and since documents
differ by a fifth in patches per byte, some of the other is left. Here documents wait in two queues, those
with more patches a byte than a row has room for and those with fewer, each in the order in which they came. A
row takes whole documents while it has much room, from the queue of which it has too little; what closes it is
a piece of one document, or of one from each queue, cut where both resources run out together. Nothing is
dropped, and as many documents wait as fill so many rows: none goes far from its place."""

import bisect
import dataclasses

import numpy as np

AHEAD = 8  # documents of a queue that are tried as a row's last
ROOMY = 0.25  # of a row: while more than this is left, whole documents go in as they come
LEAST = 0.7  # of a row's patches a slot: no whole document leaves fewer, since slots would stay empty
# What an end of a row costs, in slots that stay empty, as a share of a row:
IDLE_PATCHES = 0.05  # a share of patches that stays empty, against the same share of slots
SPLIT = 0.004  # a document that is cut, for its context and the BOS of what is left
GOOD = 0.0005  # an end that costs no more, but for its cuts, is taken without a look at others
NEVER = 9.0


@dataclasses.dataclass
class Piece:
    """What is left of a document: cuts[at] to cuts[-1] (patch starts and the end, indices of units). number:
    of the document in the order in which they came."""

    cuts: np.ndarray
    number: int
    at: int = 0
    since: int = 0  # the row before which it came to wait

    def patches(self) -> int:
        return len(self.cuts) - 1 - self.at

    def size(self) -> int:
        return int(self.cuts[-1] - self.cuts[self.at])

    def is_dense(self, capacity: int, patch_capacity: int) -> bool:
        """Whether its next row's worth of slots has more patches than a row has room for."""
        count = int(np.searchsorted(self.cuts, self.cuts[self.at] + capacity, side="right")) - 1 - self.at
        count = max(1, count)
        return count * capacity > patch_capacity * int(self.cuts[self.at + count] - self.cuts[self.at])

    def leaves_eos(self, count: int) -> bool:
        """Whether after so many patches a last one is left that is EOS and no more."""
        return 0 < count == self.patches() - 1 and self.cuts[-1] - self.cuts[-2] == 1


class Waiting:
    """The documents that wait: queues[0] of those with more patches a byte than rows have room for, queues[1]
    of the others."""

    def __init__(self, pieces, capacity: int, patch_capacity: int, slots: int):
        """pieces: yields the documents in order; slots: how many of them wait."""
        self._coming, self._wanted, self._size = iter(pieces), slots, 0
        self._shape = capacity, patch_capacity
        self.queues = [], []

    def refill(self, row: int) -> bool:
        """Lets in documents until enough wait, before row number `row`; whether any is there."""
        while self._size < self._wanted and (piece := next(self._coming, None)) is not None:
            piece.since = row
            self._put(piece)
            self._size += piece.size()
        return bool(self.queues[0] or self.queues[1])

    def overdue(self, before: int) -> int | None:
        """The queue whose next document is the oldest of all and came before row number `before`; None:
        neither."""
        heads = [(queue[0].number, queue[0].since, side) for side, queue in enumerate(self.queues) if queue]
        _, since, side = min(heads)
        return side if since < before else None

    def take(self, choice) -> list[tuple[int, int, int]]:
        """The segments (source, length, patches) of a choice: ((number, patches), (number, patches)), the
        next so many patches of the document of that number in each queue, 0 of none. What is left of a
        document goes back to its place."""
        segments, left = [], []
        for queue, (number, count) in zip(self.queues, choice):
            if not count:
                continue
            piece = queue[number]
            del queue[number]
            begin, end = int(piece.cuts[piece.at]), int(piece.cuts[piece.at + count])
            segments.append((begin - 1, end - begin + 1, count + 1))
            self._size -= end - begin
            piece.at += count
            if piece.patches():
                left.append(piece)
        for piece in left:
            self._put(piece)
        return segments

    def _put(self, piece: Piece) -> None:
        queue = self.queues[0 if piece.is_dense(*self._shape) else 1]
        bisect.insort(queue, piece, key=lambda piece: piece.number)


@dataclasses.dataclass
class Row:
    """A row that is being filled: what it holds, and what it has left."""

    capacity: int
    patch_capacity: int
    segments: list

    def __post_init__(self):
        self.slots, self.patches = self.capacity, self.patch_capacity

    def add(self, segments: list[tuple[int, int, int]]) -> None:
        self.segments += segments
        self.slots -= sum(length for _, length, _ in segments)
        self.patches -= sum(patches for _, _, patches in segments)


def rows(ends, starts, order, capacity: int, patch_capacity: int, buffer: int):
    """Yields rows, each a list of segments (source, length with BOS, patches with BOS's), over the documents
    in `order`, none of them empty; about `buffer` rows' documents wait.

    ends int64 [D + 1], starts bool [U]: as in packing.Documents."""
    cuts = np.flatnonzero(starts)
    pieces = (_piece(cuts, int(ends[d]) + 1, int(ends[d + 1]), i) for i, d in enumerate(order))
    waiting = Waiting(pieces, capacity, patch_capacity, buffer * capacity)
    number = 0
    while waiting.refill(number):
        row = Row(capacity, patch_capacity, [])
        if (side := waiting.overdue(number - buffer)) is not None and (found := _end(row, waiting, side)):
            row.add(waiting.take(found))
        while row.slots >= 3 and row.patches >= 2 and (found := _whole(row, waiting) or _end(row, waiting)):
            row.add(waiting.take(found))
        if not row.segments:
            row.add(_cut_patch(row, waiting))
        yield row.segments
        number += 1


def _piece(cuts, begin: int, end: int, number: int) -> Piece:
    low, high = np.searchsorted(cuts, [begin, end])
    inner = cuts[low:high]
    first = [] if len(inner) and inner[0] == begin else [begin]
    return Piece(np.concatenate([first, inner, [end]]).astype(np.int64), number)


# What a row takes next is a choice, as Waiting.take has it.


def _whole(row: Row, waiting: Waiting):
    """The next document of the queue of which the row has had too little, where it fits whole and leaves much
    room; or None."""
    dense, sparse = waiting.queues
    wants_dense = row.patches * row.capacity >= row.patch_capacity * row.slots
    side = 0 if dense and (wants_dense or not sparse) else 1
    if not waiting.queues[side]:
        return None
    piece = waiting.queues[side][0]
    slots, patches = row.slots - piece.size() - 1, row.patches - piece.patches() - 1  # what it would leave
    enough = patches * row.capacity >= LEAST * row.patch_capacity * slots
    if slots <= ROOMY * row.capacity or not enough:
        return None
    return _of_one(side, 0, piece.patches())


def _end(row: Row, waiting: Waiting, side: int | None = None):
    """The cheapest end of a row, of those that a few next documents give; None where nothing fits. side: only
    of those with the next document of that queue."""
    best = NEVER, 0, None
    for cost, order, choice, cuts in _ends(row, waiting):
        if choice is not None and (side is None or choice[side][0] == 0 < choice[side][1]):
            best = min(best, (cost, order, choice))
            if cost < GOOD + cuts * SPLIT:
                break
    return best[2]


def _ends(row: Row, waiting: Waiting):
    """Yields (cost, a number that decides between equal costs, choice or None, cuts that it may have)."""
    dense, sparse = waiting.queues
    for side, queue in enumerate(waiting.queues):
        for number in range(min(len(queue), AHEAD)):
            cost, count = _alone(queue[number], row)
            yield cost, number, _of_one(side, number, count) if count else None, 1
    for first, second in [(0, 0), *((i, 0) for i in range(1, AHEAD)), *((0, i) for i in range(1, AHEAD))]:
        if first < len(dense) and second < len(sparse):
            cost, counts = _crossing(dense[first], sparse[second], row)
            if cost < NEVER:
                yield cost, first + second, ((first, counts[0]), (second, counts[1])), 2


def _of_one(side: int, number: int, count: int):
    taken = (number, count), (0, 0)
    return taken if side == 0 else taken[::-1]


def _alone(piece: Piece, row: Row) -> tuple[float, int]:
    """(cost, patches) of the longest beginning of a document that fits."""
    cuts = piece.cuts[piece.at : piece.at + row.patches]
    count = int(np.searchsorted(cuts, cuts[0] + row.slots - 1, side="right")) - 1
    count -= piece.leaves_eos(count)
    if not count:
        return NEVER, 0
    slots = (row.slots - 1 - int(cuts[count] - cuts[0])) / row.capacity
    patches = (row.patches - 1 - count) / row.patch_capacity
    # What is left of both may be filled yet; what is left of one more than of the other stays empty.
    idle = max(slots - patches, IDLE_PATCHES * (patches - slots))
    return idle + SPLIT * (count < piece.patches()), count


def _crossing(one: Piece, other: Piece, row: Row) -> tuple[float, tuple[int, int]]:
    """(cost, (patches of one, patches of the other)) of the best pair of beginnings that leaves no patch
    over.

    One has many patches a byte and the other few, so that their bytes together fall as one's share of the
    patches rises, and cross what the row has left: almost always there is a pair that fills both."""
    both = row.patches - 2  # less a BOS each
    low, high = max(1, both - other.patches()), min(one.patches(), both - 1)
    if low > high:
        return NEVER, (0, 0)
    share = np.arange(low, high + 1)  # patches of one
    used = (
        one.cuts[one.at + share]
        - one.cuts[one.at]
        + other.cuts[other.at + both - share]
        - other.cuts[other.at]
    )
    idle = row.slots - 2 - used
    whole = (share == one.patches()).astype(int) + (both - share == other.patches())
    cost = idle / row.capacity + SPLIT * (2 - whole)
    cost[idle < 0] = NEVER
    for piece, count in ((one, share), (other, both - share)):
        if piece.leaves_eos(piece.patches() - 1):
            cost[count == piece.patches() - 1] = NEVER
    best = int(np.argmin(cost))
    return float(cost[best]), (low + best, both - low - best)


def _cut_patch(row: Row, waiting: Waiting) -> list[tuple[int, int, int]]:
    """A segment of a patch longer than a row, which fits nowhere: it is cut at the row's end all the same."""
    side = 0 if waiting.queues[0] else 1
    piece = waiting.queues[side][0]
    begin = int(piece.cuts[piece.at])
    cut = begin + row.capacity - 1
    cut -= cut == piece.cuts[-1] - 1
    piece.cuts = np.insert(piece.cuts, piece.at + 1, cut)
    return waiting.take(_of_one(side, 0, 1))
