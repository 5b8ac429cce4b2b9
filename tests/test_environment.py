"""What surrounds a command: JAX's settings, a terminal's encoding, a user's matplotlib, HOME and permissions.
A run's numbers do not depend on it, and nothing that is nearly done ends by it."""

import ast
import contextlib
import ctypes
import io
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import sys

import jax
import pytest

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.parallel import environment, host
from bltjax.report import report as reporting
from bltjax.results import run_directories
from bltjax.run import execute
from bltjax.storage import rundir
from bltjax.sweep import status

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
TINY = str(HERE / "tiny_experiment.py")

# what a model's first weights, and with them all its numbers, are made of
NUMBERS = """
import bltjax, jax, jax.numpy as jnp
from bltjax import config as cfg, models
model = cfg.transformer("byte", vocab=260, width=8, layers=1, heads=1, ffn_multiple=8)
weights = jax.tree.leaves(models.init(model, jax.random.key(3)))
print(sorted({str(w.dtype) for w in weights}), [float(w.sum()).hex() for w in weights])
print(jnp.arange(2.0).dtype, jax.config.jax_default_matmul_precision, jax.jit(lambda x: x + 1.5)(1))
print((jnp.ones(2, jnp.int32) * jnp.ones(2, jnp.bfloat16)).dtype, jnp.log(jnp.zeros(1)) * 0)
"""
OTHERS = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "17",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_DEBUG_NANS": "1",
    "JAX_DISABLE_JIT": "1",
    "JAX_TRANSFER_GUARD": "disallow",
}


def python(program, **env):
    clean = {k: v for k, v in os.environ.items() if k not in OTHERS}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_variables_of_jax_change_no_number():
    plain = python(NUMBERS)
    assert "float32" in plain and "float64" not in plain
    assert python(NUMBERS, **OTHERS) == plain


@pytest.mark.slow
def test_nor_do_they_where_jax_is_imported_first():
    assert python("import jax" + NUMBERS, **OTHERS) == python(NUMBERS)


@pytest.mark.parametrize(
    "name, value",
    [
        ("jax_enable_x64", True),
        ("jax_default_prng_impl", "rbg"),
        ("jax_default_matmul_precision", "highest"),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_debug_nans", True),
    ],
)
def test_settings_made_in_the_process_are_undone(name, value, tmp_path):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        with pytest.raises(Exception, match="no run directory|no model|config.json"):
            __import__("bltjax").load(tmp_path)
        now = getattr(jax.config, name)
        assert getattr(now, "value", now) == environment.PINNED[name] == getattr(before, "value", before)
    finally:
        jax.config.update(name, environment.PINNED[name])


def test_a_setting_that_has_no_effect_is_said(monkeypatch, capsys):
    monkeypatch.setattr(environment, "ignored", {})
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("JAX_THREEFRY_PARTITIONABLE", "true")  # what is pinned
    assert main.main(["patch", "a b", "--scheme", "space"]) == 0
    assert capsys.readouterr().err.startswith("bltjax: JAX_ENABLE_X64=1: not followed")
    assert "JAX_ENABLE_X64" not in os.environ  # for processes that are started here


def test_no_secret_is_recorded(monkeypatch):
    for name in os.environ:
        if environment.RECORDED.fullmatch(name):
            monkeypatch.delenv(name)
    kept = {
        "XLA_FLAGS": "--xla_x=1",
        "JAX_OPTIMIZATION_LEVEL": "O1",
        "TF_XLA_FLAGS": "-y",
        "LIBTPU_INIT_ARGS": "z",
    }
    secret = (
        "AWS_SECRET_ACCESS_KEY HF_TOKEN TF_VAR_password TF_TOKEN_app_terraform_io JAX_COORDINATOR_ADDRESS"
        " HOME XLA_AUTH JAX_MY_TOKEN USER PATH JAX_COMPILATION_CACHE_DIR"
    )
    for name, value in {**kept, **dict.fromkeys(secret.split(), "hush")}.items():
        monkeypatch.setenv(name, value)
    assert environment.variables() == kept
    assert "hush" not in json.dumps(environment.described(rundir.versions()))


