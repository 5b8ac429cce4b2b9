"""Rows: every byte and one EOS a document predicted exactly once, patches and latents as the contract has
them, fixed shapes."""

import in_memory
import numpy as np
import pytest

from bltjax.data import batches, filling, packing, splits
from bltjax.errors import UserError
from bltjax.patching import vocab

RNG = np.random.default_rng


def random_documents(seed, sizes):
    rng = RNG(seed)
    return [rng.integers(0, 256, size).astype(np.uint8).tobytes() for size in sizes]


def random_lengths(seed, documents, rate, longest=None):
    """Patches at random places: the first after BOS always, EOS sometimes alone; `longest`: one run with no
    start at all."""
    rng, out = RNG(seed), []
    for document in documents:
        starts = rng.random(len(document) + 2) < rate
        starts[:2] = True
        if longest:
            starts[2 : 2 + longest] = False
        out.append(np.diff(np.append(np.flatnonzero(starts), len(starts))))
    return out


def predicted(batch, unit="bytes"):
    """Targets in the order of rows and slots, cut after each EOS: what was predicted of each document."""
    return [batch["targets"][r][batch["loss_mask"][r] == 1] for r in range(len(batch["targets"]))]


def epoch(rows):
    """All rows of epoch 0 as one batch."""
    chunk = rows.chunks[0]
    return chunk.fill(np.arange(len(chunk)))


def check_bytes(documents, batch, P=None):
    stream = np.concatenate(predicted(batch))
    pieces = np.split(stream, np.flatnonzero(stream == vocab.EOS) + 1)
    assert len(pieces[-1]) == 0
    assert sorted(vocab.decode(p) for p in pieces[:-1]) == sorted(d for d in documents if d)
    assert all(p[-1] == vocab.EOS and (p[:-1] >= vocab.OFFSET).all() for p in pieces[:-1])
    bytes_BxT, docs_BxT = batch["bytes"], batch["doc_ids"]
    used = docs_BxT > 0
    same = np.zeros_like(used)
    same[:, :-1] = used[:, :-1] & (docs_BxT[:, :-1] == docs_BxT[:, 1:])
    opens = used & np.concatenate([np.ones((len(used), 1), bool), ~same[:, :-1]], axis=1)
    assert (bytes_BxT[opens] == vocab.BOS).all() and not (bytes_BxT[used & ~opens] == vocab.BOS).any()
    assert ((batch["loss_mask"] == 1) == same).all()
    assert (batch["targets"][:, :-1][same[:, :-1]] == bytes_BxT[:, 1:][same[:, :-1]]).all()
    assert not batch["targets"][~same].any() and not bytes_BxT[~used].any()
    assert ((bytes_BxT == vocab.EOS) <= ~same).all()
    # A segment is BOS and at least one unit, and documents are numbered 1, 2, ... from the left, padding only
    # at the right.
    assert same[opens].all()
    assert (np.diff(np.where(used, docs_BxT, 10**6)) >= 0).all()
    if P is None:
        return
    ids, latent, patch_docs = batch["patch_ids"], batch["latent_ids"], batch["patch_doc_ids"]
    assert (ids[~used] == P).all() and (ids[used] < P).all() and (ids >= 0).all()
    step = np.diff(ids)
    inner = used[:, 1:] & used[:, :-1]
    assert np.isin(step[inner], (0, 1)).all() and (ids[:, 0] == 0).all()
    # BOS is a patch of its own
    assert (step[opens[:, 1:]] == 1).all() and (step[:, :][opens[:, :-1] & inner] == 1).all()
    assert (latent[:, :-1][same[:, :-1]] == ids[:, 1:][same[:, :-1]] - 1).all()
    assert (latent[used & ~same] == ids[used & ~same]).all()
    assert (latent[used] >= 0).all() and (latent[used] <= ids[used]).all() and not latent[~used].any()
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    assert (patch_docs[rows[used], ids[used]] == docs_BxT[used]).all()
    assert (patch_docs[rows[used], latent[used]] == docs_BxT[used]).all()  # a latent is its own document's
    assert ((patch_docs > 0).sum(1) == np.where(used, ids + 1, 0).max(1)).all()


