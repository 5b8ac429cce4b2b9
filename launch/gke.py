"""Jobs on a GKE cluster that xpk made: a workload each, which xpk writes as a JobSet.

Why xpk, and no manifest of our own: it knows clusters' machines, queues and slices, and changes with
them. It has one count of restarts, which preemptions take from as crashes
do, so the count is so high that it is never reached, and what a crash is, is left to bltjax: a status other
than 42 and signals fails the JobSet at once (xpk's pod failure policy), and a job that is killed again and
again without coming further ends with such a status (launch/start.py). It has no references to secrets, which
come from Secret Manager (secrets.py)."""

import dataclasses
import json
import pathlib
import shlex

from bltjax.errors import UserError
from bltjax.launch import cloud, job, secrets, tpu

CHAINS = False
# A pod has the host's network, where IPv6 may be missing: JAX's own address is [::].
ENVIRONMENT = {
    "JAX_COORDINATOR_PORT": str(cloud.COORDINATOR_PORT),
    "JAX_COORDINATOR_BIND_ADDRESS": f"0.0.0.0:{cloud.COORDINATOR_PORT}",
}
CAPACITY = ("", "spot", "on-demand", "flex", "reservation")
PRIORITIES = ("very-low", "low", "medium", "high", "very-high")


@dataclasses.dataclass(frozen=True)
class Settings:
    """image: of launch/Dockerfile, in a registry that the cluster reads. capacity: spot, on-demand, flex or
    reservation (the one that is named), where the cluster makes nodes by itself. context: kubectl's, by
    default what `gcloud container clusters get-credentials` makes. grace: seconds from SIGTERM to SIGKILL.
    kept: seconds that an ended JobSet is kept. cpu: xpk's device type for jobs that need no chip."""

    project: str = ""
    zone: str = ""
    cluster: str = ""
    image: str = ""
    namespace: str = "default"
    context: str = ""
    capacity: str = ""
    reservation: str = ""
    priority: str = "medium"
    env: str = ""
    cpu: str = "n2-standard-32-1"
    restarts: int = 10_000
    grace: int = 120
    kept: int = 86_400
    python: str = "python"

    def __post_init__(self):
        required = ("project", "zone", "cluster", "image")
        cloud.check("gke", self, required, capacity=CAPACITY, priority=PRIORITIES)
        cloud.at_least(self, restarts=1, grace=60, kept=0)
        if (self.capacity == "reservation") != bool(self.reservation):
            raise UserError("--with capacity=reservation and --with reservation=NAME belong together")


def steps(folder: pathlib.Path, jobs: list[job.Job], settings: Settings, limit: int) -> list[job.Step]:
    """A workload each. UserError for GPUs: xpk starts them without saying who is who."""
    plain, secret = cloud.variables(settings.env)
    return [
        job.Step(
            name=cloud.name(folder, one.name),
            jobs=(one.name,),
            command=_command(folder, one, settings, plain, secret),
            after=cloud.after(folder, one, jobs),
        )
        for one in jobs
    ]


def _command(folder, one: job.Job, settings: Settings, plain: dict, secret: tuple) -> tuple[str, ...]:
    wanted = (
        *secrets.prefix(settings.python, settings.project, secret),
        *job.command(folder, one.name, settings.python),
    )
    said, name = shlex.join(wanted), cloud.name(folder, one.name)
    variables = {**ENVIRONMENT, cloud.LAUNCHED_AS: f"gke {name}", **plain}
    if "\n" in said or "$(" in said:  # a line of YAML, where Kubernetes itself replaces $(NAME)
        raise UserError(f"{one.name}: a pod's command has no line break and no $(...): {said!r}")
    return (
        *("xpk", "workload", "create"),
        *_of_cluster(settings),
        f"--workload={name}",
        f"--command=exec {said}",  # in the place of xpk's subshell, which SIGTERM would end alone
        *_machines(one, settings),
        f"--docker-image={settings.image}",
        f"--max-restarts={settings.restarts}",
        f"--restart-on-exit-codes={cloud.AGAIN}",
        f"--termination-grace-period-seconds={settings.grace}",
        f"--ttl-seconds-after-finished={settings.kept}",
        f"--priority={settings.priority}",
        *(f"--env={key}={value}" for key, value in variables.items()),
    )


def _of_cluster(settings: Settings) -> tuple[str, ...]:
    return (
        f"--project={settings.project}",
        f"--zone={settings.zone}",
        f"--cluster={settings.cluster}",
        f"--namespace={settings.namespace}",
    )


def _machines(one: job.Job, settings: Settings) -> tuple[str, ...]:
    topology = one.on
    if not one.chips:
        return (f"--device-type={settings.cpu}", "--num-slices=1")
    if topology.chip.platform != "tpu":
        raise UserError(
            f"{one.name}: --on gke has TPUs and CPUs; {topology.name} runs --on slurm or --on sky"
        )
    kind = tpu.accelerator(topology).partition("-")[0]  # with the grid, so that there is no doubt
    capacity = f"--{settings.capacity}" if settings.capacity else ""
    if settings.reservation:
        capacity += f"={settings.reservation}"
    return (
        f"--tpu-type={kind}-{tpu.grid(topology)}",
        f"--num-slices={topology.slices}",
        *((capacity,) if capacity else ()),
    )


def submit(step: job.Step, ids: dict[str, str], settings: Settings) -> str:
    """The workload's name. One that has ended and has the same name is removed first."""
    return cloud.give(step, _jobsets(settings), lambda: clear(step.name, settings))


def found(name: str, settings: Settings) -> str:
    return name if name in _jobsets(settings) else ""


def alive(ids: list[str], settings: Settings) -> set[str]:
    return cloud.living(_jobsets(settings)) & set(ids)


def cancel(ids: list[str], settings: Settings) -> None:
    """Deletes the JobSets: their pods get SIGTERM, and SIGKILL after `grace` seconds."""
    if ids:
        cloud.ask(*_kubectl(settings, "delete", *ids, "--ignore-not-found", "--wait=false"))


def clear(name: str, settings: Settings) -> None:
    """Removes a JobSet that has ended, and waits until its name is free."""
    cloud.ask(*_kubectl(settings, "delete", name, "--ignore-not-found", "--wait=true", "--timeout=300s"))


def _kubectl(settings: Settings, verb: str, *more: str) -> tuple[str, ...]:
    region = settings.zone.rpartition("-")[0]  # xpk's clusters are regional
    context = settings.context or f"gke_{settings.project}_{region}_{settings.cluster}"
    namespace = f"--namespace={settings.namespace}"
    return ("kubectl", verb, "jobsets.jobset.x-k8s.io", *more, f"--context={context}", namespace)


def _jobsets(settings: Settings) -> dict[str, bool]:
    """{name of a workload: whether it waits or runs}."""
    listed = _kubectl(settings, "get", "--selector=xpk.google.com/workload", "--output=json")
    try:
        items = json.loads(cloud.ask(*listed))["items"]
        return {item["metadata"]["name"]: not _ended(item.get("status", {})) for item in items}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("kubectl get jobsets did not answer with the JSON of JobSets") from None


def _ended(status: dict) -> bool:
    return status.get("terminalState", "") in ("Completed", "Failed") or any(
        one["type"] in ("Completed", "Failed") and one["status"] == "True"
        for one in status.get("conditions", [])
    )
