"""Whether a law is good enough: where cells repeat, what the law leaves of their means is held against how
runs of one cell differ (the F test of lack of fit, Draper and Smith 1998, section 2.1)."""

import dataclasses

import numpy as np
from scipy import stats

from bltjax.science.parametric import Fit

SIGNIFICANT = 0.05


@dataclasses.dataclass(frozen=True)
class LackOfFit:
    """ratio: of the variance about the law to that within cells, of log loss; p: chance of such a ratio under
    a right law; noise: standard deviation of one run within its cell. why: there is no test."""

    ratio: float | None
    p: float | None
    noise: float | None
    freedom: tuple
    why: str = ""

    @property
    def lacks(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT


def test(fit: Fit) -> LackOfFit:
    """Of the fit's runs; those of equal variables are one cell."""
    cells, cell_N = np.unique(fit.runs.cells_N, return_inverse=True)
    log_N = np.log(fit.runs.loss_N)
    runs_K = np.bincount(cell_N)
    mean_K = np.bincount(cell_N, log_N) / runs_K
    within = len(log_N) - len(cells)
    about = len(cells) - len(fit.at_centre_Q)
    if not within:
        return LackOfFit(None, None, None, (about, 0), "no cell was run with several seeds")
    pure = float(np.square(log_N - mean_K[cell_N]).sum())
    if about < 1 or pure == 0:
        why = "as many parameters as cells" if about < 1 else "runs of one cell do not differ"
        return LackOfFit(None, None, None, (about, within), why)
    left = max(0.0, float(np.square(fit.residuals_N).sum()) - pure)
    ratio = (left / about) / (pure / within)
    return LackOfFit(ratio, float(stats.f.sf(ratio, about, within)), (pure / within) ** 0.5, (about, within))