SIZES = [1, 1, 2, 0, 5, 13, 40, 41, 3, 0, 200, 17, 333, 1, 30, 31, 32, 29]


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("T,P", [(32, 5), (32, 32), (7, 3), (64, 20)])
def test_every_byte_and_one_eos_is_predicted_once(rate, T, P):
    documents = random_documents(1, SIZES)
    lengths = random_lengths(2, documents, rate, longest=150 if rate < 1 else None)
    rows = in_memory.byte_rows(documents, lengths, context=T, rows=3, patches=P, seed=5)
    batch = epoch(rows)
    assert batch["bytes"].shape == (rows.epoch_rows(), T) and batch["patch_doc_ids"].shape == (
        rows.epoch_rows(),
        P,
    )
    assert all(a.dtype == np.int32 for a in batch.values())
    check_bytes(documents, batch, P)


@pytest.mark.parametrize("T", [4, 5, 32, 1000])
def test_kind_byte_fills_rows_without_patches(T):
    documents = random_documents(3, SIZES)
    rows = in_memory.byte_rows(documents, context=T, rows=2)
    batch = epoch(rows)
    assert set(batch) == {"bytes", "doc_ids", "targets", "loss_mask"}
    check_bytes(documents, batch)
    full = (batch["doc_ids"] > 0).sum(1)
    # only a slot that no segment fits in, or one kept back from a lonely EOS, stays empty
    assert (full[:-1] >= T - 2).all()


def test_segments_are_cut_at_patch_starts_unless_a_patch_is_longer_than_a_row():
    documents = random_documents(4, [500, 300, 77])
    lengths = random_lengths(5, documents, 0.2)
    packed = packing.byte_documents(documents, lengths)
    plan = packing.plan_rows(packed, 64, 40)
    assert max(map(max, lengths)) < 63
    assert packed.starts[plan.source + 1].all()
    long = [np.array([1, 200, 1])]
    plan = packing.plan_rows(packing.byte_documents([bytes(200)], long), 64, 40)
    assert plan.length.tolist()[:3] == [64, 64, 64] and (plan.length - 1).sum() == 201


def test_no_segment_is_an_eos_alone():
    for size in range(1, 40):
        for rate in (0.4, 1.0):
            documents = random_documents(size, [3, size, 2 * size, 1])
            packed = packing.byte_documents(documents, random_lengths(size, documents, rate))
            plan = packing.plan_rows(packed, 16, 12)
            first = packed.ids[plan.source + 1]
            lonely = first == vocab.EOS
            # a patch as long as a row, then EOS: nowhere to move the cut
            assert lonely.sum() == 0 or rate < 1
        plan = packing.plan_rows(packing.byte_documents(documents), 8)
        assert (packing.byte_documents(documents).ids[plan.source + 1] != vocab.EOS).all()


def pairs_by_hand(docs, window=0):
    """Pairs of a query and a key that attention's mask leaves, by the mask itself; docs int [B, T], 0
    padding."""
    T = docs.shape[1]
    distance = np.arange(T)[:, None] - np.arange(T)[None]
    near = (distance >= 0) & (distance < (window or T))
    same = (docs[:, :, None] == docs[:, None, :]) & (docs > 0)[:, :, None]
    return int((near & same).sum())


