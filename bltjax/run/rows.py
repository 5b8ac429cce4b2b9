"""A run's rows: their shape, so that every family's batches hold the same bytes, and how many steps of them
the budget pays for.

The measure is what rows of bytes hold that have two slots less than `data.context`: rows of patches lose
about as much to a second BOS and to a patch that no longer fits. A token row has the N for which it holds
most nearly as many bytes; a row of patches has at least `data.patch_slack` times the patches that it needs on
average, and as many more as make it hold the measure's bytes within WITHIN. Both are counted ahead, on the
run's own first rows."""

import functools
import math
import pathlib

import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops
from bltjax.data import batches, packing, row_plans
from bltjax.data.unit_cache import Held, Lengths, UnitCache
from bltjax.errors import UserError
from bltjax.patching import segmentation
from bltjax.run import budget

SPARED = 2  # slots that the measure's rows have less
WITHIN = 0.004  # of the measure's bytes: rows of patches that hold less are widened
TOLERANCE = 0.005  # of the measure's bytes: rows that are further off are not comparable
# Shorter rows (in bytes of context), fewer of them, or text of fewer, cannot be matched so well: not refused.
SHORTEST, FEWEST = 512, 100
SAMPLE = 1 << 24  # bytes of rows on which a shape is chosen


def rows(
    config: ConfigDict,
    documents,
    entropies,
    tokenizer,
    plans: pathlib.Path | None,
    place: tuple[int, int] = (0, 1),
) -> batches.Rows:
    """The run's batches: a pure function of (data.seed, step).

    documents: corpus.Selection of prepared data, or a list. entropies: store.Entropies or a list, or None;
    plans: a folder under which plans of rows are kept, or None; place: this process's among those that plan
    them together (distributed.place)."""
    documents = Held(documents) if isinstance(documents, list) else documents
    units = _units_of(config, documents, entropies, tokenizer)
    shape = _shape(config, documents, units)
    chunks = row_plans.Blocks(
        units, shape, config.data.seed, plans and plans / f"plans-{_key(units, shape, config)}"
    )
    ahead = functools.partial(chunks.ahead, part=place[0], parts=place[1])
    return batches.Rows(chunks, shape.slots, shape.patches, config.data.rows, ahead)


def bytes_off(config: ConfigDict, rows: batches.Rows, documents, steps: int) -> float:
    """By how much the bytes of a run's first `steps` batches differ from the measure's, as a share of those;
    over the first SAMPLE bytes of them, where there are more."""
    documents = Held(documents) if isinstance(documents, list) else documents
    return _off(rows, _measure(config, documents), min(steps, _most_steps(config)))


def check_bytes(config: ConfigDict, rows: batches.Rows, documents, steps: int) -> float:
    """`bytes_off`; UserError where it is more than TOLERANCE, in FEWEST rows or more, of SHORTEST bytes or
    more. Kind `byte`, which is compared with none, is what it is."""
    off = bytes_off(config, rows, documents, steps)
    comparable = config.data.context >= SHORTEST and min(steps * rows.rows, rows.epoch_rows()) >= FEWEST
    if abs(off) > TOLERANCE and comparable and config.model.kind != "byte":
        raise UserError(
            f"run {config.name}: its batches hold {off:+.1%} of the bytes that other families' do, and"
            f" {TOLERANCE:.1%} is allowed: pack more rows together (data.packing_buffer, now"
            f" {config.data.packing_buffer}) or make them longer (data.context, now {config.data.context})"
        )
    return off


def steps_ahead(config: ConfigDict, rows: batches.Rows):
    """(steps, useful FLOPs of each, what each holds): as many steps as the budget pays for, counted before
    the first."""
    if config.train.steps:
        counts = rows.counts(config.train.steps)
        return config.train.steps, flops.train_flops(config, counts), counts
    ahead = max(
        budget.FEWEST_STEPS // 2,
        math.ceil(1.1 * _steps_of_full_rows(config, rows.row_length, rows.row_patches)),
    )
    while True:
        counts = rows.counts(ahead)
        useful = flops.train_flops(config, counts)
        if useful.sum() >= 1.01 * config.budget_flops:
            steps = budget.steps_for_budget(useful, config.budget_flops, config.name, config.data.rows)
            return steps, useful[:steps], {name: values[:steps] for name, values in counts.items()}
        ahead = math.ceil(ahead * 1.05 * 1.01 * config.budget_flops / useful.sum())


def _steps_of_full_rows(config: ConfigDict, slots: int, patches: int | None) -> float:
    """Steps that the run pays for where every row is full: it pays for more of others."""
    if config.train.steps:
        return config.train.steps
    if not config.budget_flops > 0:
        raise UserError(f"run {config.name}: neither budget_flops nor train.steps says how long it is")
    return config.budget_flops / flops.train_flops(
        config, flops.full_rows(config, config.data.rows, slots, patches or 0)
    )


