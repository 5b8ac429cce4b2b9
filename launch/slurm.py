"""Jobs on a Slurm cluster: arrays of equal jobs, each of which is started again where it was stopped.

A step is an array, an element a job, and every host of it runs one process of launch/start.py. Processes that
are asked to stop save and end with 42, and the element's script has Slurm queue it again: for a preemption,
a lost node, the time limit (of which a signal warns), TERM from whomever. `scancel` ends a job for good, and
so does `cancel`, which lets it save first."""

import dataclasses
import hashlib
import os
import pathlib
import re
import shlex
import subprocess
import sys

from bltjax.errors import UserError
from bltjax.launch import job
from bltjax.storage import mirror
from bltjax.storage.atomic import write_text

CHAINS = True
LARGEST = 1000  # elements of an array: Slurm's MaxArraySize is 1001 unless a cluster says otherwise
# Coordinators' ports: below those that the kernel hands out (32768 on) and those of JAX's own (61440 on).
PORTS, FIRST_PORT = 8192, 20480
# a step apart far greater than job ids of the same hour, so that an attempt meets nobody's port
PORTS_OF_AN_ATTEMPT = 1531
TIME = re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(\d+):(\d+):(\d+)|(\d+)(?::(\d+))?")
IN_SECONDS = (86400, 3600, 60, 1, 3600, 60, 1, 60, 1)  # of its groups
OURS = (
    *("array", "dependency", "gpus-per-node", "job-name", "kill-on-invalid-dep", "nodes", "ntasks-per-node"),
    *("open-mode", "output", "parsable", "requeue", "no-requeue", "signal", "wait", "wrap", "export"),
)
ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
)
# Of an allocation that we happen to be in, or habits of the user's that hide jobs and ask questions; but for
# where the cluster is.
UNREAD, READ = ("SLURM_", "SQUEUE_", "SCANCEL_"), ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user says of the cluster; "" and 0: as the cluster has it. time: limit of an attempt, as
    sbatch takes it. cpus, mem: of a host (mem such as 64G). gres: such as gpu:h100:8, in place of
    --gpus-per-node. warning: seconds before the limit at which a job is told to save. setup: a shell file
    that every job sources first (modules, say). options: more of sbatch's, such as "--exclude=n1"."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    constraint: str = ""
    time: str = ""
    cpus: int = 0
    mem: str = ""
    gres: str = ""
    warning: int = 120
    setup: str = ""
    options: str = ""
    python: str = sys.executable


def steps(folder: pathlib.Path, jobs: list[job.Job], settings: Settings, limit: int) -> list[job.Step]:
    """An array for the jobs that have equal needs and equal machines. With a limit, arrays that may run side
    by side have that many elements at once in all: the others come after them."""
    common = _options(settings)
    made, step_of, wave, before, at_once = [], {}, [], (), 0
    for group in _groups(jobs):
        step = _array(pathlib.Path(folder), group, settings, common, limit)
        more = min(len(group), limit)
        if limit and at_once + more > limit:
            before, wave, at_once = tuple(wave), [], 0
        at_once += more
        wave.append(step.name)
        needs = [step_of[need] for need in group[0].needs if need in step_of]
        step_of |= {one.name: step.name for one in group}
        made.append(dataclasses.replace(step, after=tuple(dict.fromkeys([*needs, *before]))))
    return made


def submit(step: job.Step, ids: dict[str, str], settings: Settings) -> str:
    """sbatch's id of the array."""
    write_text(step.path, step.manifest)
    (step.path.parent.parent / "log").mkdir(exist_ok=True)
    after = [ids[name] for name in step.after if name in ids]
    program, *arguments = step.command
    if after:
        arguments = [f"--dependency=afterany:{':'.join(after)}", "--kill-on-invalid-dep=yes", *arguments]
    said = _ask(program, *arguments)
    number = said.stdout.strip().partition(";")[0]  # ID;CLUSTER where there are several
    if said.returncode or not number.isdecimal():
        raise UserError(f"Slurm refused {step.name} ({', '.join(step.jobs[:3])}): {_line(said)}")
    return number


def found(name: str, settings: Settings) -> str:
    """The newest array of that name which has not ended. One that has is not looked for (sacct): what its
    jobs did stands in their directories, and the next launch makes a new array of the same name."""
    numbers = {int(number) for number, _, state in _queue("--name", name) if state not in ENDED}
    return str(max(numbers)) if numbers else ""


def alive(ids: list[str], settings: Settings) -> set[str]:
    """An id is an array's, or an element's."""
    if not ids:
        return set()
    asked = dict.fromkeys(number.partition("_")[0] for number in ids)
    there = set()
    for number, index, state in _queue("--jobs", ",".join(asked)):
        if state not in ENDED:
            there |= {number, element(number, index)}
    return there & set(ids)


def element(number: str, index: int) -> str:
    """The id of a job alone, by its place in its step."""
    return f"{number}_{index}"


