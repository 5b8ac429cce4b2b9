"""Which run a state may come from: the run itself, before it was stopped, or (WSD) another whose stable phase
it continues.

With a schedule that warms up, stays and decays, a run of n steps and a longer one are the same run until the
shorter begins to decay, so that many budgets share one stable phase."""

import json
import os

from bltjax import config as configs
from bltjax.errors import UserError
from bltjax.training import checkpoint, optimizer

# what a run's numbers follow from
SECTIONS = ("seed", "model", "patching", "tokenizer", "data", "entropy_model", "train")
OPERATIONAL = (
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.keep",
    "train.log_every",
    "train.watchdog",
    "train.branch_from",
)
# compared by what they do, in `start`
DECAY = ("train.schedule", "train.final_lr", "train.decay", "train.warmup")


def described(config, steps: int) -> dict:
    """What a checkpoint remembers of its run."""
    return {
        "config": configs.to_dict(config),
        "steps": steps,
        "warmup": optimizer.warmup_steps(config.train, steps),
        "decay_start": optimizer.decay_start(config.train, steps),
    }


def _flat(values: dict, prefix: str = "") -> dict:
    out = {}
    for key, value in values.items():
        out.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return out


def differences(config, other: dict, leaving_out=()) -> list[str]:
    """One text per key on which a config and a stored one disagree, if numbers follow from it."""
    mine = _flat(json.loads(json.dumps(configs.to_dict(config))))  # tuples as lists, as stored
    theirs = _flat(configs.to_dict(configs.completed(configs.from_dict(other))))  # of an earlier version
    skipped = OPERATIONAL + tuple(leaving_out)
    return [
        f"{key} is {mine.get(key)!r} here, {theirs.get(key)!r} there"
        for key in sorted(mine.keys() | theirs.keys())
        if key.split(".")[0] in SECTIONS and key not in skipped and mine.get(key) != theirs.get(key)
    ]


def check_same_run(config, steps: int, about: dict, run_dir) -> None:
    """UserError unless a checkpoint's run is this one: resuming under other settings would give numbers that
    belong to neither."""
    different = differences(config, about["config"], leaving_out=("train.steps",))
    if about["steps"] != steps and config.train.schedule != "constant":
        different.append(f"the run has {steps} steps here, {about['steps']} there")
    if different:
        raise UserError(
            f"{run_dir} holds checkpoints of another run: {'; '.join(different)}. Use another run directory,"
            " or remove it"
        )


def source(config, steps: int) -> tuple[str, int]:
    """(run directory, step) of the checkpoint that `train.branch_from` ("RUN_DIR" or "RUN_DIR@STEP") means
    for this run.

    The newest whole one from before this run, and the other, begin to decay. UserError if the two runs differ
    in anything that the stable phase follows from, or if there is no such checkpoint."""
    text = config.train.branch_from
    run_dir, at, number = text.rpartition("@")
    chosen = int(number) if at and number.isdecimal() else None
    run_dir = run_dir if chosen is not None else text
    if config.train.schedule != "wsd":
        raise UserError(
            "train.branch_from continues a stable phase, so it needs train.schedule wsd, not"
            f" {config.train.schedule!r}"
        )
    if not os.path.isdir(run_dir):
        raise UserError(f"train.branch_from: no run directory {run_dir!r}")
    mine = optimizer.decay_start(config.train, steps)
    limit = mine if chosen is None else chosen
    if limit > mine:
        raise UserError(
            f"train.branch_from: step {chosen} is past the start of this run's decay, step {mine}"
        )
    step = checkpoint.newest_whole(run_dir, limit)
    while step is not None:
        about = checkpoint.read_about(run_dir, step)
        if about["config"]["train"]["schedule"] == "cosine" or step <= about["decay_start"]:
            break
        step = checkpoint.newest_whole(run_dir, about["decay_start"])
    if step is None or chosen not in (None, step):
        have = ", ".join(map(str, checkpoint.steps(run_dir))) or "none"
        wanted = f"of step {chosen}" if chosen is not None else f"from step {limit} or before"
        raise UserError(f"train.branch_from: {run_dir} has no stable checkpoint {wanted}; it has: {have}")
    different = differences(config, about["config"], leaving_out=DECAY + ("train.steps",))
    if about["config"]["train"]["schedule"] == "cosine":
        different.append("train.schedule there is cosine, which has no stable phase")
    warmup = optimizer.warmup_steps(config.train, steps)
    if about["warmup"] != warmup:
        different.append(f"the warm-up has {warmup} steps here, {about['warmup']} there (set train.warmup)")
    if different:
        raise UserError(
            f"train.branch_from: {run_dir} is not the same run before the decay: {'; '.join(different)}"
        )
    return run_dir, step
