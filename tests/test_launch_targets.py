"""What is given to GKE, TPU VMs and SkyPilot, for jobs and settings of many kinds: what is rendered, here; by
the schedulers' own parsers, in test_launch_parsers.py."""

import dataclasses
import json
import os
import pathlib
import re
import shlex

import pytest
from fake_programs import Fakes

from bltjax.compile import chips
from bltjax.errors import UserError
from bltjax.launch import cloud, gke, job, secrets, sky, tpu, tpu_vm

FOLDER = pathlib.Path("/runs/compression/launch")
IMAGE = "us-docker.pkg.dev/my-project/r/bltjax:1"
GOOGLE = dict(project="my-project", zone="us-east5-a", image=IMAGE)
SETTINGS = {
    gke: gke.Settings(**GOOGLE, cluster="c1"),
    tpu_vm: tpu_vm.Settings(**GOOGLE, cpu="v5e:1x1"),
    sky: sky.Settings(image=IMAGE),
}
SLICES = ("v4:2x2x4", "v5e:4x4", "v5p:2x2x1", "v5p:4x4x8", "v6e:8x8")


def one(topology="", name="blt-entropy-s", needs=(), **more):
    return job.Job(name, "run", f"/runs/compression/{name}", needs, topology, **more)


def step(target, of, settings=None):
    (made,) = target.steps(FOLDER, [of], settings or SETTINGS[target], 0)
    return made


def flags(command) -> dict[str, str]:
    return dict(word.split("=", 1) for word in command if word.startswith("--") and "=" in word)


@pytest.fixture(params=[gke, tpu_vm, sky], ids=["gke", "tpu-vm", "sky"])
def target(request):
    return request.param


def test_names_are_short_unique_and_the_same_again():
    jobs = [
        "blt-entropy-s",
        "BLT entropy s",
        "blt_entropy_s",
        "x" * 200,
        "9-lives",
        "ü",
        "a" * 25 + "-b",
        "-",
        "",
    ]
    names = [cloud.name(FOLDER, name) for name in jobs]
    assert len(set(names)) == len(jobs)
    assert all(re.fullmatch("[a-z]([-a-z0-9]{0,36}[a-z0-9])", name) for name in names)
    assert names == [cloud.name(str(FOLDER), name) for name in jobs]
    assert cloud.name("/other/launch", jobs[0]) != names[0]


def test_a_step_a_job_in_order_behind_its_needs(target):
    jobs = [
        one(name="data"),
        one("v5p:2x2x1", "entropy", ("data",)),
        one("v5p:2x2x4", "blt", ("entropy", "gone")),
    ]
    made = target.steps(FOLDER, jobs, SETTINGS[target], 0)
    assert [step.jobs for step in made] == [("data",), ("entropy",), ("blt",)]
    assert [step.after for step in made] == [(), (made[0].name,), (made[1].name,)]
    assert [step.name for step in made] == [cloud.name(FOLDER, name) for name in ("data", "entropy", "blt")]
    assert all(isinstance(word, str) for step in made for word in step.command)
    for step in made:
        everything = " ".join(step.command) + (step.manifest or "")
        assert cloud.LAUNCHED_AS in everything and re.search(f"(gke|tpu-vm|sky) {step.name}", everything)
        assert (step.manifest is None) == (step.path is None)
        assert step.path is None or any(str(step.path) in word for word in step.command)


@pytest.mark.parametrize("topology", SLICES)
def test_slices_and_their_types(topology):
    on = chips.topology(topology)
    said = flags(step(gke, one(f"3*{topology}")).command)
    assert said["--num-slices"] == "3" and said["--tpu-type"].endswith("-" + tpu.grid(on))
    said = flags(step(tpu_vm, one(topology)).command)
    assert "--node-id" in said and "--node-count" not in said
    many = flags(step(tpu_vm, one(f"3*{topology}")).command)
    assert many["--node-count"] == "3" and "--node-prefix" in many and "--node-id" not in many
    assert said["--runtime-version"] == many["--runtime-version"]
    if on.chip.name == "v4":
        assert (said["--topology"], "--accelerator-type" in said) == (tpu.grid(on), False)
    else:
        assert said["--accelerator-type"] == many["--accelerator-type"] == tpu.accelerator(on)


