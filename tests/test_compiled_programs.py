"""Compiled programs are kept between processes: the second of two equal commands compiles nothing."""

import os
import pathlib
import subprocess
import sys
import types

import pytest

HERE = pathlib.Path(__file__).parent
HF = HERE / "golden" / "hf_blt"


def run(cache: pathlib.Path, *arguments) -> set[str]:
    """The programs that are kept after a command, by the names of their files."""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as many programs, sooner
        "PYTHONPATH": str(HERE.parent),
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "bltjax.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return {path.name for path in cache.rglob("*-cache")}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("generate", HF, "hello world", "--max-new-bytes", 8), marks=pytest.mark.slow),
        ("generate", HF, "hello world", "--max-new-bytes", 8, "--temperature", 0.7, "--seed", 3),
        ("patch", "some text to cut", "--run", HF),
    ],
    ids=["generate", "generate, drawn", "patch"],
)
def test_the_second_command_compiles_nothing(tmp_path, arguments):
    first = run(tmp_path, *arguments)
    assert first  # what is kept is kept, however short its compilation was
    assert run(tmp_path, *arguments) == first


@pytest.mark.slow
def test_the_second_training_run_compiles_nothing(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for i in range(40):
        lines = [f"line {j} of text {i}, which says {i * j}" for j in range(20)]
        (text / f"{i}.txt").write_text("\n".join(lines))
    train = lambda name: run(
        tmp_path / "cache",
        "train",
        "--config",
        HERE / "tiny_experiment.py",
        "--run",
        "space",
        "--run-dir",
        tmp_path / name / "tiny" / "space",
        "--set",
        f'data.globs=["{text}/*.txt"]',
        "--set",
        "data.source=files",
    )
    first = train("a")
    assert first and train("b") == first


def test_every_program_is_kept(tmp_path, monkeypatch):
    import jax

    from bltjax.parallel import host

    told = {}
    of_a_user = types.SimpleNamespace(jax_compilation_cache_dir=None, update=told.__setitem__)
    monkeypatch.setattr(jax, "config", of_a_user)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    host.keep_compiled_programs()
    assert told["jax_persistent_cache_min_compile_time_secs"] == 0
    assert told["jax_persistent_cache_min_entry_size_bytes"] == -1
    assert told["jax_compilation_cache_dir"].startswith(str(tmp_path))
    told.clear()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pathlib.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    host.keep_compiled_programs()  # a user without a home: nothing is kept, nothing fails
    assert "jax_compilation_cache_dir" not in told
