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
        joined = np.concatenate(entropies)
        lengths = np.array([len(e) for e in entropies])
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        # One long document is scored; what stands within `forced` positions of a document's first is then left out.
        scores = patching.scores(self.scheme, joined, delta=self.delta, xp=np)[:-1]
        position = np.arange(len(joined)) - first
        forced = position < {"entropy": 2, "monotonic": 3, "both": 3}[self.scheme]
        free = ~forced & np.isfinite(scores) & (position >= (4 if self.scheme == "both" else 0))
        units = np.round(scores[free] / np.float32(patching.RESOLUTION)).astype(np.int64)
        self.counts += np.bincount(units + STEPS, minlength=len(self.counts))
        self.positions += len(joined)
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
