"""A sweep on a real Slurm (slurm_cluster.py), with its shared jobs, by two launchers at once, disturbed at
random moments: every run ends with the metrics of an undisturbed one, and no job was done twice at once.

BLTJAX_DISTURBANCES says how many (default 4); BLTJAX_SEED which."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest
import slurm_cluster
from test_runner import TINY, WALL_CLOCK, environment, written

from bltjax import exit_codes
from bltjax.storage import attempts, rundir
from bltjax.training import checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=f"no Slurm here: {slurm_cluster.missing()}"),
]
DISTURBANCES = int(os.environ.get("BLTJAX_DISTURBANCES", 4))
RUNS = [f"{family}{seed}" for family in ("bpe", "entropy", "space") for seed in ("", "-seed1")]
LIMIT_SECONDS = 1500


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return written(tmp_path_factory.mktemp("texts"))


def launch(root, texts, *more):
    """`bltjax launch --watch`, until all is over."""
    said = [sys.executable, "-m", "bltjax.cli.main", "launch", str(TINY), "--root", str(root)]
    said += ["--set", f'data.globs=["{texts}/*.txt"]', "--set", "train.checkpoint_every=5", "--seeds", "2"]
    said += ["--on", "slurm", "--with", "warning=10", "--with", "cpus=1", "--watch", "--every", "2", *more]
    return subprocess.Popen(
        said, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def results(root: pathlib.Path) -> dict:
    """{run: its metrics and scores, without what a clock says}."""
    found = {}
    for name in RUNS:
        folder = root / "tiny_experiment" / name
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[name] = [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]
        found[name].append(json.loads((folder / "eval.json").read_text()))
    return found


def running_elements() -> list[str]:
    said = slurm_cluster.command(
        "squeue", "--noheader", "--array", "--states=R", "--format=%F_%K", check=False
    )
    return said.split()


def disturb(how: str, rng: random.Random, nodes: list[str]) -> bool:
    """Whether there was something to disturb."""
    if how == "node":
        name = rng.choice(nodes)
        slurm_cluster.command("scontrol", "update", f"nodename={name}", "state=down", "reason=test")
        time.sleep(rng.uniform(0.5, 3))
        slurm_cluster.command("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        return True
    if not (running := running_elements()):
        return False
    element = rng.choice(running)
    said = {
        "requeue": ("scontrol", "requeue", element),
        "term": ("scancel", "--signal=TERM", element),
        "kill": ("scancel", "--signal=KILL", element),
        "kill all of it": ("scancel", "--signal=KILL", "--full", element),
    }[how]
    slurm_cluster.command(*said, check=False)
    return True


def test_a_disturbed_sweep_is_the_undisturbed_one(tmp_path, texts):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    seed = int(os.environ.get("BLTJAX_SEED", time.time_ns() % 1000))
    rng, left, said = random.Random(seed), DISTURBANCES, []
    with slurm_cluster.running(nodes=2, cpus=1, kill_wait=10) as nodes:
        alone = launch(undisturbed, texts)
        printed, _ = alone.communicate(timeout=LIMIT_SECONDS)
        assert alone.returncode == 0, printed
        both = [launch(disturbed, texts) for _ in range(2)]
        until = time.monotonic() + LIMIT_SECONDS
        while any(one.poll() is None for one in both) and time.monotonic() < until:
            time.sleep(rng.uniform(1, 8))
            how = rng.choice(("requeue", "requeue", "term", "kill", "kill all of it", "node"))
            if left and disturb(how, rng, nodes):
                left, said = left - 1, [*said, how]
        printed = [one.communicate(timeout=60)[0] for one in both]
        assert [one.returncode for one in both] == [0, 0], (seed, said, printed)
    print(f"BLTJAX_SEED={seed}: {', '.join(said)}")
    assert results(disturbed) == results(undisturbed), (seed, said)
    for folder in (*(disturbed / "_shared").iterdir(), *(disturbed / "tiny_experiment").iterdir()):
        began_and_seen = [(one["began"], one["seen"]) for one in attempts.read(folder)]
        overlapping = [a for a, b in zip(began_and_seen, began_and_seen[1:]) if a[1] > b[0]]
        assert not overlapping, (folder, seed)


def test_after_a_warning_no_step_is_lost(tmp_path, texts):
    """A preemption that Slurm announces (USR1 to the batch shell): saved at the step that it had reached,
    queued again by its own script, and gone on from there."""
    run_dir = tmp_path / "tiny_experiment" / "space"
    with slurm_cluster.running(nodes=1, cpus=1, kill_wait=30):
        never = ("--set", "train.checkpoint_every=100000", "--only", "space", "--set", "budget_flops=4e9")
        watching = launch(tmp_path, texts, *never, "--seeds", "1")
        until, reached = time.monotonic() + LIMIT_SECONDS, 0
        while reached < 20 and time.monotonic() < until:
            time.sleep(0.05)
            reached = (rundir.last_metrics(run_dir) or {}).get("step", 0)
        slurm_cluster.command("scancel", "--batch", "--signal=USR1", *running_elements())
        while len(attempts.read(run_dir)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        first, second = attempts.read(run_dir)[:2]
        printed, _ = watching.communicate(timeout=LIMIT_SECONDS)
    assert watching.returncode == 0, printed
    assert first["code"] == exit_codes.STOPPED and second["step"] >= reached
    steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
    assert checkpoint.steps(run_dir)[0] in (second["step"], second["step"] - 1)
