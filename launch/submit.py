"""Brings a launch a step further: what is neither done nor on its way is given to the scheduler. Asked twice,
by whomever, it adds nothing.

launch/submitted.jsonl has a line before a step is given to the scheduler and one after, with the id that it
got, so that a command that ends between the two leaves nothing that cannot be found again."""

import contextlib
import dataclasses
import json
import pathlib
import time

from bltjax.errors import UserError
from bltjax.launch.job import Job, Step, Target
from bltjax.run import jobs as kinds
from bltjax.storage import attempts, json_lines, locks
from bltjax.storage.atomic import write_text

RECORD = "submitted.jsonl"


@dataclasses.dataclass
class Standing:
    """Names of jobs by how they stand. alive: given to the scheduler, and waiting or running there; running:
    by any process; held: waiting for room, or for what they need; unreachable: what they need has failed.
    steps: that were given to the scheduler now (or would be)."""

    done: list[str]
    failed: list[str]
    running: list[str]
    alive: list[str]
    held: list[str]
    unreachable: list[str]
    steps: list[Step]

    @property
    def over(self) -> bool:
        """Whether nothing is left to wait for."""
        return not (self.running or self.alive or self.held or self.steps)


def state(job: Job) -> str:
    """done, failed, running or waiting, from the job's directory. failed is also one that was killed again
    and again and came no further, until `bltjax retry`."""
    directory = pathlib.Path(job.directory)
    found = kinds.state(directory, job.kind)
    if found != "done" and locks.is_held(directory / ".lock"):
        return "running"
    if found == "failed" or found != "done" and attempts.stuck(directory):
        return "failed"
    return "done" if found == "done" else "waiting"


def forward(
    folder: pathlib.Path,
    jobs: list[Job],
    on: str,
    target: Target,
    settings,
    limit: int = 0,
    dry: bool = False,
    work=None,
) -> Standing:
    """One step further. on: the target's name; limit: of jobs at once, 0: none; dry: nothing is given to
    the scheduler, which is not asked either. work: of a folder whose root lies at a URL (storage/work.py),
    which is held, and where each line is before it is acted upon."""
    if dry:
        return _forward(folder, jobs, on, target, settings, limit, dry)
    with locks.held(folder / ".lock"), work or contextlib.nullcontext():
        return _forward(folder, jobs, on, target, settings, limit, dry, work)


def _forward(folder, jobs, on, target, settings, limit, dry, work=None) -> Standing:
    states = {job.name: state(job) for job in jobs}
    named = {job.name: job for job in jobs}
    going = {} if dry else _going(folder, on, target, settings, work)
    if not dry:
        _release(folder, states, going, target, settings)
    lost = _lost(jobs, states)
    by = lambda wanted: [name for name in named if states[name] == wanted]
    away = {*going, *lost}
    todo = [job for job in jobs if states[job.name] == "waiting" and job.name not in away]
    if not target.CHAINS and not dry:
        todo = [job for job in todo if all(states.get(need, "done") == "done" for need in job.needs)]
        todo = todo[: max(0, limit - len(going))] if limit else todo
    elif limit and len(going) >= limit:
        todo = []
    steps = target.steps(folder, todo, settings, max(0, limit - len(going))) if todo else []
    steps = [_behind(step, named, going) for step in steps]
    if not dry:
        _submit(folder, steps, on, target, settings, work)
    given = {name for step in steps for name in step.jobs}
    waiting = [name for name in by("waiting") if name not in away and name not in given]
    alive = [name for name in named if name in going and states[name] != "done"]
    return Standing(by("done"), by("failed"), by("running"), alive, waiting, sorted(lost), steps)


def _lost(jobs: list[Job], states: dict[str, str]) -> set[str]:
    """Jobs that wait for one that has failed; those that they need stand before them."""
    lost = set()
    for job in jobs:
        if states[job.name] not in ("done", "failed"):
            if any(states.get(need) == "failed" or need in lost for need in job.needs):
                lost.add(job.name)
    return lost


def _release(folder, states, going, target, settings) -> None:
    """Gives machines back whose jobs have ended, where the scheduler does not do so by itself."""
    if not hasattr(target, "release"):
        return
    over = {step for name, step in going.items() if states.get(name) in ("done", "failed")}
    over -= {step for name, step in going.items() if states.get(name) not in ("done", "failed", None)}
    if over:
        known = records(folder)
        target.release(sorted(known[step]["id"] for step in over), settings)


