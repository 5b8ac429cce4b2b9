"""Paired bootstrap over test documents.

Documents, not bytes, are what was sampled: bytes of one document are not independent. Runs scored on the same
documents are resampled together, so that what makes a document hard for every family cancels in their
difference. """

import math

import numpy as np

RESAMPLES = 2000
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


def interval(samples, level: float = LEVEL):
    """Percentile interval (low, high) of resampled values, nans left out; (None, None) if nothing is left."""
    samples = np.asarray(samples, np.float64)
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return None, None
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resample_runs(documents: dict, resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """{run: samples [resamples]} from {run: [{"bytes", "nats"}, ...]}.

    Runs with the same documents (the same byte counts in the same order) share their draws; a run with fewer
    than two documents has no entry, since nothing can be said about its spread. """
    groups = {}
    for run, rows in documents.items():
        if len(rows) >= 2:
            groups.setdefault(documents_key(rows), []).append(run)
    samples = {}
    for key, members in groups.items():
        nats = [[row["nats"] for row in documents[run]] for run in members]
        drawn = resample(nats, key, resamples, seed)
        samples.update({run: drawn[:, index] for index, run in enumerate(members)})
    return samples


def documents_key(rows) -> tuple:
    """What tells two test sets apart, as far as a run directory records it: byte counts in order."""
    return tuple(int(row["bytes"]) for row in rows)
