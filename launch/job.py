"""What a job needs of a machine, and what would be run there.

An experiment's graph (bltjax/sweep/graph.py) becomes jobs with chips and processes; a target (slurm.py,
gke.py, tpu_vm.py, sky.py) makes of them the steps that its scheduler is given. ROOT/EXPERIMENT/launch/ holds
what machines read of it: jobs.json, which start.py reads there."""

import dataclasses
import os
import pathlib
from typing import Protocol

from bltjax.compile import chips
from bltjax.errors import UserError
from bltjax.storage import mirror, rundir
from bltjax.sweep import graph

FOLDER = rundir.LAUNCH
NAME = "jobs.json"
SCHEMA = 1
ON_CPU = ("prepare", "tokenizer")  # kinds of jobs that compute nothing on a chip


@dataclasses.dataclass(frozen=True)
class Job:
    """name: of its run, or of its shared directory; kind: of bltjax/run/jobs.py. needs: names of the jobs
    whose outputs it reads. topology: such as v5p:4x4x4 (chips.topology); "": a CPU alone. mesh: as `bltjax
    train --mesh` takes it; "": the usual one. hours: by the roofline estimate; None: unknown. own: it is one
    of the experiment's runs."""

    name: str
    kind: str
    directory: str
    needs: tuple[str, ...] = ()
    topology: str = ""
    mesh: str = ""
    hours: float | None = None
    own: bool = False

    @property
    def on(self) -> chips.Topology:
        return chips.topology(self.topology or "cpu:1")

    @property
    def hosts(self) -> int:
        """Processes, one a host."""
        here = self.on
        return 1 if here.chip.platform == "cpu" else max(1, -(-here.chips // here.chip.chips_per_host))

    @property
    def chips(self) -> int:
        """Chips that it holds while it runs; 0: a CPU alone."""
        return 0 if self.on.chip.platform == "cpu" else self.on.chips


@dataclasses.dataclass(frozen=True)
class Step:
    """What a scheduler is given in one command: a job, or several as an array. name: of the submission,
    unique in its launch; jobs: names; after: names of the steps that end before this one starts. manifest:
    the text of the file (script, YAML) that the command names, `path`; None: none."""

    name: str
    jobs: tuple[str, ...]
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    manifest: str | None = None
    path: pathlib.Path | None = None


class Target(Protocol):
    """A module of this folder. Its Settings is a frozen dataclass of strings and numbers, whose fields are
    what `--with KEY=VALUE` sets.

    element(id, index), where there is one, is the id of one job of a step, by its place in it.
    release(ids, settings), where there is one, gives back the machines of steps whose jobs have ended.

    CHAINS: the scheduler itself holds steps until those that they come after have ended; else a step is given
    to it only once its jobs' needs are done."""

    CHAINS: bool
    Settings: type

    def steps(self, folder: pathlib.Path, jobs: list[Job], settings, limit: int) -> list[Step]:
        """What would be run for these jobs, in order. folder: launch/ of the experiment. limit: of jobs at
        once; 0: none. A job whose need is not among `jobs` has it already. UserError for jobs or settings
        that cannot be had there."""

    def submit(self, step: Step, ids: dict[str, str], settings) -> str:
        """Gives a step to the scheduler; the id that it gave. ids: of the steps that were submitted
        before, by name, ended ones too. UserError, in a line, where it is refused."""

    def found(self, name: str, settings) -> str:
        """The id of a submission by its step's name, where the command ended before it was noted, or ""."""

    def alive(self, ids: list[str], settings) -> set[str]:
        """Of the ids, those whose step waits, runs or will be begun again by the scheduler itself."""

    def cancel(self, ids: list[str], settings) -> None:
        """Ends steps: their processes get SIGTERM, save and end."""


def of_experiment(
    root, experiment: str, runs, topology: chips.Topology | None = None, mesh: str = "", make: bool = True
) -> list[Job]:
    """The jobs of an experiment's runs, each after those that it needs; their directories are made, with
    their configs, unless make is False. topology: of every run; what runs share gets one host of such chips,
    or a CPU. None: CPUs.

    UserError for runs that cannot be."""
    found = graph.of_runs(root, experiment, list(runs), make)
    names = {job.directory: job.name for job in found}
    hours = _hours(runs, topology)
    jobs = []
    for job in found:
        shared = one_host(topology).name if topology and job.kind not in ON_CPU else ""
        jobs.append(
            Job(
                name=job.name,
                kind=job.kind,
                directory=str(pathlib.Path(job.directory).absolute()),
                needs=tuple(names[need] for need in job.needs if need in names),
                topology=topology.name if topology and job.experiment else shared,
                mesh=mesh if job.experiment else "",
                hours=hours.get(job.name) if job.experiment else None,
                own=job.experiment,
            )
        )
    return jobs


def one_host(topology: chips.Topology) -> chips.Topology:
    """The smallest slice of the same chips that is a whole host; of GPUs, one."""
    chip = topology.chip
    if not chip.axes:
        return chips.topology(f"{chip.name}:1")
    sides = [2, 2, 1][: chip.axes] if chip.chips_per_host == 4 else [2, 4]
    smallest = chips.topology(f"{chip.name}:{'x'.join(map(str, sides))}")
    return smallest if smallest.chips < topology.chips else topology


def _hours(runs, topology: chips.Topology | None) -> dict[str, float]:
    """{run: hours that it takes} where the chips' peaks are known."""
    if not topology or not topology.chip.flops_per_second:
        return {}
    from bltjax.sweep import compile_table, plan

    plans, kept = plan.plan_each(runs, [], [], set())
    on = [compile_table.estimated(config, topology, p["steps"]) for p, config in zip(plans, kept)]
    return {p["name"]: one["chip_hours"] / topology.chips for p, one in zip(plans, on)}


def write(folder: pathlib.Path, experiment: str, jobs: list[Job], **facts) -> None:
    """jobs.json, with those of an earlier launch of other runs. facts: of the launch, such as its budget."""
    before = rundir.read_json(folder / NAME) or {}
    listed = before.get("jobs") if before.get("schema") == SCHEMA else None
    kept = {job["name"]: job for job in listed or () if isinstance(job, dict) and "name" in job}
    root = str(folder.parent.parent) + os.sep  # which another machine may have elsewhere
    kept |= {
        job.name: {**dataclasses.asdict(job), "directory": job.directory.removeprefix(root)} for job in jobs
    }
    record = {**before, **facts, "schema": SCHEMA, "experiment": experiment, "jobs": list(kept.values())}
    rundir.write_json(folder / NAME, record)


def read(folder: pathlib.Path) -> tuple[dict[str, Job], dict]:
    """({name: job}, the launch's facts) of jobs.json. UserError where there is none, or it is of another
    version."""
    record = rundir.read_json(folder / NAME)
    if record is None:
        raise UserError(f"{folder / NAME} is not there, or damaged: `bltjax launch` writes it")
    if record.get("schema") != SCHEMA:
        raise UserError(f"{folder / NAME} is of another version of bltjax; launch again from this one")
    at = lambda job: {"needs": tuple(job["needs"]), "directory": str(folder.parent.parent / job["directory"])}
    try:
        jobs = [Job(**{**job, **at(job)}) for job in record.pop("jobs")]
    except (KeyError, TypeError):
        raise UserError(f"{folder / NAME} is damaged; launch again") from None
    return {job.name: job for job in jobs}, record


def command(folder: pathlib.Path, name: str, python: str = "python") -> tuple[str, ...]:
    """What each process of a job runs, one a host."""
    return (python, "-m", "bltjax.launch.start", mirror.address(folder), name)
