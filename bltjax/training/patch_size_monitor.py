"""A watch on patch sizes: text that changes on the way (another source, another language) changes what a
threshold gives, and so the FLOPs."""

import numpy as np

WINDOW = 5_000_000  # positions over which a mean is taken: over fewer it wanders by itself
TOLERANCE, BACK = 0.02, 0.01  # of the target: beyond the one it is away, within the other it is back


class Monitor:
    """target: bytes per patch. slots, patches: positions and patches of every step, int [steps]."""

    def __init__(self, target: float, slots, patches):
        self._target, self._slots, self._patches = target, np.cumsum(slots), np.cumsum(patches)
        self._away = False

    def said(self, step: int) -> str | None:
        """A line when the mean of the last WINDOW positions leaves the target's 2%, and one when it is back;
        steps from 1 on, in order."""
        first = int(np.searchsorted(self._slots, self._slots[step - 1] - WINDOW, side="right")) - 1
        if first < 0:
            return None
        size = (self._slots[step - 1] - self._slots[first]) / max(
            1, self._patches[step - 1] - self._patches[first]
        )
        away = abs(size / self._target - 1) > (BACK if self._away else TOLERANCE)
        if away == self._away:
            return None
        self._away = away
        return (
            f"step {step}: patches are of {size:.3f} bytes over the last {WINDOW:,},"
            f" {size / self._target - 1:+.1%} {'off' if away else 'of'} the target of {self._target:g}"
        )
