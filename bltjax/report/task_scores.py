"""What `bltjax eval` kept in run directories: scores of tasks and of files, with what a byte cost."""

from bltjax.results.run_directories import finite
from bltjax.storage import json_object

TASKS = ("run", "task", "items", "scores", "chance", "bytes per patch", "FLOPs per byte")
HIDDEN = ("acc_bytes",)  # metrics that are kept in files alone
FILES = ("run", "group", "documents", "bytes", "bits per byte", "bytes per patch", "FLOPs per byte")


def tables(runs: list) -> list:
    """[{"columns", "rows"}, ...]: tasks, then groups of files; without rows where nothing was evaluated."""
    tasks, files = [], []
    for run in runs:
        for path in sorted(run.path.glob("eval/*/*.json")):
            found, _ = json_object.read(path)
            try:
                if found and path.name == "files.json":
                    files += [_group(run.name, group) for group in found["groups"]]
                    files += [_group(run.name, g, x["noise"]) for x in found["noises"] for g in x["groups"]]
                elif found and found.get("task") == path.stem:
                    tasks.append(_task(run.name, found))
            except (KeyError, TypeError, AttributeError):  # of another version: it is said nowhere
                continue
    order = lambda row: (row[1], row[0])
    return [
        dict(columns=list(TASKS), rows=sorted(tasks, key=order)),
        dict(columns=list(FILES), rows=sorted(files, key=order)),
    ]


def _task(run: str, found: dict) -> list:
    metrics = {name: value for name, value in found["metrics"].items() if name not in HIDDEN}
    scores = ", ".join(f"{name} {shown(value)}" for name, value in metrics.items())
    chance = f"{found['chance']:.3f}" if finite(found.get("chance")) else "–"
    return [run, found["task"], f"{found['items']:,}", scores, chance, *_cost(found)]


def shown(metric: dict) -> str:
    """A metric and its standard error."""
    error = metric.get("stderr")
    return f"{metric['value']:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _group(run: str, group: dict, noise: str = "") -> list:
    size = (f"{group['documents']:,}", f"{group['bytes']:,}", f"{group['bpb']:.4f}")
    name = f"{group['group']}, {noise}" if noise else str(group["group"])
    return [run, name, *size, *_cost(group)]


def _cost(found: dict) -> list:
    beside = found["entropy_flops_per_byte"]
    flops = f"{found['flops_per_byte']:,.0f}" + (f" + {beside:,.0f}" if beside else "")
    return [f"{found['patch_size']:.2f}", flops]
