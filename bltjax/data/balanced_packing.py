"""Rows that are full of bytes and of patches at once: documents with many patches a byte go with documents
that have few.

A row has room for T bytes and P patches. Filled in order, it ends when either runs out, and since documents
differ by a fifth in patches per byte, some of the other is left. Here documents are taken by blocks of a few
hundred rows, in order; within a block those with more patches a byte than a row has room for stand in one
queue, the others in another, and what closes a row is a piece of each, cut where both run out together. Long
documents go first, so that there are short ones for the last gaps. Nothing is dropped, nothing leaves its
block, and the rows of a block come in a random order. """

import dataclasses

import numpy as np

AHEAD = 4  # documents of a queue that are tried as a row's last
GOOD = 0.004  # what a row may waste of both resources together, as a share, before another document is tried
SPLIT = 0.004  # how much of a row it is worth to leave a document whole
NEVER = 9.0  # a score
ROOMY = 0.25  # of a row: while more than this is left, whole documents go in as they come


@dataclasses.dataclass
class Piece:
    """What is left of a document: cuts[at] to cuts[-1] (patch starts and the end, indices of units)."""

    cuts: np.ndarray
    at: int = 0

    def patches(self) -> int:
        return len(self.cuts) - 1 - self.at

    def size(self) -> int:
        return int(self.cuts[-1] - self.cuts[self.at])

    def last_alone(self) -> bool:
        """Whether the last patch is EOS and no more."""
        return bool(self.cuts[-1] - self.cuts[-2] == 1)


def plan(
    ends, starts, order, capacity: int, patch_capacity: int, together: int, rng
) -> list[list[tuple[int, int, int]]]:
    """Rows of segments (source, length with BOS, patches with BOS's), over documents in `order`, in blocks of
    about `together` rows.

    ends int64 [D + 1], starts bool [U]: as in packing.Documents. rng: shuffles the rows of a block.
    """
    cuts, rows, first = np.flatnonzero(starts), [], 0
    sizes = (ends[1:] - ends[:-1])[order]
    total = np.cumsum(sizes)
    while first < len(order):
        last = max(
            first + 1, int(np.searchsorted(total, (total[first - 1] if first else 0) + together * capacity))
        )
        pieces = [
            piece
            for d in order[first:last]
            if (piece := _piece(cuts, int(ends[d]) + 1, int(ends[d + 1]))) is not None
        ]
        block = _block(pieces, capacity, patch_capacity)
        rows += [block[i] for i in rng.permutation(len(block))]
        first = last
    return rows


def _piece(cuts, begin: int, end: int) -> Piece | None:
    if end - begin < 2:  # an empty document predicts nothing but its own emptiness
        return None
    low, high = np.searchsorted(cuts, [begin, end])
    inner = cuts[low:high]
    return Piece(
        np.concatenate([[] if len(inner) and inner[0] == begin else [begin], inner, [end]]).astype(np.int64)
    )


def _block(pieces: list[Piece], capacity: int, patch_capacity: int) -> list[list[tuple[int, int, int]]]:
    ratio = patch_capacity / capacity
    dense = lambda piece: (len(piece.cuts) - 1) > ratio * (piece.cuts[-1] - piece.cuts[0])
    longest_last = sorted(
        pieces, key=Piece.size
    )  # the next one is the last: long ones go first, short ones are left for the last gaps
    queues = [[piece for piece in longest_last if dense(piece) == side] for side in (True, False)]
    rows = []
    while queues[0] or queues[1]:
        room, patches, row = capacity, patch_capacity, []

        def take(side, number, count):
            """`count` patches of the number-th next document of a queue; what is left of it is then the
            next."""
            nonlocal room, patches
            queue = queues[side]
            piece = queue.pop(len(queue) - 1 - number)
            begin, end = int(piece.cuts[piece.at]), int(piece.cuts[piece.at + count])
            row.append((begin - 1, end - begin + 1, count + 1))
            room, patches, piece.at = room - (end - begin + 1), patches - (count + 1), piece.at + count
            if piece.at < len(piece.cuts) - 1:
                queue.append(piece)

        while room >= 3 and patches >= 2 and (queues[0] or queues[1]):
            side = 0 if patches >= ratio * room and queues[0] or not queues[1] else 1
            piece = queues[side][-1]
            if piece.patches() < patches and room - piece.size() - 1 > ROOMY * capacity:
                take(side, 0, piece.patches())
                continue
            choice = _closing(queues, room, patches, capacity, patch_capacity)
            if choice is None:
                break
            for side, (number, count) in enumerate(choice):
                if count:
                    take(side, number, count)
        if not row:  # a patch longer than a row fits nowhere: it is cut at the row's end all the same
            side = 0 if queues[0] else 1
            piece = queues[side][-1]
            begin, end = int(piece.cuts[piece.at]), int(piece.cuts[-1])
            cut = begin + capacity - 1 - (begin + capacity - 1 == end - 1)
            row.append((begin - 1, cut - begin + 1, 2))
            piece.cuts[piece.at] = cut
        rows.append(row)
    return rows


