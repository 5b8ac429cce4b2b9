"""The command line as users and scripts meet it: JSON that others read, one clear line and status 2 for every
mistake."""

import gzip
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
    "tokens of less than a byte": (
        ("plan", "quickstart", "--only", "bpe", "--set", "tokenizer.bytes_per_token=1e-308"),
        "tokenizer.bytes_per_token",
    ),
    "tokens longer than rows": (
        ("plan", TINY, "--only", "bpe", "--set", "tokenizer.bytes_per_token=1000"),
        "data.context",
    ),
    "momentum that float32 never ends": (("plan", TINY, "--set", "train.beta1=0.9999999999"), "train.beta1"),
    "nothing to divide by": (("plan", TINY, "--set", "train.eps=1e-300"), "train.eps"),
    "patches longer than the longest": (
        ("plan", TINY, "--only", "space", "--set", "patching.max_length=4"),
        "patching.size",
    ),
    "documents of no length": (("plan", TINY, "--set", "data.min_bytes=1e9"), "data.longest"),
    "documents of no length to prepare": (
        ("data", "prepare", "stdlib", "--out", "out", "--set", "longest=10"),
        "data.min_bytes",
    ),
    "text that its source does not read": (
        ("plan", "quickstart", "--set", 'data.globs=["mine/*.txt"]'),
        "data.source=files",
    ),
    "prepared text that its source does not read": (
        ("plan", TINY, "--set", "data.folder=prepared/web"),
        "data.source=tfds or prepared",
    ),
    "a folder of files to prepare": (
        ("data", "prepare", "files", "*.txt", "--out", "out", "--set", "folder=texts"),
        "data.folder",
    ),
    "more steps than can be": (("plan", TINY, "--only", "space", "--set", "budget_flops=1e30"), "steps"),
    "a format of another version": (("plan", TINY, "--set", "schema_version=1"), "schema_version"),
    "a swept key that is none": (("plan", TINY, "--set", 'swept=["train.lrr"]'), "train.lr"),
    "more seeds than can be": (("plan", TINY, "--seeds", "1e9"), "--seeds"),
    "a file for a root": (("status", TINY, "--root", "/dev/null"), "/dev/null"),
    "one choice of two that is none": (("plan", TINY, "--only", "space", "--only", "mamba"), "mamba"),
    "a warm-up beyond the run": (("plan", TINY, "--set", "train.warmup=100000"), "train.warmup"),
    "a warm-up into the decay": (
        ("plan", TINY, "--set=train.schedule=wsd", "--set=train.warmup=190", "--set=train.steps=200"),
        "train.decay",
    ),
    "momentum that never ends": (("plan", TINY, "--set", "train.beta1=1"), "below 1"),
    "negative momentum": (("plan", TINY, "--set", "train.beta2=-0.1"), "train.beta2"),
    "a seed beyond 32 bits": (("plan", TINY, "--set", "seed=4294967296"), "seed"),
    "an infinite whole number": (("plan", TINY, "--set", "data.rows=1e999"), "data.rows"),
    "half a row": (("plan", TINY, "--set", "data.rows=1.5"), "data.rows"),
    "a number too long for a float": (("plan", TINY, "--set", "train.lr=1" + "0" * 400), "train.lr"),
    "a list too deep": (("plan", TINY, "--set", "data.globs=" + "[" * 100_000), "data.globs"),
    "a scaling that is none": (("plan", TINY, "--only", "bpe", "--set", "model.rope_scaling=[8]"), "four"),
    "ids that are none": (("plan", TINY, "--only", "bpe", "--set", 'tokenizer.ends=["x"]'), "ends"),
    "patches longer than rows": (
        ("plan", TINY, "--only", "space", "--set", "patching.size=65"),
        "data.context",
    ),
    "rows of data to prepare": (
        ("data", "prepare", "files", "*.txt", "--out", "out", "--set", "rows=-3"),
        "data.rows",
    ),
    "no text to train on": (
        ("data", "prepare", "files", "*.txt", "--out", "out", "--set", "data.validation=nan"),
        "data.validation",
    ),
    "a stable phase without one": (("plan", TINY, "--set", "train.branch_from=x"), "wsd"),
    "another run's weights that are not there": (
        ("plan", TINY, "--set", "train.init_from=/nowhere"),
        "/nowhere",
    ),
    "a vocabulary below bytes": (
        ("plan", TINY, "--only", "bpe", "--set", "tokenizer.vocab=257", "--set", "model.vocab=257"),
        "258",
    ),
    "a tokenizer that is not there": (
        ("plan", TINY, "--only", "bpe", "--set", "tokenizer.kind=file", "--set", "tokenizer.path=/nowhere"),
        "/nowhere",
    ),
    "prepared data that is not there": (
        ("plan", TINY, "--set", "data.source=prepared", "--set", "data.folder=/nowhere"),
        "/nowhere",
    ),
    "a rate for no parameter": (
        ("plan", TINY, "--only", "space", "--set", 'train.lr_scale=["decoder/nothing=0.1"]'),
        "decoder/nothing",
    ),
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


