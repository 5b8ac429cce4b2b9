"""The start-up script of a TPU VM's hosts, run by bash with a docker of ours."""

import os
import subprocess
import time

import pytest
from fake_programs import Fakes

from bltjax.launch import job, tpu_vm

SETTINGS = tpu_vm.Settings(project="my-project", zone="us-east5-a", image="us-docker.pkg.dev/p/r/bltjax:1")


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    return Fakes(tmp_path / "bin", monkeypatch)


@pytest.fixture
def host(tmp_path, fakes, monkeypatch):
    """host(topology, codes) -> a function that runs the script; docker ends with one code after the other."""

    def made(topology="v5p:2x2x1", codes=(0,), tpu_env="", worker="0", docker="", store="/runs/e/launch"):
        (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
        (tmp_path / "tpu-env").write_text(tpu_env)
        next_code = f"code=$(head -1 {tmp_path}/codes); sed -i 1d {tmp_path}/codes; exit $code"
        body = f'[ "$1" = rm ] && exit 0\n{docker}\n{next_code}'
        fakes.program("docker", body)
        fakes.program("gcloud", "")
        fakes.program(
            "curl", f'case "$*" in *tpu-env) cat {tmp_path}/tpu-env ;; *worker-number) echo {worker} ;; esac'
        )
        (step,) = tpu_vm.steps(store, [job.Job("blt-entropy-s", "run", "/x", (), topology)], SETTINGS, 0)
        text = step.manifest.replace("STATE=/var/lib/bltjax PAUSE=15", f"STATE={tmp_path}/state PAUSE=0.1")
        text = text.replace("$((PAUSE * 4))", "0")
        assert text != step.manifest
        script = tmp_path / "startup.sh"
        script.write_text(text, encoding="utf-8")
        environ = {
            "PATH": os.environ["PATH"],
            "MEGASCALE_COORDINATOR_ADDRESS": "gone",
            "MEGASCALE_NUM_SLICES": "9",
        }
        return lambda: subprocess.Popen(["bash", str(script)], env=environ)

    return made


def test_a_host_starts_its_job_until_it_has_ended(host, fakes, tmp_path):
    assert host(codes=(42, 137, 143, 125, 0))().wait(30) == 0
    assert len(fakes.called("docker run")) == 5
    assert "bltjax.launch.start /runs/e/launch blt-entropy-s" in fakes.called("docker run")[0]
    assert len(fakes.called("queued-resources delete")) == 1
    assert host(codes=(0,))().wait(30) == 0  # a boot later
    assert len(fakes.called("docker run")) == 5


@pytest.mark.parametrize("code", [1, 2, 75])
def test_a_failure_is_not_tried_again(host, fakes, code):
    assert host(codes=(code, 0), worker="3", store="gs://b/runs/e/launch")().wait(30) == code
    assert len(fakes.called("docker run")) == 1
    assert len(fakes.called("queued-resources delete")) == 1
    assert len(fakes.called("storage cp")) == 1


def test_one_host_gives_the_slice_back_after_a_success(host, fakes):
    assert host(codes=(0,), worker="1")().wait(30) == 0
    assert not fakes.called("queued-resources delete")


def test_stale_variables_of_slices_are_overwritten(host, fakes):
    assert host(docker='env | grep MEGASCALE >>"$(dirname "$0")/calls"')().wait(30) == 0
    assert not fakes.called("MEGASCALE")


def test_who_is_who_among_slices_is_said_by_the_metadata(host, fakes):
    said = "ACCELERATOR_TYPE: 'v5p-8'\nMEGASCALE_COORDINATOR_ADDRESS: '10.0.0.7'\nMEGASCALE_NUM_SLICES: '2'\n"
    assert host("2*v5p:2x2x4", tpu_env=said + "MEGASCALE_SLICE_ID: '1'\n")().wait(30) == 0
    (run,) = fakes.called("docker run")
    wanted = "COORDINATOR_ADDRESS=10.0.0.7", "NUM_SLICES=2", "SLICE_ID=1"
    assert all(f"--env MEGASCALE_{text} " in run for text in wanted) and "gone" not in run
    assert not fakes.called("queued-resources delete")  # slice 0 does it


def wait_for(there, seconds=20):
    for _ in range(seconds * 20):
        if there():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")


def test_a_signal_reaches_the_job_and_ends_the_script(host, fakes, tmp_path):
    waits = f"trap 'echo saved >{tmp_path}/saved; exit 42' TERM\ntouch {tmp_path}/runs\n"
    waits += "for i in {1..400}; do sleep 0.05; done"
    process = host(codes=(42, 0), docker=waits)()
    wait_for((tmp_path / "runs").exists)
    process.terminate()
    assert process.wait(30) == 0 and (tmp_path / "saved").exists()
    assert len(fakes.called("docker run")) == 1 and not list((tmp_path / "state").glob("*.ended"))


def test_a_second_gang_waits_for_the_first(host, fakes, tmp_path):
    waits = f"touch {tmp_path}/runs; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    start = host(codes=(0, 0), docker=waits)
    first = start()
    wait_for((tmp_path / "runs").exists)
    second = start()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    (tmp_path / "go").touch()
    assert (first.wait(30), second.wait(30)) == (0, 0)
    assert len(fakes.called("docker run")) == 1
