"""A run's rows hold the bytes that every family's do, whatever its units, and its budget is counted on
them."""

import dataclasses
import types

import in_memory
import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import flops
from bltjax.data import batches
from bltjax.errors import UserError
from bltjax.run import budget, execute, row_shape
from bltjax.run import rows as run_rows
from bltjax.storage import rundir


@pytest.fixture(scope="module")
def documents():
    """Text whose documents differ by a fifth and more in patches, and in tokens, per byte."""
    rng, found = np.random.default_rng(0), []
    for size in rng.lognormal(7.5, 1.0, 110).astype(int) + 20:
        long = 4.5 * np.exp(0.25 * rng.normal())
        letters = rng.integers(97, 123, size).astype(np.uint8)
        spaces = np.cumsum(rng.poisson(long, size // 3) + 2) - 1
        letters[spaces[spaces < size]] = ord(" ")
        found.append(letters.tobytes())
    return in_memory.Documents(found)


class Words:
    """A stand-in tokenizer: so many words a token, or each word in two halves. Ids are sizes less one."""

    vocab, bos, eos, fingerprint = 258, 256, 257, "words"
    byte_counts = np.array([*range(1, 257), 0, 0], np.int32)

    def __init__(self, words: float = 0.5):
        self.words = words

    def encode(self, document):
        sizes = [len(word) + (i > 0) for i, word in enumerate(document.split(b" "))]
        if self.words == 0.5:
            sizes = [half for size in sizes for half in (size // 2, size - size // 2)]
        else:
            sizes = [sum(sizes[i : i + self.words]) for i in range(0, len(sizes), self.words)]
        return np.array([size for size in sizes if size], np.int32) - 1


def run_of(family, **changes):
    if family == "bpe":
        model = cfg.transformer("token", vocab=258, width=32, layers=1, heads=2)
        run = cfg.run("r", family, model, tokenizer_=cfg.tokenizer("trained", 258, 3.0))
    else:
        model = cfg.blt_model(
            local_width=32,
            encoder_layers=1,
            decoder_layers=1,
            local_heads=2,
            global_width=64,
            global_layers=2,
            global_heads=2,
            k=2,
            ngram_rows=10,
            window=128,
        )
        scheme = family.removeprefix("blt-")
        size = {"space": 5.7, "strided": 4.0, "random": 4.5}[scheme]
        run = cfg.run("r", family, model, patching_=cfg.patching(scheme, size))
    return cfg.replace(run, **{"data.rows": 2, "train.steps": 150, **changes})


def made(run, documents, words=0.5):
    units = run_rows.units_of(run, documents, tokenizer=Words(words) if run.model.kind == "token" else None)
    rows = run_rows.rows(run, units)
    return rows, *budget.steps_ahead(run, rows)


FAMILIES = ("bpe", "blt-space", "blt-strided", "blt-random")


def off(run, counts, documents):
    return row_shape.bytes_off(run, counts, row_shape.aim(run, documents))


def test_families_batches_hold_the_same_bytes(documents):
    """Within 0.5% of one another over the steps of a run, with at most a sixth of the patch slots empty;
    without widening, P for the mean patch size, filled in order, loses several percent and is refused."""
    held = {}
    for family in FAMILIES:
        run = run_of(family)
        rows, steps, _, counts = made(run, documents)
        assert abs(off(run, counts, documents)) <= row_shape.WITHIN
        held[family] = counts["bytes"].mean()
        if rows.row_patches:
            assert counts["patches"].sum() / (steps * rows.capacity["patches"]) > 0.83, family
    assert max(held.values()) / min(held.values()) < 1.005, held

    run = run_of("blt-space", **{"data.packing_buffer": 0})
    P = batches.row_shape(run)[1]
    lengths = [np.diff(np.append(np.flatnonzero(_space(d)), len(d) + 2)) for d in documents]
    narrow = in_memory.byte_rows(documents, lengths, context=512, rows=2, patches=P)
    lost = off(run, narrow.counts(150), documents)
    assert lost < -0.02 and row_shape.differs(run, narrow, lost, 150)
    with pytest.raises(UserError, match="run r: its batches hold -.*packing_buffer, now 0"):
        row_shape.check_bytes(run, narrow, lost, 150)


@pytest.mark.parametrize("steps", [100, 131, 240])
def test_so_they_do_at_any_budget_and_of_any_tokens(documents, steps):
    """Where a row is so few tokens that one more or less is 1% to 5% of its bytes, of a few hundred rows, and
    whichever of them a run reads: all are within 0.25% of one aim, which no budget moves."""
    held = {}
    for family, words in (("blt-space", 0), *(("bpe", words) for words in (0.5, 1, 2, 4))):
        run = run_of(family, **{"data.rows": 1, "train.steps": steps})
        rows, *_, counts = made(run, documents, words)
        held[family, words] = counts["bytes"].mean()
        if family == "bpe":
            assert counts["slots"].mean() > rows.row_length - 1.5  # no more than one a row stays empty
    assert max(held.values()) / min(held.values()) < 1.005, held
    aim = row_shape.aim(run, documents)
    assert aim == row_shape.aim(run_of("blt-space", **{"data.rows": 3, "train.steps": 999}), documents)
    assert all(abs(bytes_ / aim - 1) <= row_shape.WITHIN for bytes_ in held.values()), (aim, held)


def test_what_was_chosen_on_few_rows_is_mended_on_all(documents):
    """Rows that turn out to hold too much or too little are filled otherwise, and only full ones get more
    patches."""
    tokens, patches = run_of("bpe"), run_of("blt-space")
    units = run_rows.units_of(patches, documents)
    mended = lambda run, off, **shape: row_shape.mended(run, units, row_shape.shape(run, **shape), off)
    more = mended(tokens, -0.01, slots=100, patches=None, filled=99.4)
    assert (more.slots, more.patches, more.filled) == (101, None, 100.4)
    less = mended(patches, 0.004, slots=512, patches=96)
    assert (less.slots, less.patches, less.filled) == (512, 96, 509.96)
    again = mended(patches, -0.004, slots=512, patches=96, filled=511)
    assert (again.slots, again.patches, again.filled) == (512, 96, 512)
    wider = mended(patches, -0.004, slots=512, patches=300)
    assert wider.filled == 512 and wider.patches == 300 + batches.patch_step(300)
    assert mended(patches, -0.004, slots=512, patches=512).patches == 512  # no more can be had


def test_a_shape_that_is_too_narrow_at_the_threshold_is_widened(documents, monkeypatch):
    """Shape and threshold depend on each other: where the rows of the last threshold hold too few bytes,
    they are widened by as little as will do, and no run is refused for it."""
    run = run_of("blt-space")
    right = row_shape.chosen(run, run_rows.units_of(run, documents))
    narrow = dataclasses.replace(right, patches=right.patches - 5 * batches.patch_step(right.patches))
    reads = types.SimpleNamespace(documents=documents, text=None, tokenizer=None, entropies=lambda _: None)
    monkeypatch.setattr(execute.inputs, "load", lambda *_: reads)
    monkeypatch.setattr(execute.warm_start, "check_text", lambda *_: None)
    monkeypatch.setattr(execute.rundir, "load_config", lambda _: run)
    monkeypatch.setattr(execute.rundir, "shared", lambda _: None)
    monkeypatch.setattr(execute.planned, "facts", lambda *_: {})
    monkeypatch.setattr(row_shape, "chosen", lambda *_: narrow)
    ready = execute.ready(None)
    assert abs(ready.planned["bytes_off"]) <= row_shape.WITHIN
    assert narrow.patches < ready.rows.row_patches <= right.patches


def _space(document):
    starts = np.zeros(len(document) + 2, bool)
    starts[[0, 1]] = True
    starts[2:-1] = np.frombuffer(document, np.uint8)[:-1] == 32
    return starts


def test_patches_are_widened_where_rows_would_lose_bytes_and_not_otherwise(documents):
    in_order, packed = run_of("blt-space", **{"data.packing_buffer": 0}), run_of("blt-space")
    first = batches.row_shape(packed)[1]
    P = {run.data.packing_buffer: made(run, documents)[0].row_patches for run in (in_order, packed)}
    assert P[0] > P[256] >= first and P[0] % 4 == P[256] % 4 == 0
    roomy = cfg.replace(packed, **{"data.patch_slack": 2.0})
    assert made(roomy, documents)[0].row_patches == batches.row_shape(roomy)[1]


@pytest.mark.parametrize("family", ["bpe", "blt-space", "blt-strided"])
def test_documents_come_in_their_order_up_to_some_buffers(documents, family):
    """In rows, how far from its place in the epoch's order a segment comes: less than a buffer on average,
    and never more than two and a half."""
    buffer = 64
    rows, *_ = made(run_of(family, **{"data.packing_buffer": buffer}), documents)
    plan_ = rows.chunks[0].plan()
    row = np.repeat(np.arange(len(plan_)), np.diff(plan_.first))[np.argsort(plan_.source)]
    place = np.sort(plan_.source) / plan_.source.max() * (len(plan_) - 1)
    assert np.abs(row - place).mean() < buffer and np.abs(row - place).max() < 2.5 * buffer < len(plan_)
    in_order, *_ = made(run_of(family, **{"data.packing_buffer": 0}), documents)
    assert (np.diff(in_order.chunks[0].plan().source) > 0).all()


def test_steps_spend_the_budget_in_what_rows_hold(documents):
    run = run_of("blt-space", **{"train.steps": 0, "budget_flops": 8e10})
    rows, steps, useful, counts = made(run, documents)
    assert len(useful) == steps == len(counts["pairs"]) and abs(useful.sum() / 8e10 - 1) < budget.TOLERANCE
    per = flops.per_unit(run)
    assert useful == pytest.approx(3 * sum(counts[unit] * per[unit] for unit in flops.UNITS))
    charged = 3 * flops.count(run, counts["slots"].sum() / counts["patches"].sum())["exact"]["total"]
    assert useful.sum() < 0.99 * charged * counts["slots"].sum()  # than with a full context a row
    with pytest.raises(UserError, match="neither"):
        made(run_of("bpe", **{"train.steps": 0}), documents)


def test_fixed_shapes_cost_little_more_than_what_full_rows_use():
    """Masked blocks of attention and scores computed again, of the shapes that experiments plan for: the
    rest, up to 1.2, is for padding."""
    from experiments import compute_optimal, quickstart

    for experiment, most in ((quickstart, 1.17), (compute_optimal, 1.06)):
        for run in experiment.get_config().runs:
            if run.model.kind == "blt":
                shape = (run.data.rows, *batches.row_shape(run))
                executed, full = flops.executed_step(run, *shape), flops.full_rows(run, *shape)
                assert executed / flops.train_flops(run, full) < most, run.name


def test_a_run_that_has_begun_goes_on_with_its_own_rows(tmp_path):
    planned = {"steps": 10, "train_bytes": 5000, "row_filled": 0.5, "threshold": None}
    rundir.write_json(tmp_path / "planned.json", {**planned, "train_bytes": 5001})
    execute.check_same_rows(tmp_path, planned)  # not begun
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="train_bytes was 5001 and is 5000"):
        execute.check_same_rows(tmp_path, planned)
    rundir.write_json(tmp_path / "planned.json", planned)
    execute.check_same_rows(tmp_path, planned)
    (tmp_path / "planned.json").write_text("{")  # damaged: it is written anew
    execute.check_same_rows(tmp_path, planned)
