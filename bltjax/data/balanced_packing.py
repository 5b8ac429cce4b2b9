"""Rows that are full of bytes and of patches at once: documents with many patches a byte go with documents
that have few.

A row has room for T bytes and P patches. Filled in order, it ends when either runs out, and since documents
differ by a fifth in patches per byte, some of the other is left. Here documents wait in two queues, those
with more patches a byte than a row has room for and those with fewer, each in the order in which they came.
A row takes whole documents while it has much room, from the queue of which it has too little; what closes
it is a piece of one document, or of one from each queue, cut where both resources run out together. Where
no next patch fits and more than a hundredth of a row would be left, one is cut, a long one where there is
one: text that an entropy model foresees has patches of thousands of bytes. Nothing is dropped, and as many
documents wait as fill so many rows: none goes far from its place."""

import bisect
import dataclasses

import numpy as np

AHEAD = 8  # documents of a queue that are tried as a row's last
ROOMY = 0.25  # of a row: while more than this is left, whole documents go in as they come
LEAST = 0.7  # of a row's patches a slot: no whole document leaves fewer, since slots would stay empty
# What an end of a row costs, in slots that stay empty, as a share of a row:
IDLE_PATCHES = 0.05  # a share of patches that stays empty, against the same share of slots
SPLIT = 0.004  # a document that is cut, for its context and the BOS of what is left
WASTE = 0.01  # of a row's slots: where nothing fits, a patch is cut to fill more than these
LONG = 1 / 8  # of a row's slots: patches above this are cut before others
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

    def __post_init__(self):
        self.marks = self.cuts.tolist()  # the same: single ones of a list are found ten times as fast

    def patches(self) -> int:
        return len(self.marks) - 1 - self.at

    def size(self) -> int:
        return self.marks[-1] - self.marks[self.at]

    def fitting(self, slots: int, patches: int) -> int:
        """How many of the next patches, at most so many, fit into so many slots."""
        end = min(len(self.marks), self.at + patches + 1)
        return bisect.bisect_right(self.marks, self.marks[self.at] + slots, self.at, end) - 1 - self.at

    def is_dense(self, capacity: int, patch_capacity: int) -> bool:
        """Whether its next row's worth of slots has more patches than a row has room for."""
        count = max(1, self.fitting(capacity, self.patches()))
        return count * capacity > patch_capacity * (self.marks[self.at + count] - self.marks[self.at])

    def leaves_eos(self, count: int) -> bool:
        """Whether after so many patches a last one is left that is EOS and no more."""
        return 0 < count == self.patches() - 1 and self.marks[-1] - self.marks[-2] == 1


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
            begin, end = piece.marks[piece.at], piece.marks[piece.at + count]
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


def rows(ends, starts, order, rooms, patch_capacity: int, buffer: int):
    """Yields rows, each a list of segments (source, length with BOS, patches with BOS's), over the documents
    in `order`, none of them empty; about `buffer` rows' documents wait. rooms: yields each row's slots.

    ends int64 [D + 1], starts bool [U]: as in packing.Documents."""
    cuts = np.flatnonzero(starts)
    pieces = (_piece(cuts, int(ends[d]) + 1, int(ends[d + 1]), i) for i, d in enumerate(order))
    capacity = next(rooms)
    waiting = Waiting(pieces, capacity, patch_capacity, buffer * capacity)
    number = 0
    while waiting.refill(number):
        row = Row(capacity, patch_capacity, [])
        if (side := waiting.overdue(number - buffer)) is not None and (found := _end(row, waiting, side)):
            row.add(waiting.take(found))
        while row.slots >= 3 and row.patches >= 2 and (found := _whole(row, waiting) or _end(row, waiting)):
            row.add(waiting.take(found))
        wasted = row.slots > max(3, WASTE * row.capacity) and row.patches >= 2
        if not row.segments or wasted and waiting.refill(number):
            row.add(_cut_patch(row, waiting))
        yield row.segments
        number, capacity = number + 1, next(rooms)


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
    count = piece.fitting(row.slots - 1, row.patches - 1)
    count -= piece.leaves_eos(count)
    if not count:
        return NEVER, 0
    slots = (row.slots - 1 - (piece.marks[piece.at + count] - piece.marks[piece.at])) / row.capacity
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
    # What is left of the row's slots, for every number of patches of one from low to high.
    idle = row.slots - 2 + one.marks[one.at] + other.marks[other.at]
    idle = idle - one.cuts[one.at + low : one.at + high + 1]
    idle -= other.cuts[other.at + both - high : other.at + both - low + 1][::-1]
    ends = {}  # where one of the two goes in whole, which spares a cut
    for count, piece in ((one.patches(), one), (both - other.patches(), other)):
        if low <= count <= high and idle[count - low] >= 0:
            ends[count] = ends.get(count, 0) + 1
        without_eos = count - 1 if piece is one else count + 1
        if low <= without_eos <= high and piece.leaves_eos(piece.patches() - 1):
            idle[without_eos - low] = -1
            ends.pop(without_eos, None)
    best = low + int(idle.view(np.uint64).argmin())  # as which those below 0 are the largest
    if idle[best - low] < 0:
        return NEVER, (0, 0)
    cost, best = min(
        (int(idle[count - low]) / row.capacity + SPLIT * (2 - ends.get(count, 0)), count)
        for count in (best, *ends)
    )
    return cost, (best, both - best)


def _cut_patch(row: Row, waiting: Waiting) -> list[tuple[int, int, int]]:
    """A segment of a document's next patch, which is cut at the row's end: of the oldest document whose next
    patch is long, of those that are tried as a row's last, or of the oldest of all."""
    next_patch = lambda piece: piece.marks[piece.at + 1] - piece.marks[piece.at]
    _, _, side, number = min(
        (next_patch(piece) <= LONG * row.capacity, piece.number, side, number)
        for side, queue in enumerate(waiting.queues)
        for number, piece in enumerate(queue[:AHEAD])
    )
    piece = waiting.queues[side][number]
    cut = piece.marks[piece.at] + row.slots - 1
    cut -= cut == piece.marks[-1] - 1
    piece.cuts = np.insert(piece.cuts, piece.at + 1, cut)
    piece.marks.insert(piece.at + 1, cut)
    return waiting.take(_of_one(side, number, 1))
