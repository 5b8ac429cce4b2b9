"""How fast runs go and when they will be done, from the newest lines of their metrics."""

import json
import pathlib
import statistics
import time
from typing import NamedTuple

from bltjax.compile import chips
from bltjax.storage import json_lines
from bltjax.storage.rundir import number

LINES = 50  # of metrics.jsonl, the newest, from which a rate is taken
PAUSE = 10  # times the median: an interval so slow a step is no training (a restart, a compilation)
SILENT_SECONDS = 60.0  # are never worth a word
LOGGED = ("step", "bytes", "useful_flops", "wall_s")


class Rate(NamedTuple):
    """Per second of training; seconds: usually between two lines."""

    steps: float
    bytes: float
    flops: float
    seconds: float


def recent(run_dir: pathlib.Path, since: float = 0.0) -> list[dict]:
    """The newest lines of a run's metrics that are whole; those of its attempt since a time (seconds since
    1970), as far as they tell a rate."""
    try:
        lines = json_lines.tail(run_dir / "metrics.jsonl", LINES)
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if all(number(value, key) is not None for key in LOGGED):
            found.append(value)
    own = [line for line in found if (number(line, "time") or 0.0) >= since]
    return own if len(own) > 2 else found


def rate(lines: list[dict]) -> Rate | None:
    """The rate over lines of metrics; None where they tell none. Pauses are left out: what a restart took
    says nothing of the steps that are to come."""
    passed = [tuple(b[key] - a[key] for key in LOGGED) for a, b in zip(lines, lines[1:])]
    passed = [one for one in passed if one[0] > 0 and one[3] > 0]
    if not passed:
        return None
    usual = statistics.median(seconds / steps for steps, _, _, seconds in passed)
    kept = [one for one in passed if one[3] / one[0] <= PAUSE * usual]
    steps, read, flops, seconds = map(sum, zip(*kept))
    return Rate(steps / seconds, read / seconds, flops / seconds, seconds / len(kept))


def of_run(run_dir: pathlib.Path, record: dict, planned: dict, budget=None, since: float = 0.0) -> dict:
    """{"bytes_per_s", "flops_per_s" (useful ones), "mfu" (of the devices' peak), "seconds_left" (of
    training), "flops_left", "silent_s" (since its newest line, where that is far longer than usual)}; None:
    not known. record: config.json; budget: FLOPs, of a run that is not planned yet; since: when the newest
    attempt began."""
    lines = recent(run_dir, since)
    found, last = rate(lines), lines[-1] if lines else {}
    steps, flops, step = number(planned, "steps"), number(planned, "train_flops"), last.get("step", 0)
    flops = flops if flops is not None else budget or None
    left = max(0.0, (steps - step) / found.steps) if found and steps is not None else None
    heard = max(number(last, "time") or 0.0, since)
    silent, long = time.time() - heard, max(SILENT_SECONDS, PAUSE * found.seconds) if found else 0.0
    known = {
        "bytes_per_s": found and found.bytes,
        "flops_per_s": found and found.flops,
        "mfu": found and mfu(found.flops, record),
        "seconds_left": left,
        "flops_left": None if flops is None else max(0.0, flops - last.get("useful_flops", 0.0)),
        "silent_s": silent if found and left and heard and silent > long else None,
    }
    return {key: number(known, key) for key in known}  # what is absurd in a damaged file is not known


def mfu(flops_per_second: float, record: dict) -> float | None:
    """Useful FLOPs a second over the peak of the devices that config.json names; None where it is unknown."""
    device, devices = record.get("device"), number(record, "devices")
    chip = chips.of_kind(device) if isinstance(device, str) else None
    if not chip or not chip.flops_per_second or not devices or devices < 1:
        return None
    return flops_per_second / (chip.flops_per_second * devices)


def seconds_left(runs: list[dict], jobs: list[dict]) -> float | None:
    """Until all runs that can end have, if as many go on at this rate; None where that cannot be said: a run
    of unknown size, none under way, or a shared job before them. runs, jobs: as status.py has them."""
    left = [run for run in runs if run["state"] in ("running", "stopped", "waiting") and not run["blocked"]]
    going = [run for run in left if run["state"] == "running"]
    known = all(run["flops_left"] is not None for run in left) and all(run["flops_per_s"] for run in going)
    if not going or not known or any(run["eta_s"] is None for run in going):
        return None
    if any(job["state"] not in ("done", "failed", "given up") for job in jobs):
        return None
    together = sum(run["flops_left"] for run in left) / sum(run["flops_per_s"] for run in going)
    return max(together, *(run["eta_s"] for run in going))
