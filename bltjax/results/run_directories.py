"""Run directories of one experiment, read as they lie: finished, unfinished and failed ones.

Nothing here imports the trainer: a report is a function of the files alone (docs/contracts.md, "A run
directory")."""

import dataclasses
import json
import math
import os
import pathlib

from bltjax.counts import counted
from bltjax.errors import UserError
from bltjax.storage import contradictions, json_object

LAUNCH = "launch"  # beside the runs: what was given to a scheduler
TRACES = ("config.json", "planned.json", "metrics.jsonl", "eval.json", "done.json", "failed.json")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run directory. Every dict is a file's content ({} where it is absent or damaged); metrics: one dict
    per logged step.

    state: "done" | "unfinished" | "failed"; reason: why it is not done, "" when it is.
    """

    name: str
    path: pathlib.Path
    state: str
    reason: str
    record: dict
    planned: dict
    metrics: list
    evaluation: dict
    done: dict

    @property
    def config(self) -> dict:
        """The run's nested config."""
        return self.record.get("config") or {}

    def setting(self, dotted: str, default=None):
        """A value of the config by its dotted key."""
        return lookup(self.config, dotted, default)


def lookup(values: dict, dotted: str, default=None):
    """values["a"]["b"] for "a.b"; default where a part is missing or null."""
    node = values
    for part in dotted.split("."):
        if not isinstance(node, dict) or part not in node:
            return default
        node = node[part]
    return default if node is None else node


def flat(values: dict, prefix: str = "") -> dict:
    """Dotted keys to values."""
    out = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        out.update(flat(value, f"{prefix}{key}.") if nested else {prefix + key: value})
    return out


def read_json(path: pathlib.Path) -> dict:
    """A JSON object; {} if there is no such file. Damaged: UserError that names the file."""
    value, why = json_object.read(path)
    if why and why != json_object.MISSING:
        raise UserError(f"{path} {why}")
    return value or {}


def read_metrics(path: pathlib.Path) -> list:
    """Logged steps in order, each step once. A last line cut short by a kill is dropped; any other damage is
    a UserError."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    steps = {}
    for number, line in lines:
        try:
            value = json.loads(line)
            step = value["step"]
            if not finite(step):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            if number == lines[-1][0] and not text.endswith("\n"):
                break
            raise UserError(f"{path}: line {number} is not a metrics record") from None
        steps.pop(step, None)  # a resumed run's later line is the one that counts
        steps[step] = value
    return [steps[step] for step in sorted(steps)]


def finite(value) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def read_run(path: pathlib.Path) -> Run:
    """One run directory. One with a damaged file, or with files that contradict one another, is unfinished,
    whatever the others say, and its reason names the file."""
    if not may_look_into(path):
        return Run(path.name, path, "unfinished", f"{path}: may not be read", {}, {}, [], {}, {})
    damaged = []

    def whole(read, name, absent):
        try:
            return read(path / name)
        except UserError as error:
            damaged.append(str(error).removeprefix(f"{path}/"))
            return absent

    record, planned, evaluation, done, failed = (
        whole(read_json, name, {})
        for name in ("config.json", "planned.json", "eval.json", "done.json", "failed.json")
    )
    metrics = whole(read_metrics, "metrics.jsonl", [])
    bpb = lookup(evaluation, "test.bpb")
    if not damaged and done and finite(bpb):
        last = metrics[-1] if metrics else {}
        damaged += contradictions.of(record, planned, last, evaluation, done)
        why = contradictions.of_config(path, record, planned, evaluation, done)
        damaged += [why] if why else []
    if damaged:
        state, reason = "unfinished", "; ".join(damaged)
    elif done and finite(bpb):
        state, reason = "done", ""
    elif failed:
        state, reason = "failed", " ".join(str(failed.get("error", "no reason recorded")).split())
    elif done and bpb is not None:
        state, reason = "failed", f"test bits per byte is not a finite number ({bpb})"
    else:
        steps, planned_steps = (metrics[-1]["step"] if metrics else 0), planned.get("steps")
        reached = f"step {steps} of {planned_steps}" if planned_steps else f"step {steps}"
        missing = [
            name
            for name in ("config.json", "planned.json", "eval.json", "done.json")
            if not (path / name).exists()
        ]
        state, reason = (
            "unfinished",
            (
                f"{reached}; no {', no '.join(missing)}"
                if missing
                else f"{reached}; eval.json has no test score"
            ),
        )
    name = str(lookup(record, "config.name", path.name))
    return Run(name, path, state, reason, record, planned, metrics, evaluation, done)


def may_look_into(folder: pathlib.Path) -> bool:
    try:
        os.stat(os.path.join(folder, "."))
    except PermissionError:
        return False
    return True


def read_experiment(directory) -> list:
    """All run directories of an experiment, sorted by name. No directory, no run or none finished:
    UserError."""
    directory = pathlib.Path(directory)
    try:
        found = sorted(path for path in directory.iterdir() if path.is_dir() and path.name[0] not in "._")
    except PermissionError as error:
        raise UserError(f"{directory}: may not be read ({error.strerror})") from None
    except OSError:
        raise UserError(f"{directory}: no such directory of runs") from None
    # of one that may not be looked into it is said so
    folders = [
        path
        for path in found
        if (any((path / name).exists() for name in TRACES) if may_look_into(path) else path.name != LAUNCH)
    ]
    if not folders:
        raise UserError(f"{directory}: holds no run directories")
    runs = [read_run(path) for path in folders]
    if not any(run.state == "done" for run in runs):
        what = "; ".join(f"{run.name}: {run.state}, {run.reason}" for run in runs[:3])
        raise UserError(
            f"{directory}: {counted(len(runs), 'run')}, of which none has finished"
            f" ({what}{'; ...' if len(runs) > 3 else ''})"
        )
    return runs
