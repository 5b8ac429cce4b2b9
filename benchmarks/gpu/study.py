"""The study of compression on one GPU, in a quarter of an hour and without a network.

    python -m benchmarks.gpu.study pack TEXT FILE                here: the study's text as one file to carry
    python -m benchmarks.gpu.study run --text FILE --out DIR     there: the runs, their results in DIR

Several runs share the GPU, each in a process of its own with its share of the memory, so that one compiles,
reads or scores while another trains. The smallest budgets come first, and within a budget the middle sizes of
all families: whatever the moment, what is done is whole IsoFLOPs from below, and of the last one the centres.
After every run DIR is brought up to date (results.tar.gz: run directories without checkpoints; study.json),
so that a machine that goes away takes no finished run with it. Run again on the same --work, it goes on."""

import argparse
import collections
import importlib.util
import json
import lzma
import os
import pathlib
import shutil
import sys
import tarfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDED = ("jax", "flax", "optax", "orbax", "ml_collections", "tokenizers", "array_record", "grain", "tqdm")
EXPERIMENT = "compression:gpu"
SMALL = ("quickstart:short", ("bpe-S", "blt-entropy-S"))  # what --small tries instead
SMALL_ENVIRONMENT = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # a CPU compiles much faster
# What a run's process finds on a GPU. Small models are compiled for longer than they train: a BLT took over
# 300 s of CPU time where XLA tries its products of matrices and fusions one by one, and a tenth without.
GPU_ENVIRONMENT = {
    "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a run takes what it needs, 1 to 6 GB
}
SECONDS = 780  # of a quarter of an hour: the rest is the machine's start and the transfers
STOP_SECONDS = 25  # before the end, running runs are asked to save and stop
# Until the first run has ended: seconds that every run takes, and FLOPs a second of one of ten (H200).
BASE_SECONDS, RUN_FLOPS_PER_SECOND = 50, 2e13
MEMORY = 0.92  # of the GPU's, for all runs together
# What of a run, and of what runs share, is a result: all but checkpoints, text and entropies.
KEPT = (
    *("config.json", "inputs.json", "planned.json", "eval.json", "done.json", "failed.json"),
    *("metrics.jsonl", "notes.txt", "log.txt"),
)
TEXT = {
    "source": "files",
    "test": 0.005,
    "validation": 0.005,
    "group_field": "language",
}  # as docs/study.md has it


def main(argv=None) -> int:
    """Exit status: 0, every run is done; 1, time was over or one failed; 2, nothing could be run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, dest="verb")
    sub = verbs.add_parser("pack", help="the study's text as one file to carry")
    sub.add_argument("folder", type=pathlib.Path, help="what `python -m benchmarks.study_text` wrote")
    sub.add_argument("file", type=pathlib.Path)
    sub = verbs.add_parser("run", help="the runs")
    sub.add_argument("--text", type=pathlib.Path, required=True, help="what `pack` wrote")
    sub.add_argument("--out", type=pathlib.Path, required=True, help="for study.json and results.tar.gz")
    sub.add_argument("--work", type=pathlib.Path, help="for text, checkpoints, compiled programs (OUT/work)")
    sub.add_argument("--experiment", default=EXPERIMENT, help=f"default: {EXPERIMENT}")
    sub.add_argument("--only", action="append", default=[], help="only runs whose name contains this")
    sub.add_argument("--seconds", type=float, default=SECONDS, help=f"for everything (default: {SECONDS})")
    sub.add_argument("--workers", type=int, default=10, help="runs at once (default: 10)")
    sub.add_argument("--small", action="store_true", help="two tiny runs, to try it on any machine")
    args = parser.parse_args(argv)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return unusable(
            f'missing Python packages: {", ".join(missing)} (benchmarks/gpu/README.md, "Carrying")'
        )
    from bltjax.errors import UserError

    try:
        return pack(args.folder, args.file) if args.verb == "pack" else run(args)
    except UserError as error:
        return unusable(str(error))


def unusable(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


# ------------------------------------------------------------------------------------------------- the text


def pack(folder: pathlib.Path, file: pathlib.Path) -> int:
    """The JSON lines of a folder as one file, as small as xz makes it: 147 MB of text become 27. Prepared
    text, whose documents are compressed one by one, has 56 MB, and preparing takes less than half a minute.
    """
    from bltjax.errors import UserError
    from bltjax.storage import atomic

    if not (names := sorted(folder.glob("*.jsonl"))):
        raise UserError(f"{folder} has no .jsonl files; `python -m benchmarks.study_text` writes them")
    with atomic.replacing(file) as part, lzma.open(part, "wb", preset=6) as out:
        for name in names:
            with name.open("rb") as lines:
                shutil.copyfileobj(lines, out)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return 0


def read_from(file: pathlib.Path) -> list[str]:
    """The settings of every run that make it read the file's text."""
    settings = {**TEXT, "globs": [str(file.absolute())]}
    return [f"data.{key}={json.dumps(value)}" for key, value in settings.items()]


