"""The runs of an experiment as a graph of jobs: what each reads is the output of another job, made once for
all.

    prepare -> tokenizer -------------\\
           \\-> entropy model -> annotate -> run

What runs share lies in ROOT/_shared, in directories that are named after everything that they are made of:
config, inputs and the version of the code that makes them. The graph is a function of configs and of the
source's files; nothing is made here but the jobs' own config.json, and of a source no more is read than what
has another time stamp than when it was prepared.
"""

import dataclasses
import hashlib
import itertools
import os
import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import models, patching
from bltjax.data import prepare, provenance, sources, splits
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


def of_runs(
    root: pathlib.Path, experiment: str, configs: list[ConfigDict], make: bool = True
) -> list[Job]:
    """All jobs of an experiment's runs, each after those that it needs; every job's directory has its config.
    make=False: nothing is written, and nothing there is compared.

    UserError for runs that cannot be, before anything is made: another run's directory, a source that is not
    there."""
    graph = _Graph(pathlib.Path(root) / rundir.SHARED, make)
    folder = pathlib.Path(root) / experiment
    graph.siblings = {folder / config.name: config for config in configs}
    for config in configs:
        graph.run(config, folder / config.name, experiment, own=True)
    return list(graph.jobs.values())


def of_run(run_dir: pathlib.Path, config: ConfigDict, experiment: str) -> list[Job]:
    """The same for one run in a directory ROOT/EXPERIMENT/RUN; the run is the last."""
    graph = _Graph(rundir.shared(run_dir))
    graph.run(config, run_dir, experiment, own=True)
    return list(graph.jobs.values())


