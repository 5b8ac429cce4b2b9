"""`bltjax compile`: programs for devices that are not here, one line for what cannot be, and a table that
goes on where it was."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.compile import aot, chips, collectives, hlo
from bltjax.errors import UserError
from bltjax.parallel import sharding
from bltjax.sweep import compile_table

HERE = pathlib.Path(__file__).parent


def bltjax(*arguments, timeout=600):
    faster = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment = {**os.environ, **faster, "PYTHONPATH": str(HERE.parent)}
    return subprocess.run(
        [sys.executable, "-m", "bltjax.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout,
    )


def tiny(**changes):
    blt = cfg.blt_model(
        "paper",
        local_width=32,
        encoder_layers=1,
        decoder_layers=2,
        local_heads=4,
        global_width=64,
        global_layers=4,
        global_heads=4,
        k=2,
        window=32,
        ngram_rows=2000,
        ffn_multiple=16,
    )
    run = cfg.run(
        "tiny",
        "blt-space",
        blt,
        patching_=cfg.patching("space", 5.0),
        budget_flops=1e12,
        data_=cfg.replace(cfg.data(), context=64, rows=8),
    )
    return cfg.replace(run, **changes)


def refused(capsys, *arguments):
    """The one line of a command that is refused before JAX begins, in this process."""
    status, said = main.main(list(map(str, arguments))), capsys.readouterr().err
    assert status == 2 and len(said.strip().splitlines()) == 1, said
    return said


@pytest.mark.slow
def test_a_table_that_goes_on(tmp_path, capsys):
    command = (
        "compile",
        HERE / "tiny_experiment.py",
        "--topology",
        "cpu:2",
        "--out",
        tmp_path / "table.json",
    )
    rows = ("--only", "space", "--set", "model.ngrams.rows=4000")  # more than any other axis has
    first = bltjax(*command, *rows, "--json")
    assert first.returncode == 0, first.stderr
    [record] = json.loads(first.stdout)["runs"]
    assert record["name"] == "space" and record["fits"] and record["hash_table_collective_bytes"] == 0
    assert (
        record["collective_bytes"]["all-to-all"] > 0
        and record["lookup_collective_bytes"] > 0
        and record["rows_gathered"] > 0
    )
    assert record["hbm_peak_bytes"] == sum(
        record["hbm"][part] for part in ("arguments", "outputs", "temporaries", "code")
    )
    again = bltjax(*command, *rows, "--json")
    # not compiled a second time
    assert json.loads(again.stdout)["runs"][0]["compile_s"] == record["compile_s"]
    bpe = bltjax(*command, "--only", "bpe")
    assert bpe.returncode == 0 and "bpe" in bpe.stdout and "Traceback" not in bpe.stdout + bpe.stderr
    assert {"space", "bpe"} == {r["name"] for r in json.loads((tmp_path / "table.json").read_text())["runs"]}
    (tmp_path / "table.json").write_text("my notes")
    assert "is no whole table" in refused(capsys, *command, "--only", "bpe")
    assert (tmp_path / "table.json").read_text() == "my notes"


def test_the_layout_that_is_chosen_is_compiled(tmp_path):
    done = bltjax(
        "compile",
        HERE / "tiny_experiment.py",
        "--only",
        "space",
        "--topology",
        "cpu:2",
        "--fit",
        "--out",
        tmp_path / "table.json",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    [record] = json.loads(done.stdout)["runs"]
    assert (
        record["fits"]
        and record["mesh"][0] * record["mesh"][1] * record["mesh"][2] == 2
        and record["collective_bytes"]
    )


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--topology", "v9x:4x4"), "unknown chip"),
        (("--topology", "v5p"), "a topology is"),
        (("--topology", "cpu:2", "--mesh", "3"), "a mesh of"),
        (("--topology", "cpu:2", "--mesh", "0x2"), "a mesh is"),
        (("--topology", "h100:8"), "where one is"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, says, tmp_path, capsys):
    out = tmp_path / "table.json"
    assert says in refused(capsys, "compile", HERE / "tiny_experiment.py", *arguments, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--topology", "cpu:4", "--only", "space"), "2 rows"),
        (("--topology", "cpu:2", "--mesh", "1x2", "--only", "space"), "heads"),
    ],
)
def test_a_model_that_devices_cannot_share_is_one_line(arguments, says, tmp_path):
    done = bltjax("compile", HERE / "tiny_experiment.py", *arguments, "--out", tmp_path / "table.json")
    assert (
        done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    ), done.stderr
    assert not (tmp_path / "table.json").exists()


def test_exact_flops_are_the_products_of_the_compiled_program():
    """Counted with padding and masked blocks, an unrolled program multiplies what flops.executed_step says,
    on one device."""
    run = tiny(**{"model.scan": False})
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    found = aot.products(run, aot.lower(run, mesh).compile().as_text(), chips.topology("cpu:1"))
    assert found["compiled_dot_flops"] == pytest.approx(found["executed_flops"], rel=0.02)
    assert found["exact_flops"] < found["executed_flops"]


def test_an_output_head_is_no_look_up_table():
    """Both have an axis of the vocabulary; a table's is its rows, a head's is the last (its gradient, as
    XLA:TPU sums it for 400M BPE: docs/results/compile)."""
    model = cfg.transformer("token", vocab=128_256, width=1280, layers=1, heads=10)
    tables = aot.table_rows(model)

    def moved(dims, where):
        array = hlo.Shape("f32", dims)
        return collectives.Collective(
            "all-reduce", 1.0, 1, (array,), (array,), 32, (), "ici", where, "main", "one", ""
        )

    assert not aot.carries(moved((1280, 128_256), "transpose(jvp(Transformer))/head/dot_general"), tables)
    assert not aot.carries(moved((40, 128_256), "add"), tables)
    assert not aot.carries(moved((128_256, 1280), "transpose(jvp(Transformer))/head/dot_general"), tables)
    assert aot.carries(moved((128_256, 1280), "transpose(jvp(Transformer))/embed/scatter-add"), tables)
    assert aot.carries(moved((1, 4008, 640), ""), tables)  # a device's part


def test_tracing_does_not_grow_with_depth():
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    texts = [
        aot.lower(
            tiny(**{"model.latent.layers": layers, "model.local.decoder_layers": layers}), mesh
        ).as_text()
        for layers in (8, 64)
    ]
    assert abs(len(texts[1]) / len(texts[0]) - 1) < 0.01


def test_a_program_that_does_not_fit_is_a_record(monkeypatch):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError((HERE / "golden" / "hlo" / "v6e_out_of_memory.txt").read_text())

    found = aot.measure(tiny(), Lowered(), chips.topology("v5p:2x2x1"), (1, 4, 1))
    assert (
        found["fits"] is False
        and found["error"].startswith("needs ")
        and "train.accumulate=2" in found["error"]
        and "\n" not in found["error"]
    )


def test_weights_are_never_cut_over_all_of_a_large_slice():
    assert sharding.usual_shape("tpu", 64) == (2, 32, 1) and sharding.usual_shape("tpu", 128, slices=2) == (
        4,
        32,
        1,
    )
    assert sharding.usual_shape("tpu", 4) == (1, 4, 1) and sharding.usual_shape("cpu", 64) == (1, 64, 1)


def test_the_fewest_microbatches_that_fit_come_first():
    run = cfg.run(
        "big",
        "blt-space",
        cfg.replace(cfg.sized_blt("8B"), dtype="bfloat16", remat="full"),
        patching_=cfg.patching("space", 6.0),
        budget_flops=1e21,
        data_=cfg.replace(cfg.data(), context=8192, rows=2048),
    )
    plenty, tight = (
        compile_table._layouts(run, chips.topology(name), None, False) for name in ("v5p:4x4x4", "v6e:8x8")
    )
    assert plenty[0]["accumulate"] <= tight[0]["accumulate"] and [c["accumulate"] for c in tight] == sorted(
        c["accumulate"] for c in tight
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `tpu`")
def test_for_a_pod(tmp_path):
    """No collective carries a table, weights move as little as FSDP can, look-ups at most ten activations
    each way."""
    program = f"""
