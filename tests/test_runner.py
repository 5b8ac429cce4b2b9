"""An experiment end to end through the command line, as a user runs it: killed, resumed, started twice at
once, reported."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from test_dictionary import undocumented

from bltjax.errors import UserError

pytestmark = pytest.mark.slow  # minutes of processes that start and compile
HERE = pathlib.Path(__file__).parent
TINY = HERE / "tiny_experiment.py"
WALL_CLOCK = ("wall_s", "bytes_per_s", "time")


def written(folder: pathlib.Path) -> pathlib.Path:
    """Forty files of words of this one."""
    words = (HERE / "test_runner.py").read_text().split()
    for i in range(40):
        rng = random.Random(i)
        (folder / f"{i}.txt").write_text(" ".join(rng.choices(words, k=200)))
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return written(tmp_path_factory.mktemp("texts"))


def command(verb, root, texts, *more):
    return [
        sys.executable,
        "-m",
        "bltjax.cli.main",
        verb,
        str(TINY),
        "--root",
        str(root),
        "--set",
        f'data.globs=["{texts}/*.txt"]',
        *more,
    ]


def environment():
    """Compiled sooner than users have it, which test_quickstart.py does not."""
    faster = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return {**os.environ, **faster, "PYTHONPATH": str(HERE.parent)}


def bltjax(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(), timeout=900)


def lines(run_dir):
    kept = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in kept]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, texts):
    """Two runners started at once on the same root, to their end."""
    root = tmp_path_factory.mktemp("runs")
    both = [
        subprocess.Popen(
            command("run", root, texts),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return root, said


def test_two_runners_do_no_run_twice(finished, texts):
    root, said = finished
    for name in ("bpe", "entropy", "space"):
        run_dir = root / "tiny_experiment" / name
        steps = [line["step"] for line in lines(run_dir)]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 100
        assert (run_dir / "log.txt").read_text().count("Traceback") == 0
    assert len(list((root / "_shared").glob("entropy-model-*"))) == 1
    assert len(list((root / "_shared").glob("tokenizer-*/tokenizer.json"))) == 1
    again = bltjax("run", root, texts)
    assert (
        again.returncode == 0
        and "already done: bpe" in again.stdout.replace("\n", " ")
        or "already done" in again.stdout
    )


def test_budgets_and_patch_sizes(finished):
    root, _ = finished
    for name in ("bpe", "entropy", "space"):
        planned = json.loads((root / "tiny_experiment" / name / "planned.json").read_text())
        assert abs(planned["train_flops"] / planned["budget_flops"] - 1) < 0.01
        last = lines(root / "tiny_experiment" / name)[-1]
        assert last["useful_flops"] == pytest.approx(planned["train_flops"], rel=1e-9)
        scored = json.loads((root / "tiny_experiment" / name / "eval.json").read_text())
        assert sum(d["bytes"] for d in scored["test"]["documents"]) == scored["test"]["bytes"]
        assert 0 < scored["test"]["bpb"] < 8.5 and scored["upper_bound"] == (name == "bpe")
    planned = json.loads((root / "tiny_experiment" / "entropy" / "planned.json").read_text())
    assert abs(planned["patch_size"] / 3.0 - 1) < 0.02
    assert planned["entropy_model"]["train_flops"] > 0 and planned["threshold"] > 0


def test_report_and_status(finished, texts):
    root, _ = finished
    status = bltjax("status", root, texts, "--json")
    assert {run["state"] for run in json.loads(status.stdout)["runs"]} == {"done"}
    report = bltjax("report", root, texts, "--json")
    result = json.loads(report.stdout)
    assert {run["family"] for run in result["runs"]} == {"bpe", "blt-entropy", "blt-space"}
    for run in result["runs"]:
        assert {"name", "family", "budget_flops", "realized_flops", "patch_size", "bpb", "run_dir"} <= set(
            run
        )
        assert abs(run["realized_flops"] / run["budget_flops"] - 1) < 0.01
    written = {path.suffix for path in (root / "tiny_experiment" / "report").iterdir()}
    assert {".html", ".csv", ".md", ".png", ".svg"} <= written


def test_every_file_and_key_of_a_run_directory_is_in_the_dictionary(finished):
    root, _ = finished
    runs = [root / "tiny_experiment" / name for name in ("bpe", "entropy", "space")]
    for run_dir in (*runs, *(root / "_shared").glob("entropy-model-*")):
        assert undocumented(run_dir) == {}, run_dir


def test_patch_and_calibrate_with_the_run(finished, texts):
    root, _ = finished
    run = root / "tiny_experiment" / "entropy"
    text = "import json and a few words"
    patched = subprocess.run(
        [sys.executable, "-m", "bltjax.cli.main", "patch", text, "--run", str(run), "--json"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    result = json.loads(patched.stdout)
    assert "".join(result["patches"]) == text and len(result["entropies"]) == len(text)
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "bltjax.cli.main",
            "data",
            "calibrate",
            "--entropy-model",
            str(run),
            "--size",
            "3.5",
            "--json",
        ],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert json.loads(found.stdout)["patch_size"] == pytest.approx(3.5, rel=0.02)


def test_load_from_python(finished):
    import numpy as np

    import bltjax
    from bltjax.patching import vocab

    root, _ = finished
    m = bltjax.load(root / "tiny_experiment" / "entropy")
    text = b"some words, and more of them"
    assert b"".join(m.patch(text)) == text
    ids = np.concatenate([[vocab.BOS], vocab.encode(text)])[None]
    logits = m.logits(ids)
    assert logits.shape == (1, len(text) + 1, 260) and np.isfinite(logits).all()
    entropies = m.entropies(ids)
    assert entropies.shape == ids.shape and (entropies > 0).all()
    shorter = m.logits(ids[:, :12])
    np.testing.assert_allclose(shorter, logits[:, :12], atol=1e-4)
    lm = bltjax.load(next((root / "_shared").glob("entropy-model-*")))
    np.testing.assert_allclose(lm.entropies(ids), entropies, atol=1e-6)
    assert lm.logits(ids).shape == logits.shape
    bpe = bltjax.load(root / "tiny_experiment" / "bpe")
    assert b"".join(bpe.patch(text)) == text
    assert np.isfinite(bpe.logits(bpe.tokenizer.encode(text)[None])).all()
    for wrong in (ids[0], np.full((1, 3), 260), np.zeros((1, 3))):
        with pytest.raises(UserError):
            m.logits(wrong)


def test_a_patch_size_out_of_reach(tmp_path, texts):
    wrong = bltjax("run", tmp_path, texts, "--only", "entropy", "--set", "patching.size=60.0")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stdout + wrong.stderr
    status = json.loads(bltjax("status", tmp_path, texts, "--only", "entropy", "--json").stdout)["runs"][0]
    assert status["state"] == "failed" and "patch size" in status["why"]


def steps_written(root):
    """Metric lines below the root, of runs and entropy models."""
    return sum(path.read_bytes().count(b"\n") for path in root.glob("*/*/metrics.jsonl"))


def test_killed_three_times_and_resumed(finished, tmp_path, texts):
    """kill -9 of the runner and of its processes at three random steps: the metrics are those of the run that
    nobody disturbed."""
    straight, _ = finished
    rng = random.Random(time.time_ns())
    # A step, not a moment: seconds that fall inside the runs on one machine fall after their end on a faster
    # one.
    fractions = sorted(rng.uniform(0.02, 0.85) for _ in range(3))
    whole = steps_written(straight)
    for fraction in fractions:
        process = subprocess.Popen(
            command("run", tmp_path, texts),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        at = max(fraction * whole, steps_written(tmp_path) + 1)
        deadline = time.monotonic() + 300
        while steps_written(tmp_path) < at and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert (
            process.poll() is None and steps_written(tmp_path) >= at
        ), f"nothing to kill at {at:.0f} of {whole} steps"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)
    last = bltjax("run", tmp_path, texts)
    assert last.returncode == 0, last.stdout + last.stderr
    for name in ("bpe", "entropy", "space"):
        assert lines(tmp_path / "tiny_experiment" / name) == lines(
            straight / "tiny_experiment" / name
        ), f"{name}, killed at {fractions} of the steps"
        scored = [
            json.loads((root / "tiny_experiment" / name / "eval.json").read_text())
            for root in (tmp_path, straight)
        ]
        assert scored[0] == scored[1]


def test_a_flipped_bit_in_the_newest_checkpoint(finished, tmp_path, texts):
    """The run falls back to the checkpoint before, says so where the user looks, and ends as if nothing had
    happened."""
    straight, _ = finished
    process = subprocess.Popen(
        command("run", tmp_path, texts, "--only", "bpe"),
        stdout=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    run_dir = tmp_path / "tiny_experiment" / "bpe"
    deadline = time.monotonic() + 300
    while (
        len(list(run_dir.glob("checkpoints/*.manifest.json"))) < 2
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run_dir / "done.json").exists(), "killed too late to show anything"
    newest = max(run_dir.glob("checkpoints/*.manifest.json"), key=lambda path: int(path.name.split(".")[0]))
    files = [path for path in (newest.parent / newest.name.split(".")[0]).rglob("*") if path.is_file()]
    victim = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    resumed = bltjax("run", tmp_path, texts, "--only", "bpe")
    assert (
        resumed.returncode == 0
        and "falling back" in resumed.stdout
        and "Traceback" not in resumed.stdout + resumed.stderr
    )
    assert lines(run_dir) == lines(straight / "tiny_experiment" / "bpe")