class _Graph:
    """Jobs by directory, in an order in which they can be made."""

    def __init__(self, shared: pathlib.Path, make: bool = True):
        self.shared = pathlib.Path(os.path.realpath(shared))
        self.make = make  # directories, with what they are to hold
        self.jobs: dict[pathlib.Path, Job] = {}
        self.siblings: dict[pathlib.Path, ConfigDict] = {}  # the experiment's runs
        self.waiting: list[pathlib.Path] = []  # of them, those that start from one which is being added
        self.weights: dict[pathlib.Path, str] = {}  # fingerprints of entropy models that are there already

    def add(self, job: Job) -> pathlib.Path:
        self.jobs.setdefault(job.directory, job)
        return job.directory

    def job(self, kind: str, name: str, config: dict, made_of, needs=()) -> pathlib.Path:
        """A shared job of this kind, in a directory named after what it is made of."""
        key = cfg.fingerprint({"kind": kind, "version": jobs.VERSIONS[kind], "made of": made_of})
        directory = self.shared / f"{name}-{key}"
        if self.make:
            jobs.create(directory, kind, config)
        return self.add(Job(directory.name, kind, directory, tuple(needs)))

    def run(
        self, config: ConfigDict, run_dir: pathlib.Path, experiment: str, own: bool = False
    ) -> pathlib.Path:
        """A run, with everything that it needs. own: it is the experiment's, not an entropy model."""
        if run_dir in self.jobs:
            return run_dir
        config, before = self.begun_from(config, run_dir, experiment)
        folders, identity, needs = self.data(config.data)
        needs = [*before, *needs]
        found = {"data": folders, "tokenizer": None, "entropy_model": None, "annotation": None}
        if reads_tokens(config):
            tokenizer = self.tokenizer(config, folders, identity, needs)
            found["tokenizer"], needs = tokenizer / "tokenizer.json", [*needs, tokenizer]
        if config.patching.scheme in patching.NEEDS_ENTROPIES:
            found["entropy_model"], found["annotation"] = self.entropies(config, folders, identity, needs)
            needs = [*needs, found["annotation"]]
        if self.make:
            rundir.create(run_dir, config, experiment)
            self.write_inputs(run_dir, found)
        return self.add(Job(run_dir.name, "run", run_dir, tuple(needs), config.budget_flops, own))

    def begun_from(self, config: ConfigDict, run_dir: pathlib.Path, experiment: str) -> tuple:
        """(the run with the directory of the run of its experiment that train.init_from names, [that, if it
        is a job of this graph]). UserError where there is none."""
        name = cfg.sibling(config)
        if not name:
            return config, []
        other = run_dir.parent / name
        if other in (run_dir, *self.waiting):
            raise UserError(f"run {config.name} starts from {name}, which starts from it")
        if other in self.siblings:
            self.waiting.append(run_dir)
            needs = [self.run(self.siblings[other], other, experiment, own=True)]
            self.waiting.remove(run_dir)
        elif rundir.state(other) == "done":
            needs = []
        else:
            raise UserError(
                f"run {config.name} starts from {name}, which is not trained and not among these runs"
            )
        return cfg.replace(config, **{"train.init_from": os.path.abspath(other)}), needs

    def data(self, data_config: ConfigDict) -> tuple[dict, str, list]:
        """({directory: weight}, what identifies the text, the jobs that make it)."""
        if data_config.source == sources.PREPARED:
            folders = splits.weights(data_config)
            absolute = {os.path.abspath(folder): weight for folder, weight in folders.items()}
            return absolute, splits.opened(folders).fingerprint, []
        settings = {key: cfg.to_dict(data_config)[key] for key in prepare.KEYS}
        stem = cfg.fingerprint({"settings": settings, "version": jobs.VERSIONS["prepare"]})
        directory = self.shared / f"data-{stem}-{self.stamp(data_config, stem)}"
        if self.make:
            jobs.create(directory, "prepare", cfg.to_dict(data_config))
        self.add(Job(directory.name, "prepare", directory, ()))
        return {directory: 1.0}, directory.name, [directory]

    def stamp(self, data_config: ConfigDict, stem: str) -> str:
        """What tells the source's files as they are now from any other. What was prepared stays good without
        its source, where there is no doubt which it is. UserError where there is, or nothing was prepared."""
        try:
            units = sources.units(data_config)
        except UserError:
            done = [path.parent.name for path in self.shared.glob(f"data-{stem}-*/done.json")]
            if len(done) != 1:
                raise
            return done[0].rpartition("-")[2]
        layout = provenance.layout(units)  # alike on every machine
        for number in itertools.count():
            stamp = hashlib.sha256(f"{layout} {number}".encode()).hexdigest()[:8]
            directory = self.shared / f"data-{stem}-{stamp}"
            if not (directory / "done.json").exists() or prepare.made_of(directory, units):
                return stamp

    def tokenizer(self, config: ConfigDict, folders, identity: str, needs) -> pathlib.Path:
        kind = config.tokenizer.kind
        if kind == "trained":
            said = {
                "kind": kind,
                "vocab": config.tokenizer.vocab,
                "max_train_bytes": config.data.max_train_bytes,
            }
            made_of = {**said, "text": identity}
            return self.job("tokenizer", "tokenizer", {**said, "data": self.named(folders)}, made_of, needs)
        if kind not in inputs.READ:
            allowed = ", ".join(("trained", *inputs.READ))
            raise UserError(f"run {config.name}: tokenizer.kind {kind!r}; allowed here: {allowed}")
        path = {"file": config.tokenizer.path, "given": config.train.init_from}.get(kind, "")
        said = {"kind": kind, "path": path and os.path.abspath(path)}
        found = inputs.read_tokenizer(**said)
        return self.job("tokenizer", "tokenizer", said, {"kind": kind, "fingerprint": found.fingerprint})

    def entropies(
        self, config: ConfigDict, folders, identity: str, needs
    ) -> tuple[pathlib.Path, pathlib.Path]:
        """(entropy model, annotation)."""
        lm = config.entropy_model
        if not len(lm):
            raise UserError(
                f"run {config.name}: patching.scheme {config.patching.scheme} needs entropies, and the run"
                " names no entropy_model"
            )
        model, weights = pathlib.Path(os.path.realpath(lm.train.init_from)), {}
        if not budget.trained(lm):
            if model not in self.weights:
                self.weights[model] = inputs.entropy_model(lm, model).facts["fingerprint"]
            weights = {"weights": self.weights[model]}
        else:
            made_of = {"config": cfg.identified(lm), "text": identity, "version": jobs.VERSIONS["run"]}
            model = self.run(lm, self.shared / f"entropy-model-{cfg.fingerprint(made_of)}", rundir.SHARED)
            needs = [*needs, model]
        read = {
            "train": config.data.max_train_bytes,
            "validation": config.eval.validation_bytes,
            "test": config.eval.test_bytes,
        }
        said = {"entropy_model": self.name(model), "bytes": read}
        parts = {"config": cfg.to_dict(lm), "data": self.named(folders)}
        made_of = {**said, **weights, "text": identity}
        return model, self.job("annotate", "annotation", {**said, **parts}, made_of, needs)

    def name(self, path, directory: pathlib.Path | None = None) -> str:
        """A path as a job's directory (by default, one in `shared`) names it: from there, where it lies below
        the same root, so that the root can be moved; else as it is."""
        path = pathlib.Path(os.path.realpath(path))
        if self.shared not in path.parents:
            return str(path)
        return os.path.relpath(path, os.path.realpath(directory or self.shared / "job"))

    def named(self, folders: dict, directory: pathlib.Path | None = None) -> dict:
        return {self.name(folder, directory): weight for folder, weight in folders.items()}

    def write_inputs(self, run_dir: pathlib.Path, found: dict) -> None:
        """inputs.json. A run that has begun goes on with its own text alone: UserError where it would be
        another."""
        said = {key: path and self.name(path, run_dir) for key, path in found.items() if key != "data"}
        said["data"] = self.named(found["data"], run_dir)
        before = inputs.read(run_dir)
        if before == said:
            return
        if before is not None and rundir.begun(run_dir):
            differs = ", ".join(key for key in said if before.get(key) != said[key])
            raise UserError(
                f"{run_dir} was begun on other inputs than are there now ({differs}: the text, or what is"
                " made of it, has changed); bring those back, or begin anew in another directory"
            )
        rundir.write_json(run_dir / inputs.NAME, said)


def reads_tokens(config: ConfigDict) -> bool:
    """Whether the run has a tokenizer: its model reads tokens, or its patches are tokens."""
    return models.kind(config.model).UNIT == "token" or config.patching.scheme == "bpe"
