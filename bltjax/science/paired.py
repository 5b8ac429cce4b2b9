"""Two models on the same items: by how much their means differ, with an interval over items, and where one
alone is right.

Items were sampled, and both models met each: what makes an item hard for both cancels in its difference.
Versions of one item (with 15 noises, say) are no 15 items: they are averaged first."""

import math

import numpy as np
from scipy import stats

from bltjax.science import bootstrap


def difference(strata, level: float = bootstrap.LEVEL) -> dict:
    """{"difference", "low", "high"} of a sum of means: strata, [(weight, differences float [N] of items)],
    which are independent of each other. By t; low and high are None where a stratum has one item."""
    strata = [(weight, np.asarray(values, np.float64)) for weight, values in strata]
    estimate = sum(weight * float(values.mean()) for weight, values in strata)
    if any(len(values) < 2 for _, values in strata):
        return {"difference": estimate, "low": None, "high": None}
    variances = [(w**2 * float(v.var(ddof=1)) / len(v), len(v) - 1) for w, v in strata]
    low, high = bootstrap.t_interval(estimate, variances, level)
    return {"difference": estimate, "low": low, "high": high}


def right_or_wrong(a, b, level: float = bootstrap.LEVEL) -> dict:
    """{"difference", "low", "high", "only_a", "only_b", "p"} of answers that are right (1) or wrong (0), [N]
    each: items that a (b) alone has right, and McNemar's exact two-sided p.

    The interval is of Agresti and Min (2005), half an item added to each of the four cells, with t for the
    normal's quantile: it covers with few items, too, and where no answers differ it is not empty."""
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    only_a, only_b, n = int((a > b).sum()), int((b > a).sum()), len(a) + 2
    centre = (only_a - only_b) / n
    variance = ((only_a + only_b + 1) / n - centre**2) / n
    half = float(stats.t.ppf((1 + level) / 2, max(1, len(a) - 1))) * math.sqrt(variance)
    differ = only_a + only_b
    return {
        "difference": (only_a - only_b) / len(a),
        "low": max(-1.0, centre - half),
        "high": min(1.0, centre + half),
        "only_a": only_a,
        "only_b": only_b,
        "p": float(stats.binomtest(only_a, differ).pvalue) if differ else 1.0,
    }


def of_items(a, b, level: float = bootstrap.LEVEL) -> dict:
    """One of the two above: of a metric's values [N] under two models, items in the same order."""
    if {*a, *b} <= {0, 1}:
        return right_or_wrong(a, b, level)
    return difference([(1.0, np.subtract(a, b))], level)


def of_documents(nats_a, nats_b, sizes, level: float = bootstrap.LEVEL) -> dict:
    """{"a", "b": bits per byte, "difference", "low", "high"} of documents, nats and bytes [N]: sums over
    sums, documents resampled. low and high are None where one document has most of the bytes."""
    nats_2xN = np.array([nats_a, nats_b], np.float64)
    values, weight = bootstrap.bpb(nats_2xN, sizes), bootstrap.worth(sizes)
    found = {"a": float(values[0]), "b": float(values[1]), "difference": float(values[0] - values[1])}
    if weight < bootstrap.FEWEST:
        return {**found, "low": None, "high": None}
    samples = bootstrap.resample(nats_2xN, sizes)
    scores = [bootstrap.score([values[i]], [samples[:, i]], len(sizes), weight) for i in range(2)]
    low, high = bootstrap.difference_interval(*scores, level)
    return {**found, "low": low, "high": high}
