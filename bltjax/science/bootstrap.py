"""Bootstrap of scores: intervals of bits per byte that cover test documents and training seeds together.

Two things were sampled: the documents that are scored, and the seeds that drew the weights. Documents, not
bytes: bytes of one document are not independent. Runs scored on the same documents are resampled together, so
that what makes a document hard for every family cancels in their difference. Seeds are few, two or three, and
a percentile bootstrap over so few is far too narrow. So their variance is estimated, and the interval takes
the t distribution with the degrees of freedom that Satterthwaite (1946) gives a sum of estimated variances.

The two are crossed: every seed is scored on every document. The spread of seeds' scores on given documents
holds the seeds' own variance and what is peculiar to a seed on a document; the bootstrap over documents of
the mean over seeds holds the latter too. It is taken out of the former, or it would be counted twice (the
same correction as in Obuchowski and Rockette 1995, for readers and cases)."""

import dataclasses
import math

import numpy as np
from scipy import stats

RESAMPLES = 2000
FEWEST = 2.0  # documents that a text must be worth, for its spread to be known
LEVEL = 0.95
CELLS = 4_000_000  # of the counts matrix held at once


def bpb(nats, bytes_):
    """Bits per byte of sums: nats / (ln 2 · bytes), Eq. 18 of the paper."""
    return np.sum(nats, axis=-1) / (math.log(2) * np.sum(bytes_, axis=-1))