def test_what_google_calls_slices():
    wanted = {"v4:2x2x4": "v4-32", "v5e:4x4": "v5litepod-16", "v5p:2x2x4": "v5p-32", "v6e:16x16": "v6e-256"}
    assert {name: tpu.accelerator(chips.topology(name)) for name in wanted} == wanted
    usual = "v5p:4x4x8 v5p:8x4x4 v5p:2x2x1 v5p:8x8x8 v6e:1x1 v6e:2x4 v6e:8x16 v4:4x4x4".split()
    assert all(tpu.usual(chips.topology(name)) for name in usual)
    assert not any(tpu.usual(chips.topology(name)) for name in ("v5p:4x4x16", "v6e:2x8", "v5p:2x2x16"))


@pytest.mark.parametrize(
    "made_of, topology, said",
    [
        (gke, "h100:8", "--on slurm or --on sky"),
        (tpu_vm, "h100:8", "has TPUs alone"),
        (tpu_vm, "v5p:4x4x16", "not the usual one"),
        (tpu_vm, "v7x:2x2x1", "--with runtime="),
        (sky, "2*v5p:2x2x1", "single slices"),
        (sky, "v5p:4x4x16", "single slices"),
    ],
)
def test_what_is_not_to_be_had_is_refused_in_a_line(made_of, topology, said):
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        step(made_of, one(topology))
    assert "\n" not in str(raised.value)


def test_settings_that_are_missing_or_wrong(target):
    with pytest.raises(UserError, match="needs .*--with image="):
        target.Settings()
    base = dataclasses.asdict(SETTINGS[target])
    for key, value in [
        ("image", "-rf"),
        ("image", "a b"),
        ("image", "$(id)"),
        ("image", "x\n--privileged"),
        ("python", "python;id"),
        ("env", "A,B=C"),
        ("capacity", "cheap"),
        ("zone", "--help"),
        ("project", "My Project"),
        ("labels", "A=b"),
        ("service_account", "x"),
        ("grace", 30),
    ]:
        if key in base:
            with pytest.raises(UserError, match=f"--with {key}"):
                target.Settings(**{**base, key: value})


