"""How long a run's rows are, in tokens or in patches, and how far they are filled, so that the batches of
every family hold the same bytes.

All are matched to one number, the aim, which hangs on the text, its order and `data.context` alone: a little
less than rows of bytes hold that have two slots less. Rows of patches lose about as much to a second BOS, to
a patch that no longer fits and, where documents differ much, to slots for which no patches are left; to spare
that they would need many more patches, most of them empty. A row of patches has at least `data.patch_slack`
times the patches that it needs on average, and as many more as make it hold the aim within WITHIN; a row of
tokens has as many tokens as that takes. Rows that would hold more than the aim are filled to a slot more or
less in turns, so that they hold it within EVEN. Both are counted ahead, on the run's own first rows:
patches on few of them, and then on all. What a run's batches hold is counted again on all that it reads, once
its threshold is known."""

import functools
import math

import numpy as np
from ml_collections import ConfigDict

from bltjax import flops, models
from bltjax.data import batches, packing, row_plans
from bltjax.data.unit_cache import Lengths, UnitCache
from bltjax.errors import UserError
from bltjax.run import budget

SPARED = 2  # slots that the aim's rows have less,
SPARED_BYTES = 0.0015  # and of their bytes
# Of the aim, which rows may be off: those of any two families then differ by less than twice as much, 0.5%.
WITHIN = 0.0025
EVEN = 0.001  # of the aim, which filled rows are off at most
TRIES = 8  # to find how far rows are to be filled
# Shorter rows (in bytes of context), fewer of them, or text of fewer, cannot be matched so well: not refused.
SHORTEST, FEWEST = 512, 100
SAMPLE = 1 << 24  # bytes of rows on which a shape is chosen
FEW = int(0.9 * row_plans.FIRST)  # and of those on which a patch capacity is looked for first


def chosen(config: ConfigDict, units: UnitCache) -> row_plans.Shape:
    """Slots and patches of the run's rows, and how far they are filled: with the aim's bytes."""
    slots, patches = batches.row_shape(config)
    if not _is_compared(config):
        return shape(config, slots, None)
    wanted, once = aim(config, units.documents), Once(units)

    @functools.cache
    def share(shape, few=False):
        """Of the aim, that batches of such rows hold."""
        blocks = row_plans.Blocks(once, shape, config.data.seed)
        made = batches.Rows(blocks, shape.slots, shape.patches, config.data.rows)
        steps = few_steps(config) if few else _compared_steps(config, made)
        return 1 + bytes_off(config, made.counts(steps), wanted)

    if not models.kind(config.model).PATCHES:
        return _filled(lambda filled: shape(config, math.ceil(filled), None, filled), slots, share)
    held = lambda patches, few=False: share(shape(config, slots, patches), few)
    if is_long(config):
        patches = _widened(patches, slots, lambda patches: held(patches, few=True))
    patches = _widened(patches, slots, held)
    return _filled(lambda filled: shape(config, slots, patches, min(filled, slots)), slots, share)


def mended(config: ConfigDict, units: UnitCache, before: row_plans.Shape, off: float) -> row_plans.Shape:
    """A shape for a run whose batches were `off` the aim, though `before` was chosen: filled otherwise, or of
    more patches, at least as many as are chosen for these units. The same where nothing more can be done, and
    for rows that are compared with none."""
    if not _is_compared(config):
        return before
    filled = _hundredth(before.filled / (1 + off))
    if not before.patches:
        return shape(config, math.ceil(filled), None, filled)
    if off > 0 or before.filled < before.slots:
        return shape(config, before.slots, before.patches, min(filled, before.slots))
    if before.patches >= before.slots:
        return before
    more = max(before.patches + _step(before.patches), chosen(config, units).patches)
    return shape(config, before.slots, min(before.slots, more))


def shape(
    config: ConfigDict, slots: int, patches: int | None, filled: float | None = None
) -> row_plans.Shape:
    newlines = bool(config.model.get("reset", ""))
    buffer, window = config.data.packing_buffer, flops.window(config)
    return row_plans.Shape(slots, patches, buffer, window, newlines, slots if filled is None else filled)


def aim(config: ConfigDict, documents) -> float:
    """Bytes that a row of every family is to hold, on average: counted over one epoch of the documents, or
    SAMPLE bytes of it."""
    slots = max(4, config.data.context - SPARED)
    chunks = row_plans.Blocks(
        Lengths(documents), row_plans.Shape(slots, None, config.data.packing_buffer), config.data.seed
    )
    rows = max(1, min(SAMPLE, int(documents.lengths.sum())) // config.data.context)
    return (1 - SPARED_BYTES) * float(batches.Rows(chunks, slots, None, 1).counts(rows)["bytes"].mean())


def bytes_off(config: ConfigDict, counts: dict, aim: float) -> float:
    """By how much the bytes of some batches (batches.Rows.counts) differ from the aim's, as a share."""
    return float(counts["bytes"].mean() / (config.data.rows * aim) - 1)


def differs(config: ConfigDict, rows: batches.Rows, off: float, steps: int) -> bool:
    """Whether rows that can be compared are `off` (by `bytes_off`) by more than they may be."""
    return abs(off) > WITHIN and _is_comparable(config, rows, steps)


def check_bytes(config: ConfigDict, rows: batches.Rows, off: float, steps: int) -> None:
    """UserError where they are."""
    if differs(config, rows, off, steps):
        raise UserError(
            f"run {config.name}: its batches hold {off:+.2%} of the bytes that other families' do, and"
            f" {WITHIN:.2%} is allowed: pack more rows together (data.packing_buffer, now"
            f" {config.data.packing_buffer}) or make them longer (data.context, now {config.data.context})"
        )


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


def _filled(made, first: float, share) -> row_plans.Shape:
    """Of the shapes `made`(slots that are filled), the one whose share of the aim is nearest to 1, or the
    first that is off by EVEN at most."""
    tried, filled = {}, float(first)
    while True:
        shape = made(_hundredth(filled))
        if shape in tried or len(tried) == TRIES:
            return min(tried, key=lambda shape: abs(tried[shape] - 1))
        tried[shape] = share(shape)
        if abs(tried[shape] - 1) <= EVEN:
            return shape
        filled = shape.filled / tried[shape]


def _hundredth(filled: float) -> float:
    return max(4.0, round(filled, 2))


def _widened(first: int, most: int, share) -> int:
    """The fewest patches a row, from `first` on in steps of a 32nd and multiples of 8 (4 of few), with which
    rows hold the aim within WITHIN: by steps of an eighth upwards, and back by halves. Where none
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


class Once:
    """A UnitCache whose blocks are read for several plans: the last few are kept."""

    def __init__(self, units: UnitCache, kept: int = 2):
        self.documents = units.documents
        self._read = functools.lru_cache(kept)(lambda key: units.read(np.frombuffer(key, np.int64)))

    def read(self, numbers) -> packing.Documents:
        return self._read(np.asarray(numbers, np.int64).tobytes())