# ------------------------------------------------------------------------------------------------- the runs


def run(args) -> int:
    began = time.monotonic()
    from bltjax.errors import UserError
    from bltjax.experiments import registry
    from bltjax.launch import local
    from bltjax.sweep import runner

    if args.workers < 1:
        raise UserError(f"--workers is {args.workers}; it must be 1 or more")
    where, _ = local.devices()
    if where != "gpu" and not args.small:
        raise UserError(f"JAX sees no GPU here, but {where}; --small tries the study on any machine")
    work = (args.work or args.out / "work").absolute()
    surround(work, args.workers, args.small, where)
    name, only = SMALL if args.small else (args.experiment, args.only or "")
    experiment = registry.load(name, read_from(args.text), only=only)
    tasks = runner.tasks_of(work / "runs", experiment.name, list(experiment.runs))
    tasks = in_order(tasks, {config.name: config for config in experiment.runs})
    study = Study(args.out, work, experiment.name, tasks, began, args.seconds, args.workers)
    slots = [local.Slot()] * args.workers if where == "gpu" else local.slots(args.workers)
    return study.do(local, slots)


def surround(work: pathlib.Path, workers: int, small: bool, where: str) -> None:
    """What the processes of the runs find in their environment, unless it is set already."""
    found = {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{MEMORY / workers:.3f}",
        "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
        "TF_CPP_MIN_LOG_LEVEL": "1",
        **(GPU_ENVIRONMENT if where == "gpu" else SMALL_ENVIRONMENT if small else {}),
    }
    for key, value in found.items():
        os.environ.setdefault(key, value)
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)


def in_order(tasks: list, configs: dict) -> list:
    """What runs share first; then budgets from below, each with the middle sizes of every family (and
    vocabulary, and patch size) before those beside them, and further seeds last."""
    series = collections.defaultdict(list)
    for task in tasks:
        if config := configs.get(task.name if task.job.experiment else None):
            series[series_of(config)].append(task.name)
    aside = {
        name: abs(place - (len(names) - 1) / 2)
        for names in series.values()
        for place, name in enumerate(names)
    }
    places = {name: place for place, name in enumerate(configs)}
    seeds = {name: config.seed for name, config in configs.items()}
    return sorted(
        tasks,
        key=lambda task: (
            task.job.experiment,
            task.job.flops if task.job.experiment else -task.job.flops,
            seeds.get(task.name, 0),
            aside.get(task.name, 0.0),
            places.get(task.name, 0),
        ),
    )


def series_of(config) -> tuple:
    """What the sizes of one IsoFLOP have in common."""
    vocab = config.tokenizer.vocab if len(config.tokenizer) else 0
    return config.family, config.patching.size, vocab, config.budget_flops, config.seed


