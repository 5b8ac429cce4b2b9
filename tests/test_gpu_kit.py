"""The GPU kit in its small form, on a CPU: it measures, and survives what goes wrong."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import types
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import inputs, kernels, machine, settings, summary, trace, train
from benchmarks.gpu.record import Record, out_of_memory
from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.models.kernels import attention
from bltjax.parallel import sharding
from bltjax.training import step as training

MEASURED = {part.name for part in settings.PARTS if part.small}


def kit(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The whole small kit, once."""
    out = tmp_path_factory.mktemp("gpu")
    done = kit("--small", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr + (out / "gpu.log").read_text()
    return out, done.stdout, json.loads((out / "gpu.json").read_text())


@pytest.mark.slow
def test_the_small_kit_measures_every_part(small):
    out, printed, found = small
    assert set(found["parts"]) == MEASURED
    assert not [name for name, record in found["parts"].items() if "error" in record]
    assert found["command"].startswith("python -m benchmarks.gpu --small")
    assert all(record["seconds"] > 0 for record in found["parts"].values())
    assert found["parts"]["machine"]["versions"]["jax"] == jax.__version__
    assert printed.strip().endswith(str(out / "gpu.json"))
    programs = {"train_blt.hlo.gz", "train_bpe.hlo.gz"}
    assert {path.name for path in out.iterdir()} == {"gpu.json", "gpu.log"} | programs


@pytest.mark.slow
def test_training_finds_the_largest_batch_and_its_kernels(small):
    for name in ("train_blt", "train_bpe"):
        record = small[2]["parts"][name]
        best, limit = record["best"], settings.SMALL.memory_limit
        assert best["finite"] and best["rows"] >= 1 and best["program_bytes"] <= limit
        measured = [one for one in record["candidates"] if "step_s" in one]
        assert best["useful_tflops"] == max(one["useful_tflops"] for one in measured)
        assert 0.7 < best["useful_flops"] / best["executed_flops"] < 1
        assert best["mfu_useful"] is None  # nobody publishes this chip's peak
        slowest = [one["ms"] for one in record["trace"]["slowest"]]
        assert 5 <= len(slowest) <= trace.SLOWEST and slowest == sorted(slowest, reverse=True)
        assert 0 < sum(slowest) <= record["trace"]["busy_ms"]


@pytest.mark.slow
def test_kernels_are_within_rounding_of_the_references(small):
    cases = small[2]["parts"]["kernels"]["cases"]
    assert len(cases) == 2 * len(settings.SMALL.attention) + 4 * len(settings.SMALL.cross)
    assert all(case["rounding_only"] for case in cases)


@pytest.mark.slow
def test_generation_counts_the_bytes_that_came(small):
    for name in ("generate_blt", "generate_bpe"):
        runs = small[2]["parts"][name]["runs"]
        assert [run["batch"] for run in runs] == list(settings.SMALL.batches)
        assert all(run["bytes_per_s"] == pytest.approx(run["new_bytes"] / run["seconds"]) for run in runs)


def test_no_gpu_is_one_line(tmp_path):
    done = kit("--out", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--small" in done.stderr


def test_a_gpu_that_jax_cannot_use_says_what_to_install(monkeypatch):
    monkeypatch.setattr(machine, "packages", lambda: {"jax": "1"})
    with pytest.raises(UserError, match="no CUDA: pip install"):
        machine.check(small=False)
    monkeypatch.setattr(machine, "packages", lambda: {"jax-cuda13-plugin": "1"})
    with pytest.raises(UserError, match="sees no NVIDIA GPU"):
        machine.check(small=False)


def test_a_missing_package_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "NEEDED", ("jax", "no_such_package"))
    assert command.main(["--out", str(tmp_path)]) == 2
    assert "missing Python packages: no_such_package" in capsys.readouterr().err


def test_a_part_that_is_cut_keeps_what_it_had_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    """One process writes something and hangs, one crashes, one ends well."""
    write = "import json,os,pathlib,sys,time; f = pathlib.Path(sys.argv[2]); f.write_text('{\"found\": 1}'); "
    ends = {"train_blt": "time.sleep(60)", "train_bpe": "os.abort()", "machine": "pass"}
    start = subprocess.run

    def started(argv, **how):
        return start([sys.executable, "-c", write + ends[argv[3]], *argv[3:5]], **how)

    monkeypatch.setattr(command.subprocess, "run", started)
    parts = [settings.Part(name, "", "", 8) for name in ("train_blt", "train_bpe", "machine")]
    assert command.measure(parts, tmp_path, False, []) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert all(record["found"] == 1 for record in found.values())
    assert "cut after 8 s" in found["train_blt"]["error"] and "crash" in found["train_bpe"]["error"]
    assert "error" not in found["machine"]


def event(name, duration, **stats):
    return types.SimpleNamespace(name=name, duration_ns=duration, stats=stats.items())


def plane(name, **lines):
    return types.SimpleNamespace(
        name=name, lines=[types.SimpleNamespace(name=line, events=events) for line, events in lines.items()]
    )


def test_a_gpu_trace_counts_streams_once():
    """A GPU's plane has lines that sum its streams up again."""
    gpu = plane(
        "/device:GPU:0",
        **{
            "Stream #13(Compute)": [
                event("gemm", 4e6, hlo_op="dot.1"),
                event("gemm", 2e6),
                event("add", 1e6),
            ],
            "Stream #14(MemcpyD2D)": [event("MemcpyD2D", 3e6)],
            "XLA Ops": [event("dot.1", 6e6, hlo_op="dot.1")],
        },
    )
    host = plane("/host:CPU", python=[event("step", 9e6, hlo_op="x")])
    found = trace.slowest(types.SimpleNamespace(planes=[host, gpu]), steps=2, count=2)
    assert found["busy_ms"] == pytest.approx(5)
    assert [(one["name"], one["op"], one["calls"]) for one in found["slowest"]] == [
        ("gemm", "dot.1", 1),
        ("MemcpyD2D", "", 0.5),
    ]
    assert found["slowest"][0]["share"] == pytest.approx(0.6)


class Device(train.Bench):
    """A device of 100 bytes, on which a row takes so many, beside 20 for the state and 4 for gradients."""

    def __init__(self, remat_bytes, fails=lambda remat, rows: None):
        self.settings = dataclasses.replace(settings.FULL, most_rows=16)
        self.record = Record(pathlib.Path("unused"), memory_limit=100, candidates=[], attention="cudnn")
        self.record.save = lambda: None
        self.rows = types.SimpleNamespace(batch=lambda rows: {"x": np.zeros(rows)})
        self.shapes = types.SimpleNamespace(params={"w": types.SimpleNamespace(size=1)})
        self.remat_bytes, self.fails = remat_bytes, fails

    def compiled(self, remat, batch, options=None):
        rows = len(batch["x"])
        stats = types.SimpleNamespace(
            argument_size_in_bytes=20,
            output_size_in_bytes=20,
            alias_size_in_bytes=20,
            temp_size_in_bytes=4 + rows * self.remat_bytes[remat],
            generated_code_size_in_bytes=0,
        )
        return types.SimpleNamespace(memory_analysis=lambda: stats, remat=remat)

    def _measure(self, one, program, batch):
        if error := self.fails(one["remat"], one["rows"]):
            raise jax.errors.JaxRuntimeError(error)
        one["useful_tflops"] = 1.0


@pytest.mark.parametrize("each,rows", [(1, 16), (7, 8), (10, 4), (60, 1)])
def test_the_largest_power_of_two_that_fits_is_tried_first(each, rows):
    device = Device({"full": each})
    one, _, batch = device.largest("full", device.expected(["full"])["full"])
    assert one["rows"] == len(batch["x"]) == rows and len(device.record["candidates"]) == 2


def test_a_batch_is_halved_while_the_device_has_no_room():
    device = Device({"full": 9}, lambda remat, rows: "RESOURCE_EXHAUSTED: no" if rows > 2 else None)
    one, _, _ = device.largest("full", 8)
    assert one["rows"] == 2
    assert [c["out_of_memory"] for c in device.record["candidates"]] == [True, True, False]
    assert Device({"full": 900}).largest("full", 8) is None


@pytest.mark.parametrize("where", ["compiled", "_measure"])
def test_a_chip_whose_attention_fails_is_measured_without(where, monkeypatch):
    """Whether its kernel is refused when it is compiled or fails when it runs."""
    monkeypatch.setattr(attention, "chosen", lambda platform, dtype: "cudnn")
    device = Device({"full": 7})
    works = getattr(device, where)

    def broken(*args):
        if attention.chosen("gpu", None) == "cudnn":
            raise NotImplementedError("cudnn")
        return works(*args)

    monkeypatch.setattr(device, where, broken)
    one, _, _ = device.largest("full", device.expected(["full"])["full"])
    assert one["rows"] == 8 and device.record["attention"] == "blocks"
    assert "cudnn" in device.record["attention_error"]


def test_an_error_of_memory_is_told_from_others():
    assert out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"))
    assert not out_of_memory(RuntimeError("INTERNAL: cuDNN error"))


def test_a_kernel_that_is_off_is_told_from_rounding():
    """A wrong mask is more than rounding; a NaN always is."""
    case = settings.SMALL.attention[0]
    shapes = [(case.B, case.H, case.T, case.K)] * 3
    right, docs = kernels._self_attention(case), kernels._documents(case)

    def verdict(attend):
        entry = {**case._asdict(), "dtype": "float32"}
        exact = functools.partial(right, implementation="reference")
        job = kernels.Job(entry, shapes, attend, exact, docs)
        compiled = Future()
        compiled.set_result(job.compiled())
        job.measure(compiled, 1)
        return entry["rounding_only"]

    wider = lambda q, k, v, docs: attention.reference(q, k, v, docs, case.window + 1)
    nan = lambda q, k, v, docs: attention.reference(q, k, v, docs, case.window).at[0, 0, 0, 0].set(jnp.nan)
    assert not verdict(wider) and not verdict(nan)


@pytest.mark.parametrize("which", ["blt", "bpe"])
def test_full_shapes_lower_for_a_gpu(which, monkeypatch):
    """What can be told of the full size without a GPU: that the 1B step lowers for CUDA with cuDNN's
    attention, forward and backward."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(
        fused_attention_stablehlo, "cuda_versions", types.SimpleNamespace(cudnn_get_version=lambda: 91000)
    )
    monkeypatch.setattr(sharding, "platform", lambda: "gpu")
    config = inputs.run_config(settings.FULL, which)
    rows = inputs.rows_of(config, 2)
    assert len(rows.plan) >= 2 and rows.counts(2)["slots"] > 0.9 * 2 * rows.slots
    bench = train.Bench(settings.FULL, {}, config, rows)
    step = training.make_step(cfg.replace(config.model, remat="full"), config.train, 10)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), rows.batch(2))
    text = step.trace(bench.shapes, batch).lower(lowering_platforms=("cuda",)).as_text()
    assert "@__cudnn$fmha" in text and "Backward(" in text


def test_a_table_of_half_a_record_is_printed():
    """Whatever a cut part left behind."""
    found = {
        "parts": {
            "machine": {"error": "cut"},
            "train_blt": {"candidates": [{"remat": "full", "rows": 2}], "error": "cut"},
            "kernels": {"cases": [{"operation": "x", "name": "y", "dtype": "z", "path": "w"}]},
            "generate_bpe": {"runs": [{"batch": 1}]},
        }
    }
    assert summary.table(found).count("cut") == 3
