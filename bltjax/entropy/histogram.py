"""Patch size against threshold for any amount of text, in one pass: entropies beside prepared data are whole
numbers, so that counting them is exact.

A histogram holds how often each score (what a scheme compares with its threshold, patching.scores) occurs,
and how many patches no threshold prevents. Histograms of parts add up to that of the whole. Limits on a
patch's length cannot be seen in it."""

import dataclasses

import numpy as np

from bltjax import patching
from bltjax.entropy.calibrate import check, wanted
from bltjax.errors import UserError

STEPS = 1 << 16  # scores run from -STEPS to STEPS, in units of patching.RESOLUTION
# positions that are scored at once, at least BEFORE: what is in memory does not grow with documents
PIECE = 1 << 18
BEFORE = 4  # positions before a piece that its first scores depend on, or less


@dataclasses.dataclass
class Histogram:
    """scheme: entropy, monotonic or both (whose delta is given, nats). Counts are of whole documents [BOS,
    bytes, EOS]."""

    scheme: str
    delta: float | None = None
    positions: int = 0
    opened: int = 0  # patches at any threshold
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2 * STEPS + 1, np.int64))

    def add(self, entropies) -> "Histogram":
        """Counts documents in: for each its entropies, nats float32 [len + 2], multiples of
        patching.RESOLUTION."""
        for scores, forced, _, _ in _scored(self.scheme, self.delta, entropies):
            units = np.round(scores[np.isfinite(scores)] / np.float32(patching.RESOLUTION)).astype(np.int64)
            self.counts += np.bincount(units + STEPS, minlength=len(self.counts))
            self.opened += int(forced.sum())
        self.positions += sum(map(len, entropies))
        return self

    def scaled(self, factor: float) -> "Histogram":
        """As if there were so many times as much of this text."""
        return Histogram(
            self.scheme, self.delta, self.positions * factor, self.opened * factor, self.counts * factor
        )

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(
            self.scheme,
            self.delta,
            self.positions + other.positions,
            self.opened + other.opened,
            self.counts + other.counts,
        )

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """(thresholds in nats, halfway between two neighbouring values of a score; mean patch size at each),
        ascending."""
        above = np.cumsum(self.counts[::-1])[::-1]
        thresholds = (np.arange(-STEPS, STEPS) + 0.5) * patching.RESOLUTION
        return thresholds, self.positions / np.maximum(1, self.opened + above[1:])

    def mean_size(self, threshold: float) -> float:
        """Mean patch size at a threshold (for monotonic, a delta), nats."""
        above = int(np.floor(threshold / patching.RESOLUTION)) + 1 + STEPS  # the first score that is greater
        return self.positions / max(1, self.opened + self.counts[max(0, above) :].sum())

    def threshold(self, size: float) -> float:
        """The threshold (for monotonic, the delta) in nats that gives the mean patch size nearest to `size`.

        UserError where there is no text, and where the nearest is off by more than 2%.
        """
        size = wanted(size)
        if not self.positions:
            raise UserError("there are no entropies to calibrate on")
        thresholds, sizes = self.sizes()
        best = int(np.argmin(np.abs(sizes - size)))
        check(sizes[best], size, sizes[0], sizes[-1])
        # all the thresholds between two scores that occur: the middle is the safest
        same = np.flatnonzero(sizes == sizes[best])
        return float(thresholds[same[len(same) // 2]])


def _scored(scheme: str, delta: float | None, entropies):
    """Yields (scores float32 [n], -inf where no threshold is asked; bool [n], where a patch is forced; of
    each piece [m] its document, and where it begins) of pieces of documents in a row, about PIECE positions
    at a time, however long a document is."""
    forced_at = {"entropy": 2, "monotonic": 3, "both": 3}[scheme]  # positions at a document's beginning
    pieces, size = [], 0
    for number, values in enumerate(entropies):
        for begin in range(0, len(values), PIECE):
            pieces.append((number, begin, values[max(0, begin - BEFORE) : begin + PIECE]))
            size += len(pieces[-1][2])
            if size >= PIECE:
                yield _joined(scheme, delta, forced_at, pieces)
                pieces, size = [], 0
    if pieces:
        yield _joined(scheme, delta, forced_at, pieces)


def _joined(scheme, delta, forced_at, pieces):
    numbers, begins, values = zip(*pieces)
    lengths, begins = np.array([len(one) for one in values]), np.array(begins)
    firsts = np.cumsum(lengths) - lengths
    # One long document is scored; what stands where a piece begins would see the one before it, and is left
    # out or forced anyway.
    scores = patching.scores(scheme, np.concatenate(values), delta=delta, xp=np)[:-1]
    forced = np.zeros(len(scores), bool)
    for position in range(BEFORE):
        whole = (begins == 0) & (lengths > position)
        if position < forced_at:
            forced[firsts[whole] + position] = True
        if position < (BEFORE if scheme == "both" else forced_at):
            scores[firsts[whole] + position] = -np.inf
        scores[firsts[begins > 0] + position] = -np.inf
    return scores, forced, np.array(numbers), firsts


def patches(scheme: str, entropies, threshold: float, delta: float | None = None) -> np.ndarray:
    """int64 [D]: patches of each document (its entropies as in Histogram.add) at a threshold (for monotonic,
    a delta)."""
    found = np.zeros(len(entropies), np.int64)
    for scores, forced, numbers, firsts in _scored(scheme, delta, entropies):
        np.add.at(found, numbers, np.add.reduceat((forced | (scores > threshold)).astype(np.int64), firsts))
    return found


def standard_error(lengths, counts) -> float | None:
    """Standard error, relative to it, of a mean patch size sum(lengths) / sum(counts) over D documents drawn
    at random (None below two).

    lengths, counts: [D], positions and patches of each. Documents are what is drawn, not bytes, since patches
    within one are alike: it is the linearized error of a ratio of sums (Cochran, Sampling Techniques, section
    2.11), too small where a few documents hold most bytes."""
    lengths, counts = np.asarray(lengths, np.float64), np.asarray(counts, np.float64)
    if len(lengths) < 2:
        return None
    residuals = counts - counts.sum() / lengths.sum() * lengths
    return float(np.sqrt(len(lengths) / (len(lengths) - 1) * (residuals**2).sum()) / counts.sum())


def sample(lengths, limit: int) -> np.ndarray:
    """Numbers of documents at even distances, about `limit` bytes in all; jobs and shards, whose documents
    follow one another, all come in."""
    return np.unique(np.arange(0, len(lengths), max(1, int(lengths.sum()) / limit)).astype(np.int64))


def of_documents(entropies, numbers, groups, scheme: str, delta: float | None = None) -> dict[int, Histogram]:
    """{group: histogram} of the documents with these numbers. entropies[i]: as stored.Entropies; groups int
    [D]."""
    found, waiting, held = {}, {}, {}

    def take(group):
        found.setdefault(group, Histogram(scheme, delta)).add(waiting.pop(group))
        held.pop(group)

    for number in numbers:
        group = int(groups[number])
        waiting.setdefault(group, []).append(entropies[number])
        held[group] = held.get(group, 0) + len(waiting[group][-1])
        if held[group] >= PIECE:
            take(group)
    for group in list(waiting):
        take(group)
    return found