def cancel(ids: list[str], settings: Settings) -> None:
    """First they are not to be queued again, whatever happens; then those that wait are gone, before what
    they wait for ends; then the scripts of those that run are told, which tell the processes and wait for
    them as long as they save."""
    there = sorted(alive(ids, settings))
    for program, *options in (
        ("scontrol", "update", "Requeue=0"),
        ("scancel", "--state=PENDING"),
        ("scancel", "--state=SUSPENDED"),
        ("scancel", "--state=RUNNING", "--batch", "--signal=USR1"),
    ):
        for number in there:
            said = _ask(program, *options, f"JobId={number}" if program == "scontrol" else number)
            if said.returncode and alive([number], settings):
                raise UserError(f"Slurm job {number} cannot be stopped: {_line(said)}")


def place(environ) -> tuple[str, int, int]:
    """(coordinator, processes, process) of a process that `srun` started, as distributed.start takes them.

    The coordinator is on the host where the script of the job, and process 0, run. Its port is another at
    each attempt, since the last one's may still be held."""
    count = int(environ.get("SLURM_STEP_NUM_TASKS", 0))
    if not count:
        return "", 0, -1
    if count == 1:
        return "", 1, -1
    host = environ["SLURM_LAUNCH_NODE_IPADDR"]
    attempt = int(environ.get("SLURM_RESTART_COUNT", 0))
    port = FIRST_PORT + (int(environ["SLURM_JOB_ID"]) + PORTS_OF_AN_ATTEMPT * attempt) % PORTS
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}", count, int(environ["SLURM_PROCID"])


def _groups(jobs: list[job.Job]) -> list[list[job.Job]]:
    """Jobs with equal needs and equal machines; each group after those that it needs."""
    by_name, levels = {one.name: one for one in jobs}, {}

    def level(one: job.Job) -> int:
        if one.name not in levels:
            needs = [by_name[need] for need in one.needs if need in by_name]
            levels[one.name] = 1 + max(map(level, needs), default=0)
        return levels[one.name]

    groups = {}
    for one in sorted(jobs, key=level):  # stable: in the experiment's order otherwise
        needs = frozenset(need for need in one.needs if need in by_name)
        groups.setdefault((needs, one.topology), []).append(one)
    return [group[i : i + LARGEST] for group in groups.values() for i in range(0, len(group), LARGEST)]


def _array(folder: pathlib.Path, group: list[job.Job], settings: Settings, common, limit: int) -> job.Step:
    on, names = group[0].on, tuple(one.name for one in group)
    if on.chip.platform == "tpu":
        raise UserError(f"Slurm gives GPUs and CPUs; {on.name} is a TPU: launch --on gke, tpu-vm or sky")
    folder = folder.absolute()
    name = f"bltjax-{_digest(mirror.address(folder))}-{_digest(*names)}"
    path = folder / "slurm" / f"{name}.sh"
    machine = [f"--nodes={group[0].hosts}", "--ntasks-per-node=1"]
    if on.chip.platform == "gpu" and not settings.gres:
        machine.append(f"--gpus-per-node={min(on.chips, on.chip.chips_per_host)}")
    at_once = f"%{limit}" if 0 < limit < len(group) else ""
    command = (
        *("sbatch", "--parsable", f"--job-name={name}", f"--array=0-{len(group) - 1}{at_once}"),
        *machine,
        *("--requeue", "--open-mode=append", f"--signal=B:USR1@{settings.warning}"),
        f"--output={str(folder / 'log').replace('%', '%%')}/%x-%a.log",
        *common,
        str(path),
    )
    return job.Step(name, names, command, manifest=_script(folder, path, names, settings), path=path)


