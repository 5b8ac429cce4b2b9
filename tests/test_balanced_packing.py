"""Rows packed buffer: every unit once, never over either capacity, cut at patch starts, nearly full of
both, in a repeatable order."""

import in_memory
import numpy as np
import pytest
from test_packing import random_documents, random_lengths

from bltjax.data import filling, packing


def some(seed, count, mean=400, size=6.0, spread=0.25):
    """Documents of very different lengths and patch sizes, and the patches' lengths."""
    rng = np.random.default_rng(seed)
    documents = random_documents(seed, rng.exponential(mean, count).astype(int) + 1)
    sizes = size * np.exp(spread * rng.normal(size=count))
    lengths = [
        random_lengths(seed * 1000 + i, [d], 1 / s)[0] for i, (d, s) in enumerate(zip(documents, sizes))
    ]
    return documents, lengths


def check(packed, plan):
    units = np.concatenate([np.arange(s + 1, s + n) for s, n in zip(plan.source, plan.length)])
    inner = np.ones(len(packed.ids), bool)
    inner[packed.ends[:-1]] = False
    for d in np.flatnonzero(np.diff(packed.ends) == 2):
        inner[packed.ends[d] + 1] = False  # the EOS of an empty document
    assert np.array_equal(np.sort(units), np.flatnonzero(inner))
    counts = packing.counts(packed, plan)
    assert counts["slots"].max() <= plan.capacity and counts["patches"].max() <= plan.patch_capacity
    offsets = plan.offset
    for r in range(len(plan)):
        at = slice(plan.first[r], plan.first[r + 1])
        assert offsets[plan.first[r]] == 0 and np.array_equal(
            offsets[at][1:], np.cumsum(plan.length[at])[:-1]
        )
    starts = packed.starts | (
        np.bincount(packed.ends[:-1] + 1, minlength=len(packed.ids) + 1)[: len(packed.ids)] > 0
    )
    total = np.concatenate([[0], np.cumsum(starts)])
    named = total[plan.source + plan.length] - total[plan.source + 1]
    at_start = starts[plan.source + 1]
    assert np.array_equal(plan.patches, named + ~at_start + 1)
    alone = (plan.length == 2) & np.isin(plan.source + 1, packed.ends[1:] - 1)
    assert not alone.any()
    return at_start


@pytest.mark.parametrize("T, P", [(64, 12), (256, 44), (1024, 174)])
@pytest.mark.parametrize("buffer", [1, 7, 64])
def test_every_unit_once_and_never_too_much(T, P, buffer):
    documents, lengths = some(T + buffer, 60)
    packed = packing.byte_documents(documents + [b"", b"x"], [*lengths, [1, 1], [1, 1, 1]])
    order = np.random.default_rng(0).permutation(len(packed))
    plan = packing.plan_rows(packed, T, P, order, buffer, seed=3)
    at_start = check(packed, plan)
    assert at_start.mean() > (0.98 if buffer == 64 and T > 64 else 0.5)  # with a choice few patches are cut
    again = packing.plan_rows(packed, T, P, order, buffer, seed=3)
    assert all(
        np.array_equal(getattr(plan, name), getattr(again, name))
        for name in ("first", "source", "length", "offset", "patches")
    )
    batch = filling.fill(packed, plan, np.arange(len(plan)))
    assert int(batch["loss_mask"].sum()) == sum(len(d) + 1 for d in documents) + 2
    assert ((batch["patch_doc_ids"] > 0).sum(1) == packing.counts(packed, plan)["patches"]).all()


def test_rows_are_full_where_patches_are_very_long_or_very_short():
    """Text that an entropy model foresees here and not there: rows without room for a long patch were left
    half empty, and documents that began with one stood in the way of others."""
    rng, T, P = np.random.default_rng(0), 512, 320
    documents, lengths = [], []
    for i in range(120):
        sizes = np.where(rng.random(800) < 0.02, rng.integers(65, 2000, 800), rng.integers(1, 7, 800))
        lengths.append([1, *sizes.tolist(), 1])
        documents.append(bytes(int(sizes.sum())))
    packed = packing.byte_documents(documents, lengths)
    plan = packing.plan_rows(packed, T, P, None, 64)
    at_start = check(packed, plan)
    filled = packing.counts(packed, plan)["slots"][: len(plan) * 3 // 4] / T  # the last have no choice
    assert filled.mean() > 0.995 and not at_start.all()


def test_rows_are_full_of_patches_that_do_not_divide_them():
    """Long documents in patches of 8: a row of 512 slots has room for 63 and BOS, and would leave 7."""
    documents = [bytes(40_003)] * 20
    lengths = [[1, *[8] * 5000, 3, 1]] * 20
    plan = packing.plan_rows(packing.byte_documents(documents, lengths), 512, 80, None, 64)
    assert packing.counts(packing.byte_documents(documents, lengths), plan)["slots"].mean() > 0.995 * 512


def test_patches_longer_than_rows_are_cut_and_no_eos_is_left_alone():
    documents = [bytes(range(100)), b"ab", bytes(37), b"abcdefg" * 9]
    for tail in range(1, 4):
        lengths = [[1, 100, 1], [1, 1, 1, 1], [1, 37 + 2 - 1 - tail, tail], [1, *[7] * 9, 1]]
        packed = packing.byte_documents(documents, lengths)
        for T in (8, 16, 17, 40):
            check(packed, packing.plan_rows(packed, T, 5, None, buffer=4))


@pytest.mark.parametrize("size", [4.5, 6.0, 8.0])
def test_rows_are_full_of_both(size):
    """97% of byte slots and 95% of patch slots, with 2% more room for patches than their mean."""
    documents, lengths = some(1, 1500, mean=3000, size=size)
    packed = packing.byte_documents(documents, lengths)
    T = 4096
    mean = sum(int(np.sum(one)) for one in lengths) / sum(map(len, lengths))
    plan = packing.plan_rows(packed, T, int(np.ceil(1.02 * T / mean)), np.arange(len(packed)), buffer=256)
    counts = packing.counts(packed, plan)
    assert (
        counts["slots"].sum() / (len(plan) * T) > 0.97
        and counts["patches"].sum() / (len(plan) * plan.patch_capacity) > 0.95
    )
    first = np.searchsorted(packed.ends, plan.source[plan.first[:-1]], side="right") - 1
    # over many blocks, documents come in their order
    assert np.corrcoef(first, np.arange(len(first)))[0, 1] > 0.8


def test_rows_of_a_block_are_shuffled():
    documents, lengths = some(2, 40, mean=2000)
    rows = in_memory.byte_rows(documents, lengths, context=256, rows=2, patches=50, seed=1, buffer=32)
    other = in_memory.byte_rows(documents, lengths, context=256, rows=2, patches=50, seed=1, buffer=32)
    assert all(np.array_equal(a, b) for a, b in zip(rows.batch(3).values(), other.batch(3).values()))
    ends = packing.byte_documents(documents).ends
    neighbours = lambda rows: np.mean(
        np.diff(np.searchsorted(ends, (plan := rows.chunks[0].plan()).source[plan.first[:-1]], side="right"))
        == 0
    )
    in_order = in_memory.byte_rows(documents, lengths, context=256, rows=2, patches=50, seed=1)
    # in order, a document of eight rows fills neighbours
    assert neighbours(rows) < 0.7 * neighbours(in_order)
