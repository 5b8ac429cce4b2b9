"""How the files of a finished run contradict one another, or say what cannot be: no number of such a run is
to be believed. What a file does not say contradicts nothing."""

import math
import pathlib

from bltjax.config import SCHEMA_VERSION
from bltjax.storage.rundir import config_fingerprint, number


def of(record: dict, planned: dict, last: dict, evaluation: dict, done: dict) -> list[str]:
    """A line each. record, planned, evaluation, done: what config.json, planned.json, eval.json and done.json
    hold; last: the last line of metrics.jsonl; {} for what is not there."""
    lines = []
    for name, said in (("config.json", record), ("planned.json", planned), ("eval.json", evaluation)):
        version = number(said, "schema_version")
        if version is not None and version > SCHEMA_VERSION:
            lines.append(f"{name} is of format {version:g}; this bltjax reads formats up to {SCHEMA_VERSION}")
    for split in ("test", "validation"):
        lines += of_scores(evaluation.get(split), split)
    asked, counted = number(record, "config.budget_flops"), number(planned, "budget_flops")
    if asked and counted is not None and asked > 0 and abs(counted - asked) > 1e-6 * asked:
        lines.append(f"config.json has a budget of {asked:.4g} FLOPs, planned.json one of {counted:.4g}")
    steps, reached = number(planned, "steps"), number(last, "step")
    if steps is not None and reached is not None and reached != steps:
        lines.append(f"done.json, but metrics.jsonl ends at step {reached:g} of {steps:g}")
    stated, logged = number(done, "realized_flops"), number(last, "useful_flops")
    if stated is not None and logged is not None and abs(stated - logged) > 1e-3 * abs(logged):
        lines.append(f"done.json states {stated:.4g} realized FLOPs, metrics.jsonl ends at {logged:.4g}")
    return lines


def of_config(run_dir: pathlib.Path, record: dict, *others: dict) -> str:
    """Whether config.json is another run's, in a line with what helps; "" where nothing tells. others: what
    planned.json, eval.json and done.json hold.

    They state the fingerprint of the config that they were made with. Where they are older than that, the
    config's name tells: it is the directory's, and so never that of a run that stands beside."""
    name = (record.get("config") or {}).get("name")
    if stated := {other["config_fingerprint"] for other in others if other.get("config_fingerprint")}:
        wrong = stated != {config_fingerprint(record)}
    else:
        beside = isinstance(name, str) and name != run_dir.name
        wrong = beside and (run_dir.parent / name / "config.json").is_file()
    whose = f"another run's ({name})" if name != run_dir.name else "not the one that it was made with"
    return f"config.json is {whose}; restore it, or remove {run_dir} to run it anew" if wrong else ""


def of_scores(scored, split: str, tolerance: float = 1e-4) -> list[str]:
    """The same of the scores of one split, as eval.json has them."""
    if (stated := number(scored, "bpb")) is None:
        return []
    if stated <= 0:
        return [f"eval.json states {stated:.4f} {split} bits per byte, which cannot be"]
    rows = scored_documents(scored)
    if any(row["nats"] < 0 or row["bytes"] < 0 for row in rows):
        return [f"eval.json has {split} documents of negative nats or bytes"]
    if not rows:
        return []
    # bits per byte, Eq. 18 of the paper
    summed = math.fsum(row["nats"] for row in rows) / (math.log(2) * sum(row["bytes"] for row in rows))
    if abs(summed - stated) <= tolerance * stated:
        return []
    return [f"eval.json states {stated:.4f} {split} bits per byte, its documents sum to {summed:.4f}"]


def scored_documents(scored: dict) -> list[dict]:
    """[{"bytes", "nats"}, ...] of one split's documents that hold bytes."""
    rows = scored.get("documents")
    return [
        row
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and number(row, "bytes") and number(row, "nats") is not None
    ]
