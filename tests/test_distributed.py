"""One run on a mesh, by one process or by two real ones that meet on the loopback: the numbers of one device,
whoever dies on the way."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from bltjax.training import checkpoint, metrics

HERE = pathlib.Path(__file__).parent
STEPS, HEARTBEAT = 20, 10
# so that a mesh may cut them in two
HEADS = [f"--set=model.{stack}.heads=2" for stack in ("local", "latent", "cross")]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """20 steps are about an epoch. Little is scored: where two processes do, each layer is a message of
    theirs."""
    folder = tmp_path_factory.mktemp("texts")
    words = (HERE / "test_runner.py").read_text().split()
    for i in range(40):
        (folder / f"{i}.txt").write_text(" ".join(random.Random(i).choices(words, k=60)))
    return folder


def start(run_dir, texts, *options, run="space"):
    """`bltjax train` of the tiny experiment, eight rows a batch, checkpoints after 8, 16 and 20 of 20
    steps."""
    command = [
        sys.executable,
        "-m",
        "bltjax.cli.main",
        "train",
        "--config",
        str(HERE / "tiny_experiment.py"),
        "--run",
        run,
        "--run-dir",
        str(run_dir),
        "--set",
        f'data.globs=["{texts}/*.txt"]',
        "--set=data.rows=8",
        f"--set=train.steps={STEPS}",
        "--set=train.checkpoint_every=8",
        *(HEADS if run != "bpe" else ["--set=model.heads=2"]),
        *map(str, options),
    ]
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)


def end(process, seconds=420):
    """(exit status, the lines of ours on standard error)."""
    said = process.communicate(timeout=seconds)[1]
    return process.returncode, [
        line for line in said.splitlines() if line.startswith(("bltjax:", "Traceback"))
    ]


def alone(run_dir, texts, *options, **more):
    assert end(start(run_dir, texts, *options, **more)) == (0, [])
    return lines(run_dir)


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def pair(run_dir, texts, *options, **more):
    """Two processes of four devices each."""
    where = f"127.0.0.1:{free_port()}"
    return [
        start(
            run_dir,
            texts,
            "--devices",
            4,
            "--coordinator",
            where,
            "--processes",
            2,
            "--process",
            i,
            "--heartbeat",
            HEARTBEAT,
            *options,
            **more,
        )
        for i in range(2)
    ]


def together(run_dir, texts, *options, **more):
    assert [end(process) for process in pair(run_dir, texts, *options, **more)] == [(0, [])] * 2
    return lines(run_dir)


def lines(run_dir):
    return [
        {k: v for k, v in line.items() if k not in metrics.WALL_CLOCK}
        for line in metrics.read(run_dir / "metrics.jsonl")
    ]


def scored(run_dir):
    return json.loads((run_dir / "eval.json").read_text())["test"]["bpb"]


def close(found, wanted, rel=1e-4):
    """The same steps on the same bytes, and losses that agree."""
    assert [(x["step"], x["bytes"], x["useful_flops"]) for x in found] == [
        (x["step"], x["bytes"], x["useful_flops"]) for x in wanted
    ]
    assert max(abs(x["loss"] / y["loss"] - 1) for x, y in zip(found, wanted)) < rel


def begun(run_dir, texts, line):
    """A pair of the token model, once it has written that line itself: where a run goes on, the lines past
    its checkpoint go first, in a new file."""
    file = run_dir / "metrics.jsonl"
    before = file.stat().st_ino if file.exists() else None
    processes = pair(run_dir, texts, "--mesh", "4x2", run="bpe")
    deadline = time.monotonic() + 300
    while (
        not file.exists()
        or file.stat().st_ino == before
        or not (found := lines(run_dir))
        or found[-1]["step"] < line
    ):
        assert all(process.poll() is None for process in processes) and time.monotonic() < deadline, [
            end(p) for p in processes
        ]
        time.sleep(0.05)
    return processes


def cut_back(run_dir, copy, step):
    """A copy of a finished run as it was when the checkpoint of that step was its last."""
    shutil.copytree(run_dir, copy)
    for name in ("done.json", "eval.json"):
        (copy / name).unlink()
    for later in checkpoint.steps(copy):
        if later > step:
            (checkpoint.folder(copy) / f"{later}{checkpoint.MANIFEST}").unlink()
            shutil.rmtree(checkpoint.folder(copy) / str(later))
    assert checkpoint.newest_whole(copy) == step


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, texts):
    run_dir = tmp_path_factory.mktemp("one") / "run"
    alone(run_dir, texts)
    return run_dir


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, texts):
    run_dir = tmp_path_factory.mktemp("two") / "run"
    together(run_dir, texts, "--mesh", "4x2")
    return run_dir


@pytest.fixture(scope="module")
def two_token_processes(tmp_path_factory, texts):
    """Of the model that compiles fastest, where a test is about processes and not about numbers."""
    run_dir = tmp_path_factory.mktemp("tokens") / "e" / "run"
    together(run_dir, texts, "--mesh", "4x2", run="bpe")
    return run_dir


# Slow: each starts processes that compile.


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_device(one_device, two_processes):
    close(lines(two_processes), lines(one_device))
    assert scored(two_processes) == pytest.approx(scored(one_device), rel=1e-4)
    record = json.loads((two_processes / "config.json").read_text())
    assert record["mesh"] == {"replica": 1, "data": 4, "model": 2} and (
        record["devices"],
        record["processes"],
    ) == (8, 2)
    assert checkpoint.steps(two_processes) == [16, 20] and checkpoint.problem(two_processes, 20) is None


@pytest.mark.slow
def test_token_model_and_replicas(tmp_path, texts, two_token_processes):
    one = alone(tmp_path / "e" / "one", texts, run="bpe")
    close(lines(two_token_processes), one)
    # each process is a replica
    close(together(tmp_path / "e" / "replicas", texts, "--mesh", "2x2x2", run="bpe"), one)
    assert scored(tmp_path / "e" / "replicas") == pytest.approx(scored(tmp_path / "e" / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--devices", 8, "--mesh", "2x2x2"], []], ids=["8", "1"])
def test_what_two_processes_saved_goes_on_in_one(tmp_path, texts, one_device, two_processes, options):
    cut_back(two_processes, tmp_path / "run", 16)
    close(alone(tmp_path / "run", texts, *options), lines(one_device))
    assert lines(tmp_path / "run")[:16] == lines(two_processes)[:16]
    assert scored(tmp_path / "run") == pytest.approx(scored(one_device), rel=1e-4)


@pytest.mark.slow
def test_what_one_device_saved_goes_on_on_eight_and_that_on_four(tmp_path, texts, one_device):
    cut_back(one_device, tmp_path / "eight", 16)
    close(alone(tmp_path / "eight", texts, "--devices", 8, "--mesh", "4x2"), lines(one_device))
    cut_back(tmp_path / "eight", tmp_path / "four", 16)
    shutil.rmtree(checkpoint.folder(tmp_path / "four"))
    # step 20, as eight devices wrote it
    shutil.copytree(checkpoint.folder(tmp_path / "eight"), checkpoint.folder(tmp_path / "four"))
    alone(tmp_path / "four", texts, "--devices", 4, "--mesh", "2x2")
    assert lines(tmp_path / "four") == lines(tmp_path / "eight")
    assert scored(tmp_path / "four") == pytest.approx(scored(tmp_path / "eight"), rel=1e-4)


@pytest.mark.slow
def test_one_is_killed_or_asked_to_stop_the_other_ends_and_both_start_again(
    tmp_path, texts, two_token_processes
):
    """Process 1 is killed, then process 0, which writes; then process 1 is asked to stop, and both save (by
    SIGTERM; others are passed on as that). The run ends as if nothing had been."""
    run_dir = tmp_path / "e" / "run"
    for killed, line in ((1, 4), (0, 10)):
        processes = begun(run_dir, texts, line)
        processes[killed].kill()
        since = time.monotonic()
        code, _ = end(processes[1 - killed], 3 * HEARTBEAT)
        took = time.monotonic() - since
        print(f"process {killed} killed; the other ended with {code} after {took:.1f} s")
        assert code != 0 and took < 2 * HEARTBEAT
        assert end(processes[killed])[0] == -signal.SIGKILL and len(lines(run_dir)) < STEPS
    assert checkpoint.newest_whole(run_dir) >= 8
    processes = begun(run_dir, texts, checkpoint.newest_whole(run_dir) + 1)
    processes[1].send_signal(signal.SIGTERM)
    (code, said), other = end(processes[0]), end(processes[1])
    assert other == (code, said) and code == 42 and len(said) == 1
    last = lines(run_dir)[-1]["step"]
    assert (
        f"after step {last} of {STEPS}; saved" in said[0] and checkpoint.newest_whole(run_dir) == last < STEPS
    )
    together(run_dir, texts, "--mesh", "4x2", run="bpe")
    close(lines(run_dir), lines(two_token_processes), rel=1e-6)
    assert scored(run_dir) == pytest.approx(scored(two_token_processes), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGUSR1, signal.SIGINT])
def test_one_is_asked_to_stop_before_the_first_step_and_after(tmp_path, texts, which):
    """Before it there is nothing to save, and both end soon; past it they save after the same step."""
    run_dir = tmp_path / "e" / "run"
    processes = pair(run_dir, texts, "--mesh", "4x2", run="bpe")
    while not (run_dir / ".lock").exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[1].send_signal(which)
    assert [end(process, 120)[0] for process in processes] == [42, 42] and not checkpoint.steps(run_dir)
    processes = begun(run_dir, texts, 1)
    processes[0].send_signal(which)
    (code, said), other = end(processes[0]), end(processes[1])
    assert other == (code, said) and code == 42 and "saved" in said[0]
    assert checkpoint.newest_whole(run_dir) == lines(run_dir)[-1]["step"] < STEPS


@pytest.mark.slow
def test_loss_that_is_not_finite_ends_both_with_the_same_line(tmp_path, texts):
    ended = [
        end(process)
        for process in pair(
            tmp_path / "e" / "run", texts, "--set=train.lr=1e30", "--set=train.warmup=1", run="bpe"
        )
    ]
    assert (
        ended[0] == ended[1] and ended[0][0] == 1 and len(ended[0][1]) == 1 and "not finite" in ended[0][1][0]
    )


@pytest.mark.slow
def test_what_runs_share_is_made_once_while_the_other_waits(tmp_path, texts):
    """And all devices are data where nothing is said."""
    short = ["--set=entropy_model.train.steps=30", "--set=train.steps=6"]
    together(tmp_path / "e" / "run", texts, *short, run="entropy")
    mesh = json.loads((tmp_path / "e" / "run" / "config.json").read_text())["mesh"]
    assert mesh == {"replica": 1, "data": 8, "model": 1}
    (lm,) = (tmp_path / "_shared").glob("entropy-model-*")
    record = json.loads((lm / "config.json").read_text())
    assert record["mesh"] is None and record["processes"] == 1 and len(lines(lm)) == 30
    alone(tmp_path / "e" / "alone", texts, *short, run="entropy")
    close(lines(tmp_path / "e" / "run"), lines(tmp_path / "e" / "alone"))
    assert len(list((tmp_path / "_shared").glob("entropy-model-*"))) == 1


@pytest.mark.slow
def test_settings_that_differ_are_one_line_in_both(tmp_path, texts):
    where = f"127.0.0.1:{free_port()}"
    processes = [
        start(
            tmp_path / "run",
            texts,
            "--devices",
            4,
            "--coordinator",
            where,
            "--processes",
            2,
            "--process",
            i,
            f"--set=train.lr=0.0{i + 1}",
        )
        for i in range(2)
    ]
    line = "bltjax: process 1 was started otherwise than process 0: train.lr is 0.02 there, 0.01 in process 0"
    assert [end(process) for process in processes] == [(2, [line])] * 2 and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options,line",
    [
        (["--devices", 4, "--mesh", "4x2"], "a mesh of 1x4x2 needs 8 devices; there are 4"),
        (["--devices", 8, "--mesh", "2x4"], "model=4"),
        (
            [
                "--processes",
                2,
                "--process",
                1,
                "--coordinator",
                f"127.0.0.1:{free_port()}",
                "--start-timeout",
                3,
            ],
            "did not answer within 3 s",
        ),
        (
            [
                "--processes",
                2,
                "--process",
                0,
                "--coordinator",
                f"127.0.0.1:{free_port()}",
                "--start-timeout",
                3,
            ],
            "not all of 2 processes",
        ),
    ],
    ids=["size", "heads", "no-coordinator", "no-others"],
)
def test_a_mesh_or_meeting_that_cannot_be_is_one_line(tmp_path, texts, options, line):
    code, said = end(start(tmp_path / "run", texts, *options), 60)
    assert code == 2 and len(said) == 1 and line in said[0] and not (tmp_path / "run").exists()


FIRST = """
import sys; sys.path.insert(0, {here!r})
import jax, numpy as np
import tiny_experiment
from bltjax import config as cfg
from bltjax.parallel import distributed, sharding
from bltjax.training import loop
distributed.use_cpu_devices(8)
for run in tiny_experiment.get_config().runs[::2]:  # tokens, and patches
    stacks = ("model.local", "model.latent", "model.cross") if run.model.kind == "blt" else ("model",)
    config = cfg.replace(run, **{{stack + ".heads": 2 for stack in stacks}})
    alone = loop._start(config, "no run", 10, None, None)
    for shape in ((1, 8, 1), (1, 4, 2), (2, 2, 2)):
        mesh = sharding.make_mesh(shape)
        spread = loop._start(config, "no run", 10, None, mesh)
        assert jax.tree.all(jax.tree.map(np.array_equal, alone, spread)), (run.name, shape)
        held = [x.sharding.shard_shape(x.shape) != x.shape for x in jax.tree.leaves(spread.params)]
        assert sum(held) > len(held) / 3, (run.name, shape)  # most weights are cut; norms' scales are not
"""


@pytest.mark.slow
def test_first_parameters_are_made_in_their_shards_and_equal_those_of_one_device():
    """To the bit, as users compile: other code generators round a draw by where it is cut."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent)}
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
        env.pop(name, None)
    assert (
        subprocess.run([sys.executable, "-c", FIRST.format(here=str(HERE))], env=env, timeout=300).returncode
        == 0
    )