def resample(nats_KxN, bytes_N, resamples: int = RESAMPLES, seed: int = 0):
    """Bits per byte of K runs under the same resampled documents: float64 [resamples, K]; equal seeds give
    equal draws.

    nats_KxN: nats of the raw bytes of N documents; bytes_N: their raw bytes.
    """
    nats_KxN, bytes_N = np.atleast_2d(np.asarray(nats_KxN, np.float64)), np.asarray(bytes_N, np.float64)
    documents = len(bytes_N)
    rng = np.random.default_rng(seed)
    values_Nx = np.concatenate([nats_KxN, bytes_N[None]]).T
    share = np.full(documents, 1 / documents)
    chunk = max(1, CELLS // documents)
    sums = [
        rng.multinomial(documents, share, size=min(chunk, resamples - done)).astype(np.float64) @ values_Nx
        for done in range(0, resamples, chunk)
    ]
    sums = np.concatenate(sums)
    return sums[:, :-1] / (math.log(2) * sums[:, -1:])


def worth(bytes_N) -> float:
    """How many documents of equal size a text is worth: (sum)² / sum of squares (Kish 1965). Bits per byte
    weigh documents by their bytes, and what one of them is no resampling shows."""
    bytes_N = np.asarray(bytes_N, np.float64)
    return float(bytes_N.sum() ** 2 / np.square(bytes_N).sum()) if len(bytes_N) else 0.0


def interval(samples, level: float = LEVEL):
    """Percentile interval (low, high) of resampled values, nans left out; (None, None) if nothing is left."""
    samples = np.asarray(samples, np.float64)
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return None, None
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resample_runs(documents: dict, text: dict, resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """{run: samples [resamples]} from {run: [{"bytes", "nats"}, ...]}.

    text: {run: what tells its test text from others'}. Runs of the same text share their draws; a run whose
    documents are worth fewer than two has no entry, since nothing can be said about its spread."""
    groups = {}
    for run, rows in documents.items():
        sizes = tuple(row["bytes"] for row in rows)
        if worth(sizes) >= FEWEST:
            groups.setdefault((text.get(run), sizes), []).append(run)
    samples = {}
    for (_, sizes), members in groups.items():
        nats = [[row["nats"] for row in documents[run]] for run in members]
        drawn = resample(nats, sizes, resamples, seed)
        samples.update({run: drawn[:, index] for index, run in enumerate(members)})
    return samples


@dataclasses.dataclass(frozen=True)
class Score:
    """Bits per byte of one configuration, a mean over its seeds, and what intervals need.

    samples_R: the same mean under R resamples of the documents. documents: their number; worth: of how many
    equal ones (`worth`; 0: as many). seed_variance: variance of one seed about the
    mean of all possible ones, what is peculiar to documents taken out; freedom: its degrees of freedom, 0
    with one seed."""

    mean: float
    samples_R: np.ndarray
    documents: int
    seeds: int = 1
    seed_variance: float = 0.0
    freedom: float = 0.0
    worth: float = 0.0

    @property
    def covers_seeds(self) -> bool:
        return self.freedom > 0

    @property
    def documents_freedom(self) -> float:
        """Degrees of freedom of the documents' variance, at least 1."""
        return max(1.0, (self.worth or self.documents) - 1)

    def documents_variance(self, samples_R) -> float:
        """Of resampled values that are read from these documents. A bootstrap of n of them falls short by the
        factor (n - 1) / n."""
        return float(np.var(samples_R, ddof=1)) * (1 + 1 / self.documents_freedom)


def score(bpb_S, samples_SxR, documents: int, worth: float = 0.0) -> Score:
    """The Score of S seeds of one configuration, scored on the same documents. seed_variance may come out
    below 0 here; `pool` mends it."""
    bpb_S, samples_SxR = np.asarray(bpb_S, np.float64), np.asarray(samples_SxR, np.float64)
    seeds = len(bpb_S)
    variance = 0.0
    if seeds > 1:
        peculiar = (samples_SxR - samples_SxR.mean(0)).var(axis=1, ddof=1).sum() / (seeds - 1)
        variance = float(bpb_S.var(ddof=1) - peculiar)
    return Score(float(bpb_S.mean()), samples_SxR.mean(0), documents, seeds, variance, seeds - 1, worth)


def pool(scores: list) -> list:
    """The scores of one series at several budgets with one seed variance, relative to the score: two or three
    seeds at one budget say little alone. Never below 0."""
    freedom = sum(s.freedom for s in scores)
    if not freedom:
        return list(scores)
    relative = sum(s.freedom * s.seed_variance / s.mean**2 for s in scores) / freedom
    return [
        (
            dataclasses.replace(s, seed_variance=max(0.0, relative) * s.mean**2, freedom=freedom)
            if s.freedom
            else s
        )
        for s in scores
    ]


def t_interval(estimate: float, variances, level: float = LEVEL):
    """(low, high): estimate plus and minus t times the root of the summed variances. variances: [(variance,
    degrees of freedom)], each an independent estimate; Satterthwaite gives the degrees of their sum."""
    total = sum(v for v, _ in variances)
    if total <= 0:
        return estimate, estimate
    freedom = total**2 / sum(v**2 / f for v, f in variances if v > 0)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
    return estimate - half, estimate + half


def score_interval(a: Score, level: float = LEVEL):
    """(low, high) of one score: over documents, and over seeds where there are several."""
    variances = [(a.documents_variance(a.samples_R), a.documents_freedom)]
    variances += [(a.seed_variance / a.seeds, a.freedom)] if a.covers_seeds else []
    return t_interval(a.mean, variances, level)


def difference_interval(a: Score, b: Score, level: float = LEVEL):
    """(low, high) of a minus b, both scored on the same documents under the same draws. Over documents and
    seeds where both have several seeds, else over documents alone."""
    variances = [(a.documents_variance(a.samples_R - b.samples_R), a.documents_freedom)]
    if a.covers_seeds and b.covers_seeds:
        variances += [(s.seed_variance / s.seeds, s.freedom) for s in (a, b)]
    return t_interval(a.mean - b.mean, variances, level)


def draws(scores: list, seed: int):
    """[R, N]: the scores of one pooled series under resampled documents and, where all have several seeds,
    other seeds: noise of the estimated variance, whose own uncertainty (chi-squared) the budgets share. seed:
    of that noise; series that are compared take different ones."""
    samples_RxN = np.stack([s.samples_R for s in scores], axis=1)
    if not all(s.covers_seeds for s in scores):
        return samples_RxN
    rng = np.random.default_rng([seed, len(scores)])
    scale_N = np.sqrt([s.seed_variance / s.seeds for s in scores])
    freedom = scores[0].freedom
    wide_Rx1 = np.sqrt(freedom / rng.chisquare(freedom, (len(samples_RxN), 1)))
    noisy_RxN = samples_RxN + rng.normal(size=samples_RxN.shape) * scale_N * wide_Rx1
    return np.maximum(noisy_RxN, 1e-3 * samples_RxN)  # a score is above 0, and fits take its logarithm
