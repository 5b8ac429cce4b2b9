"""The watch on patch sizes speaks when they leave their target, and when they are back, and not of noise."""

import numpy as np

from bltjax.training import patch_size_monitor


def said(sizes, target=4.5, slots=100_000):
    watch = patch_size_monitor.Monitor(
        target, np.full(len(sizes), slots), np.round(slots / np.asarray(sizes)).astype(int)
    )
    return [(step, line) for step in range(1, len(sizes) + 1) if (line := watch.said(step))]


def test_it_speaks_of_what_lasts():
    rng = np.random.default_rng(0)
    steady = 4.5 * np.exp(0.04 * rng.normal(size=400))
    assert said(steady[:40]) == []  # fewer than are averaged
    assert said(steady * 4.5 / (1 / np.mean(1 / steady))) == []
    lines = said([*np.full(100, 4.5), *np.full(100, 5.0), *np.full(100, 4.5)])
    assert [step for step, _ in lines] == sorted(step for step, _ in lines) and len(lines) == 2
    assert (
        100 < lines[0][0] < 125
        and "off the target of 4.5" in lines[0][1]
        and 225 < lines[1][0] <= 250
        and "of the target" in lines[1][1]
    )
    assert said(np.full(100, 4.45)) == [] and len(said(np.full(100, 4.39))) == 1


def test_text_of_many_kinds_wanders_and_is_no_news():
    """Documentation in fifteen languages, patches of 8 bytes, 61 kB a step: 31 lines of one run, without."""
    rng = np.random.default_rng(1)
    mixed = 8 * np.exp(0.09 * rng.normal(size=5000))
    mixed *= 8 / (1 / np.mean(1 / mixed))
    assert said(mixed, target=8, slots=61_440) == []
    assert len(said([*mixed[:2500], *(1.1 * mixed[2500:])], target=8, slots=61_440)) == 1