def test_two_choices_are_both(capsys, tmp_path):
    status, out, _ = call(
        capsys, "status", TINY, "--only", "space", "--only", "bpe", "--root", tmp_path, "--json"
    )
    assert status == 0 and [run["name"] for run in json.loads(out)["runs"]] == ["bpe", "space"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    arguments, names = MISTAKES[mistake]
    status, out, err = call(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("bltjax") and names in err


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_one_file_is_cut_by_position_and_many_are_refused(capsys, tmp_path, texts, verb):
    options = [
        "--root",
        tmp_path / "runs",
        "--set",
        f'data.globs=["{texts}/*.txt"]',
        "--set",
        "data.split=90/5/5",
    ]
    status, _, err = call(capsys, verb, TINY, "--only", "space", *options)
    assert status == 2 and err.count("\n") == 1 and "data.split" in err and "12" in err


@pytest.mark.parametrize("content", ["one long file", "long when decompressed", "cut short", "one document"])
def test_plan_refuses_text_as_run_does(capsys, tmp_path, content):
    """In the same line, where the first documents of the first files show it."""
    line = b"a line of text that goes on\n"
    whole = gzip.compress(line * 700_000)
    name, held = {
        "one long file": ("a.txt", line * 700_000),
        "long when decompressed": ("a.txt.gz", whole),
        "cut short": ("a.txt.gz", gzip.compress(line * 9)[:-9]),
        "one document": ("a.txt", line * 20),
    }[content]
    (tmp_path / name).write_bytes(held)
    options = ["--set", f'data.globs=["{tmp_path}/a.*"]', "--only", "space", "--root", tmp_path / "runs"]
    status, out, planned = call(capsys, "plan", TINY, *options)
    assert status == 2 and out == "" and planned.count("\n") == 1
    folder, *arguments = tmp_path / "prepared", "data", "prepare", "files", str(tmp_path / name)
    status, _, prepared = call(capsys, *arguments, "--out", folder)
    assert status == 2 and prepared == planned


def test_plan_says_that_text_is_not_here(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, "plan", TINY, "--only", "space")
    assert status == 0 and "space" in out and "*.txt" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "text, value",
    [("1e6", 10**6), ("2_000_000", 2 * 10**6), ("1.5E3", 1500), ("1_0e1", 100), (" 64 ", 64), ("2e0", 2)],
)
def test_whole_numbers_are_written_as_people_do(text, value):
    data = cfg.parse_set(cfg.data(), [f"max_train_bytes={text}"])
    assert data.max_train_bytes == value and type(data.max_train_bytes) is int
    assert main.whole(text) == value
    assert cfg.parse_set(cfg.training(), [f"lr={text}"]).lr == float(value)


# options behind, before and between other arguments
ORDERS = {
    ("generate", "M", "--max-new-bytes", "8", "hello"): dict(max_new_bytes=8, prompt=["hello"]),
    ("generate", "--seed", "1", "M", "a", "--raw", "b"): dict(seed=1, prompt=["a", "b"], raw=True),
    ("generate", "M", "a", "--top-k=3", "b", "--", "-c", "--raw"): dict(
        top_k=3, prompt=["a", "b", "-c", "--raw"], raw=False
    ),
    ("generate", "--", "M", "-x"): dict(prompt=["-x"]),
    ("generate", "M", "-5", "--temperature", "1e-3"): dict(prompt=["-5"], temperature=1e-3),
    ("data", "prepare", "files", "--out", "o", "a", "--set", "x=1", "b"): dict(
        source="files", globs=["a", "b"], set=["x=1"]
    ),
    ("data", "prepare", "--out", "o", "files", "a"): dict(source="files", globs=["a"]),
    ("plan", "--json", "quickstart", "--seeds", "1e1"): dict(experiment="quickstart", json=True, seeds=10),
    ("patch", "--scheme", "space", "text", "--json"): dict(text="text", scheme="space", json=True),
    ("data", "inspect", "--step", "3", "x", "--rows", "2"): dict(path=pathlib.Path("x"), step=3, rows=2),
    ("export", "x", "--out", "y", "--loosely"): dict(source=pathlib.Path("x"), loosely=True),
}


@pytest.mark.parametrize("arguments", ORDERS)
def test_arguments_in_any_order(arguments):
    found = vars(main.parser().parse_args(arguments))
    assert {key: found[key] for key in ORDERS[arguments]} == ORDERS[arguments]


@pytest.mark.parametrize(
    "arguments, names",
    [
        (("generate", "--seed", "1"), "model"),
        (("generate", "M", "--bogus", "a"), "--bogus"),
        (("generate", "M", "--seed", "x"), "--seed"),
        (("data", "prepare", "files", "a"), "--out"),
        (("plan", "quickstart", "--json", "more"), "more"),
        (("data", "prepare", "--out", "o"), "source"),
    ],
)
def test_arguments_that_are_none(capsys, arguments, names):
    status, out, err = call(capsys, *arguments)
    assert status == 2 and not out and err.count("\n") == 1 and names in err


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
        (Interrupted("SIGTERM"), 42),
        (KeyboardInterrupt(), 42),
        (OSError(28, "full"), 1),
    ):
        monkeypatch.setattr(main.experiment, "plan", fails(error))
        got, _, err = call(capsys, "plan", "quickstart")
        assert got == status and err.count("\n") == 1
