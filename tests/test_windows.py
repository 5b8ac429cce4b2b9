"""Evaluation windows: each byte and one EOS of each document scored once, in the byte ranges that
docs/contracts.md promises, whatever the units."""

import functools

import in_memory
import numpy as np
import pytest

from bltjax import config as cfg
from bltjax.data import batches, splits
from bltjax.errors import UserError
from bltjax.evaluation import windows
from bltjax.models import padded_lengths
from bltjax.patching import segmentation, vocab

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


def spans_of(document, lengths, **more):
    """(bytes of context, bytes scored) of every window of one document, whose rows are checked on the way."""
    found, at, size = [], 0, len(document)
    for batch, score, _ in windows.byte_windows([document], lengths, rows=1, **{"context": CONTEXT, **more}):
        slots = np.flatnonzero(score[0])
        context, scored = int(slots[0]), int((batch["targets"][0][slots] != vocab.EOS).sum())
        assert np.array_equal(slots, np.arange(slots[0], slots[-1] + 1)) and batch["bytes"][0, 0] == vocab.BOS
        row = batch["bytes"][0, 1 : (batch["doc_ids"][0] > 0).sum()].tolist()
        assert row == vocab.encode_document(document)[1 + at - context :][: len(row)].tolist()
        assert len(row) == context + len(slots)
        found.append((context, scored))
        at += scored
    assert at == size
    return found


def test_ranges_and_left_context():
    """The first window scores all that it holds (30 bytes), the others 15 with 14 before them."""
    document = documents_of([200])[0]
    for lengths in (None, [np.ones(202, int)]):
        assert spans_of(document, lengths) == [(0, 30), *[(14, 15)] * 11, (14, 5)]
    for context, scored in spans_of(document, lengths_of([document], 0.4))[1:-1]:
        assert abs(context + scored / 2 - 21.5) <= 5 and context + scored <= 30


def test_context_opens_at_a_patch_start_and_a_long_patch_is_cut():
    size = 100
    inside = np.array([1] + [10] * 9 + [11])  # starts at bytes 0, 10, 20, ...
    at = 0
    for context, scored in spans_of(bytes(size), [inside]):
        assert (at - context) % 10 == 0
        at += scored
    assert spans_of(bytes(size), [np.array([1, 101])]) == [(0, 30), *[(14, 15)] * 4, (14, 10)]


def test_dense_text_is_scored_in_smaller_steps_with_as_much_context():
    """A window that holds no more than 26 of 30 slots scores less, so that the mean left context stays."""
    document = documents_of([500])[0]
    whole = windows.byte_windows([document], None, CONTEXT, 1)
    for slots in (29, 28, 27, 26):
        tight = windows.byte_windows([document], None, CONTEXT, 1, {"slots": slots, "patches": None})
        assert abs(tight.mean_context_bytes / whole.mean_context_bytes - 1) < 0.05
        assert tight.largest_position["slots"] <= slots - 2
    spans = spans_of(document, None, longest={"slots": 26, "patches": None})
    assert spans[0] == (0, 25) and max(context + scored for context, scored in spans) <= 25


