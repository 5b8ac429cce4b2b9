"""Where every run of an experiment stands: done, running, stopped, failed, damaged or waiting, and why."""

import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.run import inputs, jobs
from bltjax.storage import contradictions, locks, rundir


def damaged(run_dir: pathlib.Path) -> str:
    """Which file of a run is not whole, or how those of a done one contradict one another, and what helps, in
    a line; "" where all is well."""
    try:
        record = rundir.read_json(run_dir / "config.json")
    except UserError as error:
        return str(error)
    if why := rundir.damage(run_dir):
        return f"{why}; `bltjax run` will redo it"
    if not (done := rundir.read_json(run_dir / "done.json")):
        return ""
    planned, last = rundir.read_json(run_dir / "planned.json"), rundir.last_metrics(run_dir)
    evaluation = rundir.read_json(run_dir / "eval.json")
    if why := contradictions.of_config(run_dir, record or {}, planned, evaluation, done):
        return why
    silent = not last and "metrics.jsonl" not in rundir.unreadable(run_dir)
    why = ["done.json, but metrics.jsonl has no step"] if silent else []
    why += contradictions.of(record or {}, planned, last or {}, evaluation, done)
    redo = "remove done.json, and `bltjax run` goes on from its last checkpoint"
    return f"{'; '.join(why)}; {redo}" if why else ""


def of_run(run_dir: pathlib.Path, config: ConfigDict | None = None) -> dict:
    """One run: state (done | running | failed | damaged | stopped | waiting | unreadable), step, steps, bits
    per byte (test if done) and why. unreadable: a file that says it may not be read by this user. config:
    what the run is to be; of one that is another, why says what differs."""
    denied = rundir.unreadable(run_dir)
    why = f"no permission to read {', '.join(denied)}" if denied else None
    if set(denied) - {".lock", "metrics.jsonl"}:  # without these it can be said, if less of it
        return {
            **dict.fromkeys(("steps", "train_bpb", "test_bpb")),
            **{"state": "unreadable", "step": 0, "why": why, "notes": [], "run_dir": str(run_dir)},
        }
    state = rundir.state(run_dir)
    if state != "done" and locks.is_held(run_dir / ".lock"):
        state = "running"
    elif state == "failed":
        why = (rundir.read_json(run_dir / "failed.json") or {}).get("error") or "failed.json does not say why"
    elif broken := damaged(run_dir):
        state, why = "damaged", broken
    state = {"started": "stopped", "new": "waiting"}.get(state, state)
    why = why or (another(run_dir, config) if config is not None else None)
    if state == "waiting":
        why = why or _failed_before(run_dir)
    planned = rundir.read_json(run_dir / "planned.json") or {}
    metrics = rundir.last_metrics(run_dir) or {}
    scored = rundir.read_json(run_dir / "eval.json") if state == "done" else None
    return {
        "state": state,
        "step": metrics.get("step", 0),
        "steps": rundir.number(planned, "steps"),
        "train_bpb": rundir.number(metrics, "bpb"),
        "test_bpb": rundir.number(scored, "test.bpb"),
        "why": why,
        "notes": rundir.notes(run_dir),
        "run_dir": str(run_dir),
    }


def _failed_before(run_dir: pathlib.Path) -> str | None:
    """Which job failed that the run waits for."""
    found = {}
    needed_by(run_dir, found)
    return next(
        (f"{job['name']} failed: {job['why']}" for job in found.values() if job["state"] == "failed"), None
    )


def another(run_dir: pathlib.Path, config: ConfigDict) -> str | None:
    """What a run that has begun differs in from a config, in a line; None where it is the same."""
    try:
        record = rundir.read_json(run_dir / "config.json")
        if record is None or not rundir.begun(run_dir):
            return None
        differing = rundir.differences(run_dir, record, config)
    except UserError as error:
        return str(error)
    found = [said for key, said in differing.items() if key.split(".")[0] not in cfg.LABELS]
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""
    return f"of another config: {', '.join(found[:2])}{more}" if found else None


def of_experiment(root: pathlib.Path, experiment: str, names: list[str], configs: dict | None = None):
    """[dict] of every run that the experiment declares. configs: {name: its config}, as far as known."""
    known = configs or {}
    return [{"name": name, **of_run(root / experiment / name, known.get(name))} for name in names]


def of_shared(root: pathlib.Path, experiment: str, names: list[str]) -> list[dict]:
    """The jobs whose outputs these runs read, as far as their inputs.json name them: {"name", "kind",
    "state", "why"}."""
    found = {}
    for name in names:
        needed_by(root / experiment / name, found)
    return list(found.values())


def needed_by(run_dir: pathlib.Path, found: dict) -> None:
    """Adds the jobs that a run directory's inputs.json names to {directory: job}, those of its entropy model
    first."""
    said = inputs.read(run_dir) or {}
    paths = [*said.get("data", {}), said.get("entropy_model"), said.get("annotation")]
    if said.get("tokenizer"):
        paths.append(str(pathlib.Path(said["tokenizer"]).parent))
    for path in filter(None, paths):
        directory = (run_dir / path).resolve()
        if directory in found or directory.parent.name != rundir.SHARED:
            continue
        if path == said.get("entropy_model"):
            needed_by(directory, found)
        found[directory] = of_job(directory)


def of_job(directory: pathlib.Path) -> dict:
    """One shared job."""
    try:
        return _of_job(directory)
    except OSError as error:
        why = f"{error.filename or directory}: {error.strerror}"
        return {"name": directory.name, "kind": "?", "state": "unreadable", "why": why}


def _of_job(directory: pathlib.Path) -> dict:
    if (directory / "inputs.json").exists():
        run = of_run(directory)
        return {"name": directory.name, "kind": "run", "state": run["state"], "why": run["why"]}
    try:
        kind = jobs.kind_of(directory)
        state, why = jobs.state(directory, kind), None
    except UserError as error:
        return {"name": directory.name, "kind": "?", "state": "damaged", "why": str(error)}
    if state != "done" and locks.is_held(directory / ".lock"):
        state = "running"
    elif state == "failed":
        why = (rundir.read_json(directory / "failed.json") or {}).get("error")
    elif state != "done":
        state = "waiting"
    return {"name": directory.name, "kind": kind, "state": state, "why": why}


def text_table(rows: list[dict], shared=()) -> str:
    width = max([len(r["name"]) for r in rows] + [4])
    lines = [f"{'run':<{width}}  {'state':<8} {'step':>11}  {'train bpb':>9}  {'test':>8}  why"]
    for r in rows:
        steps = f"{r['step']}/{r['steps']}" if r["steps"] else "-"
        train = f"{r['train_bpb']:.3f}" if r["train_bpb"] is not None else "-"
        held = f"{r['test_bpb']:.3f}" if r["test_bpb"] is not None else "-"
        # what a run overcame on its way is no news once it is done
        noted = "" if r["state"] == "done" else "; ".join(r["notes"])
        numbers = f"{steps:>11}  {train:>9}  {held:>8}"
        lines.append(f"{r['name']:<{width}}  {r['state']:<8} {numbers}  {r['why'] or noted}".rstrip())
    counts = {}
    for r in rows:
        counts[r["state"]] = counts.get(r["state"], 0) + 1
    lines += ["", ", ".join(f"{n} {s}" for s, n in counts.items())]
    if shared:
        lines += ["", "shared by these runs"]
        lines += [f"  {job['name']}  {job['state']}  {job['why'] or ''}".rstrip() for job in shared]
    return "\n".join(lines)
