"""The command line as users and scripts meet it: JSON that others read, one clear line and status 2 for every
mistake."""

import json
import pathlib

import pytest
from test_plan import PLAN_KEYS

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.errors import Interrupted, RunFailed

TINY = str(pathlib.Path(__file__).parent / "tiny_experiment.py")


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.txt").write_text(f"document {i}: " + " ".join(str(i * j * j) for j in range(40)))
    return folder


def call(capsys, *arguments):
    status = None
    try:
        status = main.main([str(a) for a in arguments])
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("experiment", ["quickstart", "compute_optimal", TINY])
def test_plan_json(capsys, experiment):
    status, out, _ = call(capsys, "plan", experiment, "--json")
    runs = json.loads(out)["runs"]
    assert status == 0 and runs
    for run in runs:
        assert PLAN_KEYS <= set(run)
        assert run["steps"] >= 100 and abs(run["train_flops"] / run["budget_flops"] - 1) < 0.01
        assert run["seconds_here"] > 0


def test_plan_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "plan", "quickstart", "--only", "bpe")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_one_runs_config_is_no_experiment(capsys, tmp_path):
    for name, more, why in (
        ("eval.json", (), "takes config.json"),
        ("config.json", ("--run", "x"), "none to choose"),
    ):
        (tmp_path / name).write_text("{}")
        status, _, err = call(capsys, "train", "--config", tmp_path / name, *more)
        assert status == 2 and why in err and err.count("\n") == 1


def test_status_of_nothing_run(capsys, tmp_path):
    status, out, _ = call(capsys, "status", TINY, "--root", tmp_path, "--json")
    assert status == 0 and [(r["name"], r["state"]) for r in json.loads(out)["runs"]] == [
        ("bpe", "waiting"),
        ("entropy", "waiting"),
        ("space", "waiting"),
    ]


@pytest.mark.parametrize(
    "scheme",
    [("--scheme", "space"), ("--scheme", "strided", "--stride", 3), ("--scheme", "random", "--mean", 4)],
)
def test_patches_join_to_the_text(capsys, scheme):
    text = "def f(x):\n    return 'é' * x"
    status, out, _ = call(capsys, "patch", text, *scheme, "--json")
    result = json.loads(out)
    assert (
        status == 0
        and sum(result["lengths"]) == len(text.encode()) == result["bytes"]
        and len(result["patches"]) == len(result["lengths"])
    )
    if scheme[1] == "space":
        assert "".join(result["patches"]) == text


