"""Makes the jobs of an experiment on this machine: skips what is done, resumes what is not, one process a
slot, no job twice at once, and none before those that it needs."""

import dataclasses
import pathlib
import sys
import time
from typing import Protocol

from ml_collections import ConfigDict
from tqdm import tqdm

from bltjax import exit_codes
from bltjax.counts import counted
from bltjax.parallel import stopping
from bltjax.run import jobs
from bltjax.storage import attempts, locks, rundir
from bltjax.sweep import graph

POLL_SECONDS = 0.5
STOP_SECONDS = 300.0  # for all runs to save in
STOPS = 3  # of a job, one after the other and without a step between them, after which it has failed


class Machine(Protocol):
    """What starts processes (launch/local.py)."""

    def slots(self, workers: int) -> list:
        """One for each process that may run at once."""

    def start(self, arguments: list[str], slot, log: pathlib.Path):
        """A process of run/worker.py, as subprocess.Popen gives it."""


@dataclasses.dataclass
class Task:
    """A job on its way. state: waiting | running | elsewhere (another runner has it) | done | failed."""

    job: graph.Job
    state: str = "waiting"
    process: object = None
    slot: object = None
    noted: int = 0  # lines of notes.txt that an earlier process wrote
    stops: int = 0  # how often it has stopped by itself since its last step
    reached: int = 0  # that step

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def directory(self) -> pathlib.Path:
        return self.job.directory


class Display:
    """Progress in FLOPs over all runs: a bar on a terminal, elsewhere a plain line now and then."""

    EVERY_SECONDS = 20

    def __init__(self, experiment: str, tasks: list[Task]):
        self.tasks, self.began, self.said = tasks, time.monotonic(), time.monotonic()
        self.total = sum(task.job.flops for task in tasks)
        self.bar = tqdm(
            total=self.total,
            desc=experiment,
            smoothing=0.05,
            disable=not sys.stderr.isatty(),
            bar_format="{desc}: {percentage:3.0f}%|{bar:20}| [{elapsed}<{remaining}]{postfix}",
        )

    def show(self) -> None:
        """FLOPs done, and the running jobs, runs with their training bits per byte."""
        spent, running = 0.0, []
        for task in self.tasks:
            going = task.job.kind == "run" and task.state in ("running", "elsewhere")
            metrics = rundir.last_metrics(task.directory) if going else None
            if task.state == "done":
                spent += task.job.flops
            elif metrics:
                spent += min(metrics["useful_flops"], task.job.flops)
            if task.state == "running":
                running.append(
                    f"{task.name} {metrics['bpb']:.2f}" if metrics and metrics.get("bpb") else task.name
                )
        if not self.bar.disable:
            self.bar.n = min(spent, self.bar.total)
            self.bar.set_postfix_str(", ".join(running))
        elif time.monotonic() - self.said > self.EVERY_SECONDS:
            self.said = time.monotonic()
            share = spent / max(self.total, 1.0)
            print(f"{self.said - self.began:5.0f} s  {share:4.0%}  running: {', '.join(running)}", flush=True)

    def line(self, text: str) -> None:
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text)

    def close(self) -> None:
        self.bar.close()


def tasks_of(root: pathlib.Path, experiment: str, configs: list[ConfigDict]) -> list[Task]:
    """The jobs that are left to do, those that others wait for first, then the longest; a shared job is left
    out where every run that needs it is done."""
    all_jobs = graph.of_runs(root, experiment, configs)
    states = {job.directory: jobs.state(job.directory, job.kind) for job in all_jobs}
    wanted = {job.directory for job in all_jobs if job.experiment and states[job.directory] != "done"}
    for job in reversed(all_jobs):
        if job.directory in wanted:
            wanted |= {need for need in job.needs if states[need] != "done"}
    kept = [job for job in all_jobs if job.experiment or job.directory in wanted]
    tasks = [Task(job, "done" if states[job.directory] == "done" else "waiting") for job in kept]
    return sorted(tasks, key=lambda task: (task.job.experiment, -task.job.flops))


def run(
    root: pathlib.Path,
    experiment: str,
    configs: list[ConfigDict],
    machine: Machine,
    workers: int = 0,
    chip_hours: float | None = None,
) -> int:
    """Makes every job. Returns how it ended (bltjax/exit_codes.py): 42 where it was asked to stop, 2 where
    the input of all that failed was wrong, 1 where one failed otherwise; what others computed stays. It waits
    for what another runner has.

    workers: processes at once; 0 is one per core on CPUs, one a chip on accelerators. chip_hours: once so
    many are spent on these jobs (a CPU's process counts as a chip), no other is begun."""
    tasks = tasks_of(root, experiment, configs)
    skipped = [task.name for task in tasks if task.state == "done"]
    if skipped:
        print(f"already done: {', '.join(skipped)}")
    free = machine.slots(workers)
    display = Display(experiment, tasks)
    request = stopping.Request()
    with stopping.listening(), stopping.claimed(request):
        while any(task.state in ("waiting", "running", "elsewhere") for task in tasks) and not request.signal:
            begins = not chip_hours or _spent(tasks) < chip_hours
            if not begins and not any(task.state in ("running", "elsewhere") for task in tasks):
                break
            advance(tasks, free, machine, display, begins)
            display.show()
            time.sleep(POLL_SECONDS)
        if request.signal:
            stop(tasks)
    display.close()
    if request.signal:
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        return exit_codes.STOPPED
    failed = [task for task in tasks if task.state == "failed"]
    if failed:
        print(failures(failed), file=sys.stderr)
    if left := [task.name for task in tasks if task.state == "waiting"]:
        print(f"not begun, since {chip_hours:g} chip-hours are spent: {', '.join(left)}", file=sys.stderr)
        return 1
    codes = [task.process.returncode for task in failed if task.process]
    if not failed:
        return exit_codes.DONE
    wrong = codes and all(code == exit_codes.WRONG for code in codes)
    return exit_codes.WRONG if wrong else exit_codes.FAILED


