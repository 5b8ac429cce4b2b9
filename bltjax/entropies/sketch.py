"""Patch size against threshold for any amount of text, in one pass: entropies at rest are whole numbers, so that counting them is exact.

A sketch holds how often each score (what a scheme compares with its threshold, patching.scores) occurs, and how many patches no
threshold prevents. Sketches of parts add up to that of the whole. Limits on a patch's length cannot be seen in it.
"""

import dataclasses

import numpy as np

from bltjax import patching
from bltjax.entropies.calibrate import check, wanted
from bltjax.errors import UserError

STEPS = 1 << 16  # scores run from -STEPS to STEPS, in units of patching.RESOLUTION


@dataclasses.dataclass
class Sketch:
    """scheme: entropy, monotonic or both (whose delta is given, nats). Counts are of whole documents [BOS, bytes, EOS]."""
    scheme: str
    delta: float | None = None
    positions: int = 0
    opened: int = 0  # patches at any threshold
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2 * STEPS + 1, np.int64))

    def add(self, entropies) -> "Sketch":
        """Counts documents in: for each its entropies, nats float32 [len + 2], multiples of patching.RESOLUTION."""
        if not len(entropies):
            return self
        scores, forced, _ = _joined(self.scheme, self.delta, entropies)
        units = np.round(scores[np.isfinite(scores)] / np.float32(patching.RESOLUTION)).astype(np.int64)
        self.counts += np.bincount(units + STEPS, minlength=len(self.counts))
        self.positions += len(scores)
        self.opened += int(forced.sum())
        return self

    def scaled(self, factor: float) -> "Sketch":
        """As if there were so many times as much of this text."""
        return Sketch(self.scheme, self.delta, self.positions * factor, self.opened * factor, self.counts * factor)

    def __add__(self, other: "Sketch") -> "Sketch":
        return Sketch(self.scheme, self.delta, self.positions + other.positions, self.opened + other.opened, self.counts + other.counts)

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """(thresholds in nats, halfway between two neighbouring values of a score; mean patch size at each), ascending."""
        above = np.cumsum(self.counts[::-1])[::-1]
        thresholds = (np.arange(-STEPS, STEPS) + 0.5) * patching.RESOLUTION
        return thresholds, self.positions / np.maximum(1, self.opened + above[1:])

    def mean_size(self, threshold: float) -> float:
        """Mean patch size at a threshold (for monotonic, a delta), nats."""
        above = int(np.floor(threshold / patching.RESOLUTION)) + 1 + STEPS  # the first score that is greater
        return self.positions / max(1, self.opened + self.counts[max(0, above):].sum())

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
        same = np.flatnonzero(sizes == sizes[best])  # all the thresholds between two scores that occur: the middle is the safest
        return float(thresholds[same[len(same) // 2]])


def _joined(scheme: str, delta: float | None, entropies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores float32 [N], -inf where no threshold is asked; bool [N], where a patch is forced; each document's first position) of documents in a row."""
    joined = np.concatenate(entropies)
    lengths = np.array([len(e) for e in entropies])
    firsts = np.cumsum(lengths) - lengths
    position = np.arange(len(joined)) - np.repeat(firsts, lengths)
    forced = position < {"entropy": 2, "monotonic": 3, "both": 3}[scheme]
    # One long document is scored; what stands within `forced` positions of a document's first is then left out.
    scores = patching.scores(scheme, joined, delta=delta, xp=np)[:-1]
    scores[forced | (position < (4 if scheme == "both" else 0))] = -np.inf
    return scores, forced, firsts


def patches(scheme: str, entropies, threshold: float, delta: float | None = None) -> np.ndarray:
    """int64 [D]: patches of each document (its entropies as in Sketch.add) at a threshold (for monotonic, a delta)."""
    scores, forced, firsts = _joined(scheme, delta, entropies)
    return np.add.reduceat((forced | (scores > threshold)).astype(np.int64), firsts)


def standard_error(lengths, counts) -> float | None:
    """Standard error, relative to it, of a mean patch size sum(lengths) / sum(counts) over D documents drawn at random (None below two).

    lengths, counts: [D], positions and patches of each. Documents are what is drawn, not bytes, since patches within one are alike:
    it is the linearized error of a ratio of sums (Cochran, Sampling Techniques, section 2.11), too small where a few documents hold most bytes.
    """
    lengths, counts = np.asarray(lengths, np.float64), np.asarray(counts, np.float64)
    if len(lengths) < 2:
        return None
    residuals = counts - counts.sum() / lengths.sum() * lengths
    return float(np.sqrt(len(lengths) / (len(lengths) - 1) * (residuals**2).sum()) / counts.sum())


def sample(lengths, limit: int) -> range:
    """Every so many-th document, about `limit` bytes in all; jobs and shards, whose documents follow one another, all come in."""
    return range(0, len(lengths), max(1, int(lengths.sum()) // limit))


def of_documents(entropies, numbers, groups, scheme: str, delta: float | None = None, batch: int = 256) -> dict[int, Sketch]:
    """{group: sketch} of the documents with these numbers. entropies[i]: as stored.Entropies; groups int [D]."""
    found = {}
    waiting = {}

    def take(group):
        found.setdefault(group, Sketch(scheme, delta)).add(waiting.pop(group))

    for number in numbers:
        group = int(groups[number])
        waiting.setdefault(group, []).append(entropies[number])
        if len(waiting[group]) >= batch:
            take(group)
    for group in list(waiting):
        take(group)
    return found