def test_secrets_are_neither_printed_nor_stored(target, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf-very-secret")
    monkeypatch.setenv("ANYTHING", "also-secret")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0 --xla_b=c")
    settings = dataclasses.replace(SETTINGS[target], env="HF_TOKEN,ANYTHING,XLA_FLAGS")
    made = step(target, one("v5p:2x2x1"), settings)
    everything = json.dumps([made.command, made.manifest, dataclasses.asdict(settings)])
    assert "secret" not in everything.replace("bltjax.launch.secrets", "").replace('--secret"', "").replace(
        "secrets: {", ""
    )
    assert "HF_TOKEN" in everything and "ANYTHING" in everything
    assert "--xla_gpu_autotune_level=0 --xla_b=c" in everything
    monkeypatch.delenv("XLA_FLAGS")
    with pytest.raises(UserError, match="XLA_FLAGS: it is not set"):
        step(target, one("v5p:2x2x1"), settings)


def test_what_a_user_wrote_is_quoted():
    name = "it's; rm -rf $HOME `id`"
    for target, settings in SETTINGS.items():
        made = step(target, one("v5p:2x2x1", name), settings)
        if target is gke:
            words = shlex.split(flags(made.command)["--command"])
        elif target is tpu_vm:
            line = next(line for line in made.manifest.splitlines() if line.startswith("COMMAND=("))
            words = shlex.split(line.removeprefix("COMMAND=(").removesuffix(")"))
        else:
            line = next(line for line in made.manifest.splitlines() if line.startswith("run: "))
            words = shlex.split(json.loads(line.removeprefix("run: ")))
        assert words[-2:] == [str(FOLDER), name]
    for bad in ("$(id)", "a\nb"):
        with pytest.raises(UserError, match="a pod's command"):
            step(gke, one("v5p:2x2x1", bad))


def test_a_path_with_a_comma_is_one_entry():
    (made,) = tpu_vm.steps(pathlib.Path("/runs/a,b=c/launch"), [one("v5p:2x2x1")], SETTINGS[tpu_vm], 0)
    assert flags(made.command)["--metadata-from-file"] == f"^|^startup-script={made.path}"


def test_files_of_runs_in_a_store_lie_here(tmp_path):
    (tmp_path / ".url").write_text("gs://bucket/runs")
    folder = tmp_path / "e" / "launch"
    (made,) = tpu_vm.steps(folder, [one("v5p:2x2x1")], SETTINGS[tpu_vm], 0)
    assert made.path.parent == folder
    assert "LOGS=gs://bucket/runs/e/launch/logs/" in made.manifest
    assert "bltjax.launch.start gs://bucket/runs/e/launch " in made.manifest
    elsewhere = tmp_path / "elsewhere"  # the same root, from another machine
    elsewhere.mkdir()
    (elsewhere / ".url").write_text("gs://bucket/runs")
    (again,) = tpu_vm.steps(elsewhere / "e" / "launch", [one("v5p:2x2x1")], SETTINGS[tpu_vm], 0)
    assert again.name == made.name


def test_several_nodes_of_gpus_find_one_another():
    made = step(sky, one("h100:16"))
    assert "num_nodes: 2\n" in made.manifest and '"H100:8"' in made.manifest
    environ = {sky.PORT: "8476", "SKYPILOT_NODE_IPS": "10.0.0.2\n10.0.0.3\n", "SKYPILOT_NODE_RANK": "1"}
    assert sky.PORT in made.manifest and sky.place(environ) == ("10.0.0.2:8476", 2, 1)
    alone = step(sky, one("h100:8"))
    assert "num_nodes: 1\n" in alone.manifest and sky.PORT not in alone.manifest
    assert sky.place({key: environ[key] for key in environ if key != sky.PORT}) == ("", 0, -1)


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    return Fakes(tmp_path / "bin", monkeypatch)


def resources(**states):
    listed = [
        {"name": f"projects/p/locations/z/queuedResources/{n}", "state": {"state": s}}
        for n, s in states.items()
    ]
    return json.dumps(listed)


def test_states_of_queued_resources(fakes):
    states = dict(
        a="WAITING_FOR_RESOURCES", b="PROVISIONING", c="ACTIVE", d="FAILED", e="SUSPENDING", f="SUSPENDED"
    )
    fakes.answer("gcloud", resources(**states, g="DELETING", h="A_NEW_STATE"))
    settings = SETTINGS[tpu_vm]
    assert tpu_vm.alive(list("abcdefghz"), settings) == set("abcegh")
    assert [tpu_vm.found(name, settings) for name in "afz"] == ["a", "f", ""]
    tpu_vm.release(["a", "z"], settings)
    assert len(fakes.called(" delete ")) == 1 and "delete a " in fakes.called(" delete ")[0]
    assert "--force" in fakes.called(" delete ")[0]


@pytest.mark.parametrize("state, creates, deletes", [("ACTIVE", 0, 0), ("SUSPENDED", 1, 1), ("", 1, 0)])
def test_a_preempted_slice_is_made_anew_and_none_twice(fakes, state, creates, deletes):
    made = step(tpu_vm, one("v5p:2x2x1"))
    fakes.answer("gcloud", resources(**({made.name: state} if state else {})))
    assert tpu_vm.submit(made, {}, SETTINGS[tpu_vm]) == made.name
    assert [len(fakes.called(f" {verb} {made.name}")) for verb in ("create", "delete")] == [creates, deletes]
    if deletes:  # it waits until the name is free
        assert "--force" in fakes.called(" delete ")[0] and "--async" not in fakes.called(" delete ")[0]


def jobsets(**states):
    return json.dumps({"items": [{"metadata": {"name": n}, "status": s} for n, s in states.items()]})


@pytest.mark.parametrize(
    "status, creates, deletes", [({}, 0, 0), ({"terminalState": "Failed"}, 1, 1), (None, 1, 0)]
)
def test_workloads_that_ended_make_room(fakes, status, creates, deletes):
    made = step(gke, one("v5p:2x2x1"))
    fakes.program("xpk", "")
    ended = {"conditions": [{"type": "Completed", "status": "True"}]}
    going = {"conditions": [{"type": "Suspended", "status": "True"}], "restarts": 3}
    listed = dict(a=ended, b=going, c={"terminalState": "Completed"})
    fakes.answer("kubectl", jobsets(**listed, **({} if status is None else {made.name: status})))
    assert gke.alive(["a", "b", "c", "z"], SETTINGS[gke]) == {"b"}
    assert gke.submit(made, {}, SETTINGS[gke]) == made.name
    assert [len(fakes.called("xpk workload create")), len(fakes.called("kubectl delete"))] == [
        creates,
        deletes,
    ]
    assert all("--context=gke_my-project_us-east5_c1" in line for line in fakes.called("kubectl"))


def test_managed_jobs_of_skypilot(fakes, monkeypatch):
    listed = [
        {"job_name": name, "status": status} for name, status in (("a", "RUNNING"), ("b", "RECOVERING"))
    ]
    fakes.answer("sky", "Refreshing...\n" + json.dumps(listed, indent=2) + "\n")
    settings = SETTINGS[sky]
    assert (
        sky.alive(["a", "c"], settings) == {"a"}
        and sky.found("b", settings) == "b"
        and not sky.found("c", settings)
    )
    sky.cancel(["a", "c"], settings)
    assert [line.split()[3:] for line in fakes.called("cancel")] == [["--name", "a", "--yes"]]
    fakes.answer("sky", "sky.exceptions.ClusterNotUpError: No in-progress managed jobs.", 1)
    assert sky.alive(["a"], settings) == set()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    wants = dataclasses.replace(settings, env="HF_TOKEN")
    with pytest.raises(UserError, match="HF_TOKEN: not set here"):
        sky.submit(step(sky, one("h100:8"), wants), {}, wants)
    assert not fakes.called(" launch ")


def test_a_scheduler_that_does_not_answer_is_not_one_without_jobs(target, fakes):
    program = {gke: "kubectl", tpu_vm: "gcloud", sky: "sky"}[target]
    fakes.answer(program, "ERROR: (x) Permission denied on resource\nsome advice", 1)
    with pytest.raises(UserError, match="failed: ERROR.*Permission denied") as raised:
        target.alive(["a"], SETTINGS[target])
    assert "\n" not in str(raised.value)
    fakes.answer(program, "[{not json")
    with pytest.raises(UserError, match="did not answer with the JSON"):
        target.alive(["a"], SETTINGS[target])
    (fakes.folder / program).unlink()
    os.environ["PATH"] = str(fakes.folder)  # monkeypatch puts it back
    with pytest.raises(UserError, match=f"{program} is not installed"):
        target.found("a", SETTINGS[target])


# ---- secrets, of a store of ours on loopback ----


def test_secrets_come_from_the_store_alone(tmp_path, monkeypatch, capfd):
    import base64
    import http.server
    import threading

    class Store(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            token = self.path == "/token" and self.headers["Metadata-Flavor"] == "Google"
            value = self.path == "/projects/p/secrets/HF_TOKEN/versions/latest:access"
            value = value and self.headers["Authorization"] == "Bearer t"
            self.send_response(200 if token or value else 403)
            self.end_headers()
            data = base64.b64encode("ŝecret\n".encode()).decode()
            self.wfile.write(
                json.dumps({"access_token": "t"} if token else {"payload": {"data": data}}).encode()
            )

        def log_message(self, *said):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        ask = secrets.values
        monkeypatch.setattr(
            secrets, "values", lambda project, names: ask(project, names, here + "/token", here)
        )
        ran = []
        monkeypatch.setattr(os, "execvpe", lambda *what: ran.append(what))
        secrets.main(["p", "HF_TOKEN", "python", "-c", "pass"])
        assert ran[0][:2] == ("python", ["python", "-c", "pass"]) and ran[0][2]["HF_TOKEN"] == "ŝecret\n"
        assert secrets.main(["p", "HF_TOKEN,OTHER", "python"]) == 2 and len(ran) == 1
        server.shutdown()
    said = capfd.readouterr()
    assert "OTHER" in said.err and "403" in said.err and "ŝecret" not in said.out + said.err


# ---- the image ----


def test_the_image_is_of_pinned_versions_and_of_what_is_here():
    root = pathlib.Path(__file__).parent.parent
    text = (root / "launch" / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", text).splitlines()
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", base)
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((root / name).exists() for name in copied)
    kept = (root / "launch" / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= set(kept)
    installs = [line for line in lines if "pip install" in line]
    assert installs and all("-c requirements.lock" in line for line in installs)
