"""Jobs on TPU VMs: a queued resource each, made for one job and given back when it ends.

Every host of it runs startup.sh, which starts the job again where it was stopped. A preemption takes all its
slices: it is SUSPENDED then, and the next `bltjax launch` (or --watch) deletes it and makes it anew."""

import dataclasses
import json
import pathlib
import shlex

from bltjax.compile import chips
from bltjax.errors import UserError
from bltjax.launch import cloud, job, secrets, tpu
from bltjax.storage import mirror

CHAINS = False
BODY = pathlib.Path(__file__).with_name("startup.sh")
RUNTIMES = {
    "v4": "v2-alpha-tpuv4",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
TIERS = {"spot": ("--spot",), "reserved": ("--reserved",), "guaranteed": ("--guaranteed",), "on-demand": ()}
# States of queued resources that end by themselves in nothing else. All others, unknown ones too, are alive:
# a name that is in use cannot be given again.
DEAD = ("FAILED", "SUSPENDED")


@dataclasses.dataclass(frozen=True)
class Settings:
    """image: of launch/Dockerfile. service_account: of the VMs; it reads the image, the store of the runs and
    secrets, and, where it may (roles/tpu.admin), deletes its own queued resource when the job has ended.
    capacity: spot, reserved, guaranteed or on-demand. runtime: by default the one of the chips. valid_until:
    how long to wait for room, such as 48h. cpu: the slice, such as v5e:1x1, for jobs that need no chip."""

    project: str = ""
    zone: str = ""
    image: str = ""
    service_account: str = ""
    capacity: str = "spot"
    runtime: str = ""
    network: str = ""
    subnetwork: str = ""
    internal_ips: bool = False
    labels: str = ""
    tags: str = ""
    valid_until: str = ""
    env: str = ""
    cpu: str = ""
    python: str = "python"

    def __post_init__(self):
        cloud.check("tpu-vm", self, ("project", "zone", "image"), capacity=tuple(TIERS))


def runtime(topology: chips.Topology) -> str:
    """The version of a TPU VM's software. UserError where none is known."""
    if topology.chip.name not in RUNTIMES:
        raise UserError(f"no runtime version is known for {topology.chip.name}: say --with runtime=VERSION")
    return RUNTIMES[topology.chip.name]


def steps(folder: pathlib.Path, jobs: list[job.Job], settings: Settings, limit: int) -> list[job.Step]:
    """A queued resource each, with the script that its hosts run. UserError for what is no slice."""
    plain, secret = cloud.variables(settings.env)
    made = []
    for one in jobs:
        name, topology = cloud.name(folder, one.name), _topology(one, settings)
        path = cloud.file(folder, f"{name}.sh")
        made.append(
            job.Step(
                name=name,
                jobs=(one.name,),
                command=_command(name, topology, path, settings),
                after=cloud.after(folder, one, jobs),
                manifest=_script(folder, one, name, topology, settings, plain, secret),
                path=path,
            )
        )
    return made


def _topology(one: job.Job, settings: Settings) -> chips.Topology:
    if not one.chips and not settings.cpu:
        raise UserError(
            f"{one.name} needs no chip, and TPU VMs have no others: --with cpu=v5e:1x1 names a slice for such"
            " jobs, or `bltjax launch --on local` makes them first"
        )
    topology = one.on if one.chips else chips.topology(settings.cpu)
    if topology.chip.platform != "tpu":
        raise UserError(f"{one.name}: --on tpu-vm has TPUs alone, not {topology.name}")
    if not one.chips and topology.chips > topology.chip.chips_per_host:
        raise UserError(f"--with cpu={settings.cpu}: it is one host's, such as v5e:1x1 or v5p:2x2x1")
    if topology.chip.name != "v4" and not tpu.usual(topology):
        raise UserError(
            f"{one.name}: a queued resource of {topology.chip.name} says how many chips, not their grid, and"
            f" {topology.name} is not the usual one of so many; --on gke has it"
        )
    return topology


def _command(name: str, topology: chips.Topology, path: pathlib.Path, settings: Settings) -> tuple[str, ...]:
    if topology.chip.name == "v4":
        kind = ("--type=v4", f"--topology={tpu.grid(topology)}")
    else:
        kind = (f"--accelerator-type={tpu.accelerator(topology)}",)
    many = (f"--node-count={topology.slices}", f"--node-prefix={name}")
    separator = "^|^" if "," in str(path) else ""  # gcloud's way to say that a comma is none between entries
    account = f"--service-account={settings.service_account}"
    return (
        *_gcloud("create", settings, name),
        *kind,
        f"--runtime-version={settings.runtime or runtime(topology)}",
        *(many if topology.slices > 1 else (f"--node-id={name}",)),
        *TIERS[settings.capacity],
        *((account,) if settings.service_account else ()),
        "--scopes=https://www.googleapis.com/auth/cloud-platform",
        *((f"--network={settings.network}",) if settings.network else ()),
        *((f"--subnetwork={settings.subnetwork}",) if settings.subnetwork else ()),
        *(("--internal-ips",) if settings.internal_ips else ()),
        *((f"--labels={settings.labels}",) if settings.labels else ()),
        *((f"--tags={settings.tags}",) if settings.tags else ()),
        *((f"--valid-until-duration={settings.valid_until}",) if settings.valid_until else ()),
        f"--metadata-from-file={separator}startup-script={path}",
        "--async",
        "--quiet",
    )


def _gcloud(verb: str, settings: Settings, *more: str) -> tuple[str, ...]:
    where = (f"--project={settings.project}", f"--zone={settings.zone}")
    return ("gcloud", "compute", "tpus", "queued-resources", verb, *more, *where)


def _script(folder, one: job.Job, name: str, topology, settings: Settings, plain: dict, secret: tuple) -> str:
    """startup.sh behind the values that it reads, each quoted for the shell."""
    command = (
        *secrets.prefix(settings.python, settings.project, secret),
        *job.command(folder, one.name, settings.python),
    )
    variables = {cloud.LAUNCHED_AS: f"tpu-vm {name}", **plain}
    address = mirror.address(folder)
    store = address if address.startswith("gs://") else ""
    values = {
        "NAME": name,
        "PROJECT": settings.project,
        "ZONE": settings.zone,
        "IMAGE": settings.image,
        "SLICES": str(topology.slices),
        "LOGS": f"{store}/logs/{name}" if store else "",
    }
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"{key}={shlex.quote(value)}" for key, value in values.items()),
            f"COMMAND=({shlex.join(command)})",
            f"VARIABLES=({shlex.join(f'{key}={value}' for key, value in variables.items())})",
            BODY.read_text(encoding="utf-8"),
        ]
    )


