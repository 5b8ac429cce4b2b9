"""A histogram tells the mean patch size of every threshold exactly."""

import numpy as np
import pytest

from bltjax import patching
from bltjax.entropy import histogram, store
from bltjax.errors import UserError
from bltjax.patching import vocab


def documents(seed=0, sizes=(0, 1, 2, 3, 50, 400)):
    rng = np.random.default_rng(seed)
    ids = [
        np.concatenate([[vocab.BOS], rng.integers(4, 260, n), [vocab.EOS]]).astype(np.int32) for n in sizes
    ]
    return ids, [store.nats(store.rounded(rng.gamma(1.5, 1.0, len(i)).clip(0, 5.5))) for i in ids]


@pytest.mark.parametrize("scheme, given", [("entropy", {}), ("monotonic", {}), ("both", {"delta": 0.3})])
@pytest.mark.parametrize("piece", [1 << 18, 17, 4])
def test_sizes_are_those_of_patching(scheme, given, piece, monkeypatch):
    monkeypatch.setattr(histogram, "PIECE", piece)
    ids, entropies = documents()
    found = histogram.Histogram(scheme, **given).add(entropies)
    name = "delta" if scheme == "monotonic" else "threshold"
    for threshold in (
        -1.0,
        -0.25,
        0.0,
        0.4,
        patching.RESOLUTION,
        1.5,
        1.5 + patching.RESOLUTION / 2,
        9.0,
        -9.0,
    ):
        patches = sum(
            patching.starts(i, scheme, entropies=e, xp=np, **{name: threshold, **given}).sum()
            for i, e in zip(ids, entropies)
        )
        assert found.mean_size(threshold) == sum(map(len, ids)) / patches
    thresholds, sizes = found.sizes()
    assert (np.diff(sizes) >= 0).all()
    for at in (70_000, 66_000, 60_000, 80_000):
        assert sizes[at] == found.mean_size(thresholds[at])


def test_sketches_add_up():
    parts = [histogram.Histogram("entropy").add(documents(seed)[1]) for seed in range(3)]
    whole = histogram.Histogram("entropy").add([e for seed in range(3) for e in documents(seed)[1]])
    added = parts[0] + parts[1] + parts[2]
    assert (added.positions, added.opened) == (whole.positions, whole.opened) and np.array_equal(
        added.counts, whole.counts
    )
    assert not histogram.Histogram("entropy").add([]).positions


def test_the_threshold_gives_the_size():
    _, entropies = documents(sizes=(5000,) * 8)
    for scheme in ("entropy", "monotonic"):
        found = histogram.Histogram(scheme).add(entropies)
        for size in (1.5, 2, 4.5, 8):
            assert abs(found.mean_size(found.threshold(size)) / size - 1) < 1e-3
    with pytest.raises(UserError, match="no threshold gives"):
        found.threshold(1e6)
    with pytest.raises(UserError, match="at least 1"):
        found.threshold(0.5)
    with pytest.raises(UserError, match="no entropies"):
        histogram.Histogram("entropy").threshold(4)


@pytest.mark.parametrize("scheme, given", [("entropy", {}), ("monotonic", {}), ("both", {"delta": 0.3})])
@pytest.mark.parametrize("piece", [1 << 18, 17, 4])
def test_patches_of_each_document_are_those_of_patching(scheme, given, piece, monkeypatch):
    monkeypatch.setattr(histogram, "PIECE", piece)
    ids, entropies = documents()
    name = "delta" if scheme == "monotonic" else "threshold"
    for threshold in (-1.0, 0.4, 1.5, 9.0):
        found = histogram.patches(scheme, entropies, threshold, given.get("delta"))
        assert found.tolist() == [
            patching.starts(i, scheme, entropies=e, xp=np, **{name: threshold, **given}).sum()
            for i, e in zip(ids, entropies)
        ]


def test_the_standard_error_is_how_far_samples_lie_apart():
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(6, 1, 20_000).astype(int) + 2
    patches = np.maximum(1, lengths / rng.uniform(3, 6, len(lengths))).astype(int)
    means, errors = [], []
    for _ in range(300):
        drawn = rng.integers(0, len(lengths), 400)
        means.append(lengths[drawn].sum() / patches[drawn].sum())
        errors.append(histogram.standard_error(lengths[drawn], patches[drawn]))
    assert 0.85 < np.mean(errors) / (np.std(means) / np.mean(means)) < 1.15
    assert histogram.standard_error([10, 20, 30], [5, 10, 15]) == 0  # all alike
    assert histogram.standard_error([10], [5]) is None