def test_another_environment_is_recorded_and_said_where_a_run_goes_on(tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    model = cfg.transformer("byte", vocab=260, width=8, layers=1, heads=1)
    rundir.create(run_dir, cfg.run("r", "entropy-model", model), "e")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    execute.record_environment(run_dir)
    first = rundir.read_json(run_dir / "config.json")["environment"]
    assert first["versions"]["jax"] == jax.__version__ and first["platform"] == "cpu" and first["cores"] >= 1
    assert {"jaxlib", "flax", "numpy"} <= first["versions"].keys() and first["pinned"] == environment.PINNED

    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    execute.record_environment(run_dir)  # nothing is computed yet
    assert rundir.notes(run_dir) == []
    (run_dir / "metrics.jsonl").touch()
    execute.record_environment(run_dir)  # and the same again
    assert rundir.notes(run_dir) == [] and capsys.readouterr().err == ""

    monkeypatch.setattr(rundir, "versions", lambda: {**first["versions"], "jax": "0.1"})
    monkeypatch.delenv("XLA_FLAGS")
    execute.record_environment(run_dir)
    (note,) = rundir.notes(run_dir)
    assert "XLA_FLAGS was --xla_cpu_enable_fast_math=true and is not set" in note
    assert f"jax was {jax.__version__} and is 0.1" in note and note in capsys.readouterr().err
    assert rundir.read_json(run_dir / "config.json")["environment"]["versions"]["jax"] == "0.1"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_every_text_can_be_printed(monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    text = os.fsdecode("Übung – ☃ ".encode() + b"\xff")  # an argument that is no UTF-8, too
    assert main.main(["patch", text, "--scheme", "space"]) == 0
    assert b"bung" in out.buffer.getvalue() and b"space: " in out.buffer.getvalue()


def test_files_of_text_are_utf8_whatever_the_locale():
    bare = []
    for folder in ("bltjax", "launch", "experiments"):
        for path in (ROOT / folder).glob("**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and opens_text(node):
                    if "encoding" not in {keyword.arg for keyword in node.keywords}:
                        bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not bare, f"these take the locale's encoding: {', '.join(bare)}"


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads, writes or opens text with an encoding that it could name."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(getattr(call.func, "value", None), "id", "")
    if name == "read_text" or name == "write_text" and isinstance(call.func, ast.Attribute):
        return owner != "atomic"
    if name in ("run", "Popen", "check_output") and owner == "subprocess":
        return any(keyword.arg in ("text", "universal_newlines") for keyword in call.keywords)
    if name != "open" or owner in ("os", "fsspec", "webbrowser"):
        return False
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    modes += [k.value.value for k in call.keywords if k.arg == "mode"]
    return not any("b" in mode for mode in modes) and (isinstance(call.func, ast.Name) or bool(modes))


@pytest.mark.parametrize(
    "program",
    [
        ["plan", TINY],
        ["plan", "--help"],
        ["patch", "a b " * 30_000, "--scheme", "space"],  # more than a pipe holds
    ],
)
def test_a_reader_that_has_seen_enough(program):
    read, write = os.pipe()
    ended = subprocess.Popen(
        [sys.executable, "-m", "bltjax.cli.main", *program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
    )
    os.close(write)
    os.close(read)
    said = ended.communicate(timeout=120)[1]
    assert ended.returncode == 0 and "Traceback" not in said and "Broken" not in said


@pytest.mark.parametrize("platforms", ["no-such-device", "cuda" if not shutil.which("nvidia-smi") else "tpu"])
def test_a_device_that_is_not_here_is_one_line(platforms, tmp_path):
    train = ["train", "--config", TINY, "--run", "space", "--set", "train.steps=1"]
    for program in (["plan", TINY, "--only", "space"], [*train, "--run-dir", str(tmp_path / "run")]):
        ended = subprocess.run(
            [sys.executable, "-m", "bltjax.cli.main", *program],
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": platforms},
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
        )
        assert ended.returncode == 2 and "Traceback" not in ended.stderr
        assert ended.stderr.splitlines()[-1].startswith(f"bltjax: JAX_PLATFORMS={platforms}: ")


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
    from test_report import add_run

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