MISTAKES = {
    "no rows": (("plan", "quickstart", "--set", "data.rows=0"), "data.rows"),
    "heads that do not divide": (
        ("plan", "quickstart", "--only", "blt", "--set", "model.local.heads=7"),
        "model.local.heads",
    ),
    "another vocabulary": (
        ("plan", "quickstart", "--only", "bpe", "--set", "tokenizer.vocab=512"),
        "model.vocab",
    ),
    "unknown family": (("plan", "quickstart", "--set", "family=mamba"), "megabyte"),
    "a family with another's patches": (
        ("plan", "quickstart", "--only", "blt-space", "--set", "patching.scheme=strided"),
        "blt-space",
    ),
    "unknown schedule": (("plan", "quickstart", "--set", "train.schedule=step"), "cosine"),
    "not a number": (("plan", "quickstart", "--set", "train.lr=NaN"), "train.lr"),
    "negative": (("plan", "quickstart", "--set", "budget_flops=-5"), "budget_flops"),
    "infinite": (("plan", "quickstart", "--set", "budget_flops=Infinity"), "budget_flops"),
    "uneven microbatches": (("plan", "quickstart", "--set", "train.accumulate=5"), "data.rows"),
    "a glob that is no list": (("plan", "quickstart", "--set", "data.globs=/x/*.txt"), "list"),
    "workers": (("run", "quickstart", "--workers", "-1"), "--workers"),
    "a file that is not there": (("patch", "/nowhere/text.txt"), "/nowhere/text.txt"),
    "an option of another scheme": (("patch", "text", "--stride", "3"), "--stride"),
    "a mean that is none": (("patch", "text", "--scheme", "random", "--mean", "nan"), "--mean"),
    "tokens without a tokenizer": (("patch", "text", "--scheme", "bpe"), "--run"),
    "unknown verb": (("fly", "quickstart"), "plan"),
    "unknown experiment": (("plan", "quikstart"), "quickstart"),
    "no such file": (("plan", "nowhere/mine.py"), "nowhere/mine.py"),
    "unknown key": (("plan", "quickstart", "--set", "train.lrr=1"), "train.lr"),
    "wrong type": (("plan", "quickstart", "--set", "train.lr=fast"), "train.lr"),
    "no equals sign": (("plan", "quickstart", "--set", "train.lr"), "key=value"),
    "no run chosen": (("plan", "quickstart", "--only", "mamba"), "bpe-S"),
    "small budget": (("plan", "quickstart", "--set", "budget_flops=1e9"), "100"),
    "unknown source": (("run", TINY, "--set", "data.source=web"), "stdlib"),
    "no files": (("run", TINY, "--set", 'data.globs=["/nowhere/*.txt"]'), "/nowhere"),
    "no report": (("report", "quickstart", "--root", "nowhere"), "nowhere"),
    "unknown scheme": (("patch", "text", "--scheme", "magic"), "strided"),
    "no stride": (("patch", "text", "--scheme", "strided"), "--stride"),
    "no entropy model": (("patch", "text", "--scheme", "entropy"), "--run"),
    "empty text": (("patch", "", "--scheme", "space"), "empty"),
    "no run directory": (("patch", "text", "--run", "nowhere"), "nowhere"),
    "no entropy model directory": (
        ("data", "calibrate", "--entropy-model", "nowhere", "--size", "4"),
        "nowhere",
    ),
    "many runs to train": (("train", "--config", "quickstart"), "--run"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    arguments, names = MISTAKES[mistake]
    status, out, err = call(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("bltjax") and names in err


@pytest.mark.parametrize(
    "content, says", [(b"", "no document of files"), (b"alone, whatever it is\0\xff" * 9, "need 3")]
)
def test_a_corpus_that_is_none(capsys, tmp_path, content, says):
    (tmp_path / "a.txt").write_bytes(content)
    status, _, err = call(
        capsys, "run", TINY, "--root", tmp_path / "runs", "--set", f'data.globs=["{tmp_path}/a.txt"]'
    )
    assert status == 2 and err.count("\n") == 1 and says in err


def test_json_lines_that_are_none(capsys, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "fine, this one is long enough to be kept"}\n{"text": oops}\n'
    )
    status, _, err = call(
        capsys, "run", TINY, "--root", tmp_path / "runs", "--set", f'data.globs=["{tmp_path}/a.jsonl"]'
    )
    assert status == 2 and err.count("\n") == 1 and "line 2" in err


def test_another_config_in_the_run_directory(capsys, tmp_path, texts):
    from bltjax.experiments import registry

    from bltjax.storage import rundir

    globs = f'data.globs=["{texts}/*.txt"]'
    run = next(r for r in registry.load(TINY, [globs]).runs if r.name == "bpe")
    rundir.create(
        tmp_path / "tiny_experiment" / "bpe", cfg.replace(run, **{"train.lr": 1e-2}), "tiny_experiment"
    )
    (tmp_path / "tiny_experiment" / "bpe" / "metrics.jsonl").touch()  # it has begun
    status, _, err = call(capsys, "run", TINY, "--root", tmp_path, "--set", globs)
    assert status == 2 and "train.lr" in err and err.count("\n") == 1


def test_failures_that_are_no_mistakes_have_another_status(capsys, monkeypatch):
    def fails(error):
        def fail(args):
            raise error

        return fail

    for error, status in (
        (OSError(30, "Read-only file system", "x"), 1),
        (RunFailed("the loss is nan"), 1),
        (Interrupted("SIGTERM"), 130),
        (OSError(28, "full"), 1),
    ):
        monkeypatch.setattr(main.experiment, "plan", fails(error))
        got, _, err = call(capsys, "plan", "quickstart")
        assert got == status and err.count("\n") == 1