def advance(
    tasks: list[Task], free: list, machine: Machine, display: Display, begins: bool = True
) -> None:
    """Takes note of what has ended, then (begins) starts what can be started, in order: a job that waited for
    one that ended goes before those behind it."""
    for task in tasks:
        if task.state == "running" and task.process.poll() is not None:
            free.append(task.slot)
            finish(task, display)
        elif task.state == "elsewhere" and not locks.is_held(task.directory / ".lock"):
            task.state = "done" if jobs.state(task.directory, task.job.kind) == "done" else "waiting"
    unmade = {task.directory for task in tasks if task.state != "done"}
    lost = {task.directory: task.name for task in tasks if task.state == "failed"}
    for task in tasks:
        if task.state != "waiting":
            continue
        if gone := [lost[need] for need in task.job.needs if need in lost]:
            task.state = "failed"
            display.line(f"not run  {task.name}: {gone[0]} failed")
        elif begins and free and not unmade & set(task.job.needs):
            task.slot = free.pop(0)
            (task.directory / "failed.json").unlink(missing_ok=True)
            task.noted = len(rundir.notes(task.directory))
            task.process = machine.start([str(task.directory)], task.slot, task.directory / "log.txt")
            task.state = "running"


def _spent(tasks: list[Task]) -> float:
    """Chip-hours of all attempts at these jobs."""
    return sum(attempts.hours(task.directory) for task in tasks)


def finish(task: Task, display) -> None:
    """Takes note of a process that ended, in one line, and passes on what it had to say (a checkpoint that
    was not whole, say)."""
    code = task.process.returncode
    for note in rundir.notes(task.directory)[task.noted :]:
        display.line(f"note     {task.name}: {note}")
    if code == 0:
        task.state = "done"
        display.line(f"done     {task.name}{result(task)}")
    elif code == exit_codes.BUSY:
        task.state = "elsewhere"
        display.line(f"busy     {task.name}: another runner has it")
    elif code == exit_codes.STOPPED and stops_in_a_row(task) < STOPS:
        task.state = "waiting"
        display.line(f"stopped  {task.name}: it goes on (log: {task.directory / 'log.txt'})")
    else:
        task.state = "failed"
        display.line(f"failed   {task.name}: {why_failed(task)} (log: {task.directory / 'log.txt'})")


def stops_in_a_row(task: Task) -> int:
    """How often a job's process has now stopped by itself (its watchdog, a signal to it alone) without having
    come further."""
    step = (rundir.last_metrics(task.directory) or {}).get("step", 0)
    task.stops = 1 if step > task.reached else task.stops + 1
    task.reached = step
    return task.stops


def failures(failed: list[Task]) -> str:
    """One line for everything that failed: why, where a job that others wait for is the only one."""
    first, *more = [task for task in failed if task.process] or failed
    if not more and not first.job.experiment:
        others = len(failed) - 1
        return f"{first.name} failed: {why_failed(first)}" + (
            f"; so not run: {counted(others, 'job')}" if others else ""
        )
    names = ", ".join(task.name for task in failed)
    return (
        f"failed: {names}; `bltjax status` with the same options says why, and the same command tries them"
        " again"
    )


def why_failed(task: Task) -> str:
    said = (rundir.read_json(task.directory / "failed.json") or {}).get("error")
    return said or f"its process ended with status {task.process.returncode}"


def result(task: Task) -> str:
    """What a run came to; "" for other jobs."""
    if not task.job.experiment:
        return ""
    scored = rundir.read_json(task.directory / "eval.json") or {}
    planned = rundir.read_json(task.directory / "planned.json") or {}
    bpb, flops = rundir.number(scored, "test.bpb"), rundir.number(planned, "train_flops")
    if bpb is None or flops is None:
        return ""
    off = f"{flops / task.job.flops - 1:+.2%} of budget" if task.job.flops else f"{flops:.3g} FLOPs"
    sizes = f"patch size {planned['patch_size']:.2f} (test text {scored['test']['patch_size']:.2f})"
    return f": {bpb:.4f} test bits per byte, {off}, {sizes}"


def stop(tasks: list[Task], seconds: float = STOP_SECONDS) -> None:
    """Asks the running processes to save and stop, and waits for them.

    By the pipe that they watch, not by a signal: a terminal or a scheduler has often sent them one already,
    and the second acts at once."""
    running = [task for task in tasks if task.state == "running"]
    for task in running:
        task.process.stdin.close()
    deadline = time.monotonic() + seconds
    for task in running:
        try:
            task.process.wait(max(0.1, deadline - time.monotonic()))
        except Exception:
            task.process.kill()