import json, sys
from bltjax.compile import aot, chips
from bltjax.parallel import sharding
sys.path.insert(0, {str(HERE)!r})
from test_compile import tiny
topology = chips.topology("v5p:4x4x4")
found = aot.devices(topology)
run = tiny(**{{
    "model.dtype": "bfloat16", "model.remat": "full", "data.rows": 256, "data.context": 256,
    "train.accumulate": 2, "model.local.width": 512, "model.local.ffn": 1536, "model.latent.width": 1024,
    "model.latent.ffn": 3072, "model.latent.heads": 8, "model.local.heads": 8, "model.cross.heads": 8,
    "model.ngrams.rows": 16000}})
print(json.dumps(aot.compile_run(run, topology, sharding.usual_shape("tpu", 64), found)))
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["fits"] and record["hash_table_collective_bytes"] == 0
    activation = record["rows"] // 64 * record["slots"] * 512 * 2
    assert 0 < record["lookup_collective_bytes"] <= 2 * 10 * activation
    assert record["weight_collective_bytes"] <= 1.1 * record["weight_minimum_bytes"]


def test_two_commands_fill_one_table(tmp_path):
    """A record is added to what is there now, not to what was there when the command began; a run's earlier
    program is kept for later."""
    topology, out = chips.topology("cpu:2"), tmp_path / "table.json"
    record = lambda name, program: dict(
        name=name,
        family="bpe",
        size="",
        patch_size=1.0,
        program=program,
        mesh=[1, 2, 1],
        accumulate=1,
        remat="none",
        fits=True,
        error=None,
        compile_s=1.0,
        hbm_peak_bytes=1,
        hbm_chip_bytes=None,
        hash_table_collective_bytes=0,
        collective_bytes={},
        measured=["program", "compile_s"],
    )
    compile_table._claim(out, topology)
    for name, program in (("a", "1"), ("b", "2"), ("a", "3"), ("a", "1")):
        compile_table._add(out, topology, record(name, program))
    runs, past = compile_table._read(out, topology)
    assert {r["name"]: r["program"] for r in runs} == {"a": "1", "b": "2"} and [
        r["program"] for r in past
    ] == ["3"]
    assert set(compile_table._programs((runs, past))) == {"1", "2", "3"}


@pytest.mark.parametrize("runs", [[1], [{"name": "bpe"}], [{"name": "bpe", "measured": None}]])
def test_a_table_with_broken_records_is_left_alone(runs, tmp_path):
    (tmp_path / "t.json").write_text(
        json.dumps({"schema": compile_table.SCHEMA, "topology": "cpu:2", "runs": runs})
    )
    with pytest.raises(UserError, match="no whole table"):
        compile_table._claim(tmp_path / "t.json", chips.topology("cpu:2"))


def test_a_table_never_overwrites_what_is_beside_it(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "file").write_text("")
    for out, says in (
        (tmp_path / "notes.json", "written over"),
        (tmp_path / "t.md", "ends in .json"),
        (tmp_path / "file" / "t.json", "cannot be written"),
    ):
        with pytest.raises(UserError, match=says):
            compile_table._claim(out, chips.topology("cpu:2"))
    assert (tmp_path / "notes.md").read_text() == "mine"