def _options(settings: Settings) -> list[str]:
    """sbatch's options of the user's settings. UserError for what cannot be one."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, str) and not value.isprintable():
            raise UserError(f"{field.name}={value!r}: a setting is one line of text")
    if not 0 <= settings.warning <= 65535:
        raise UserError(f"warning={settings.warning}: seconds, 0 to 65535")
    if settings.time:
        time = TIME.fullmatch(settings.time)
        if not time:
            raise UserError(f"time={settings.time!r}: write MINUTES, HH:MM:SS, D-HH or D-HH:MM:SS")
        limit = sum(int(n or 0) * seconds for n, seconds in zip(time.groups(), IN_SECONDS))
        if 0 < limit <= settings.warning:  # 0: none
            raise UserError(f"time={settings.time}: shorter than the warning of {settings.warning} s before")
    if settings.cpus < 0:
        raise UserError(f"cpus={settings.cpus}: how many of a host, 1 or more; 0: as the cluster has it")
    if settings.setup and not pathlib.Path(settings.setup).is_file():
        raise UserError(f"setup={settings.setup!r}: there is no such file")
    try:
        more = shlex.split(settings.options)
    except ValueError as error:
        raise UserError(f"options={settings.options!r}: {error}") from None
    for option in more:
        word = option.partition("=")[0]
        if not re.fullmatch(r"--[a-z][a-z-]+", word):
            raise UserError(f"options: {option!r} is none of sbatch's, written --name or --name=value")
        if word[2:] in OURS:
            raise UserError(f"options: {word} is set by bltjax itself")
    named = ("partition", "account", "qos", "reservation", "constraint", "time", "mem", "gres")
    given = [f"--{name}={getattr(settings, name)}" for name in named if getattr(settings, name)]
    return [*given, *([f"--cpus-per-task={settings.cpus}"] if settings.cpus else []), *more]


# What each host runs: a shell around the process, which outlives the signals that reach both. The first
# process that ends otherwise than with 0 says how the job ended, in a file: srun would say the largest of
# all codes, and it ends the others of one that failed. One that ends with 42 leaves them their time to save.
PROCESS = (
    'trap : TERM INT HUP USR1 USR2; "$@"; code=$?;'
    ' [ $code -eq 0 ] || (set -C; echo $code >"$0") 2>/dev/null;'
    ' [ $code -ne 42 ] || [ ! -s "$0" ] || code=0; exit $code'
)
SCRIPT = r"""#!/bin/bash
# Made by `bltjax launch`; Slurm keeps a copy. An element of the array is a job.
jobs=(
{jobs}
)
process=({process} "${{jobs[SLURM_ARRAY_TASK_ID]}}")
attempt=${{SLURM_RESTART_COUNT:-0}}
mark={mark}.$SLURM_JOB_ID.$attempt  # the first code of a process that is not 0
element=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID  # SLURM_JOB_ID of the last one means them all
export PYTHONUNBUFFERED=1

srun= asked= interrupted=
# USR1 comes to this shell alone; with TERM Slurm ends the job itself, whose processes have got it too, and a
# second signal would end them before they have saved.
trap 'asked=yes interrupted=yes; [ -z "$srun" ] || kill -USR1 "$srun" 2>/dev/null' USR1
trap 'asked=yes interrupted=yes' TERM
{setup}echo "$(date -u +%FT%TZ) ${{jobs[SLURM_ARRAY_TASK_ID]}}: attempt $((attempt + 1)), $SLURM_JOB_NODELIST"

# It may have been stopped before the trap stood.
case "$(scontrol show job "$element" 2>/dev/null)" in *Requeue=0*) exit 42 ;; esac
code=42
if [ -z "$asked" ]; then
  srun --kill-on-bad-exit=1 --wait=60 --cpu-bind=none bash -c {wrapped} "$mark" "${{process[@]}}" &
  srun=$!
  while interrupted=; wait "$srun"; code=$?; [ -n "$interrupted" ]; do :; done
fi

if [ -s "$mark" ]; then code=$(cat "$mark"); fi
rm -f "$mark"
if [ -n "$asked" ]; then
  case $code in 137|138|143) code=42 ;; esac  # asked before it could listen, or killed before it had saved
fi
[ "$code" = 42 ] || exit "$code"

# While the controller is away it is asked again, for five minutes.
for try in {{1..30}}; do
  case "$(scontrol show job "$element" 2>/dev/null)" in
    *Requeue=0*) break ;;
    *JobState=RUNNING*|*Reason=TimeLimit*) scontrol requeue "$element" && break ;;
    *JobState=*) break ;;  # cancelled, or Slurm has queued it again by itself
  esac
  sleep 10
done
exit 42
"""


def _script(folder: pathlib.Path, path: pathlib.Path, names, settings: Settings) -> str:
    return SCRIPT.format(
        jobs="\n".join(f"  {shlex.quote(name)}" for name in names),
        process=shlex.join(job.command(folder, "", settings.python)[:-1]),
        mark=shlex.quote(str(path.with_suffix(""))),
        setup=f". {shlex.quote(str(pathlib.Path(settings.setup).absolute()))}\n" if settings.setup else "",
        wrapped=shlex.quote(PROCESS),
    )


def _queue(*which: str) -> list[tuple[str, str, str]]:
    """(array, index, state) of the elements that Slurm knows of."""
    said = _ask("squeue", "--noheader", "--all", "--array", "--states=all", "--format=%F|%K|%T", *which)
    if said.returncode and "Invalid job id" not in said.stderr:  # it forgets jobs minutes after they ended
        raise UserError(f"Slurm does not say what is queued: {_line(said)}")
    lines = said.stdout.splitlines()  # a heading for each cluster, where there are several
    return [tuple(line.split("|")) for line in lines if line.count("|") == 2]


def _ask(program: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command of Slurm. UserError where there is none."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(UNREAD) or k in READ}
    try:
        return subprocess.run(
            [program, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        raise UserError(
            f"there is no {program} here; `--on slurm` works where Slurm's commands are: on a login node"
        ) from None


def _line(said: subprocess.CompletedProcess) -> str:
    """The last line of an error, which says why, without the command's name."""
    lines = [line for line in said.stderr.splitlines() if line.strip()] or [f"status {said.returncode}"]
    return re.sub(r"^\w+: (error: )?", "", lines[-1])


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
