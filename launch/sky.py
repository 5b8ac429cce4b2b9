"""Jobs by SkyPilot: a managed job each, whose YAML is written beside jobs.json. What is preempted, or ends
with 42, SkyPilot starts again wherever there is room."""

import dataclasses
import json
import os
import pathlib
import shlex

from bltjax.errors import UserError
from bltjax.launch import cloud, job, tpu, tpu_vm

CHAINS = False
GPUS = {"a100-40": "A100", "a100-80": "A100-80GB", "h100": "H100", "h200": "H200", "b200": "B200"}
PORT = "BLTJAX_COORDINATOR_PORT"  # where it is set, the processes of several nodes join by it
NONE_YET = "No in-progress managed jobs"  # the CLI's error where nothing was ever launched from here


@dataclasses.dataclass(frozen=True)
class Settings:
    """infra: as SkyPilot has it, CLOUD, CLOUD/REGION or CLOUD/REGION/ZONE; "": the cheapest that it may use.
    image: of launch/Dockerfile. capacity: spot, on-demand or "" (SkyPilot chooses). runtime: of TPU VMs.
    cpu, memory: vCPUs and GB of jobs that need no chip."""

    image: str = ""
    infra: str = ""
    capacity: str = "spot"
    runtime: str = ""
    labels: str = ""
    env: str = ""
    cpu: str = "16+"
    memory: str = "64+"
    python: str = "/usr/local/bin/python"

    def __post_init__(self):
        cloud.check("sky", self, ("image",), capacity=("", "spot", "on-demand"))


def steps(folder: pathlib.Path, jobs: list[job.Job], settings: Settings, limit: int) -> list[job.Step]:
    """A managed job each. UserError for several slices, or a slice whose grid its type does not say."""
    plain, secret = cloud.variables(settings.env)
    made = []
    for one in jobs:
        name = cloud.name(folder, one.name)
        path = cloud.file(folder, f"{name}.yaml")
        flags = [
            word for key in secret for word in ("--secret", key)
        ]  # sky takes the value from its environment
        made.append(
            job.Step(
                name=name,
                jobs=(one.name,),
                command=("sky", "jobs", "launch", "--name", name, "--yes", "--detach-run", *flags, str(path)),
                after=cloud.after(folder, one, jobs),
                manifest=_yaml(folder, one, name, settings, plain, secret),
                path=path,
            )
        )
    return made


def _yaml(folder, one: job.Job, name: str, settings: Settings, plain: dict, secret: tuple) -> str:
    """The task. Its values are written as JSON, which is YAML whatever is in them."""
    resources = {"infra": settings.infra, **_machines(one, settings)}
    resources |= {"image_id": f"docker:{settings.image}"}
    if settings.capacity:
        resources["use_spot"] = settings.capacity == "spot"
    # a node that ends with 1 has its others killed: another status than 42 is no reason to start again
    resources["job_recovery"] = {"strategy": "FAILOVER", "recover_on_exit_codes": [cloud.AGAIN]}
    if settings.labels:
        resources["labels"] = dict(pair.split("=") for pair in settings.labels.split(","))
    nodes = one.hosts if one.on.chip.platform == "gpu" else 1  # a TPU pod is one resource
    variables = {cloud.LAUNCHED_AS: f"sky {name}", **plain}
    if nodes > 1:
        variables[PORT] = str(cloud.COORDINATOR_PORT)
    parts = {
        "name": name,
        "num_nodes": nodes,
        "resources": {key: value for key, value in resources.items() if value != ""},
        "envs": variables,
        **({"secrets": dict.fromkeys(secret)} if secret else {}),
        "run": "exec " + shlex.join(job.command(folder, one.name, settings.python)),
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items())


def _machines(one: job.Job, settings: Settings) -> dict:
    topology = one.on
    if not one.chips:
        return {"cpus": settings.cpu, "memory": settings.memory}
    if topology.chip.platform == "gpu":
        return {"accelerators": f"{GPUS[topology.chip.name]}:{topology.chips // one.hosts}"}
    if topology.slices > 1 or not tpu.usual(topology):
        raise UserError(f"{one.name}: SkyPilot has single slices of the usual grid, not {topology.name}")
    return {
        "accelerators": f"tpu-{tpu.accelerator(topology)}",
        "accelerator_args": {"runtime_version": settings.runtime or tpu_vm.runtime(topology)},
    }


def place(environ) -> tuple[str, int, int]:
    """(coordinator, processes, process) of a process on one of several nodes of GPUs, as distributed.start
    takes them; ("", 0, -1) elsewhere."""
    if PORT not in environ or "SKYPILOT_NODE_IPS" not in environ:
        return "", 0, -1
    addresses = environ["SKYPILOT_NODE_IPS"].split()
    return f"{addresses[0]}:{environ[PORT]}", len(addresses), int(environ["SKYPILOT_NODE_RANK"])


def submit(step: job.Step, ids: dict[str, str], settings: Settings) -> str:
    """The managed job's name."""
    missing = [key for key in cloud.variables(settings.env)[1] if key not in os.environ]
    if missing:
        raise UserError(f"--with env={','.join(missing)}: not set here, where SkyPilot takes the values from")
    cloud.ask(*step.command)
    return step.name


def found(name: str, settings: Settings) -> str:
    return name if name in _names() else ""


def alive(ids: list[str], settings: Settings) -> set[str]:
    return _names() & set(ids)


def cancel(ids: list[str], settings: Settings) -> None:
    for name in sorted(alive(ids, settings)):
        cloud.ask("sky", "jobs", "cancel", "--name", name, "--yes")


def _names() -> set[str]:
    """Of managed jobs that have not ended."""
    try:
        said = cloud.ask("sky", "jobs", "queue", "--refresh", "--all", "--skip-finished", "--output", "json")
    except UserError as error:
        if NONE_YET in str(error):
            return set()
        raise
    try:
        _, start, rest = f"\n{said}".partition("\n[")
        return {one["job_name"] for one in json.loads("[" + rest)} if start else set()
    except (ValueError, KeyError, TypeError):
        raise UserError("sky jobs queue did not answer with the JSON of jobs") from None