class Study:
    """The runs on their way, against the clock."""

    def __init__(self, out, work, name: str, tasks: list, began: float, seconds: float, workers: int):
        """began: time.monotonic() at the start, from which the seconds count."""
        self.out, self.work, self.name, self.tasks = pathlib.Path(out), work, name, tasks
        self.began, self.seconds, self.workers = began, seconds, workers
        self.started, self.walls, self.first = {}, {}, None
        self.out.mkdir(parents=True, exist_ok=True)

    def spent(self) -> float:
        return time.monotonic() - self.began

    def left(self) -> float:
        """Seconds for work: what is kept for stopping is not among them."""
        return self.seconds - self.spent() - STOP_SECONDS

    def do(self, machine, free: list) -> int:
        """machine: what starts processes (launch/local.py). free: a slot for each that may run at once."""
        from bltjax.sweep import runner

        display = Lines(self)
        self.keep()
        while any(task.state in ("waiting", "running", "elsewhere") for task in self.tasks):
            if self.left() <= 0:
                runner.stop(self.tasks, STOP_SECONDS - 5)
                break
            self.leave_out()
            before = self.states()
            runner.advance(self.tasks, free, machine, display)
            self.note_times()
            if self.ended(before):
                self.keep()
            time.sleep(runner.POLL_SECONDS / 2)
        self.keep()
        print(summary(self.record()))
        return 0 if all(task.state == "done" for task in self.tasks) else 1

    def states(self) -> dict:
        return {task.name: task.state for task in self.tasks}

    def ended(self, before: dict) -> bool:
        """Whether a job came to its end since."""
        now = self.states()
        return any(now[name] in ("done", "failed") and now[name] != state for name, state in before.items())

    def note_times(self) -> None:
        """When each run began here, and how long it took; of another process's runs (several may share one
        WORK) the wait is no measure."""
        from bltjax.storage import rundir

        for task in self.tasks:
            if task.state == "running":
                self.started.setdefault(task.name, self.spent())
            elif task.state == "elsewhere":
                self.started.pop(task.name, None)
            elif task.state == "done" and task.name in self.started and task.name not in self.walls:
                # one that another process had done is found so in seconds
                own_wall = (rundir.read_json(task.directory / "done.json") or {}).get("wall_s", 0.0)
                self.walls[task.name] = max(self.spent() - self.started[task.name], own_wall)

    def leave_out(self) -> None:
        """Runs that would not end in time are not begun (state `left`); smaller ones still are."""
        known = [(t.job.flops, self.walls[t.name]) for t in self.tasks if t.name in self.walls and own(t)]
        for task in self.tasks:
            if task.state == "waiting" and own(task) and expected(task.job.flops, known) > self.left():
                task.state = "left"

    # ------------------------------------------------------------------------------------------ what is kept

    def record(self) -> dict:
        """study.json."""
        from bltjax.storage import rundir

        runs, device = [], ""
        for task in filter(own, self.tasks):
            done = rundir.read_json(task.directory / "done.json") or {}
            scored = rundir.read_json(task.directory / "eval.json") or {}
            config = rundir.read_json(task.directory / "config.json") or {}
            device = config.get("device", device)
            runs.append(
                dict(
                    name=task.name,
                    state=task.state,
                    budget_flops=task.job.flops,
                    realized_flops=done.get("realized_flops"),
                    seconds=self.walls.get(task.name, done.get("wall_s")),
                    test_bpb=rundir.number(scored, "test.bpb"),
                )
            )
        here = sum(run["budget_flops"] for run in runs if run["name"] in self.walls)
        return dict(
            schema_version=1,
            experiment=self.name,
            device=device,
            workers=self.workers,
            seconds=round(self.spent(), 1),
            flops_done_here=here,
            flops_per_second=here / self.spent(),
            shared={
                t.name: round(self.walls[t.name], 1)
                for t in self.tasks
                if t.name in self.walls and not own(t)
            },
            runs=runs,
        )

    def keep(self) -> None:
        """Brings the results up to date; each file is whole at any moment."""
        from bltjax.storage import atomic

        with atomic.replacing(self.out / "results.tar.gz") as part, tarfile.open(part, "w:gz") as archive:
            for path in self.results():
                archive.add(path, str(path.relative_to(self.work)))
        atomic.write_json(self.out / "study.json", self.record())

    def results(self) -> list[pathlib.Path]:
        runs = self.work / "runs"
        folders = [task.directory for task in self.tasks if own(task)]
        folders += sorted(path for path in (runs / "_shared").glob("*") if path.is_dir())
        return [folder / name for folder in folders for name in KEPT if (folder / name).is_file()]


class Lines:
    """What sweep/runner.py says of each job, with the time."""

    def __init__(self, study: Study):
        self.study = study

    def line(self, text: str) -> None:
        print(f"[{self.study.spent():5.0f} s] {text}", flush=True)


def own(task) -> bool:
    """Whether it is one of the experiment's runs, and not what they share."""
    return task.job.experiment


def expected(flops: float, known: list[tuple[float, float]]) -> float:
    """Seconds that a run will take, from (FLOPs, seconds) of those that ended: a part that every run has
    (compiling, scoring) and one that grows with FLOPs."""
    if not known:
        return BASE_SECONDS + flops / RUN_FLOPS_PER_SECOND
    x, y = np.array(known).T
    if len(set(x)) < 2:
        return float(y.max() * max(1.0, flops / x[0]))
    slope, base = np.polyfit(x, y, 1)
    slope = max(slope, 0.0)
    base = max(base, 0.0) if slope else float(y.mean())
    return float(base + slope * flops)


def summary(record: dict) -> str:
    """A table of the runs, and what the machine made of its time."""
    rows = ["| run | state | FLOPs | seconds | bits per byte of test text |", "|---|---|---:|---:|---:|"]
    for run in record["runs"]:
        seconds = "" if run["seconds"] is None else f"{run['seconds']:.0f}"
        bpb = "" if run["test_bpb"] is None else f"{run['test_bpb']:.4f}"
        rows.append(f"| {run['name']} | {run['state']} | {run['budget_flops']:.3g} | {seconds} | {bpb} |")
    done = sum(run["state"] == "done" for run in record["runs"])
    return "\n".join(
        [
            *rows,
            f"{done} of {len(record['runs'])} runs done; {record['seconds']:.0f} s,"
            f" {record['workers']} at once on {record['device'] or 'an unknown device'}:"
            f" {record['flops_per_second']:.3g} FLOPs a second",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
