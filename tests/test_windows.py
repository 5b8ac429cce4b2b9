"""Evaluation windows: each byte and one EOS of each document scored once, in the byte ranges that
docs/contracts.md promises, whatever the units."""

import numpy as np
import pytest

from bltjax.errors import UserError
from bltjax.evaluation import windows
from bltjax.patching import vocab

SIZES = [1, 5, 29, 30, 31, 44, 45, 46, 0, 60, 61, 200, 333]
CONTEXT = 32  # C = 30, half = 15


def documents_of(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size).astype(np.uint8).tobytes() for size in sizes]


def lengths_of(documents, rate, seed=1):
    rng, out = np.random.default_rng(seed), []
    for document in documents:
        starts = rng.random(len(document) + 2) < rate
        starts[:2] = True
        out.append(np.diff(np.append(np.flatnonzero(starts), len(starts))))
    return out


def scored_bytes(documents, batches):
    """What was scored of each document, in order, and the set of shapes."""
    found, shapes = [[] for _ in documents], set()
    for batch, score, index in batches:
        shapes.add(tuple(sorted((name, a.shape) for name, a in batch.items())))
        assert (
            score.dtype == bool
            and index.dtype == np.int32
            and score.shape == index.shape == batch["targets"].shape
        )
        assert ((index >= 0) == score).all() and (batch["loss_mask"][score] == 1).all()
        for r in range(len(score)):
            for i in np.unique(index[r][score[r]]):
                found[i].append(batch["targets"][r][index[r] == i])
    return [np.concatenate(f) if f else np.zeros(0, np.int32) for f in found], shapes


