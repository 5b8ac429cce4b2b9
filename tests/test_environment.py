"""What surrounds a command: JAX's settings, a terminal's encoding, a user's matplotlib, HOME and permissions.
A run's numbers do not depend on it, and nothing that is nearly done ends by it."""

import ast
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.parallel import environment
from bltjax.run import execute
from bltjax.storage import rundir

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
    "JAX_NUMPY_RANK_PROMOTION": "raise",
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


def test_code_and_image_are_recorded_and_compared(tmp_path, monkeypatch):
    monkeypatch.delenv("BLTJAX_IMAGE", raising=False)
    before = environment.described({})
    if (ROOT / ".git").exists() and shutil.which("git"):
        assert len(before["code"]["commit"]) == 40 and before["code"]["dirty"] in (True, False)
    monkeypatch.setenv("BLTJAX_IMAGE", "registry/bltjax:7")
    now = environment.described({})
    assert environment.differences(before, now) == ["image was not set and is registry/bltjax:7"]
    now["code"]["commit"] = "0" * 40
    assert any(line.startswith("commit was ") for line in environment.differences(before, now))
    old = {key: value for key, value in before.items() if key != "code"}  # of an earlier version
    assert environment.differences(old, now) == []


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