def english(seed, size):
    """Words of ordinary lengths, of which tokens and patches are made as a tokenizer or the space rule
    would."""
    rng = np.random.default_rng(seed)
    words = [bytes(rng.integers(97, 123, n).astype(np.uint8)) for n in rng.poisson(3.5, 400) + 1]
    text = b" ".join(words[i] for i in np.minimum(rng.zipf(1.3, size // 4), 400) - 1)
    return text[:size]


def tokens_by_frequency(document):
    """A stand-in for BPE: words are one token, but every third is cut in two. Ids are sizes less one."""
    sizes = []
    for i, word in enumerate(document.split(b" ")):
        size = len(word) + (i > 0)
        sizes += [size // 2, size - size // 2] if i % 3 == 0 and size > 2 else [size] * (size > 0)
    return np.array(sizes, np.int32) - 1


def test_mean_left_context_is_the_same_for_bytes_patches_and_tokens():
    """Within 2% on ordinary text, where rows are as long as they need to be on average; and no position
    beyond."""
    documents = [english(i, size) for i, size in enumerate((300, 700, 2000, 2500, 9000, 12_000))]
    context, means = 512, {}
    means["bytes"] = windows.byte_windows(documents, None, context, 4).mean_context_bytes
    lengths = segmentation.document_lengths(cfg.patching("space"), documents)
    P = batches.patch_capacity(context, sum(int(l.sum()) for l in lengths) / sum(map(len, lengths)), 1.02)
    patched = windows.byte_windows(documents, lengths, context, 4, {"slots": context, "patches": P})
    means["patches"] = patched.mean_context_bytes
    assert 0.9 * P < patched.largest_position["patches"] < P
    ids = [tokens_by_frequency(d) for d in documents]
    assert all((one + 1).sum() == len(d) for one, d in zip(ids, documents))
    N = round(context * sum(map(len, ids)) / sum(map(len, documents)))
    counts = np.array([*range(1, 41), 0, 0], np.int32)
    tokens = windows.token_windows(documents, ids, counts, context, 4, 40, 41, {"slots": N, "patches": 0})
    means["tokens"] = tokens.mean_context_bytes
    assert 0.9 * N < tokens.largest_position["slots"] < N
    assert max(means.values()) / min(means.values()) < 1.02, means
    for shaped in (patched, tokens):
        found, _ = scored_bytes(documents, shaped)
        assert (
            [len(one) for one in found] == [len(d) + 1 for d in documents]
            if shaped is patched
            else all(len(one) == len(own) + 1 for one, own in zip(found, ids))
        )


@pytest.mark.parametrize("size", [1, 40, 500, 3000])
def test_no_position_beyond_the_trained_ones_on_very_dense_text(size):
    """Digits and binary have a token, or a patch, for every byte: windows shrink, and every byte is still
    scored once."""
    documents = [documents_of([size], seed)[0] for seed in range(2)]
    context, N = 512, 137
    ids = [np.frombuffer(d, np.uint8).astype(np.int32) for d in documents]
    counts = np.array([1] * 256 + [0, 0], np.int32)
    shaped = windows.token_windows(documents, ids, counts, context, 3, 256, 257, {"slots": N, "patches": 0})
    found, shapes = scored_bytes(documents, shaped)
    assert all(scored.tolist() == [*own.tolist(), 257] for scored, own in zip(found, ids))
    assert len(shapes) == 1 and dict(shapes.pop())["tokens"] == (3, N)
    used = max(int(np.flatnonzero(row).max()) for _, score, _ in shaped for row in score if row.any())
    assert used == shaped.largest_position["slots"] <= N - 2
    patched = windows.byte_windows(
        documents, [np.ones(size + 2, int)] * 2, context, 3, {"slots": 300, "patches": N}
    )
    found, _ = scored_bytes(documents, patched)
    assert all(
        scored.tolist() == vocab.encode_document(d)[1:].tolist() for scored, d in zip(found, documents)
    )
    for batch, score, _ in patched:
        assert batch["patch_doc_ids"].shape[1] == N
        assert (batch["patch_ids"][score] <= patched.largest_position["patches"]).all()
    assert patched.largest_position["patches"] <= N - 1
    if size == 3000:  # as much context as fits, less the few bytes that are scored
        assert shaped.mean_context_bytes > 0.7 * N


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


def test_rows_are_as_wide_as_the_fullest_window():
    """Up to the next of a few sizes."""
    bucket = functools.partial(padded_lengths.bucket, least=windows.MULTIPLE)
    documents = documents_of(SIZES)
    batches = [b for b, _, _ in windows.byte_windows(documents, lengths_of(documents, 0.5), CONTEXT, 2)]
    fullest = max((b["patch_doc_ids"] > 0).sum(1).max() for b in batches)
    assert bucket(int(fullest)) == batches[0]["patch_doc_ids"].shape[1]
    byte_counts = np.array([1, 2, 3, 0, 0], np.int32)
    batches = [
        b
        for b, _, _ in windows.token_windows(
            documents, tokens_of(documents, 3), byte_counts, CONTEXT, 2, 3, 4
        )
    ]
    fullest = max((b["doc_ids"] > 0).sum(1).max() for b in batches)
    assert bucket(int(fullest)) == batches[0]["tokens"].shape[1]


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
            # the context: as far as the mean goes, one token over at most
            assert batch["target_bytes"][r, :first].sum() <= 21 + longest


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
    empty = windows.byte_windows([b""], None, 16, 2)
    assert list(empty) == [] and empty.mean_context_bytes is None
    with pytest.raises(UserError):
        windows.byte_windows([b"abc"], [[1, 4]], 16, 1, {"slots": 16, "patches": 3})


def test_a_sample_of_a_split_has_the_bits_per_byte_of_the_whole():
    """Nats a byte fall with a document's length, as they do where context helps. Over many random orders the
    mean over samples is the whole's (0.02% off, give or take 0.05%); samples without the document that
    crosses the limit are 0.36% off, and those that skip what does not fit and go on 0.51%."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(7, 1.2, 400).astype(int) + 1
    nats = sizes * (1.5 + 4 / np.log(sizes + 2))
    whole, found = nats.sum() / sizes.sum(), {"up to": [], "skipping": [], "ours": []}
    limit = int(sizes.sum() // 10)
    for _ in range(600):
        order = rng.permutation(len(sizes))
        documents = Numbered(sizes[order])
        count = len(splits.first(documents, limit))
        assert not documents.read
        total, skipping = 0, []
        for i, size in enumerate(sizes[order]):
            if total + size <= limit:
                skipping.append(i)
                total += size
        for name, some in (
            ("ours", order[:count]),
            ("up to", order[: count - 1]),
            ("skipping", order[skipping]),
        ):
            found[name].append(nats[some].sum() / sizes[some].sum())
    off = {name: np.mean(values) / whole - 1 for name, values in found.items()}
    assert abs(off["ours"]) < 0.002 < off["up to"] and off["skipping"] > 0.003, off


class Numbered:
    """Documents on disk, whose sizes are known and whose reading is seen."""

    fingerprint = ""

    def __init__(self, lengths):
        self.lengths, self.read = lengths, []

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        self.read.append(i)
        return b""


def test_samples_stop_at_the_document_that_reaches_the_limit():
    documents = in_memory.Documents([b"a" * n for n in (5, 100, 7, 1)])
    first = lambda limit: list(splits.first(documents, limit))
    assert first(0) == documents and first(1000) == documents
    assert first(5) == documents[:1] and first(6) == documents[:2]
    assert list(splits.first(in_memory.Documents(), 10)) == []
    assert splits._reaching(np.array([5, 100, 7, 1]), 106, block=1) == 3
