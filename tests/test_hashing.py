"""N-gram hashes: the released vectors, a plain big-integer restatement, and host equal to device."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bltjax.errors import UserError
from bltjax.patching import hashing

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "ngram_hashes.json").read_text())
SIZES = (3, 4, 5, 6, 7, 8)


def restated(ids, n, vocab, prime, digits, docs, raw_bytes):
    """One row by Python's unbounded integers."""
    out = []
    for t in range(len(ids)):
        window, whole = [], True
        for j in range(t, t - n, -1):  # newest first
            whole = whole and j >= 0 and (docs is None or docs[j] == docs[t])
            digit = (ids[j] - 4) % 260 if raw_bytes else ids[j]
            window.append(int(digit) if whole else 0)
        powers = range(n) if digits == "paper" else reversed(range(n))
        value = sum(d * prime**j for d, j in zip(window, powers)) % 2**64
        out.append((value - 2**64 if value >= 2**63 else value) % vocab)
    return out


def rows(seed=0, shape=(3, 40)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 260, shape).astype(np.int32), np.sort(rng.integers(1, 5, shape), axis=1).astype(
        np.int32
    )


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_released_vectors_exactly(place):
    """All cases of one function at once, whose rows are filled up behind their ends."""
    settings = lambda case: (tuple(int(n) for n in case["hashes"]), case["vocab"], case["hash_function"])
    for shared in sorted(set(map(settings, GOLDEN))):
        cases = [case for case in GOLDEN if settings(case) == shared]
        ids = np.zeros((len(cases), max(len(case["ids"]) for case in cases)), np.int32)
        for row, case in zip(ids, cases):
            row[: len(case["ids"])] = case["ids"]
        got = hashing.ngram_hashes(place(ids), *shared)
        assert isinstance(got, jax.Array) == (place is jnp.asarray)
        assert got.dtype == np.int32
        for found, case in zip(np.asarray(got), cases):
            np.testing.assert_array_equal(found[:, : len(case["ids"])], list(case["hashes"].values()))


@pytest.mark.parametrize("digits", hashing.DIGITS)
@pytest.mark.parametrize("raw_bytes", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_equals_the_formula_on_host_and_device(digits, raw_bytes, reset):
    ids, docs = rows()
    docs = docs if reset else None
    for function in (0, 6):
        want = [
            [
                restated(
                    ids[b],
                    n,
                    500_002,
                    hashing.PRIMES[function],
                    digits,
                    None if docs is None else docs[b],
                    raw_bytes,
                )
                for n in SIZES
            ]
            for b in range(len(ids))
        ]
        host = hashing.ngram_hashes(ids, SIZES, 500_002, function, digits, doc_ids=docs, raw_bytes=raw_bytes)
        np.testing.assert_array_equal(host, want)
        device = jax.jit(
            lambda i, d: hashing.ngram_hashes(
                i, SIZES, 500_002, function, digits, doc_ids=d, raw_bytes=raw_bytes
            )
        )
        np.testing.assert_array_equal(device(ids, docs), want)


@pytest.mark.parametrize(
    "vocab",
    [
        1,
        2,
        3,
        4096,
        8191,
        65_535,
        500_000,
        2**20 - 1,
        2**20,
        2**24 + 43,
        2**26 - 5,
        2**26 + 15,
        1_500_000_001,
        2**30,
        2**31 - 1,
    ],
)
def test_any_vocabulary_below_2_31(vocab):
    rng = np.random.default_rng(vocab)
    edge = np.array(
        [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64 - 2**32], np.uint64
    )
    value = np.concatenate([edge, rng.integers(0, 2**64, 500, dtype=np.uint64)])
    want = value.view(np.int64) % np.int64(vocab)
    limbs = jnp.asarray((value >> np.uint64(32)).astype(np.uint32)), jnp.asarray(value.astype(np.uint32))
    np.testing.assert_array_equal(np.asarray(hashing._remainder(limbs, vocab)).astype(np.int64), want)


def test_limb_products_and_sums_wrap_like_64_bits():
    rng = np.random.default_rng(0)
    x, y = (
        np.concatenate(
            [np.array([0, 2**32 - 1, 2**64 - 1], np.uint64), rng.integers(0, 2**64, 300, dtype=np.uint64)]
        )
        for _ in "ab"
    )
    split = lambda v: (jnp.asarray((v >> np.uint64(32)).astype(np.uint32)), jnp.asarray(v.astype(np.uint32)))
    joined = lambda limbs: (
        (np.asarray(limbs[0]).astype(np.uint64) << np.uint64(32)) | np.asarray(limbs[1]).astype(np.uint64)
    )
    np.testing.assert_array_equal(joined(hashing._plus(split(x), split(y))), x + y)
    for constant in (1, 2**32 - 1, 2**64 - 1, *hashing.PRIMES, pow(hashing.PRIMES[6], 7, 2**64)):
        np.testing.assert_array_equal(joined(hashing._times(split(x), constant)), x * np.uint64(constant))


def test_nothing_crosses_a_document_when_reset():
    ids, docs = rows(3)
    changed = np.where(docs == 2, (ids + 7) % 260, ids).astype(np.int32)
    before, after = (
        hashing.ngram_hashes(x, SIZES, 8191, doc_ids=docs, digits="paper") for x in (ids, changed)
    )
    moved = (before != after).any(1)
    assert moved[docs == 2].any() and not moved[docs != 2].any()


def test_present_where_the_ngram_fits():
    docs = np.int32([[1, 1, 1, 1, 2, 2, 3, 3, 3, 0], [1] * 10])
    place = np.stack([np.r_[0:4, 0:2, 0:3, 0], np.r_[0:10]])  # symbols before, in the document
    want = np.stack([place >= n - 1 for n in (2, 3, 4)], axis=1)
    np.testing.assert_array_equal(hashing.ngram_present(docs, (2, 3, 4)), want)
    np.testing.assert_array_equal(jax.jit(lambda d: hashing.ngram_present(d, (2, 3, 4)))(docs), want)
    np.testing.assert_array_equal(hashing.ngram_present(10, (2, 3, 4)), want[1:])


@pytest.mark.parametrize(
    "bad",
    [dict(sizes=()), dict(sizes=(0,)), dict(vocab=0), dict(vocab=2**31), dict(function=11), dict(digits="x")],
)
def test_bad_arguments_are_one_line(bad):
    with pytest.raises(UserError) as error:
        hashing.ngram_hashes(np.zeros((1, 4), np.int32), **{**dict(sizes=(3,), vocab=8), **bad})
    assert "\n" not in str(error.value)