@pytest.mark.parametrize("rate", [None, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("rows", [1, 4])
def test_every_byte_is_scored_once(rate, rows):
    documents = documents_of(SIZES)
    lengths = None if rate is None else lengths_of(documents, rate)
    found, shapes = scored_bytes(documents, windows.byte_windows(documents, lengths, CONTEXT, rows))
    for document, ids in zip(documents, found):
        assert ids.tolist() == (vocab.encode_document(document)[1:].tolist() if document else [])
    assert len(shapes) == 1
    shape = dict(shapes.pop())
    assert shape["bytes"] == (rows, CONTEXT)
    assert ("patch_ids" in shape) == (rate is not None)
    if rate is not None:
        assert shape["patch_doc_ids"][1] % 32 == 0


def test_ranges_and_left_context():
    document = documents_of([200])[0]
    size = 200
    for lengths, slack in ((None, 0), ([np.ones(size + 2, int)], 0), (lengths_of([document], 0.4), 14)):
        at = 0
        for k, (batch, score, _) in enumerate(windows.byte_windows([document], lengths, CONTEXT, 1)):
            first, stop = (0, 30) if k == 0 else (30 + 15 * (k - 1), 30 + 15 * k)
            slots = np.flatnonzero(score[0])
            assert at == first and len(slots) == min(stop, size) - first + (stop >= size)
            context = slots[0]  # BOS is slot 0 and predicts the first byte of the context
            assert (context == 0) if k == 0 else (15 - slack <= context <= 15)
            assert batch["bytes"][0, 0] == vocab.BOS
            row = batch["bytes"][0, 1 : (batch["doc_ids"][0] > 0).sum()]
            assert (
                row.tolist()
                == vocab.encode_document(document)[
                    1 + first - context : 1 + first - context + len(row)
                ].tolist()
            )
            at = min(stop, size)
        assert at == size


def test_context_opens_at_a_patch_start_and_a_long_patch_is_cut():
    size = 100
    inside = np.array([1] + [10] * 9 + [11])  # starts at bytes 0, 10, 20, ...
    opened = []
    for batch, score, _ in windows.byte_windows([bytes(size)], [inside], CONTEXT, 1):
        opened.append(int(np.flatnonzero(score[0])[0]))
    # Ranges begin at 30, 45, 60, 75, 90; half a window before is 15, 30, 45, 60, 75; the next patch starts at
    # 20, 30, 50, 60, 80.
    assert opened == [0, 10, 15, 10, 15, 10]
    one = np.array([1, 101])
    assert [
        int(np.flatnonzero(s[0])[0]) for _, s, _ in windows.byte_windows([bytes(size)], [one], CONTEXT, 1)
    ] == [0] + [15] * 5


def test_patch_arrays_are_the_documents_own():
    documents = documents_of([200, 90])
    lengths = lengths_of(documents, 0.3)
    starts = [
        np.concatenate([[True], np.isin(np.arange(1, len(d) + 2), np.cumsum(l))])
        for d, l in zip(documents, lengths)
    ]
    for batch, score, index in windows.byte_windows(documents, lengths, CONTEXT, 3):
        P = batch["patch_doc_ids"].shape[1]
        for r in np.flatnonzero(score.any(1)):
            used = int((batch["doc_ids"][r] > 0).sum())
            ids, latent = batch["patch_ids"][r], batch["latent_ids"][r]
            assert ids[0] == 0 and ids[1] == 1 and (ids[used:] == P).all() and ids[used - 1] < P
            assert (latent[: used - 1] == ids[1:used] - 1).all()
            whole = vocab.encode_document(documents[index[r].max()])
            row = batch["bytes"][r, 1:used]
            at = next(i for i in range(len(whole)) if np.array_equal(whole[i : i + used - 1], row))
            assert (np.diff(ids[1:used]) == starts[index[r].max()][at + 1 : at + used - 1]).all()


def test_rows_are_as_wide_as_the_fullest_window(monkeypatch):
    monkeypatch.setattr(windows, "MULTIPLE", 1)
    documents = documents_of(SIZES)
    batches = [b for b, _, _ in windows.byte_windows(documents, lengths_of(documents, 0.5), CONTEXT, 2)]
    assert max((b["patch_doc_ids"] > 0).sum(1).max() for b in batches) == batches[0]["patch_doc_ids"].shape[1]
    byte_counts = np.array([1, 2, 3, 0, 0], np.int32)
    batches = [
        b
        for b, _, _ in windows.token_windows(
            documents, tokens_of(documents, 3), byte_counts, CONTEXT, 2, 3, 4
        )
    ]
    assert max((b["doc_ids"] > 0).sum(1).max() for b in batches) == batches[0]["tokens"].shape[1]


def tokens_of(documents, longest, seed=2):
    """Random token ids whose id is the token's number of bytes less one; BOS and EOS come after."""
    rng, out = np.random.default_rng(seed), []
    for document in documents:
        sizes = []
        while sum(sizes) < len(document):
            sizes.append(min(int(rng.integers(1, longest + 1)), len(document) - sum(sizes)))
        out.append(np.array(sizes, np.int32) - 1)
    return out


@pytest.mark.parametrize("longest", [1, 4, 12, 60])
@pytest.mark.parametrize("rows", [1, 5])
def test_every_token_is_scored_once_where_its_first_byte_lies(longest, rows):
    documents = documents_of(SIZES)
    bos, eos = longest, longest + 1
    byte_counts = np.array(list(range(1, longest + 1)) + [0, 0], np.int32)
    ids = tokens_of(documents, longest)
    batches = list(windows.token_windows(documents, ids, byte_counts, CONTEXT, rows, bos, eos))
    found, shapes = scored_bytes(documents, batches)
    for document, tokens, scored in zip(documents, ids, found):
        assert scored.tolist() == (tokens.tolist() + [eos] if document else [])
    assert len(shapes) == 1 and dict(shapes.pop())["tokens"][1] % 32 == 0
    assert sum(int(b["target_bytes"][s].sum()) for b, s, _ in batches) == sum(SIZES)
    assert sum(int((b["target_bytes"][s] == 0).sum()) for b, s, _ in batches) == sum(
        size > 0 for size in SIZES
    )
    for batch, score, _ in batches:
        for r in np.flatnonzero(score.any(1)):
            assert batch["tokens"][r, 0] == bos
            first = np.flatnonzero(score[r])[0]
            assert (
                batch["target_bytes"][r, :first].sum() <= 15 + longest
            )  # the context: half a window, one token over at most


def test_single_byte_tokens_make_the_windows_of_bytes():
    documents = documents_of(SIZES)
    byte_counts = np.array([1] * 256 + [0, 0], np.int32)
    ids = [np.frombuffer(d, np.uint8).astype(np.int32) for d in documents]
    of_tokens = [
        s[:, :CONTEXT] for _, s, _ in windows.token_windows(documents, ids, byte_counts, CONTEXT, 4, 256, 257)
    ]
    of_bytes = [s for _, s, _ in windows.byte_windows(documents, None, CONTEXT, 4)]
    assert len(of_tokens) == len(of_bytes) and all(np.array_equal(a, b) for a, b in zip(of_tokens, of_bytes))


def test_bad_input():
    with pytest.raises(UserError):
        list(windows.byte_windows([b"abc"], None, 5, 1))
    with pytest.raises(ValueError):
        list(windows.token_windows([b"abc"], [np.array([0], np.int32)], np.array([1, 0, 0]), 16, 1, 1, 2))
    assert list(windows.byte_windows([b""], None, 16, 2)) == []
