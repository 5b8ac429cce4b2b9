"""Where an experiment stands, with what a launch says of it. Files are read and nothing else: no scheduler is
asked, nothing is written, so that it can be said of anybody's runs."""

import pathlib

from bltjax.launch import job as launched
from bltjax.launch import submit
from bltjax.storage import attempts, json_object, rundir
from bltjax.sweep import progress, status

FAILED = ("failed", "given up", "damaged", "unreadable")  # states that change by somebody's doing alone


def of_experiment(root: pathlib.Path, experiment: str, configs: list, before: dict | None = None) -> dict:
    """What `bltjax status --json` prints (docs/run_directory.md): the experiment's runs with these configs,
    the jobs that they share, the launch (None: there was none), and totals. before: what earlier calls found,
    kept there for the next one."""
    named, known = {config.name: config for config in configs}, {}
    names = list(named)
    runs = status.of_experiment(root, experiment, names, named, known, before)
    jobs = status.of_shared(root, experiment, names, known)
    launch = of_launch(root / experiment / launched.FOLDER)
    given = launch["given"] if launch else {}
    runs, jobs = ([{**row, "launched": given.get(row["name"])} for row in rows] for rows in (runs, jobs))
    return {
        "experiment": experiment,
        "runs": runs,
        "jobs": jobs,
        "launch": launch and {key: launch[key] for key in ("on", "why")},
        "totals": totals(root, experiment, runs, jobs, launch),
    }


def of_launch(folder: pathlib.Path) -> dict | None:
    """What launch/ of an experiment says, as far as it is whole: "on" which target; "chip_hours" that may be
    spent (None: any); "own" and "shared", names of its jobs; "given", {job: {"on", "id"}} of what a scheduler
    was given; "why" not more is known (None: nothing is wrong). None where nothing was launched."""
    value, why = json_object.read(folder / launched.NAME)
    if why == json_object.MISSING:
        return None
    why = why and f"{launched.NAME} {why}"
    value = value or {}
    listed = [one for one in _list(value.get("jobs")) if isinstance(one, dict) and _name(one.get("name"))]
    given = {}
    try:
        for record in submit.records(folder, damaged=True).values():
            if isinstance(record.get("on"), str) and record.get("id") != "":  # "": it never came there
                of = {"on": record["on"], "id": record.get("id")}
                given |= {name: of for name in _list(record.get("jobs")) if isinstance(name, str)}
    except OSError as error:
        why = why or f"{submit.RECORD} may not be read ({error.strerror})"
    return {
        "on": str(value.get("on") or "") or None,
        "chip_hours": rundir.number(value, "chip_hours"),
        "own": [one["name"] for one in listed if one.get("own")],
        "shared": [one["name"] for one in listed if not one.get("own")],
        "given": given,
        "why": f"{launched.FOLDER}/{why}" if why else None,
    }


def _list(value) -> list:
    return value if isinstance(value, list) else []


def _name(value) -> bool:
    """Whether it is the name of a directory and no way out of it."""
    return isinstance(value, str) and pathlib.PurePath(value).name == value


def totals(root: pathlib.Path, experiment: str, runs, jobs, launch: dict | None) -> dict:
    """Of all runs and what they share: how many, how many are done and failed, chip-hours spent (of all that
    was launched), whether chips were among them, the budget, seconds until all are done."""
    rows = [*runs, *jobs]
    spent = sum((row["chip_hours"] or 0.0 for row in rows), 0.0)
    others = []
    if launch:
        own, shared = {row["name"] for row in runs}, {row["name"] for row in jobs}
        others += [root / experiment / name for name in launch["own"] if name not in own]
        others += [root / rundir.SHARED / name for name in launch["shared"] if name not in shared]
    tried = [one for directory in others for one in attempts.read(directory)]
    return {
        "runs": len(runs),
        "done": sum(row["state"] == "done" for row in runs),
        "failed": sum(row["state"] in FAILED for row in runs),
        "chip_hours": spent + attempts.hours_of(tried),
        "on_chips": any(row["chips"] for row in rows) or any(one["chips"] for one in tried),
        "budget_chip_hours": launch and launch["chip_hours"],
        "eta_s": progress.seconds_left(runs, jobs),
    }


def over(found: dict) -> int | None:
    """The exit status of a watch that has nothing left to wait for: 0 all are done; 1 the rest failed, waits
    for what failed, or for a budget that is spent. None: it goes on. found: as of_experiment has it."""
    runs, total = found["runs"], found["totals"]
    if total["done"] == total["runs"]:
        return 0
    if any(row["state"] == "running" for row in [*runs, *found["jobs"]]):
        return None
    spent = total["budget_chip_hours"] and total["chip_hours"] >= total["budget_chip_hours"]
    ended = all(row["state"] in ("done", *FAILED) or row["blocked"] or spent for row in runs)
    return 1 if ended else None
