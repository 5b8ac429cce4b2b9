"""A watch on patch sizes: text that changes on the way (another source, another language) changes what a
threshold gives, and so the FLOPs. Text that is mixed of many kinds from the start wanders by itself, and that
is no news."""

import numpy as np

WINDOW = 5_000_000  # positions over which a mean is taken
TOLERANCE = 0.02  # of the target: beyond it, and beyond what it wanders by itself, it is away
WANDERS = 4  # standard deviations of the mean over a window, of steps that have nothing to do with each other
BACK = 0.5  # within this share of what is away it is back


class Monitor:
    """target: bytes per patch. slots, patches: positions and patches of every step, int [steps]."""

    def __init__(self, target: float, slots, patches):
        self._target, self._slots, self._patches = target, np.cumsum(slots), np.cumsum(patches)
        self._away = False
        slots, patches = np.asarray(slots, np.float64), np.asarray(patches, np.float64)
        steps = np.diff(np.log(slots / np.maximum(patches, 1)))  # differences: a change that lasts is in one
        spread = float(np.sqrt(np.square(steps).mean() / 2)) if len(steps) else 0.0
        window = max(1.0, WINDOW / max(1.0, slots.mean()))
        self._tolerance = max(TOLERANCE, WANDERS * spread / np.sqrt(window))

    def said(self, step: int) -> str | None:
        """A line when the mean of the last WINDOW positions leaves the target by more than 2% and than it
        wanders by itself, and one when it is back; steps from 1 on, in order."""
        first = int(np.searchsorted(self._slots, self._slots[step - 1] - WINDOW, side="right")) - 1
        if first < 0:
            return None
        size = (self._slots[step - 1] - self._slots[first]) / max(
            1, self._patches[step - 1] - self._patches[first]
        )
        away = abs(size / self._target - 1) > self._tolerance * (BACK if self._away else 1)
        if away == self._away:
            return None
        self._away = away
        return (
            f"step {step}: patches are of {size:.3f} bytes over the last {WINDOW:,},"
            f" {size / self._target - 1:+.1%} {'off' if away else 'of'} the target of {self._target:g}"
        )
