"""How many steps a budget of FLOPs pays for: from a config alone, or counted on the rows that a run reads."""

import math

import numpy as np
from ml_collections import ConfigDict

from bltjax import flops
from bltjax.config import ranges
from bltjax.errors import UserError

FEWEST_STEPS = 100  # below, the schedule's warm-up and the rounding of the budget to whole steps mean nothing
MOST_STEPS = ranges.RANGES["train.steps"][1]
TOLERANCE = 0.01  # of the budget


def trained(entropy_model: ConfigDict) -> bool:
    """Whether a run's entropy model is trained for it; one that came with a checkpoint (run/warm_start.py)
    has neither steps nor budget."""
    return bool(
        len(entropy_model)
        and (entropy_model.train.steps or entropy_model.budget_flops or not entropy_model.train.init_from)
    )


def steps_of(run: ConfigDict, per_step: float) -> int:
    """Steps of a run whose steps all cost `per_step` FLOPs: train.steps where it is set, else the whole
    number nearest the budget."""
    if run.train.steps:
        return run.train.steps
    if not run.budget_flops:
        raise UserError(f"run {run.name}: neither budget_flops nor train.steps says how long it is")
    steps = round(run.budget_flops / per_step)
    _check_steps(steps, per_step, run.budget_flops, run.name, run.data.rows)
    check_schedule(run, steps)
    return steps


def check_schedule(run: ConfigDict, steps: int) -> None:
    """UserError for a learning rate that still rises when so many steps are over, or when it is to fall."""
    train = run.train
    if train.warmup >= steps:
        whose = "train.steps" if train.steps else f"what budget_flops {run.budget_flops:.3g} pays for"
        raise UserError(
            f"run {run.name}: train.warmup is {train.warmup} of {steps} steps ({whose}); it must be shorter"
        )
    stable = steps - round(train.decay * steps)
    if train.schedule == "wsd" and train.warmup > stable:
        raise UserError(
            f"run {run.name}: train.warmup is {train.warmup} steps, and the decay begins after {stable} of"
            f" {steps} (train.decay={train.decay:g}); it must be shorter"
        )


def steps_for_budget(
    useful_per_step, budget: float, name: str = "this run", rows: int = 0, full_step: float = 0.0
) -> int:
    """How many steps spend the budget: those whose summed FLOPs come nearest to it.

    useful_per_step: float [S], `exact` useful training FLOPs of each step, counted ahead, as many as the
    budget can need. rows: of a batch, and full_step: FLOPs of a step whose rows are full, for advice in the
    error. Fewer than 100 steps, or more than 1% off: UserError. S too small: ValueError."""
    useful_per_step = np.asarray(useful_per_step, np.float64)
    spent = np.cumsum(useful_per_step)
    if not len(spent) or spent[-1] < budget * (1 - TOLERANCE):
        raise ValueError(f"{len(spent)} steps were counted ahead; a budget of {budget:.4g} FLOPs needs more")
    steps = int(np.argmin(np.abs(spent - budget))) + 1
    _check_steps(steps, max(full_step, useful_per_step.mean()), budget, name, rows)
    if abs(spent[steps - 1] / budget - 1) > TOLERANCE:
        off = spent[steps - 1] / budget - 1
        raise UserError(
            f"run {name}: {steps} steps come nearest to its budget of {budget:.3g} FLOPs and are still"
            f" {off:+.1%} off; 1% is allowed, so take smaller batches (data.rows)"
        )
    return steps


def _check_steps(steps: float, per_step: float, budget: float, name: str, rows: int) -> None:
    if steps > MOST_STEPS:
        raise UserError(
            f"run {name}: budget_flops {budget:.3g} pays for {steps:.3g} steps, and {MOST_STEPS:,} are the"
            " most; it needs a larger model or larger batches (data.rows)"
        )
    if steps >= FEWEST_STEPS:
        return
    needed = FEWEST_STEPS * per_step
    fitting = math.floor(rows * budget / needed)
    smaller = (
        f", or batches of {fitting} rows (data.rows={fitting}) instead of {rows}" if fitting >= 1 else ""
    )
    raise UserError(
        f"run {name}: budget_flops {budget:.3g} pays for {steps} steps, and {FEWEST_STEPS} are the fewest; "
        f"it needs a budget of {_up(needed)} FLOPs{smaller}"
    )


def _up(value: float) -> str:
    """Three digits, rounded up, so that the number that is printed is enough."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit) * unit:.3g}"


def steps_ahead(config: ConfigDict, rows):
    """(steps, useful FLOPs of each, what each holds): as many steps as the budget pays for, counted before
    the first. rows: batches.Rows."""
    if config.train.steps:
        counts = rows.counts(config.train.steps)
        return config.train.steps, flops.train_flops(config, counts), counts
    full = steps_of_full_rows(config, rows.row_length, rows.row_patches)
    if full > MOST_STEPS:
        _check_steps(full, config.budget_flops / full, config.budget_flops, config.name, config.data.rows)
    ahead = max(FEWEST_STEPS // 2, math.ceil(1.1 * full))
    while True:
        counts = rows.counts(ahead)
        useful = flops.train_flops(config, counts)
        if useful.sum() >= 1.01 * config.budget_flops:
            most = config.budget_flops / full
            steps = steps_for_budget(useful, config.budget_flops, config.name, config.data.rows, most)
            check_schedule(config, steps)
            return steps, useful[:steps], {name: values[:steps] for name, values in counts.items()}
        ahead = math.ceil(ahead * 1.05 * 1.01 * config.budget_flops / useful.sum())


def steps_of_full_rows(config: ConfigDict, slots: int, patches: int | None) -> float:
    """Steps that the run pays for where every row is full: it pays for more of others."""
    if config.train.steps:
        return config.train.steps
    if not config.budget_flops > 0:
        raise UserError(f"run {config.name}: neither budget_flops nor train.steps says how long it is")
    return config.budget_flops / flops.train_flops(
        config, flops.full_rows(config, config.data.rows, slots, patches or 0)
    )