@pytest.mark.parametrize("window", [0, 1, 5, 16, 100])
@pytest.mark.parametrize("buffer", [0, 6])
def test_counts_are_what_the_batches_hold(window, buffer):
    documents = random_documents(6, SIZES)
    lengths = random_lengths(7, documents, 0.3)
    shape = dict(context=24, rows=4, patches=11, seed=1, buffer=buffer, window=window)
    rows = in_memory.byte_rows(documents, lengths, **shape)
    steps = 3 * rows.epoch_rows() // 4  # beyond one epoch
    counts = rows.counts(steps)
    assert rows.capacity == {"slots": 96, "patches": 44}
    assert set(counts) == {"bytes", "slots", "patches", "pairs", "patch_pairs"}
    assert all(values.shape == (steps,) for values in counts.values())
    longest = {"slots": 0, "patches": 0}
    for step in range(steps):
        batch = rows.batch(step)
        assert counts["bytes"][step] == ((batch["loss_mask"] == 1) & (batch["targets"] >= vocab.OFFSET)).sum()
        assert counts["slots"][step] == (batch["doc_ids"] > 0).sum()
        assert counts["patches"][step] == (batch["patch_doc_ids"] > 0).sum()
        assert counts["pairs"][step] == pairs_by_hand(batch["doc_ids"], window)
        assert counts["patch_pairs"][step] == pairs_by_hand(batch["patch_doc_ids"])
        for name, docs in (("slots", batch["doc_ids"]), ("patches", batch["patch_doc_ids"])):
            longest[name] = max(
                [longest[name], *(np.bincount(row[row > 0]).max() for row in docs if row.any())]
            )
    assert rows.longest(steps) == longest


def test_pairs_where_attention_begins_anew_at_newlines():
    from bltjax.models import token_lm

    rng = RNG(3)
    documents = [
        rng.choice([10, 97, 98], size, p=[0.2, 0.4, 0.4]).astype(np.uint8).tobytes() for size in SIZES
    ]
    documents += [b"\n", b"\n\n", b"a\n", b"\n" * 30]
    packed = packing.byte_documents(documents)
    plan = packing.plan_rows(packed, 20)
    batch = filling.fill(packed, plan, np.arange(len(plan)))
    lines = np.asarray(token_lm.byte_lines(batch["bytes"], batch["doc_ids"]))
    for window in (0, 3, 8):
        counts = packing.counts(packed, plan, window, newlines=True)
        for r in range(len(plan)):
            # Two segments of a row never share a number: lines count up along the row, as documents do.
            assert counts["pairs"][r] == pairs_by_hand(lines[r : r + 1], window)


class Pairs:
    """A stand-in tokenizer: two bytes a token where possible. ids: token numbers drawn as the bytes' own
    values."""

    bos, eos, vocab = 300, 301, 302
    byte_counts = np.array([1] * 256 + [2] * 44 + [0, 0], np.int32)

    def encode(self, document):
        rng, out, at = RNG(len(document)), [], 0
        while at < len(document):
            two = at + 2 <= len(document) and rng.random() < 0.5
            out.append(int(rng.integers(256, 300)) if two else document[at])
            at += 1 + two
        return np.array(out, np.int32)


@pytest.mark.parametrize("N", [4, 9, 64])
def test_every_token_and_one_eos_is_predicted_once(N):
    documents, tokenizer = random_documents(8, SIZES), Pairs()
    rows = in_memory.token_rows(documents, tokenizer, rows=2, length=N)
    batch = epoch(rows)
    assert (
        set(batch) == {"tokens", "doc_ids", "targets", "loss_mask", "target_bytes"}
        and batch["tokens"].shape[1] == N
    )
    stream = np.concatenate(predicted(batch))
    pieces = np.split(stream, np.flatnonzero(stream == tokenizer.eos) + 1)[:-1]
    expected = [tokenizer.encode(d).tolist() + [tokenizer.eos] for d in documents if d]
    assert sorted(p.tolist() for p in pieces) == sorted(expected)
    assert batch["target_bytes"].sum() == sum(map(len, documents))
    assert (batch["target_bytes"] == tokenizer.byte_counts[batch["targets"]] * batch["loss_mask"]).all()
    counts = rows.chunks[0].counts
    assert (counts["bytes"] == batch["target_bytes"].sum(1)).all()
    assert (counts["slots"] == (batch["doc_ids"] > 0).sum(1)).all()
    assert not counts["patches"].any() and not counts["patch_pairs"].any()
    assert counts["pairs"].sum() == pairs_by_hand(batch["doc_ids"])


