"""How long a run's rows are, in tokens or in patches, so that the batches of every family hold the same
bytes.

The measure is what rows of bytes hold that have two slots less than `data.context`: rows of patches lose
about as much to a second BOS and to a patch that no longer fits. A token row has the N for which it holds
most nearly as many bytes; a row of patches has at least `data.patch_slack` times the patches that it needs on
average, and as many more as make it hold the measure's bytes within WITHIN. Both are counted ahead, on the
run's own first rows: patches on few of them, and then on all."""

import functools

import numpy as np
from ml_collections import ConfigDict

from bltjax import flops, models
from bltjax.data import batches, packing, row_plans
from bltjax.data.unit_cache import Lengths, UnitCache
from bltjax.errors import UserError
from bltjax.run import budget

SPARED = 2  # slots that the measure's rows have less
WITHIN = 0.004  # of the measure's bytes: rows of patches that hold less are widened
TOLERANCE = 0.005  # of the measure's bytes: rows that are further off are not comparable
# Shorter rows (in bytes of context), fewer of them, or text of fewer, cannot be matched so well: not refused.
SHORTEST, FEWEST = 512, 100
SAMPLE = 1 << 24  # bytes of rows on which a shape is chosen
FEW = int(0.9 * row_plans.FIRST)  # and of those on which a patch capacity is looked for first


def chosen(config: ConfigDict, units: UnitCache) -> row_plans.Shape:
    """Slots and patches of the run's rows: with the measure's bytes."""
    slots, patches = batches.row_shape(config)
    kind = models.kind(config.model)
    if not _is_compared(config):
        return shape(config, slots, None)
    measure, once = _measure(config, units.documents), Once(units)

    def share(slots, patches, few=False):
        """Of the measure's bytes, that batches of such rows hold."""
        blocks = row_plans.Blocks(once, shape(config, slots, patches), config.data.seed)
        made = batches.Rows(blocks, slots, patches, config.data.rows)
        return 1 + _off(made, measure, few_steps(config) if few else _compared_steps(config, made))

    if not kind.PATCHES:
        return shape(config, _nearest_length(slots, lambda slots: share(slots, None)), None)
    if is_long(config):
        patches = _widened(patches, slots, lambda patches: share(slots, patches, few=True))
    return shape(config, slots, _widened(patches, slots, lambda patches: share(slots, patches)))


def wider(config: ConfigDict, units: UnitCache, narrow: row_plans.Shape) -> row_plans.Shape:
    """A shape of more patches than one that did not hold the measure's bytes, and of at least as many as are
    chosen for these units; the same where there is none, as for rows without patches."""
    if not _is_compared(config) or not narrow.patches or narrow.patches >= narrow.slots:
        return narrow
    more = max(narrow.patches + _step(narrow.patches), chosen(config, units).patches)
    return shape(config, narrow.slots, min(narrow.slots, more))


def shape(config: ConfigDict, slots: int, patches: int | None) -> row_plans.Shape:
    newlines = bool(config.model.get("reset", ""))
    return row_plans.Shape(slots, patches, config.data.packing_buffer, flops.window(config), newlines)


def bytes_off(config: ConfigDict, rows: batches.Rows, documents, steps: int) -> float:
    """By how much the bytes of a run's first `steps` batches differ from the measure's, as a share of those;
    over the first SAMPLE bytes of them, where there are more."""
    return _off(rows, _measure(config, documents), min(steps, _most_steps(config)))


def check_bytes(config: ConfigDict, rows: batches.Rows, off: float, steps: int) -> None:
    """UserError where rows that can be compared are `off` (by `bytes_off`) by more than TOLERANCE."""
    if abs(off) > TOLERANCE and _is_comparable(config, rows, steps):
        raise UserError(
            f"run {config.name}: its batches hold {off:+.1%} of the bytes that other families' do, and"
            f" {TOLERANCE:.1%} is allowed: pack more rows together (data.packing_buffer, now"
            f" {config.data.packing_buffer}) or make them longer (data.context, now {config.data.context})"
        )


def lacks(config: ConfigDict, rows: batches.Rows, off: float, steps: int) -> bool:
    """Whether rows that can be compared hold too few bytes for that."""
    return off < -TOLERANCE and _is_comparable(config, rows, steps)


def _is_comparable(config: ConfigDict, rows: batches.Rows, steps: int) -> bool:
    """FEWEST rows or more, of SHORTEST bytes or more. An entropy model, which is compared with none, is what
    it is."""
    enough = min(steps * rows.rows, rows.epoch_rows()) >= FEWEST
    return config.data.context >= SHORTEST and enough and _is_compared(config)


def _is_compared(config: ConfigDict) -> bool:
    kind = models.kind(config.model)
    return kind.UNIT == "token" or bool(kind.PATCHES)


def is_long(config: ConfigDict) -> bool:
    """Whether a run has so many steps that it is worth the while to look at few of them first."""
    return budget.steps_of_full_rows(config, *batches.row_shape(config)) > 2 * few_steps(config)


def few_steps(config: ConfigDict) -> int:
    """Steps that are quickly planned, and hold enough to show what more of them will."""
    return max(1, FEW // (config.data.rows * config.data.context))


def _most_steps(config: ConfigDict) -> int:
    """Steps on which a shape is chosen, at most."""
    return max(1, SAMPLE // (config.data.rows * config.data.context))


def _compared_steps(config: ConfigDict, rows: batches.Rows) -> int:
    """Steps on which a shape is chosen: the run's own, since text differs from place to place, or its
    first."""
    most = _most_steps(config)
    if budget.steps_of_full_rows(config, rows.row_length, rows.row_patches) >= most:
        return most
    return min(most, budget.steps_ahead(config, rows)[0])


def _nearest_length(first: int, share) -> int:
    """The number of tokens a row whose share of the measure's bytes is nearest to 1."""
    tried, length = {}, max(4, first)
    while length not in tried:
        tried[length] = share(length)
        length = max(4, round(length / tried[length]))
    return min(tried, key=lambda length: (abs(tried[length] - 1), length))


def _widened(first: int, most: int, share) -> int:
    """The fewest patches a row, from `first` on in steps of a 32nd and multiples of 8 (4 of few), with which
    rows hold the measure's bytes within WITHIN: by steps of an eighth upwards, and back by halves. Where none
    does, the fewest that hold as much as any."""
    held, low, high = {}, None, first

    def enough(patches):
        held[patches] = share(patches)
        return held[patches] >= 1 - WITHIN

    while not enough(high):
        if high >= most:
            return min(held, key=lambda patches: (held[patches] < max(held.values()) - WITHIN / 10, patches))
        low, high = high, min(most, high + max(1, high // 8 // _step(high)) * _step(high))
    while low and (middle := low + (high - low) // 2 // _step(low) * _step(low)) > low:
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _step(patches: int) -> int:
    return batches.patch_step(patches) * max(1, patches // 256)


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