def submit(step: job.Step, ids: dict[str, str], settings: Settings) -> str:
    """The queued resource's name. A dead one of the same name is deleted first."""
    return cloud.give(step, _resources(settings), lambda: clear(step.name, settings))


def found(name: str, settings: Settings) -> str:
    return name if name in _resources(settings) else ""


def alive(ids: list[str], settings: Settings) -> set[str]:
    return cloud.living(_resources(settings)) & set(ids)


def cancel(ids: list[str], settings: Settings) -> None:
    """Deletes the queued resources with their VMs, whose processes get SIGTERM and half a minute: what a save
    in that time does not end is lost since the last checkpoint."""
    there = _resources(settings)
    for name in sorted(set(ids) & set(there)):
        cloud.ask(*_gcloud("delete", settings, name), "--force", "--async", "--quiet")


release = cancel  # of jobs that have ended, whose VMs would be paid for on and on


def clear(name: str, settings: Settings) -> None:
    """Deletes one that is dead, and waits until its name is free."""
    cloud.ask(*_gcloud("delete", settings, name), "--force", "--quiet")


def _resources(settings: Settings) -> dict[str, bool]:
    """{name of a queued resource: whether it waits, runs or still ends}."""
    said = cloud.ask(*_gcloud("list", settings), "--format=json")
    try:
        return {
            one["name"].rpartition("/")[2]: one.get("state", {}).get("state") not in DEAD
            for one in json.loads(said)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("gcloud did not answer with the JSON of queued resources") from None
