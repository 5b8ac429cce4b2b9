"""The runs of an experiment as a graph of jobs: what each reads is the output of another job, made once for
all.

    prepare -> tokenizer -------------\\
           \\-> entropy model -> annotate -> run

What runs share lies in ROOT/_shared, in directories that are named after everything that they are made of:
config, inputs and the version of the code that makes them. The graph is a function of configs and of the
source's file names and time stamps; nothing is read or made here but the jobs' own config.json.
"""

import dataclasses
import hashlib
import json
import os
import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import patching
from bltjax.data import prepare, sources, splits
from bltjax.errors import UserError
from bltjax.run import budget, inputs, jobs
from bltjax.storage import rundir


@dataclasses.dataclass
class Job:
    """needs: directories of the jobs whose outputs this one reads. flops: that it is to spend, as far as
    known."""

    name: str
    kind: str  # jobs.KINDS, or run
    directory: pathlib.Path
    needs: tuple[pathlib.Path, ...]
    flops: float = 0.0
    experiment: bool = False  # one of the experiment's own runs


def of_runs(root: pathlib.Path, experiment: str, configs: list[ConfigDict]) -> list[Job]:
    """All jobs of an experiment's runs, each after those that it needs; every job's directory has its config.

    UserError for runs that cannot be, before anything is made: another run's directory, a source that is not
    there. """
    graph = _Graph(pathlib.Path(root) / rundir.SHARED)
    for config in configs:
        graph.run(config, pathlib.Path(root) / experiment / config.name, experiment, own=True)
    return list(graph.jobs.values())


def of_run(run_dir: pathlib.Path, config: ConfigDict, experiment: str) -> list[Job]:
    """The same for one run in a directory ROOT/EXPERIMENT/RUN; the run is the last."""
    graph = _Graph(rundir.shared(run_dir))
    graph.run(config, run_dir, experiment, own=True)
    return list(graph.jobs.values())


