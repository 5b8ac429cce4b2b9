"""What each process of a launched job runs: python -m bltjax.launch.start FOLDER NAME

FOLDER is launch/ of an experiment, here or at a URL, whose jobs.json says what NAME is. The exit status is
the contract with whatever restarts it: 0 done, 2 the input is wrong, 42 saved and to be started again, any
other a failure."""

import os
import pathlib
import sys

from bltjax.errors import UserError
from bltjax.launch import job as launched
from bltjax.launch import sky, slurm
from bltjax.parallel import stopping
from bltjax.run import jobs, worker
from bltjax.storage import attempts, mirror, store

LOCK_SECONDS = 600  # that an earlier process of the job may take to end


def refused(one: launched.Job, every: dict[str, launched.Job], facts: dict) -> str:
    """Why a job may not begin now, in a line; "" where it may."""
    for name in one.needs:
        needed = every.get(name)
        if needed and jobs.state(pathlib.Path(needed.directory), needed.kind) != "done":
            return f"{one.name} needs {name}, which is not done"
    if attempts.stuck(pathlib.Path(one.directory)):
        return (
            f"{one.name} was killed {attempts.MOST} times in a row and came no further; `bltjax retry` lets"
            " it be tried again"
        )
    budget = facts.get("chip_hours")
    if budget and (spent := spent_hours(every)) >= budget:
        return f"{one.name} is not begun: {spent:.4g} of {budget:g} chip-hours are spent"
    return ""


def needed(one: launched.Job, every: dict[str, launched.Job]) -> list[str]:
    """Names of the jobs that it needs, and those that they do."""
    found = {}
    for name in one.needs:
        if name in every:
            found |= dict.fromkeys([*needed(every[name], every), name])
    return list(found)


def spent_hours(every: dict[str, launched.Job]) -> float:
    """Chip-hours of all attempts at the jobs of a launch."""
    return sum(attempts.hours(pathlib.Path(one.directory)) for one in every.values())


def label(environ) -> str:
    """The scheduler's name for this attempt, as `status` shows it; "": it gave none."""
    job, array = environ.get("SLURM_JOB_ID"), environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"slurm {array}_{environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return f"slurm {job}" if job else environ.get("BLTJAX_LAUNCHED_AS", "")


def main(argv=None) -> int:
    folder, name = sys.argv[1:] if argv is None else argv
    options = []
    try:
        if store.is_url(folder):
            url, experiment, _ = folder.rstrip("/").rsplit("/", 2)
            root = mirror.Root.at(url)
            folder = root.directory(f"{experiment}/{launched.FOLDER}")
            folder.pull_small()
            folder, options = folder.local, ["--store", url]
        every, facts = launched.read(pathlib.Path(folder))
        if name not in every:
            raise UserError(f"{folder} has no job {name!r}")
        one = every[name]
        if options:
            if one.hosts > 1 and mirror.SCRATCH not in os.environ:
                raise UserError(f"{name} has {one.hosts} hosts: {mirror.SCRATCH} must be a folder of all")
            options += [f"--needs={every[need].directory}" for need in needed(one, every)]
            for job in every.values():
                root.directory(job.directory).pull_small()
        if why := refused(one, every, facts):
            print(f"bltjax: {why}", file=sys.stderr)
            return 1
        coordinator, processes, process = slurm.place(os.environ)
        if not coordinator:
            coordinator, processes, process = sky.place(os.environ)
    except UserError as error:
        print(f"bltjax: {error}", file=sys.stderr)
        return error.exit_code
    options += ["--wait", str(LOCK_SECONDS), "--chips", str(one.chips), "--on", label(os.environ)]
    if one.mesh:
        options += ["--mesh", one.mesh]
    if coordinator:
        options += ["--coordinator", coordinator, "--processes", str(processes), "--process", str(process)]
    else:  # 0: the machine's cluster is asked, which alone knows how many hosts a slice of TPUs has
        tpu = one.on.chip.platform == "tpu"
        options += ["--processes", "0" if tpu or one.hosts > 1 else "1"]
    return worker.main([one.directory, *options])


if __name__ == "__main__":
    stopping.leave(main())