def test_epochs_reshuffle_and_every_epoch_is_whole():
    documents = random_documents(10, [40] * 30)
    rows = in_memory.byte_rows(documents, context=32, rows=3, seed=2)
    rows._upto(3 * rows.epoch_rows())
    seen = []
    for chunk in rows.chunks[:3]:
        batch = chunk.fill(np.arange(len(chunk)))
        check_bytes(documents, batch)
        seen.append(batch["targets"])
    assert not np.array_equal(seen[0][:5], seen[1][:5])
    # A batch across the border of two epochs is the end of one and the beginning of the next.
    border = rows.epoch_rows() // 3
    joined = np.concatenate(seen)
    assert np.array_equal(rows.batch(border)["targets"], joined[3 * border : 3 * border + 3])


def test_a_batch_is_a_function_of_seed_and_step_alone():
    documents = random_documents(11, [20, 300, 7, 90] * 5)
    lengths = random_lengths(1, documents, 0.3)
    make = lambda seed: in_memory.byte_rows(documents, lengths, context=32, rows=2, patches=16, seed=seed)
    one, other = make(3), make(3)
    late = one.batch(700)
    for step in (0, 5, 700):
        for name, value in other.batch(step).items():
            assert np.array_equal(value, one.batch(step)[name])
    assert np.array_equal(late["bytes"], other.batch(700)["bytes"])
    assert not np.array_equal(make(4).batch(0)["bytes"], one.batch(0)["bytes"])


def test_grain_serves_the_same_batches():
    documents = random_documents(12, [50] * 20)
    rows = in_memory.byte_rows(documents, context=16, rows=2)
    for start, stop in ((0, 7), (5, 120)):
        served = list(rows.iterator(start, stop))
        assert len(served) == stop - start
        for step, batch in zip(range(start, stop), served):
            assert all(np.array_equal(batch[name], value) for name, value in rows.batch(step).items())


def test_families_read_documents_in_the_same_order():
    # every length once: a document is known by it
    documents = random_documents(13, [60 + 7 * i for i in range(12)])
    lengths = random_lengths(1, documents, 0.4)
    tokenizer = Pairs()
    by_patch = epoch(in_memory.byte_rows(documents, lengths, context=64, rows=2, patches=32, seed=9))
    by_byte = epoch(in_memory.byte_rows(documents, context=64, rows=2, seed=9))
    assert np.array_equal(np.concatenate(predicted(by_patch)), np.concatenate(predicted(by_byte)))
    tokens = epoch(in_memory.token_rows(documents, tokenizer, length=40, rows=2, seed=9))
    stream = np.concatenate(predicted(by_byte))
    sizes = np.diff(np.concatenate([[-1], np.flatnonzero(stream == vocab.EOS)])) - 1
    targets, counts = np.concatenate(predicted(tokens)), tokenizer.byte_counts
    ends = np.flatnonzero(targets == tokenizer.eos)
    total = np.concatenate([[0], np.cumsum(counts[targets])])
    assert np.diff(total[np.concatenate([[0], ends])]).tolist() == sizes.tolist()


def test_training_documents_are_the_first_of_the_data_s_own_order():
    documents = in_memory.Documents(random_documents(14, range(10, 110)))
    assert list(splits.training(documents)) == documents
    some = list(splits.training(documents, 2000))
    sizes = [len(document) for document in documents[: len(some) + 1]]
    assert some == documents[: len(some)] and sum(sizes[:-1]) <= 2000 < sum(sizes)
    assert len(splits.training(documents, 1)) == 1
    documents.ranges = [(0, 60, 0.25), (60, 100, 0.75)]  # two sources, each the first of its own
    mixed = splits.training(documents, 3000)
    (a, b, _), (c, d, _) = mixed.parts
    assert (a, b, d) == (0, c, len(mixed)) and list(mixed) == [*documents[:b], *documents[60 : 60 + d - c]]
    assert mixed.lengths[:b].sum() <= 750 and mixed.lengths[b:].sum() <= 2250 < mixed.lengths[b:].sum() + 110


