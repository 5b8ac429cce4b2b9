"""The README's main command in its short form: everything happens, from the corpus to the page."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def bltjax(*arguments, cwd):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):  # as users compile
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "bltjax.cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_quickstart_short(tmp_path):
    """All families at the smaller budget, tokens and one kind of patches at the larger one, too."""
    kept = ("--only=-S", "--only=bpe", "--only=blt-space")
    bltjax("run", "quickstart:short", *kept, cwd=tmp_path)
    result = json.loads(bltjax("report", "quickstart:short", *kept, "--json", cwd=tmp_path))
    families = {"bpe", "blt-entropy", "blt-space", "blt-strided"}
    assert {run["family"] for run in result["runs"]} == families and len(result["runs"]) == 6
    for run in result["runs"]:
        assert abs(run["realized_flops"] / run["budget_flops"] - 1) < 0.01
        assert 2 < run["bpb"] < 6.5, "a byte is worth log2(260) = 8.02 bits to a model that knows nothing"
        if run["family"] == "blt-entropy":
            assert abs(run["patch_size"] / 4.5 - 1) < 0.02
    page = (tmp_path / "runs" / "quickstart-short" / "report" / "report.html").read_text()
    assert "<svg" in page and "http-equiv" not in page and 'src="http' not in page
    standing = json.loads(bltjax("status", "quickstart:short", *kept, "--json", cwd=tmp_path))["runs"]
    assert {run["state"] for run in standing} == {"done"}
