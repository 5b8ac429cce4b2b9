"""What the targets in clouds share: names, checks of settings, variables of the environment, commands.

The name of a submission is its id: a function of the launch's folder and the job, so that it is found again
whatever was noted of it, and a scheduler refuses a second one."""

import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess

from bltjax import exit_codes
from bltjax.errors import UserError
from bltjax.launch.job import Job, Step
from bltjax.parallel import environment
from bltjax.storage import mirror

AGAIN = exit_codes.STOPPED  # the exit status of a process that was stopped and saved: start it again
LAUNCHED_AS = "BLTJAX_LAUNCHED_AS"  # a variable: what `bltjax status` says of an attempt, such as "gke NAME"
SECONDS = 900  # that one command of a scheduler may take
COORDINATOR_PORT = 8476  # of process 0; named to every process, since versions of JAX have different ones

# {setting: (what it looks like, an example)}, of all targets. None begins with a dash, so that none is taken
# for a flag, and none has a space or a line break.
NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
FORMS = {
    "project": (r"([a-z0-9][a-z0-9.-]*:)?[a-z][-a-z0-9]{4,28}[a-z0-9]", "my-project"),
    "zone": (r"[a-z]+-[a-z]+\d+-[a-z0-9]+", "us-east5-a"),
    "cluster": (NAME, "my-cluster"),
    "context": (r"[A-Za-z0-9][\w.:/@-]*", "gke_my-project_us-east5_my-cluster"),
    "namespace": (NAME, "default"),
    "infra": (r"[a-z0-9*][\w*.-]*(/[\w*.-]+){0,2}", "gcp/us-east5/us-east5-a"),
    "image": (
        r"[A-Za-z0-9][\w.-]*(:\d+)?(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?",
        "HOST/PROJECT/bltjax:1",
    ),
    "runtime": (r"[a-z0-9][a-z0-9.-]*", "v2-alpha-tpuv5"),
    "service_account": (r"[A-Za-z0-9][\w.-]*@[\w-]+(\.[\w-]+)+", "NAME@PROJECT.iam.gserviceaccount.com"),
    "network": (r"[a-z0-9][\w./-]*", "default"),
    "subnetwork": (r"[a-z0-9][\w./-]*", "default"),
    "reservation": (r"[a-z0-9][\w./-]*", "my-reservation"),
    "labels": (
        r"[a-z][\w-]{0,62}=[a-z0-9_-]{0,63}(,[a-z][\w-]{0,62}=[a-z0-9_-]{0,63})*",
        "team=scaling,goal=paper",
    ),
    "tags": (r"[a-z][-a-z0-9]*(,[a-z][-a-z0-9]*)*", "ssh,tpu"),
    "valid_until": (r"\d+[smhd]", "12h"),
    "cpu": (r"[a-z0-9][a-z0-9.:+x*-]*", "n2-standard-32-1"),
    "memory": (r"\d+\+?", "64+"),
    "env": (r"[A-Za-z_]\w*(,[A-Za-z_]\w*)*", "HF_TOKEN,WANDB_API_KEY,XLA_FLAGS"),
    "python": (r"[\w./][\w./-]*", "/usr/local/bin/python"),
}


def check(on: str, settings, required: tuple[str, ...], **choices: tuple[str, ...]) -> None:
    """UserError, in a line, for settings that are missing or cannot be. choices: the values of those that
    have few."""
    missing = [key for key in required if not getattr(settings, key)]
    if missing:
        wanted = " ".join(f"--with {key}={FORMS[key][1]}" for key in missing)
        raise UserError(f"--on {on} needs {', '.join(missing)}: {wanted} (docs/launching.md)")
    for field in dataclasses.fields(settings):
        value, key = getattr(settings, field.name), field.name
        if key in choices and value not in choices[key]:
            raise UserError(f"--with {key}={value}: it is one of {', '.join(map(repr, choices[key]))}")
        if value and key in FORMS and not re.fullmatch(FORMS[key][0], value, re.ASCII):
            raise UserError(f"--with {key}={value!r}: it looks like {FORMS[key][1]}")


def at_least(settings, **least: int) -> None:
    """UserError for a number that is too small."""
    for key, smallest in least.items():
        if getattr(settings, key) < smallest:
            raise UserError(f"--with {key}={getattr(settings, key)}: it must be {smallest} or more")


def name(folder, job: str) -> str:
    """Of a job's submission: at most 38 of [a-z0-9-], a letter first, as xpk, GCP and Kubernetes allow it and
    pods' names leave room for."""
    digest = hashlib.sha256(f"{mirror.address(folder)}\n{job}".encode()).hexdigest()[:10]
    words = re.sub("[^a-z0-9]+", "-", job.lower()).strip("-")[:26].strip("-")
    return f"{words if words[:1].isalpha() else 'j' + words}-{digest}"


def after(folder, one: Job, jobs: list[Job]) -> tuple[str, ...]:
    """Names of the submissions of what it needs, of those that are submitted too."""
    there = {job.name for job in jobs}
    return tuple(name(folder, need) for need in one.needs if need in there)


def file(folder: pathlib.Path, called: str) -> pathlib.Path:
    """Where the file that a command names is written: beside jobs.json."""
    return pathlib.Path(folder) / called


def variables(names: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """({name: value} of the variables of this process that change numbers, which a run records and anyone
    may see; names of all others). The others' values are secrets: they are neither printed nor stored.
    UserError for one of the first kind that is not set here."""
    plain, secret = {}, []
    for one in dict.fromkeys(filter(None, names.split(","))):
        if not environment.RECORDED.fullmatch(one) or environment.NEVER.fullmatch(one):
            secret.append(one)
        elif one not in os.environ:
            raise UserError(f"--with env={one}: it is not set here; `export {one}=...` first")
        elif any(ord(sign) < 32 or sign in '"\\' for sign in os.environ[one]):
            raise UserError(f"--with env={one}: its value has a quotation mark, a backslash or a line break")
        else:
            plain[one] = os.environ[one]
    return plain, tuple(secret)


def ask(*command: str) -> str:
    """What a command says on stdout. UserError, in a line, where it fails, is not installed, or does not
    end. It is never answered: one that asks a question fails."""
    tool = command[0]
    try:
        said = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except FileNotFoundError:
        raise UserError(f"{tool} is not installed here (docs/launching.md says where to get it)") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{' '.join(command[:3])} did not end within {SECONDS} s") from None
    if said.returncode:
        raise UserError(f"{' '.join(command[:3])} failed: {_reason(said.stdout + said.stderr)}")
    return said.stdout


def _reason(text: str) -> str:
    """The line of a tool's output that says what is wrong: the last that speaks of an error, or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [
        line for line in lines if re.search("error|denied|not found|invalid|unable", line, re.IGNORECASE)
    ]
    return ([*lines[-1:], *wrong[-1:]] or [""])[-1][:400]


def give(step: Step, there: dict[str, bool], clear) -> str:
    """Submits a step where nothing of its name lives; its name, which is its id. there: {name: whether it
    lives} of what was submitted; clear(): removes the dead one of that name, which could not be given
    again."""
    if there.get(step.name):
        return step.name
    if step.name in there:
        clear()
    ask(*step.command)
    return step.name


def living(there: dict[str, bool]) -> set[str]:
    return {name for name, lives in there.items() if lives}
