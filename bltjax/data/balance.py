"""Rows that are full of bytes and of patches at once: documents with many patches a byte go with documents that have few.

A row has room for T bytes and P patches. Filled in order, it ends when either runs out, and since documents differ by a fifth in patches
per byte, some of the other is left. Here documents are taken by blocks of a few hundred rows, in order; within a block those with more
patches a byte than a row has room for stand in one queue, the others in another, and what closes a row is a piece of each, cut where
both run out together. Nothing is dropped, nothing leaves its block, and the rows of a block come in a random order.
"""

import dataclasses

import numpy as np

AHEAD = 3  # documents of a queue that are tried as a row's last
GOOD = 0.004  # what a row may waste of both resources together, as a share, before another document is tried
SPLIT = 0.004  # how much of a row it is worth to leave a document whole
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


def plan(ends, starts, order, capacity: int, patch_capacity: int, together: int, rng) -> list[list[tuple[int, int, int]]]:
    """Rows of segments (source, length with BOS, patches with BOS's), over documents in `order`, in blocks of about `together` rows.

    ends int64 [D + 1], starts bool [U]: as in packing.Documents. rng: shuffles the rows of a block.
    """
    cuts, rows, first = np.flatnonzero(starts), [], 0
    sizes = (ends[1:] - ends[:-1])[order]
    total = np.cumsum(sizes)
    while first < len(order):
        last = max(first + 1, int(np.searchsorted(total, (total[first - 1] if first else 0) + together * capacity)))
        pieces = [piece for d in order[first:last] if (piece := _piece(cuts, int(ends[d]) + 1, int(ends[d + 1]))) is not None]
        block = _block(pieces, capacity, patch_capacity)
        rows += [block[i] for i in rng.permutation(len(block))]
        first = last
    return rows


def _piece(cuts, begin: int, end: int) -> Piece | None:
    if end - begin < 2:  # an empty document predicts nothing but its own emptiness
        return None
    low, high = np.searchsorted(cuts, [begin, end])
    inner = cuts[low:high]
    return Piece(np.concatenate([[] if len(inner) and inner[0] == begin else [begin], inner, [end]]).astype(np.int64))


def _block(pieces: list[Piece], capacity: int, patch_capacity: int) -> list[list[tuple[int, int, int]]]:
    ratio = patch_capacity / capacity
    dense = lambda piece: (len(piece.cuts) - 1) > ratio * (piece.cuts[-1] - piece.cuts[0])
    queues = [[piece for piece in reversed(pieces) if dense(piece) == side] for side in (True, False)]  # the next one last
    rows = []
    while queues[0] or queues[1]:
        room, patches, row = capacity, patch_capacity, []

        def take(side, number, count):
            """`count` patches of the number-th next document of a queue; what is left of it is then the next."""
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
            piece.cuts, piece.at = np.concatenate([[begin, cut], piece.cuts[piece.at + 1:]]), 0
            take(side, 0, 1)
        rows.append(row)
    return rows


def _closing(queues, room, patches, capacity, patch_capacity):
    """((number, patches), (number, patches)) of a document of each queue that fill what is left of a row best; None where nothing fits."""
    found = []
    for total in range(AHEAD):
        for pair in ((total, 0), (0, total))[:1 + (total > 0)]:
            if any(number and number >= len(queue) for number, queue in zip(pair, queues)):
                continue
            score, counts = _joint(*(queue[-1 - number] if queue else None for number, queue in zip(pair, queues)),
                                   room, patches, capacity, patch_capacity)
            found.append((score, total, tuple(zip(pair, counts))))
            if score < GOOD + SPLIT:
                break
        else:
            continue
        break
    best = min(found)[2]
    return best if any(count for _, count in best) else None


def _joint(one, other, room: int, patches: int, capacity: int, patch_capacity: int):
    """(score, (patches of one, patches of the other)): for every cut of one the longest beginning of the other that still fits is tried."""
    a, b = (np.zeros(1, np.int64) if piece is None else piece.cuts[piece.at:piece.at + patches + 1] - piece.cuts[piece.at] for piece in (one, other))
    all_a, all_b = (0 if piece is None else piece.patches() for piece in (one, other))
    # A cut that leaves EOS alone would ask the model how often documents are empty: such a one is not made.
    bad_a, bad_b = (count - 1 if count > 1 and piece.last_alone() else -1 for count, piece in ((all_a, one), (all_b, other)))
    p = np.arange(min(int(np.searchsorted(a, room - 1, side="right")), patches, len(a)))
    opens = p > 0
    used, used_patches = a[p] + opens, p + opens
    q = np.searchsorted(b, room - 1 - used, side="right") - 1
    q = np.clip(np.minimum(q, patches - 1 - used_patches), 0, len(b) - 1)
    q -= q == bad_b
    other_opens = q > 0
    used, used_patches = used + b[q] + other_opens, used_patches + q + other_opens
    splits = 1.0 * (opens & (p < all_a)) + (other_opens & (q < all_b))
    score = (room - used) / capacity + (patches - used_patches) / patch_capacity + SPLIT * splits + 9.0 * (p == bad_a)
    best = int(np.argmin(score))
    return float(score[best]), (int(p[best]), int(q[best]))
