"""Other users' machines and runs: a matplotlib of their own, files that may not be read, no home, no name."""

import contextlib
import ctypes
import json
import os
import pathlib
import pwd
import subprocess
import sys

import pytest

from bltjax.cli import main
from bltjax.parallel import host
from bltjax.report import report as reporting
from bltjax.results import run_directories
from bltjax.sweep import status

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
TINY = str(HERE / "tiny_experiment.py")


@pytest.mark.parametrize(
    "rc, backend",
    [("text.usetex: True\nbackend: TkAgg\n", "TkAgg"), ("font.size: huge\nno such key: : 3\n", "nonsense")],
)
def test_a_matplotlib_of_the_users_own(tmp_path, colleague, rc, backend):
    (tmp_path / "matplotlibrc").write_text(rc)
    program = """
import pathlib, sys
from bltjax.cli import main
from bltjax.entropy import curves
found = {"curve": {"all": [[1.0, 2.0], [3.0, 4.0]]}, "threshold": 1.0, "size": 3.0, "scheme": "entropy"}
status = main.main(sys.argv[1:])
curves.plot(found, pathlib.Path("curve.png"))
sys.exit(status)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, "report", TINY, "--root", str(colleague), "--out", "report"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": backend, "PYTHONIOENCODING": "latin-1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "curve.png").stat().st_size > 1000 and (tmp_path / "report" / "report.html").exists()


@contextlib.contextmanager
def an_ordinary_user():
    """Permissions hold for this thread, also where tests are run by root: without two of its capabilities
    (capset(2))."""
    if os.geteuid():
        yield
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux") or libc.capget(header, before):
        pytest.skip("root's power over permissions cannot be laid down here")
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~0b110  # effective: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@pytest.fixture
def closed():
    """Takes rights of paths, and gives them back."""
    taken = []

    def take(path, mode):
        taken.append((path, path.stat().st_mode))
        path.chmod(mode)

    yield take
    for path, mode in reversed(taken):
        path.chmod(mode)


@pytest.fixture
def colleague(tmp_path):
    """Three finished runs, as far as a report and a status read them."""
    from fabricated_runs import add_run

    root = tmp_path / "runs"
    for name, family in (("bpe", "bpe"), ("entropy", "blt-entropy"), ("space", "blt-space")):
        add_run(root / "tiny_experiment", family, 1e9, name=name)
    return root


def test_status_of_runs_that_may_be_read_in_part(colleague, closed, capsys):
    runs = colleague / "tiny_experiment"
    for path in [*runs.rglob("*"), runs]:
        closed(path, 0o555 if path.is_dir() else 0o444)
    with an_ordinary_user():
        assert {r["state"] for r in status.of_experiment(colleague, "tiny_experiment", ["bpe", "space"])} == {
            "done"
        }
    closed(runs / "space" / "eval.json", 0)
    closed(runs / "bpe", 0o444)
    (runs / "entropy").chmod(0o755)
    (runs / "entropy" / ".lock").touch()
    closed(runs / "entropy" / ".lock", 0)
    with an_ordinary_user():
        assert main.main(["status", TINY, "--root", str(colleague), "--json"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)["runs"]}
    assert {name: r["state"] for name, r in rows.items()} == {
        "bpe": "unreadable",
        "entropy": "done",
        "space": "unreadable",
    }
    assert (
        "eval.json" in rows["space"]["why"]
        and "bpe" in rows["bpe"]["why"]
        and ".lock" in rows["entropy"]["why"]
    )
    closed(runs, 0)
    with an_ordinary_user():
        assert main.main(["status", TINY, "--root", str(colleague)]) == 0
    assert "3 unreadable" in capsys.readouterr().out


def test_report_of_runs_that_may_be_read_in_part(colleague, closed, capsys, tmp_path):
    runs = colleague / "tiny_experiment"
    closed(runs / "space" / "eval.json", 0)
    closed(runs / "bpe", 0)
    closed(runs, 0o555)
    with an_ordinary_user():
        found = {run.name: run for run in run_directories.read_experiment(runs)}
        assert {name: run.state for name, run in found.items()} == {
            "bpe": "unfinished",
            "entropy": "done",
            "space": "unfinished",
        }
        assert "may not be read" in found["bpe"].reason and "eval.json" in found["space"].reason
        assert main.main(["report", TINY, "--root", str(colleague)]) == 0
        out, err = capsys.readouterr()
        assert "blt-entropy" in out and err.count("\n") == 1 and "--out" in err
        result = reporting.report(runs, tmp_path / "mine")
        assert len(result["files"]) > 4 and all(pathlib.Path(path).exists() for path in result["files"])
        assert main.main(["report", TINY, "--root", str(colleague), "--out", str(runs / "mine")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    closed(runs, 0)
    with an_ordinary_user():
        assert main.main(["report", TINY, "--root", str(colleague)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_user_without_home_or_cache(monkeypatch, tmp_path, closed):
    def nobody(uid):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    assert host._cache_folder() is None
    monkeypatch.setenv("HOME", str(tmp_path / "not" / "there"))
    assert host._cache_folder() == tmp_path / "not" / "there" / ".cache"
    for name in ("read-only", "a file"):
        (tmp_path / name).mkdir() if name == "read-only" else (tmp_path / name).touch()
        monkeypatch.setenv("HOME", str(tmp_path / name))
        closed(tmp_path / name, 0o555)
        with an_ordinary_user():
            assert host._cache_folder() is None
    (tmp_path / "cache" / "bltjax").mkdir(parents=True)
    closed(tmp_path / "cache" / "bltjax", 0o555)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with an_ordinary_user():
        assert host._cache_folder() is None


@pytest.mark.slow
def test_a_user_of_no_name_trains(tmp_path):
    """Without HOME, an entry in the list of users, a folder for caches, or one for temporary files."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(12):
        (texts / f"{i}.txt").write_text(f"document {i}: " + " ".join(str(i * j * j) for j in range(40)))
    program = "import pwd, sys\nfrom bltjax.cli import main\n"
    program += "def none(uid): raise KeyError(uid)\npwd.getpwuid = none\nsys.exit(main.main(sys.argv[1:]))"
    options = [
        "--run",
        "bpe",
        "--run-dir",
        str(tmp_path / "r/e/bpe"),
        "--set",
        f'data.globs=["{texts}/*.txt"]',
    ]
    steps = ["--set", "budget_flops=0", "--set", "train.steps=20"]
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME")}
    ended = subprocess.run(
        [sys.executable, "-c", program, "train", "--config", TINY, *options, *steps],
        env={**env, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "TMPDIR": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and "bits per byte" in ended.stdout, ended.stderr
