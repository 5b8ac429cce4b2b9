"""Where every run of an experiment stands: done, running, stopped, failed or waiting, and why."""

import pathlib

from bltjax.sweep import locks, rundir


def of_run(run_dir: pathlib.Path) -> dict:
    """One run: state (done | running | failed | stopped | waiting), step, steps, bits per byte (held-out when done, else training)."""
    state = rundir.state(run_dir)
    if state != "done" and locks.is_held(run_dir / ".lock"):
        state = "running"
    state = {"started": "stopped", "new": "waiting"}.get(state, state)
    planned = rundir.read_json(run_dir / "planned.json") or {}
    metrics = rundir.last_metrics(run_dir) or {}
    failed = rundir.read_json(run_dir / "failed.json") if state == "failed" else None
    scored = rundir.read_json(run_dir / "eval.json") if state == "done" else None
    return {"state": state, "step": metrics.get("step", 0), "steps": planned.get("steps"),
            "train_bpb": metrics.get("bpb"), "held_out_bpb": scored["held_out"]["bpb"] if scored else None,
            "why": failed.get("error") if failed else None, "notes": rundir.notes(run_dir), "run_dir": str(run_dir)}


def of_experiment(root: pathlib.Path, experiment: str, names: list[str]) -> list[dict]:
    """Every run that the experiment declares, and a byte LM that a run of it needs is seen through its own run directory."""
    return [{"name": name, **of_run(root / experiment / name)} for name in names]


def text_table(rows: list[dict]) -> str:
    width = max([len(r["name"]) for r in rows] + [4])
    lines = [f"{'run':<{width}}  {'state':<8} {'step':>11}  {'train bpb':>9}  {'held-out':>8}  why"]
    for r in rows:
        steps = f"{r['step']}/{r['steps']}" if r["steps"] else "-"
        train = f"{r['train_bpb']:.3f}" if r["train_bpb"] is not None else "-"
        held = f"{r['held_out_bpb']:.3f}" if r["held_out_bpb"] is not None else "-"
        lines.append(f"{r['name']:<{width}}  {r['state']:<8} {steps:>11}  {train:>9}  {held:>8}  {r['why'] or '; '.join(r['notes'])}".rstrip())
    counts = {}
    for r in rows:
        counts[r["state"]] = counts.get(r["state"], 0) + 1
    return "\n".join(lines + ["", ", ".join(f"{n} {s}" for s, n in counts.items())])
