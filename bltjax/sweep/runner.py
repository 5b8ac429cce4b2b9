"""Runs an experiment on this machine: skips what is done, resumes what is not, one process per slot, never a
run twice."""

import dataclasses
import pathlib
import signal
import sys
import time

from ml_collections import ConfigDict
from tqdm import tqdm

from bltjax import config as cfg
from bltjax.launch import local
from bltjax.run import inputs, worker
from bltjax.storage import locks, rundir

POLL_SECONDS = 0.5


@dataclasses.dataclass
class Job:
    """A process to start: a run, or the preparation (entropy model, entropies) that several runs share."""

    name: str
    mode: str  # run | prepare
    run_dir: pathlib.Path
    flops: float
    needs: str = ""  # key of the preparation that must be done first
    provides: str = ""
    state: str = "waiting"  # waiting | running | elsewhere | done | failed
    process: object = None
    slot: int | None = None
    noted: int = 0  # lines of notes.txt that an earlier process wrote


class Display:
    """Progress in FLOPs over all runs: a bar on a terminal, elsewhere a plain line now and then."""

    EVERY_SECONDS = 20

    def __init__(self, experiment: str, queue: list[Job]):
        self.queue, self.began, self.said = queue, time.monotonic(), time.monotonic()
        self.bar = tqdm(
            total=sum(job.flops for job in queue),
            desc=experiment,
            smoothing=0.05,
            disable=not sys.stderr.isatty(),
            bar_format="{desc}: {percentage:3.0f}%|{bar:20}| [{elapsed}<{remaining}]{postfix}",
        )

    def show(self) -> None:
        """FLOPs done, and the running ones with their training bits per byte."""
        spent, running = 0.0, []
        for job in self.queue:
            metrics = (
                rundir.last_metrics(job.run_dir)
                if job.mode == "run" and job.state in ("running", "elsewhere")
                else None
            )
            spent += (
                job.flops
                if job.state == "done"
                else min(metrics["useful_flops"], job.flops) if metrics else 0.0
            )
            if job.state == "running":
                running.append(
                    f"{job.name} {metrics['bpb']:.2f}" if metrics and metrics.get("bpb") else job.name
                )
        if not self.bar.disable:
            self.bar.n = min(spent, self.bar.total)
            self.bar.set_postfix_str(", ".join(running))
        elif time.monotonic() - self.said > self.EVERY_SECONDS:
            self.said = time.monotonic()
            share = spent / max(sum(job.flops for job in self.queue), 1.0)
            print(f"{self.said - self.began:5.0f} s  {share:4.0%}  running: {', '.join(running)}", flush=True)

    def line(self, text: str) -> None:
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text)

    def close(self) -> None:
        self.bar.close()


def jobs(root: pathlib.Path, experiment: str, configs: list[ConfigDict]) -> list[Job]:
    """The preparations first, then the runs, longest first. Checks every run directory before anything
    starts."""
    prepare, runs = {}, []
    for config in configs:
        run_dir = root / experiment / config.name
        rundir.create(run_dir, config, experiment)
        key = inputs.preparation_key(config)
        done = rundir.state(run_dir) == "done"
        if key and not done and key not in prepare:
            prepare[key] = Job(f"entropy model {key}", "prepare", run_dir, 0.0, provides=key)
        runs.append(
            Job(
                config.name,
                "run",
                run_dir,
                config.budget_flops,
                needs=key,
                state="done" if done else "waiting",
            )
        )
    return list(prepare.values()) + sorted(runs, key=lambda job: -job.flops)