def _most_steps(config: ConfigDict) -> int:
    """Steps on which a shape is chosen, at most."""
    return max(1, SAMPLE // (config.data.rows * config.data.context))


def _compared_steps(config: ConfigDict, rows: batches.Rows) -> int:
    """Steps on which a shape is chosen: the run's own, since text differs from place to place, or its
    first."""
    most = _most_steps(config)
    if _steps_of_full_rows(config, rows.row_length, rows.row_patches) >= most:
        return most
    return min(most, steps_ahead(config, rows)[0])


def _units_of(config: ConfigDict, documents, entropies, tokenizer) -> UnitCache:
    """The documents as bytes, patches or tokens."""
    kind, rule = config.model.kind, config.patching

    def units(numbers, found):
        if kind == "token":
            return batches.tokens_of(found, tokenizer)
        if kind == "byte":
            return packing.byte_documents(found)
        own = None if entropies is None else [entropies[number] for number in numbers]
        return packing.byte_documents(found, segmentation.document_lengths(rule, found, own, tokenizer))

    key = {
        "documents": documents.fingerprint,
        "patching": cfg.to_dict(rule) if kind == "blt" else kind,
        "tokenizer": tokenizer and tokenizer.fingerprint,
        "entropies": getattr(entropies, "mark", None),
        "parts": documents.parts,
    }
    return UnitCache(documents, units, cfg.fingerprint(key))


def _key(units: UnitCache, shape: row_plans.Shape, config: ConfigDict) -> str:
    """All that a plan of rows depends on."""
    return cfg.fingerprint(
        {
            "units": units.key,
            "shape": [shape.slots, shape.patches, shape.buffer, shape.window, shape.newlines],
            "seed": config.data.seed,
            "version": packing.VERSION,
        }
    )


def _shape(config: ConfigDict, documents, units: UnitCache) -> row_plans.Shape:
    """Slots and patches of the run's rows: with the measure's bytes."""
    slots, patches = batches.row_shape(config)

    def shape(slots, patches):
        newlines = bool(config.model.get("reset", ""))
        return row_plans.Shape(slots, patches, config.data.packing_buffer, flops.window(config), newlines)

    if config.model.kind == "byte":
        return shape(slots, None)
    measure, once = _measure(config, documents), Once(units)

    def share(slots, patches):
        """Of the measure's bytes, that batches of such rows hold."""
        blocks = row_plans.Blocks(once, shape(slots, patches), config.data.seed)
        made = batches.Rows(blocks, slots, patches, config.data.rows)
        return 1 + _off(made, measure, _compared_steps(config, made))

    if config.model.kind == "token":
        return shape(_nearest_length(slots, lambda slots: share(slots, None)), None)
    return shape(slots, _widened(patches, slots, lambda patches: share(slots, patches)))


def _nearest_length(first: int, share) -> int:
    """The number of tokens a row whose share of the measure's bytes is nearest to 1."""
    tried, length = {}, max(4, first)
    while length not in tried:
        tried[length] = share(length)
        length = max(4, round(length / tried[length]))
    return min(tried, key=lambda length: (abs(tried[length] - 1), length))


def _widened(first: int, most: int, share) -> int:
    """The fewest patches a row, from `first` on in steps of a 32nd and multiples of 8 (4 of few), with which
    rows hold the measure's bytes within WITHIN; where none does, the fewest that hold as much as any."""
    held, patches = {}, first
    while True:
        held[patches] = share(patches)
        if held[patches] >= 1 - WITHIN:
            return patches
        if patches >= most or patches > 2 * first:
            return min(held, key=lambda patches: (held[patches] < max(held.values()) - WITHIN / 10, patches))
        patches = min(most, patches + batches.patch_step(patches) * max(1, patches // 256))


def _measure(config: ConfigDict, documents) -> batches.Rows:
    """The measure's rows, of which only the counts can be had."""
    slots = max(4, config.data.context - SPARED)
    shape = row_plans.Shape(slots, None, config.data.packing_buffer)
    blocks = row_plans.Blocks(Lengths(documents), shape, config.data.seed)
    return batches.Rows(blocks, slots, None, config.data.rows)


def _off(rows: batches.Rows, measure: batches.Rows, steps: int) -> float:
    """By how much the bytes of the first `steps` batches differ from the measure's, as a share of those."""
    return float(rows.counts(steps)["bytes"].sum() / measure.counts(steps)["bytes"].sum() - 1)


class Once:
    """A UnitCache whose blocks are read for several plans: the last few are kept."""

    def __init__(self, units: UnitCache, kept: int = 2):
        self.documents = units.documents
        self._read = functools.lru_cache(kept)(lambda key: units.read(np.frombuffer(key, np.int64)))

    def read(self, numbers) -> packing.Documents:
        return self._read(np.asarray(numbers, np.int64).tobytes())
