"""Every command line and file that is given to GKE, TPU VMs and SkyPilot, by the real parsers
(launch_tools.py), as far as they go without an account."""

import itertools
import json
import pathlib
import subprocess

import launch_tools
import pytest
import yaml

from bltjax.compile import chips
from bltjax.launch import cloud, gke, job, sky, tpu, tpu_vm

pytestmark = pytest.mark.slow
FOLDER = pathlib.Path("/runs/compression/launch")
IMAGE = "us-docker.pkg.dev/my-project/r/bltjax:1@sha256:" + "a" * 64
GOOGLE = dict(project="my-project", zone="us-east5-a", image=IMAGE)
NO_ACCOUNT = "You do not currently have an active account selected"
# what a shell, YAML and Kubernetes each have their own reading of
ODD = 'it\'s; rm -rf $HOME `id` #{x}: "y" \\ ü'


def one(topology="", name="blt-entropy-s"):
    return job.Job(name, "run", f"/runs/compression/{name}", (), topology)


@pytest.fixture
def variables(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_b='x: y' #z")
    monkeypatch.setenv("HF_TOKEN", "hf-very-secret")


# ---- gcloud ----


def parsed_by_gcloud(command, home):
    """gcloud has read every flag, and then wants an account."""
    said = launch_tools.run(command, home)
    assert said.returncode == 1 and NO_ACCOUNT in said.stderr, said.stderr


GCLOUD = [
    ("v4:2x2x4", dict(capacity="reserved")),
    ("2*v4:4x4x4", dict(valid_until="48h")),
    ("v5p:2x2x4", dict(labels="team=scaling,goal=paper", tags="ssh,tpu", internal_ips=True)),
    ("3*v5p:4x4x8", dict(capacity="guaranteed", network="n", subnetwork="s", runtime="tpu-ubuntu2204-base")),
    ("v5e:4x4", dict(capacity="on-demand", service_account="a@my-project.iam.gserviceaccount.com")),
    ("v6e:16x16", dict(env="HF_TOKEN,XLA_FLAGS")),
    ("", dict(cpu="v6e:1x1")),
]


@pytest.mark.parametrize("topology, more", GCLOUD, ids=[topology or "cpu" for topology, _ in GCLOUD])
def test_gcloud_reads_what_makes_a_slice(topology, more, tmp_path, variables):
    settings = tpu_vm.Settings(**GOOGLE, **more)
    folder = tmp_path / "a,b=c"
    (step,) = tpu_vm.steps(folder, [one(topology, ODD)], settings, 0)
    step.path.parent.mkdir()
    step.path.write_text(step.manifest, encoding="utf-8")
    parsed_by_gcloud(step.command, tmp_path)
    assert subprocess.run(["bash", "-n", step.path]).returncode == 0
    assert "very-secret" not in step.manifest + " ".join(step.command)


def test_gcloud_reads_the_other_commands(tmp_path, monkeypatch):
    settings, asked = tpu_vm.Settings(**GOOGLE), []

    def ask(*command):
        asked.append(command)
        return json.dumps([{"name": f"p/{name}", "state": {"state": "SUSPENDED"}} for name in "ab"])

    monkeypatch.setattr(cloud, "ask", ask)
    tpu_vm.alive(["a"], settings)
    tpu_vm.cancel(["a"], settings)
    tpu_vm.clear("b", settings)
    assert {command[4] for command in asked} == {"list", "delete"}
    for command in set(asked):
        parsed_by_gcloud(command, tmp_path)


def test_gcloud_refuses_what_it_does_not_know(tmp_path):
    """That the account is asked for does say that all was read."""
    (step,) = tpu_vm.steps(FOLDER, [one("v5p:2x2x4")], tpu_vm.Settings(**GOOGLE), 0)
    said = launch_tools.run((*step.command, "--node-cnt=2"), tmp_path)
    assert said.returncode == 2 and "unrecognized arguments" in said.stderr


def test_kubectl_reads_its_commands(tmp_path, monkeypatch):
    settings, asked = gke.Settings(**GOOGLE, cluster="c1"), []
    monkeypatch.setattr(cloud, "ask", lambda *command: asked.append(command) or '{"items": []}')
    gke.alive(["a"], settings)
    gke.cancel(["a", "b"], settings)
    gke.clear("a", settings)
    for command in asked:
        said = launch_tools.run(command, tmp_path)
        assert said.returncode == 1 and "does not exist" in said.stderr and "unknown flag" not in said.stderr
    said = launch_tools.run((*asked[0], "--conntext=x"), tmp_path)
    assert "unknown flag" in said.stderr


# ---- xpk ----


def jobset(step, home):
    """The JobSet that xpk makes of a step, which prints no secret on the way."""
    file = home / f"{step.name}.yaml"
    more = ("--dry-run", f"--output-manifest-file={file}", "--skip-validation")
    said = launch_tools.run((*step.command, *more), home)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "very-secret" not in said.stdout + said.stderr
    return yaml.safe_load(file.read_text(encoding="utf-8"))


XPK = [
    ("v5p:2x2x4", 4, dict(env="HF_TOKEN,XLA_FLAGS")),
    ("2*v5p:4x4x8", 32, dict(capacity="spot")),
    ("v4:2x2x1", 1, dict(capacity="reservation", reservation="r1")),
    ("v5e:4x8", 8, dict(priority="high", restarts=50)),
    ("v6e:16x16", 64, dict(grace=600)),
    ("v7x:2x2x2", 2, {}),
    ("", 1, {}),
]


@pytest.mark.parametrize("topology, hosts, more", XPK, ids=[topology or "cpu" for topology, _, _ in XPK])
def test_xpk_makes_a_job_set_that_outlives_its_machines(topology, hosts, more, tmp_path, variables):
    settings = gke.Settings(**GOOGLE, cluster="c1", **more)
    (step,) = gke.steps(FOLDER, [one(topology, ODD)], settings, 0)
    made = jobset(step, tmp_path)
    assert (made["kind"], made["metadata"]["name"]) == ("JobSet", step.name)
    spec = made["spec"]
    # preemptions never use up the restarts; what must not be tried again is no restart
    assert spec["failurePolicy"]["maxRestarts"] == settings.restarts
    assert spec["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (replicated,) = spec["replicatedJobs"]
    on = one(topology).on
    assert replicated["replicas"] == (on.slices if topology else 1)
    of_slice = replicated["template"]["spec"]
    assert of_slice["parallelism"] == of_slice["completions"] == hosts
    (rule,) = of_slice["podFailurePolicy"]["rules"]
    codes = rule["onExitCodes"]
    assert rule["action"] == "FailJob" and codes["operator"] == "NotIn" and of_slice["backoffLimit"] == 0
    assert set(codes["values"]) >= {42, 134, 137, 139, 143} and not {0, 1, 2, 75} & set(codes["values"])
    pod = of_slice["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == settings.grace >= 60 and pod["restartPolicy"] == "Never"
    if topology:
        assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == tpu.grid(on)
    (container,) = pod["containers"]
    assert container["name"] == codes["containerName"] and container["image"] == IMAGE
    environ = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert pod["hostNetwork"] and environ["JAX_COORDINATOR_BIND_ADDRESS"].startswith("0.0.0.0:")
    assert environ.get("XLA_FLAGS", "--xla_a=1 --xla_b='x: y' #z") == "--xla_a=1 --xla_b='x: y' #z"


def test_a_pod_hands_signals_and_statuses_on(tmp_path):
    """The container's own script, by bash, with a python of ours."""
    (step,) = gke.steps(FOLDER, [one("v5p:2x2x1", ODD)], gke.Settings(**GOOGLE, cluster="c1"), 0)
    (replicated,) = jobset(step, tmp_path)["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/bash\nprintf '%s\\n' \"$@\" >said; trap 'exit 42' TERM\n"
        "touch runs; for i in {1..600}; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    process = subprocess.Popen(
        container["command"], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LANG": "C.UTF-8"}
    )
    while not (tmp_path / "runs").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 42
    said = (tmp_path / "said").read_text(encoding="utf-8").splitlines()
    assert said == ["-m", "bltjax.launch.start", str(FOLDER), ODD]


def test_types_and_grids_are_those_of_xpk(tmp_path):
    """Its table of the grids that types have, against ours; but for v4, of which we say the grid."""
    python = pathlib.Path(launch_tools.tool("xpk")).with_name("python")
    program = (
        "import json; from xpk.core import system_characteristics as known\n"
        "types = known.UserFacingNameToSystemCharacteristics.items()\n"
        "print('\\n' + json.dumps({name: one.topology for name, one in types}))"
    )
    said = subprocess.run(
        [python, "-c", program], capture_output=True, encoding="utf-8", check=True, cwd=tmp_path
    )
    theirs = json.loads(said.stdout.splitlines()[-1])
    sides = [1, 2, 4, 8, 12, 16]
    compared = 0
    for chip in ("v5e", "v5p", "v6e", "v7x"):
        axes = chips.CHIPS[chip].axes
        for grid in itertools.combinations_with_replacement(sides, axes):
            grid = (*grid[1:], 1) if axes == 3 and grid[0] == 1 else grid
            if grid[0] % 2 and set(grid) != {1}:
                continue
            on = chips.topology(f"{chip}:{'x'.join(map(str, grid))}")
            known = theirs.get(tpu.accelerator(on))
            if known and tpu.usual(on):
                assert known == tpu.grid(on)
                compared += 1
    assert compared > 40


# ---- SkyPilot ----

SKY = [
    ("v5p:2x2x4", dict(infra="gcp/us-east5/us-east5-a", labels="team=scaling")),
    ("v5e:2x4", dict(infra="gcp", capacity="on-demand")),
    ("v6e:2x4", dict(capacity="")),
    ("h100:16", dict(infra="aws/us-east-1")),
    ("h200:8", {}),
    ("a100-40:4", {}),
    ("a100-80:8", dict(env="HF_TOKEN,XLA_FLAGS")),
    ("b200:1", {}),
    ("", dict(cpu="32+", memory="128+")),
]

READ = """
import json, sys, sky
for path in sys.argv[1:]:
    task = sky.Task.from_yaml(path)
    (one,) = task.resources
    print("TASK" + json.dumps(dict(
        name=task.name, run=task.run, nodes=task.num_nodes, accelerators=one.accelerators, spot=one.use_spot,
        recovery=one.job_recovery, envs=task.envs, secrets=sorted(s for s in task.to_yaml_config(
        ).get("secrets", {})), labels=one.labels, arguments=one.accelerator_args, image=one.image_id,
        cpus=one.cpus, cloud=str(one.cloud))))
"""


def test_skypilot_reads_every_yaml(tmp_path, variables):
    python = pathlib.Path(launch_tools.tool("sky")).with_name("python")
    folder, made = tmp_path / "launch", []
    for number, (topology, more) in enumerate(SKY):
        settings = sky.Settings(image=IMAGE.partition("@")[0], **more)
        (step,) = sky.steps(folder, [one(topology, f"{number} {ODD}")], settings, 0)
        step.path.parent.mkdir(exist_ok=True)
        step.path.write_text(step.manifest, encoding="utf-8")
        made.append(step)
        assert "very-secret" not in step.manifest + " ".join(step.command)
    said = launch_tools.run(("sky", "--version"), tmp_path)
    assert said.returncode == 0, said.stderr
    said = subprocess.run(
        [python, "-c", READ, *(str(step.path) for step in made)],
        capture_output=True,
        encoding="utf-8",
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
    )
    assert said.returncode == 0, said.stderr
    tasks = [json.loads(line[4:]) for line in said.stdout.splitlines() if line.startswith("TASK")]
    assert len(tasks) == len(made)
    for (topology, more), step, task in zip(SKY, made, tasks):
        assert task["name"] == step.name and task["run"].startswith(
            "exec /usr/local/bin/python -m bltjax.launch.start"
        )
        assert task["recovery"]["recover_on_exit_codes"] == [42]
        assert task["spot"] == (more.get("capacity", "spot") == "spot")
        assert task["nodes"] == (2 if topology == "h100:16" else 1)
        if topology:
            on = chips.topology(topology)
            tpus = on.chip.platform == "tpu"
            name = f"tpu-{tpu.accelerator(on)}" if tpus else sky.GPUS[on.chip.name]
            assert task["accelerators"] == {name: 1 if tpus else on.chips // task["nodes"]}
        else:
            assert task["accelerators"] is None and task["cpus"] == "32+"
    assert tasks[6]["envs"]["XLA_FLAGS"] == "--xla_a=1 --xla_b='x: y' #z"


def test_skypilot_reads_its_command_lines(tmp_path, monkeypatch):
    """What click makes of them, in the CLI's own process; nothing is launched, and no server asked."""
    (step,) = sky.steps(FOLDER, [one("v5p:2x2x1")], sky.Settings(image="r/i:1", env="HF_TOKEN"), 0)
    asked = [step.command]
    monkeypatch.setattr(cloud, "ask", lambda *command: asked.append(command) or '[{"job_name": "a"}]')
    sky.cancel(["a"], sky.Settings(image="r/i:1"))
    assert [command[2] for command in asked] == ["launch", "queue", "cancel"]
    program = (
        "import json, sys\nfrom sky.client.cli.command import cli\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    at, context = cli, None\n"
        "    while hasattr(at, 'commands'):\n"
        "        at, context = at.get_command(context, words[0]), None\n"
        "        words = words[1:]\n"
        "    print(sorted(at.make_context(at.name, words).params))\n"
    )
    python = pathlib.Path(launch_tools.tool("sky")).with_name("python")
    environ = {
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "HF_TOKEN": "x",
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
    }

    def read(commands):
        return subprocess.run(
            [python, "-c", program, json.dumps([command[1:] for command in commands])],
            capture_output=True,
            encoding="utf-8",
            env=environ,
        )

    said = read(asked)
    assert said.returncode == 0 and len(said.stdout.splitlines()) == 3, said.stderr
    assert read([(*step.command, "--detatch")]).returncode != 0
