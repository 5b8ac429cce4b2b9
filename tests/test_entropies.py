"""Entropies of whole documents equal one plain pass each; calibrated thresholds give the size asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bltjax import config, models, patching
from bltjax.entropy import annotate, calibrate, histogram
from bltjax.errors import UserError
from bltjax.models import patcher
from bltjax.patching import vocab


def tiny(window, layers=2):
    model = config.transformer(
        "byte", vocab=vocab.SIZE, width=16, layers=layers, heads=2, window=window, ffn_multiple=16
    )
    return model, models.init(model, jax.random.key(0))


def some_documents(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, n).astype(np.uint8).tobytes() for n in sizes]


def one_pass(model, params, documents):
    """A document a row, padded to the longest: one compilation."""
    ids = [vocab.encode_document(d) for d in documents]
    batch = {name: np.zeros((len(ids), max(map(len, ids))), np.int32) for name in ("bytes", "doc_ids")}
    for row, document in enumerate(ids):
        batch["bytes"][row, : len(document)], batch["doc_ids"][row, : len(document)] = document, 1
    found = jax.jit(lambda p, b: patcher.entropies(model, p, b))(params, batch)
    return [np.asarray(row)[: len(document)] for row, document in zip(found, ids)]


def assert_equals_one_pass(model, params, documents):
    for one, other in zip(
        annotate.annotate(model, params, documents), one_pass(model, params, documents), strict=True
    ):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("window", [0, 16])
def test_equals_one_pass_a_document(window):
    model, params = tiny(window)
    assert_equals_one_pass(model, params, some_documents(0, 1, 61, 62, 63, 100, 3, 126))


def test_long_documents_in_overlapping_windows(monkeypatch):
    model, params = tiny(20, layers=3)
    monkeypatch.setattr(annotate, "ROOMY", 64)
    monkeypatch.setattr(annotate, "LONGEST", 128)  # rows of 128 slots, of which 57 overlap
    assert_equals_one_pass(model, params, some_documents(125, 126, 127, 128, 196, 197, 198, 400))


def test_a_document_of_100_kB():
    """With weights large enough for positions to matter: what two of them make of each other must depend on
    their distance alone."""
    model, params = tiny(20, layers=1)
    params = jax.tree.map(lambda x: 1.5 * x if x.ndim > 1 else x, params)
    [document] = some_documents(100_000)
    [found], [want] = annotate.annotate(model, params, [document]), one_pass(model, params, [document])
    assert found.std() > 0.1
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_windows_overlap_by_the_whole_reach_and_no_less(monkeypatch):
    """Against a stub that really looks as far back as it may: an off-by-one in the overlap would show."""
    monkeypatch.setattr(annotate, "ROOMY", 32)
    monkeypatch.setattr(annotate, "LONGEST", 64)
    model = config.transformer("byte", vocab=260, width=16, layers=2, heads=2, window=9)  # reach 16

    def looks_back(_, params, batch):
        before = jnp.pad(batch["bytes"], ((0, 0), (16, 0)), constant_values=-1)[:, :-16]
        return (before * 1000 + batch["bytes"]).astype(jnp.float32)

    for document in some_documents(*range(40, 140)):
        ids = vocab.encode_document(document)
        want = np.r_[np.full(16, -1), ids[:-16]] * 1000 + ids
        np.testing.assert_array_equal(annotate.annotate(model, {}, [document], entropies=looks_back)[0], want)


def test_no_document_moves_another_by_a_bit():
    model, params = tiny(16)
    documents = some_documents(40, 120, 90)
    changed = [b"!" * 40, documents[1], b"!" * 90]
    together, other = annotate.annotate(model, params, documents), annotate.annotate(model, params, changed)
    np.testing.assert_array_equal(together[1], other[1])
    assert (together[0] != other[0]).any()


def test_few_shapes_and_nothing_compiled_twice():
    model, _ = tiny(16)
    shapes = []

    def stub(_, params, batch):  # runs once per shape, at tracing
        shapes.append(batch["bytes"].shape)
        return batch["bytes"].astype(jnp.float32)

    finished = []
    documents = some_documents(*np.random.default_rng(1).integers(0, 3000, 100))
    for _ in range(2):
        annotate.annotate(model, {}, documents, entropies=stub, progress=finished.append)
    assert len(set(shapes)) == len(shapes) <= 3
    assert all(rows * length <= annotate.SYMBOLS for rows, length in shapes)
    assert sum(finished) == 2 * sum(len(d) + 2 for d in documents)


def test_what_is_left_over_of_a_length_goes_into_longer_rows():
    """At most one call more than if every length had calls of its own, and never rows longer than needed by
    the longest."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        devices = int(rng.integers(1, 3))
        buckets = {
            64 << int(power): list(range(int(rng.integers(1, 200))))
            for power in rng.choice(9, rng.integers(1, 7), replace=False)
        }
        merged = list(annotate._merged(buckets, devices))
        lengths = [length for length, _ in merged]
        assert lengths == sorted(set(lengths)) and lengths[-1] == max(buckets)
        assert sum(len(pieces) for _, pieces in merged) == sum(map(len, buckets.values()))
        calls = lambda pairs: sum(-(-len(x) // (devices * annotate._most_rows(n))) for n, x in pairs)
        assert calls(merged) <= calls(buckets.items()) + 1
        for length, pieces in merged[:-1]:
            assert len(pieces) > devices * annotate._most_rows(length) // 2
    # a short text alone is not made long
    assert list(annotate._merged({128: [0]}, 1)) == [(128, [0])]


def test_a_document_too_long_for_full_attention():
    model, params = tiny(0)
    with pytest.raises(UserError, match="without a window"):
        annotate.annotate(model, params, [bytes(70_000)])
    assert annotate.annotate(model, params, []) == []


def texts(documents=6, n=1500, step=None):
    rng = np.random.default_rng(5)
    ids = [
        vocab.encode_document(rng.integers(0, 256, n + 97 * i).astype(np.uint8).tobytes())
        for i in range(documents)
    ]
    entropies = [np.minimum(rng.gamma(1.5, 1.0, i.size), 5.5) for i in ids]  # a byte's are below ln 260
    return ids, [(np.round(e / step) * step if step else e).astype(np.float32) for e in entropies]


def realized(scheme, ids, entropies, **settings):
    patches = sum(patching.starts(i, scheme, entropies=e, **settings).sum() for i, e in zip(ids, entropies))
    return sum(i.size for i in ids) / patches


@pytest.mark.parametrize("max_length", [0, 9])
@pytest.mark.parametrize(
    "scheme, delta, searched",
    [
        ("entropy", None, "threshold"),
        ("monotonic", None, "delta"),
        ("both", 0.0, "threshold"),
        ("both", -0.5, "threshold"),
    ],
)
def test_calibrated_size_is_the_patcher_s_own(scheme, delta, searched, max_length):
    """Scores say which threshold gives a size; with a longest length, which no score knows, what is asked of
    them is moved until it does."""
    ids, entropies = texts(step=patching.RESOLUTION)
    scores = histogram.Histogram(scheme, delta).add(entropies)
    settings = {"max_length": max_length, **({} if delta is None else {"delta": delta})}
    size = lambda threshold: realized(scheme, ids, entropies, **settings, **{searched: threshold})
    for target in (4.5, 6.0):
        found, gives = calibrate.approach(target, scores.threshold, size)
        assert gives == size(found) and abs(gives / target - 1) < calibrate.CLOSE * (2 if max_length else 1)
        if not max_length:
            np.testing.assert_allclose(scores.mean_size(found), gives, rtol=1e-12)
            others = np.linspace(found - 0.5, found + 0.5, 21)
            assert all(abs(size(other) - target) >= abs(gives - target) - 1e-12 for other in others)


def test_out_of_reach_is_said():
    ids, entropies = texts(step=2.0)
    scores = histogram.Histogram("entropy").add(entropies)
    size = lambda threshold: realized("entropy", ids, entropies, threshold=threshold, max_length=9)
    for target in (1.5, 1e6):
        with pytest.raises(UserError, match="reach from 1 to"):
            calibrate.approach(target, scores.threshold, size)
    with pytest.raises(UserError, match="the closest is [78]"):
        calibrate.approach(20, texts_sketch(texts(step=patching.RESOLUTION)[1]).threshold, size)


def texts_sketch(entropies):
    return histogram.Histogram("entropy").add(entropies)


def test_a_gap_that_rows_leave_is_no_size():
    calls = []

    def gives(threshold):
        calls.append(threshold)
        return 4 if threshold < 4.5 else 5

    with pytest.raises(UserError, match="reach from 4 to 5|the closest is"):
        calibrate.approach(4.5, lambda size: size, gives)
    assert len(calls) <= calibrate.MOST_TRIES


@pytest.mark.parametrize("target", [0.5, float("nan"), float("inf")])
def test_sizes_that_cannot_be(target):
    with pytest.raises(UserError, match="at least 1 and finite") as error:
        calibrate.approach(target, lambda size: size, lambda threshold: threshold)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("window", [0, 16])
def test_a_context_that_begins_anew_at_newlines(window):
    """What stands before a line changes nothing in it; without the option it does. One pass and windows
    agree."""
    model, params = tiny(window)
    model = config.replace(model, reset="newline")
    text, other = (
        first + b"\nsecond line, which is longer\n\nthird" for first in (b"first line", b"FIRST LINE")
    )
    ours, theirs = (annotate.annotate(model, params, [t])[0] for t in (text, other))
    line = 1 + text.index(b"\n")
    np.testing.assert_allclose(ours[line:], theirs[line:], atol=1e-6)
    assert np.abs(ours[1:line] - theirs[1:line]).max() > 1e-4
    plain = config.replace(model, reset="")
    assert (
        np.abs(
            np.subtract(*(annotate.annotate(plain, params, [t])[0][line : line + 5] for t in (text, other)))
        ).max()
        > 1e-5
    )
    assert_equals_one_pass(model, params, [text, text * 40])