def _closing(queues, room, patches, capacity, patch_capacity):
    """((number, patches), (number, patches)) of a document of each queue that fill what is left of a row
    best; None where nothing fits."""
    pairs = [
        (0, 0),
        *((number, 0) for number in range(1, AHEAD)),
        *((0, number) for number in range(1, AHEAD)),
    ]
    found = []
    for pair in pairs if queues[0] and queues[1] else ():
        if pair[0] < len(queues[0]) and pair[1] < len(queues[1]):
            score, counts = _crossing(
                queues[0][-1 - pair[0]], queues[1][-1 - pair[1]], room, patches, capacity
            )
            found.append((score, sum(pair), tuple(zip(pair, counts))))
            if score < GOOD + 2 * SPLIT:
                return found[-1][2]
    for side, queue in enumerate(queues):
        for number in range(min(len(queue), AHEAD)):
            score, count = _alone(queue[-1 - number], room, patches, capacity, patch_capacity)
            found.append(
                (score, number, ((number, count), (0, 0)) if side == 0 else ((0, 0), (number, count)))
            )
            if score < GOOD + SPLIT:
                break
    best = min(found)[2]
    return best if any(count for _, count in best) else None


def _crossing(one, other, room: int, patches: int, capacity: int):
    """(score, (patches of one, patches of the other)) of the best pair of beginnings that leaves no patch
    over; the score is as of `_alone`.

    One has many patches a byte and the other few, so that their bytes together fall as one's share of the
    patches rises, and cross what the row has left: almost always there is a pair that fills both. """
    Q = patches - 2  # less a BOS each
    all_a, all_b = one.patches(), other.patches()
    low, high = max(1, Q - all_b), min(all_a, Q - 1)
    if low > high:
        return NEVER, (0, 0)
    a, b = (
        one.cuts[one.at + low : one.at + high + 1],
        other.cuts[other.at + Q - high : other.at + Q - low + 1][::-1],
    )
    left = room - 2 + int(one.cuts[one.at] + other.cuts[other.at]) - a - b
    score = left / capacity + 2 * SPLIT
    score[left < 0] = NEVER
    for p, more in (
        (all_a, -SPLIT),
        (Q - all_b, -SPLIT),
        (all_a - 1 if one.last_alone() else 0, NEVER),
        (Q - all_b + 1 if other.last_alone() else 0, NEVER),
    ):
        if low <= p <= high:
            score[p - low] += more
    best = int(np.argmin(score))
    return float(score[best]), (low + best, Q - low - best)


def _alone(piece, room: int, patches: int, capacity: int, patch_capacity: int):
    """(score, patches) of the longest beginning of a document that fits. The score is the share of slots and
    of patches that stays empty, and SPLIT for a document that is cut."""
    cuts = piece.cuts[piece.at : piece.at + patches]
    count = int(np.searchsorted(cuts, cuts[0] + room - 1, side="right")) - 1
    count -= count > 0 and count == piece.patches() - 1 and piece.last_alone()
    used, used_patches = (int(cuts[count] - cuts[0]) + 1, count + 1) if count else (0, 0)
    return (room - used) / capacity + (patches - used_patches) / patch_capacity + SPLIT * (
        0 < count < piece.patches()
    ), count