def _behind(step: Step, named: dict[str, Job], going: dict[str, str]) -> Step:
    """The step after those too that were given earlier and make what it reads."""
    needs = {need for name in step.jobs for need in named[name].needs}
    earlier = dict.fromkeys(going[need] for need in sorted(needs) if need in going)
    return dataclasses.replace(step, after=tuple(dict.fromkeys((*step.after, *earlier))))


def records(folder: pathlib.Path, damaged: bool = False) -> dict[str, dict]:
    """{step: what is known of its newest submission}: "on", "jobs", "time" and, once it is known, "id".
    damaged: whether what is left of a damaged record will do; else it is a UserError."""
    found = {}
    for line in _lines(folder, damaged):
        if line.get("id") is None:
            found[line["step"]] = line
        elif line["step"] in found:
            found[line["step"]] = {**found[line["step"]], "id": line["id"]}
    return found


def _lines(folder: pathlib.Path, damaged: bool = False) -> list[dict]:
    path = folder / RECORD
    found = [line for line in json_lines.read(path) if isinstance(line.get("step"), str)]
    if not damaged and path.exists() and len(found) != len(path.read_bytes().splitlines()):
        raise UserError(
            f"{path} is damaged, and nothing else says what the scheduler has: mend it, or end that (`bltjax"
            " stop` needs it too) and remove the file"
        )
    return found


def _note(folder: pathlib.Path, *, work=None, **line) -> None:
    """A line behind those that are there; the whole file anew, so that none is ever half of one."""
    kept = [*_lines(folder), line]
    write_text(folder / RECORD, "".join(json.dumps(one) + "\n" for one in kept), durable=True)
    if work:
        work.publish()


def _going(folder: pathlib.Path, on: str, target: Target, settings, work=None) -> dict[str, str]:
    """{job: its step} of what was given to the scheduler and waits or runs there. A submission whose id was
    not noted is looked for by its name."""
    known = records(folder)
    for name, record in known.items():
        if record["on"] != on:
            raise UserError(
                f"{folder.parent.name} was launched on {record['on']}: `bltjax stop` it there before it is"
                f" launched on {on}"
            )
        if "id" not in record:
            found = target.found(name, settings)
            _note(folder, work=work, step=name, id=found)
            record["id"] = found
    one_of = getattr(target, "element", lambda number, index: number)
    ids = {
        (name, job): one_of(record["id"], index)
        for name, record in known.items()
        if record["id"]
        for index, job in enumerate(record["jobs"])
    }
    alive = target.alive(list(dict.fromkeys(ids.values())), settings) if ids else set()
    return {job: name for (name, job), one in ids.items() if one in alive}


def _submit(folder, steps, on, target, settings, work=None) -> None:
    ids = {name: record["id"] for name, record in records(folder).items() if record.get("id")}
    for step in steps:
        if step.manifest is not None:
            write_text(step.path, step.manifest)
        _note(folder, work=work, step=step.name, on=on, jobs=list(step.jobs), time=time.time())
        ids[step.name] = target.submit(step, ids, settings)
        _note(folder, work=work, step=step.name, id=ids[step.name])


def stop(folder: pathlib.Path, target: Target, settings, work=None) -> list[str]:
    """Ends what was given to the scheduler and lives there; the names of its jobs."""
    with locks.held(folder / ".lock"), work or contextlib.nullcontext():
        on = {record["on"] for record in records(folder).values()}
        going = _going(folder, *on, target, settings, work) if on else {}
        ids = records(folder)
        steps = list(dict.fromkeys(going.values()))
        if steps:
            target.cancel([ids[step]["id"] for step in steps], settings)
        return sorted(going)


def forgive(jobs: list[Job]) -> list[str]:
    """Forgets why jobs failed; their names."""
    found = [job for job in jobs if state(job) == "failed"]
    for job in found:
        directory = pathlib.Path(job.directory)
        attempts.forgive(directory)
        (directory / "failed.json").unlink(missing_ok=True)
    return [job.name for job in found]