def run(root: pathlib.Path, experiment: str, configs: list[ConfigDict], workers: int = 0) -> int:
    """Brings every run to done. Returns 0, 2 (a run's input was wrong) or 1 (a run failed); what others
    computed stays.

    workers: processes at once; 0 is one per core on CPUs, one in all on accelerators.
    """
    for data_config in {cfg.fingerprint(c.data): c.data for c in configs}.values():
        inputs.corpus(data_config)  # a corpus that cannot be used is said before anything starts
    queue = jobs(root, experiment, configs)
    skipped = [job.name for job in queue if job.state == "done"]
    if skipped:
        print(f"already done: {', '.join(skipped)}")
    free = local.slots(workers)
    display = Display(experiment, queue)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a scheduler's stop is like Ctrl-C: save, say so, end
    try:
        while any(job.state in ("waiting", "running", "elsewhere") for job in queue):
            provided = {job.provides for job in queue if job.state == "done"}
            lost = {job.provides for job in queue if job.state == "failed" and job.provides}
            for job in queue:
                if job.state == "running" and job.process.poll() is not None:
                    free.append(job.slot)
                    finish(job, display)
                elif job.state == "waiting" and job.needs in lost:
                    job.state = "failed"
                    display.line(f"not run  {job.name}: its entropy model failed")
                elif job.state == "elsewhere" and not locks.is_held(job.run_dir / ".lock"):
                    job.state = "done" if rundir.state(job.run_dir) == "done" else "waiting"
                elif job.state == "waiting" and free and (not job.needs or job.needs in provided):
                    job.slot = free.pop(0)
                    (job.run_dir / "failed.json").unlink(missing_ok=True)
                    job.noted = len(rundir.notes(job.run_dir))
                    job.process = local.start([job.mode, str(job.run_dir)], job.slot, job.run_dir / "log.txt")
                    job.state = "running"
            display.show()
            time.sleep(POLL_SECONDS)
    except (KeyboardInterrupt, SystemExit):
        stop(queue)
        display.close()
        print("stopped; the same command goes on from the last checkpoints", file=sys.stderr)
        return worker.EXIT_STOPPED
    display.close()
    failed = [job for job in queue if job.state == "failed"]
    if failed:
        print(
            f"failed: {', '.join(job.name for job in failed)}; see `bltjax status {experiment}`; the same"
            " command tries them again",
            file=sys.stderr,
        )
    codes = [job.process.returncode for job in failed if job.process]
    return (
        0
        if not failed
        else worker.EXIT_USER if codes and all(code == worker.EXIT_USER for code in codes) else 1
    )


def finish(job: Job, display) -> None:
    """Takes note of a process that ended, in one line, and passes on what it had to say (a checkpoint that
    was not whole, say)."""
    code = job.process.returncode
    for note in rundir.notes(job.run_dir)[job.noted :]:
        display.line(f"note     {job.name}: {note}")
    if code == 0:
        job.state = "done"
        scored = rundir.read_json(job.run_dir / "eval.json") if job.mode == "run" else None
        planned = rundir.read_json(job.run_dir / "planned.json") or {}
        if scored:
            off = (
                f"{planned['train_flops'] / job.flops - 1:+.2%} of budget"
                if job.flops
                else f"{planned['train_flops']:.3g} FLOPs"
            )
            display.line(
                f"done     {job.name}: {scored['test']['bpb']:.4f} test bits per byte, {off}, patch size"
                f" {planned['patch_size']:.2f} (test text {scored['test']['patch_size']:.2f})"
            )
        else:
            display.line(f"done     {job.name}")
    elif code == worker.EXIT_BUSY:
        job.state = "elsewhere"
        display.line(f"busy     {job.name}: another runner has it")
    else:
        job.state = "failed"
        why = (rundir.read_json(job.run_dir / "failed.json") or {}).get(
            "error"
        ) or f"its process ended with status {code}"
        display.line(f"failed   {job.name}: {why} (log: {job.run_dir / 'log.txt'})")


def stop(queue: list[Job], seconds: float = 60.0) -> None:
    """Asks the running processes to save and stop, and waits for them."""
    running = [job for job in queue if job.state == "running"]
    for job in running:
        job.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for job in running:
        try:
            job.process.wait(max(0.1, deadline - time.monotonic()))
        except Exception:
            job.process.kill()