def test_bad_input():
    documents = random_documents(15, [10, 20])
    for lengths in ([[1, 11], [1, 20]], [[2, 10], [1, 21]], [[1, 0, 11], [1, 21]]):
        with pytest.raises(ValueError):
            packing.byte_documents(documents, lengths)
    with pytest.raises(ValueError):
        in_memory.byte_rows(documents, context=16, rows=2, patches=8)
    for call in (
        lambda: in_memory.byte_rows(documents, context=3, rows=2),
        lambda: in_memory.byte_rows(documents, context=16, rows=0),
        lambda: in_memory.byte_rows([b"", b""], context=16, rows=2),
        lambda: in_memory.byte_rows([], context=16, rows=2),
    ):
        with pytest.raises(UserError):
            call()


def test_patch_capacity():
    assert batches.patch_capacity(512, 4.0, 1.15) == 148
    assert batches.patch_capacity(8192, 4.0, 1.15) == 2360
    assert batches.patch_capacity(512, 1.0, 1.15) == 512


def test_any_stretch_of_token_rows_holds_its_share_of_bytes():
    """A run that reads two thirds of a buffer would else read half a percent more or less than its like."""
    rng, D = RNG(5), 400
    ids = [np.full(120, i % 3, np.int32) for i in range(D)]
    per_token = np.array([2, 4, 9, 0, 0], np.int32)  # bytes, by which documents differ
    documents = packing.token_documents([ids[i] for i in rng.permutation(D)], per_token, 3, 4)
    plan = packing.plan_rows(documents, 100, None, buffer=1024, seed=1)
    in_order = packing.plan_rows(documents, 100, None)
    bytes_of = lambda plan: packing.counts(documents, plan)["bytes"]
    assert sorted(bytes_of(plan)) == sorted(bytes_of(in_order))
    found = bytes_of(plan)
    for begin, end in ((0, 150), (0, 217), (0, 320), (64, 224), (96, len(plan))):
        assert abs(found[begin:end].mean() / found.mean() - 1) < 0.01, (begin, end)
    assert not np.array_equal(
        plan.source, packing.plan_rows(documents, 100, None, buffer=1024, seed=2).source
    )


@pytest.mark.parametrize("patches, buffer", [(None, 0), (None, 64), (40, 0), (40, 64)])
def test_rows_are_filled_to_a_slot_more_or_less_in_turns(patches, buffer):
    """Their mean is the number asked for, whatever it is, and nothing is dropped."""
    documents = [bytes(size) for size in RNG(0).integers(50, 400, 200)]
    lengths = [[1, *[4] * (len(d) // 4), len(d) % 4 + 1] for d in documents] if patches else None
    packed = packing.byte_documents(documents, lengths)
    full = packing.plan_rows(packed, 120, patches, buffer=buffer)
    plan = packing.plan_rows(packed, 120, patches, buffer=buffer, filled=117.3)
    held, most = packing.counts(packed, plan)["slots"], packing.counts(packed, full)["slots"]
    assert plan.capacity == 120 and held.max() <= 118 < most.max()
    if patches is None:
        assert np.sort(held)[2:].mean() == pytest.approx(117.3, abs=0.02)
    assert sum(map(len, documents)) == packing.counts(packed, plan)["bytes"].sum()
    with pytest.raises(ValueError, match="120 slots cannot be filled to 121"):
        packing.plan_rows(packed, 120, patches, filled=121)