class _Graph:
    """Jobs by directory, in an order in which they can be made."""

    def __init__(self, shared: pathlib.Path):
        self.shared = shared
        self.jobs: dict[pathlib.Path, Job] = {}

    def add(self, job: Job) -> pathlib.Path:
        self.jobs.setdefault(job.directory, job)
        return job.directory

    def job(self, kind: str, name: str, config: dict, made_of, needs=()) -> pathlib.Path:
        """A shared job of this kind, in a directory named after what it is made of."""
        key = cfg.fingerprint({"kind": kind, "version": jobs.VERSIONS[kind], "made of": made_of})
        directory = self.shared / f"{name}-{key}"
        jobs.create(directory, kind, config)
        return self.add(Job(directory.name, kind, directory, tuple(needs)))

    def run(
        self, config: ConfigDict, run_dir: pathlib.Path, experiment: str, own: bool = False
    ) -> pathlib.Path:
        """A run, with everything that it needs."""
        if run_dir in self.jobs:
            return run_dir
        folders, identity, needs = self.data(config.data)
        found = {"data": folders, "tokenizer": None, "entropy_model": None, "annotation": None}
        if inputs_tokens(config):
            found["tokenizer"] = self.tokenizer(config, folders, identity, needs) / "tokenizer.json"
            needs = [*needs, found["tokenizer"].parent]
        if config.patching.scheme in patching.NEEDS_ENTROPIES:
            found["entropy_model"], found["annotation"] = self.entropies(config, folders, identity, needs)
            needs = [*needs, found["annotation"]]
        rundir.create(run_dir, config, experiment)
        _write_inputs(run_dir, found)
        return self.add(Job(config.name, "run", run_dir, tuple(needs), config.budget_flops, own))

    def data(self, data_config: ConfigDict) -> tuple[dict, str, list]:
        """({directory: weight}, what identifies the text, the jobs that make it)."""
        if data_config.source == sources.PREPARED:
            folders = splits.weights(data_config)
            return (
                {os.path.abspath(folder): weight for folder, weight in folders.items()},
                splits.opened(folders).fingerprint,
                [],
            )
        settings = {key: cfg.to_dict(data_config)[key] for key in prepare.KEYS}
        stem = cfg.fingerprint({"settings": settings, "version": jobs.VERSIONS["prepare"]})
        try:
            stamps = [(unit.name, unit.stamp) for unit in sources.units(data_config)]
        except (
            UserError
        ):  # what was prepared stays good without its source, where there is no doubt which it is
            there = [path for path in self.shared.glob(f"data-{stem}-*") if (path / "done.json").exists()]
            if len(there) != 1:
                raise
            directory = there[0]
        else:
            directory = (
                self.shared / f"data-{stem}-{hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:8]}"
            )
        jobs.create(directory, "prepare", cfg.to_dict(data_config))
        self.add(Job(directory.name, "prepare", directory, ()))
        return {directory: 1.0}, directory.name, [directory]

    def tokenizer(self, config: ConfigDict, folders, identity: str, needs) -> pathlib.Path:
        kind, path = config.tokenizer.kind, {
            "file": config.tokenizer.path,
            "given": config.train.init_from,
        }.get(config.tokenizer.kind)
        if kind == "trained":
            made_of = {
                "vocab": config.tokenizer.vocab,
                "text": identity,
                "max_train_bytes": config.data.max_train_bytes,
            }
            said = {
                "kind": kind,
                "vocab": config.tokenizer.vocab,
                "max_train_bytes": config.data.max_train_bytes,
            }
            return self.job(
                "tokenizer", "tokenizer", {**said, "data": self.relative(folders)}, made_of, needs
            )
        if kind not in ("llama3", *inputs.READ):
            raise UserError(
                f"run {config.name}: tokenizer.kind {kind!r}; allowed here: trained, llama3, file, given"
            )
        path = os.path.abspath(path) if path else ""
        found = inputs.read_tokenizer(kind, path)
        return self.job(
            "tokenizer",
            "tokenizer",
            {"kind": kind, "path": path},
            {"kind": kind, "fingerprint": found.fingerprint},
        )

    def entropies(
        self, config: ConfigDict, folders, identity: str, needs
    ) -> tuple[pathlib.Path, pathlib.Path]:
        """(entropy model, annotation)."""
        lm = config.entropy_model
        if not len(lm):
            raise UserError(
                f"run {config.name}: patching.scheme {config.patching.scheme} needs entropies, and the run names"
                " no entropy_model"
            )
        for key in cfg.TEXT_KEYS:
            if lm.data[key] != config.data[key]:
                raise UserError(
                    f"run {config.name}: its entropy model would split other text (data.{key}:"
                    f" {lm.data[key]!r} against {config.data[key]!r}), and might see test text"
                )
        if budget.trained(lm):
            key = cfg.fingerprint(
                {"config": cfg.to_dict(lm), "text": identity, "version": jobs.VERSIONS["run"]}
            )
            model = self.shared / f"entropy-model-{key}"
            self.run(lm, model, rundir.SHARED)
            self.jobs[model].name, self.jobs[model].flops = model.name, lm.budget_flops
            needs = [*needs, model]
        else:
            model = pathlib.Path(os.path.abspath(lm.train.init_from))
        read = {
            "train": config.data.max_train_bytes,
            "validation": config.eval.validation_bytes,
            "test": config.eval.test_bytes,
        }
        said = {
            "data": self.relative(folders),
            "entropy_model": self.path(model),
            "run": cfg.to_dict(config),
            "bytes": read,
        }
        made_of = {
            "entropy_model": str(model) if model.parent != self.shared else model.name,
            "text": identity,
            "bytes": read,
        }
        return model, self.job("annotate", "annotation", said, made_of, needs)

    def path(self, path) -> str:
        """A path as a job in `shared` names it: relative to its own directory where it lies beside it."""
        path = pathlib.Path(path)
        return f"../{path.name}" if path.parent == self.shared else str(path)

    def relative(self, folders: dict) -> dict:
        return {self.path(folder): weight for folder, weight in folders.items()}


def inputs_tokens(config: ConfigDict) -> bool:
    """Whether the run has a tokenizer: its model reads tokens, or its patches are tokens."""
    return config.model.kind == "token" or config.patching.scheme == "bpe"


def _write_inputs(run_dir: pathlib.Path, found: dict) -> None:
    """inputs.json. A run that has begun goes on with its own text alone: UserError where it would be
    another."""
    shared = rundir.shared(run_dir)

    def shown(path):
        if path is None:
            return None
        path = pathlib.Path(path)
        inside = path.is_absolute() and shared in path.parents or shared in path.absolute().parents
        return os.path.relpath(path.absolute(), run_dir.absolute()) if inside else str(path)

    said = {
        **{key: shown(found[key]) for key in ("tokenizer", "entropy_model", "annotation")},
        "data": {shown(folder): weight for folder, weight in found["data"].items()},
    }
    before = rundir.read_json(run_dir / inputs.NAME)
    if before == said:
        return
    if before is not None and rundir.begun(run_dir):
        differs = ", ".join(key for key in said if before.get(key) != said[key])
        raise UserError(
            f"{run_dir} was begun on other inputs than are there now ({differs}: the text, or what is made of it,"
            " has changed); bring those back, or begin anew in another directory"
        )
    rundir.write_json(run_dir / inputs.NAME, said)
