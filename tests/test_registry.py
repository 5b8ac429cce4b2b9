"""The experiments: what each declares at each scale, the rules that they are made by, and that every run of
theirs traces on a mesh."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import flops
from bltjax.errors import UserError
from bltjax.experiments import registry
from bltjax.science import formula, identifiability, joint
from bltjax.science.fit_runs import of as runs_of
from bltjax.storage import rundir
from bltjax.sweep import designs, graph, ladder, rules, scales
from bltjax.sweep import plan as planning

ROOT = pathlib.Path(__file__).parent.parent
SCALES = ("", ":gpu", ":runlocal")
OF_TABLES = (
    "compute_optimal",
    "fixed_inference",
    "tasks_8b",
    "patching_schemes",
    "llama_init",
    "entropy_model",
    "cross_attention",
    "ngram_tables",
    "local_layers",
    "compression",
    "controls",
    "seeds",
    "lr_tuning",
)
# what takes :gpu; the quickstart and its sweeps are of one scale
ALL = [name + arg for name in registry.names() for arg in SCALES if arg != ":gpu" or name in OF_TABLES]
UNITS = {"N": "latent parameters", "D": "bytes", "T": "bytes", "loss": "bits per byte"}
# paper.row of every run that answers a row (Tables 2, 1, 5 to 9)
ROWS = {
    "fixed_inference": (
        "llama2-470M llama3-450M blt-6-610M blt-8-760M llama2-3.6B llama3-3.9B blt-6-5.2B blt-8-6.6B"
    ),
    "tasks_8b": "llama3 blt-space blt-entropy",
    "llama_init": "llama3-220B blt-220B blt-from-llama3.1",
    "patching_schemes": "bpe blt-space blt-entropy",
    "cross_attention": "none|all|no none|last|no none|none|none first|last|yes all|last|yes all|all|yes",
    "ngram_tables": (
        "none 6,7,8@100k 6,7,8@200k 3,4,5@100k 6,7,8@400k 3,4,5@200k 3-8@100k 3,4,5@400k 3-8@200k 3-8@400k"
    ),
    "local_layers": "no|1|9 no|5|5 yes|5|5 yes|3|7 yes|1|9",
}


@pytest.mark.parametrize("name", ALL)
def test_every_experiment_plans(name):
    began = time.process_time()
    experiment = registry.load(name)
    plans = planning.plan(experiment)
    assert time.process_time() - began < 5
    assert experiment.claim and len({run.name for run in experiment.runs}) == len(experiment.runs)
    for run, planned in zip(experiment.runs, plans, strict=True):
        assert planned["train_flops"] == pytest.approx(run.budget_flops or planned["train_flops"], rel=0.01)
        assert (run.patching.scheme in ("entropy", "monotonic", "both")) == bool(
            planned["entropy_model"]["params"]
        )
        if len(run.entropy_model):
            keys = ("source", "globs", "validation", "test")
            assert all(run.entropy_model.data[key] == run.data[key] for key in keys)


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_the_tables(name):
    for scale in SCALES:
        runs = registry.load(name + scale).runs
        rows = [run.paper.row for run in runs if run.paper.row]
        assert set(rows) == set(ROWS[name].split()), scale
        assert name == "fixed_inference" or len(rows) == len(set(rows))
        assert len({run.paper.figure for run in runs}) == 1


def test_sizes_and_data_are_the_papers():
    plans = {p["name"]: p for p in planning.plan(registry.load("fixed_inference"))}
    printed = {"llama2-470M": 470e6, "llama3-450M": 450e6, "llama2-3.6B": 3.6e9, "llama3-3.9B": 3.9e9}
    runs = registry.load("fixed_inference").runs
    for run in runs:
        if run.paper.row in printed:
            assert flops.params_paper(run)["total"] == pytest.approx(printed[run.paper.row], rel=0.02)
    large = {run.paper.row: flops.params_paper(run)["total"] for run in runs}
    assert large["blt-6-5.2B"] == pytest.approx(5.2e9, rel=0.01)
    assert large["blt-8-6.6B"] == pytest.approx(6.6e9, rel=0.015)
    for optimal, crossing, row in (("5e10", "1.5e11", "blt-8-760M"), ("4e11", "1e12", "blt-8-6.6B")):
        assert plans[f"{row}-{optimal}"]["train_bytes"] == pytest.approx(float(optimal), rel=1e-3)
        assert f"{row}-{crossing}" in plans
    tasks = {p["name"]: p for p in planning.plan(registry.load("tasks_8b"))}
    assert {name: round(p["train_bytes"] / 1e11) for name, p in tasks.items()} == {
        "llama3": 44,
        "blt-space": 60,
        "blt-entropy": 45,
    }
    assert {p["context"] for p in tasks.values()} == {16_384}
    spent = [p["train_flops"] for p in tasks.values()]
    assert max(spent) / min(spent) < 1.06  # Table 1 is flop-matched
    for name in ("cross_attention", "ngram_tables", "local_layers"):
        for p in planning.plan(registry.load(name)):
            assert p["size"] == "1B" and p["train_bytes"] == pytest.approx(100e9, rel=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_fixed_inference_costs_the_same_per_byte(scale):
    runs = registry.load("fixed_inference" + scale).runs
    plans = planning.plan(runs)
    for small in (True, False):
        rows = ROWS["fixed_inference"].split()[:4]
        of_class = [p for p, run in zip(plans, runs) if (run.paper.row in rows) == small]
        costs = [p["flops_per_byte_exact"] for p in of_class]
        assert max(costs) / min(costs) < 1.02 and len({p["batch_bytes"] for p in of_class}) < len(of_class)
        if not scale:
            paper = [p["flops_per_byte_paper"] for p in of_class]
            assert np.mean(paper) == pytest.approx(3.1e8 if small else 2.1e9, rel=0.01)


def test_fixed_inference_says_what_cannot_be():
    with pytest.raises(UserError, match="no blt-entropy of size M costs 1e\\+05"):
        designs.fixed_inference(scales.laptop(), "blt-entropy", "M", 1e5, patch=4.5)


def test_runs_for_a_law_are_off_any_one_line():
    """Each family by itself identifies L(N, D), and with its compression L(N, D, T)."""
    wanted = [name for name in ALL if "law=" in (registry.FOLDER / f"{name.split(':')[0]}.py").read_text()]
    assert len(wanted) == 3
    for name in wanted:
        experiment, found = registry.load(name), {}
        for p in planning.plan(experiment):
            found.setdefault(p["family"], []).append((p["params_latent"], p["train_bytes"], p["patch_size"]))
        assert experiment.law == "L(N, D, T)" and len(found) >= 2
        for family, cells in found.items():
            values = dict(zip("NDT", np.array(cells, float).T))
            loss = np.ones(len(cells))
            identifiability.refuse(formula.CHINCHILLA, runs_of({k: values[k] for k in "ND"}, loss, UNITS))
            if len(set(values["T"])) >= identifiability.VALUES:
                identifiability.refuse(joint.POWERS, runs_of(values, loss, UNITS))
    # compute_optimal's are on one line, and would be refused
    plans = planning.plan(registry.load("compute_optimal", only="bpe"))
    line = [(p["params_latent"], p["train_bytes"]) for p in plans]
    values = dict(zip("ND", np.array(line + line, float).T))
    with pytest.raises(identifiability.NotIdentified):
        identifiability.refuse(formula.CHINCHILLA, runs_of(values, np.ones(2 * len(line)), UNITS))


def test_the_study_is_as_large_as_it_should_be():
    experiment = registry.load("compression", runlocal=True)
    units = {}
    for run in experiment.runs:
        units.setdefault(run.family, set()).add(run.model.vocab if run.family == "bpe" else run.patching.size)
    assert units == {
        "blt-entropy": {2, 3, 4.5, 6, 8},
        "blt-strided": {2, 3, 4, 6, 8},
        "bpe": {512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536},
    }
    assert 60 <= len(experiment.runs) <= 100 and len({run.size for run in experiment.runs}) >= 3
    assert {run.budget_flops for run in experiment.runs} == {1e11, 4e11, 1.5e12}
    seeded = [run.name.removesuffix("-seed2") for run in experiment.runs if run.seed == 2]
    assert len(seeded) >= 3 and len(set(seeded)) == len(seeded)
    on_gpu = registry.load("compression:gpu").runs
    # 780 seconds of an H200
    assert sum(run.budget_flops for run in on_gpu if run.budget_flops < 3e15) < 780 * 4.6e13


def test_the_quickstart_is_what_it_says():
    runs = registry.load("quickstart").runs
    plans = planning.plan(runs)
    cells = {(p["family"], p["budget_flops"]) for p in plans}
    assert len(cells) == len(runs) == 12 and len({budget for _, budget in cells}) == 3
    assert len({(run.data.max_train_bytes, run.eval.test_bytes) for run in runs}) == 1
    assert max(p["train_bytes"] for p in plans) < 0.9 * runs[0].data.max_train_bytes  # no byte is read twice
    largest = max(run.budget_flops for run in runs)
    lexicons = {
        run.family: (
            sum(flops.params(run)[part] for part in ("hash", "embeddings", "head"))
            if run.family == "bpe"
            else flops.params(run)["hash"]
        )
        for run in runs
        if run.budget_flops == largest
    }
    assert max(lexicons.values()) / min(lexicons.values()) < 1.01


def test_an_unknown_argument_gets_one_line():
    for name in OF_TABLES:
        with pytest.raises(UserError, match=f"^{name}:big: allowed are gpu and runlocal$"):
            registry.load(f"{name}:big")


def test_rules_give_the_published_numbers():
    # Llama 3: 16.55T tokens at 3.8e25 FLOPs; batches of 250k tokens at 6e18 and 4M at 1e22, here in bytes
    assert rules.llama3_tokens(3.8e25) == pytest.approx(16.55e12)
    budget = rules.llama3_budget(6 * 405e9)
    assert rules.llama3_tokens(budget) * 6 * 405e9 == pytest.approx(budget)
    assert [rules.llama3_batch(c) for c in (1e15, 6e18, 1e22, 1e25)] == [2**20, 2**20, 2**24, 2**24]
    assert rules.batch_line(1e15) == pytest.approx(40e3, rel=0.05)
    # the step law, worked out by hand for 1e9 parameters and 1e11 tokens
    assert rules.step_law_lr(1e9, 1e11) == pytest.approx(1.797 * 10 ** (-0.7129 * 9 + 0.3075 * 11))
    assert rules.step_law_batch(1e11) == pytest.approx(1.1066e6, rel=1e-3)
    assert {rules.laptop_lr(family) for family in ("bpe", "megabyte", "spacebyte")} == {4e-3, 3.2e-2, 1.6e-2}


def test_a_run_of_the_ladder():
    scale = scales.laptop()
    run = ladder.run(scale, "x", "blt-space", "S", data_bytes=1e6, changes={"model.cross.decoder": "first"})
    assert run.patching.size == scale.space and run.model.cross.decoder == "first"
    assert run.train.steps * run.data.rows * run.data.context == pytest.approx(1e6, rel=0.01)
    other = ladder.run(scale, "x", "bpe", "S", data_bytes=1e6)
    assert other.data.rows == run.data.rows  # one batch at one size
    with pytest.raises(UserError, match="unknown key"):
        ladder.run(scale, "x", "bpe", "S", budget=1e12, changes={"train.learning_rate": 1.0})
    with pytest.raises(UserError, match="warmup is 2000 of"):
        planning.plan([ladder.run(scale, "x", "bpe", "S", budget=1e11, changes={"train.warmup": 2000})])


def test_labels_change_nothing_that_is_named_after_a_config(tmp_path):
    run = registry.load("compression", runlocal=True, only="blt-entropy-2-12k-1e11").runs[0]
    lm = run.entropy_model
    assert "paper" not in cfg.identified(lm) and cfg.fingerprint(cfg.identified(lm)) == cfg.fingerprint(
        cfg.identified(cfg.replace(lm, **{"paper.figure": "Figure 8"}))
    )
    # a run directory of before there were these labels, of a run that has begun, is the same run's
    rundir.create(tmp_path, run, "x")
    record = rundir.read_json(tmp_path / "config.json")
    del record["config"]["paper"], record["config"]["entropy_model"]["paper"]
    rundir.write_json(tmp_path / "config.json", record)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert rundir.load_config(tmp_path).paper.row == ""
    rundir.create(tmp_path, cfg.replace(run, **{"paper.row": "a"}), "x")
    assert rundir.load_config(tmp_path).paper.row == "a"


def test_a_run_may_start_from_another_of_its_experiment(tmp_path):
    runs = list(registry.load("llama_init", runlocal=True).runs)
    jobs = graph.of_runs(tmp_path, "x", runs[::-1])  # named after the one that starts from it
    order = [job.name for job in jobs]
    assert order.index("llama3.1") < order.index("blt-from-llama3.1")
    (late,) = [job for job in jobs if job.name == "blt-from-llama3.1"]
    assert tmp_path / "x" / "llama3.1" in late.needs
    stored = rundir.load_config(tmp_path / "x" / "blt-from-llama3.1")
    assert stored.train.init_from == str(tmp_path / "x" / "llama3.1")
    with pytest.raises(UserError, match="starts from llama3.1, which is not trained and not among"):
        graph.of_runs(tmp_path / "other", "x", runs[-1:])
    with pytest.raises(UserError, match="starts from a, which starts from it"):
        graph.of_runs(tmp_path, "y", [cfg.replace(runs[0], **{"name": "a", "train.init_from": "run:a"})])


def test_runs_have_their_own_numbers_of_seeds(tmp_path):
    text = (ROOT / "tests" / "tiny_experiment.py").read_text()
    path = tmp_path / "own.py"
    path.write_text(text.replace("runs=runs)", "runs=runs, seeds=(1, 2, 1))"))
    assert [run.name for run in registry.load(str(path)).runs] == ["bpe", "entropy", "entropy-seed1", "space"]
    assert len(registry.load(str(path), seeds=2).runs) == 6
    path.write_text(text.replace("runs=runs)", "runs=runs, seeds=(1, 2))"))
    with pytest.raises(UserError, match="seeds has 2 numbers for 3 runs"):
        registry.load(str(path))


TRACES = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
from bltjax import config as cfg
from bltjax import flops, models
from bltjax.compile import aot
from bltjax.experiments import registry
from bltjax.parallel import host, sharding

host.collect_cycles_rarely()
mesh = sharding.make_mesh((1, 4, 1))
seen, wired = set(), set()
for name in sys.argv[1].split(","):
    for run in registry.load(name).runs:
        run = cfg.replace(run, **{"data.rows": 4, "train.accumulate": 1})
        # layers are stacked: more of them are the same leaves, longer
        depth = ("layers", "encoder_layers", "decoder_layers", "dtype", "remat")
        widths = {k: v for k, v in cfg.flat(run.model).items() if k.split(".")[-1] not in depth}
        if (key := cfg.fingerprint(widths)) in seen:
            continue
        seen.add(key)
        models.check_mesh(run, (1, 4, 1))  # the layout of every parameter
        shapes = models.shapes_of(run.model)
        assert flops.params(run)["total"] == sum(leaf.size for leaf in jax.tree.leaves(shapes)), run.name
        # a program is the same for every size and number, but for none of it (no window, no n-grams)
        sizes = ("width", "ffn", "heads", "layers", "rows", "vocab", "window", "k", "sizes")
        sizes += ("encoder_layers", "decoder_layers", "dtype", "remat")
        wiring = {
            k: bool(v) if k.split(".")[-1] in sizes or isinstance(v, float) else v
            for k, v in cfg.flat(run.model).items()
        }
        wiring["several"] = cfg.flat(run.model).get("local.encoder_layers", 1) > 1
        how = {k: run.model[k] for k in ("kind", "dtype", "remat")}
        keys = {cfg.fingerprint(wiring), cfg.fingerprint(how)}
        if keys <= wired:
            continue
        wired |= keys
        aot.traced(cfg.replace(run, **{"data.context": min(512, run.data.context)}), mesh)
print(len(seen), len(wired))
"""


@pytest.mark.slow
def test_every_registered_run_traces_on_a_mesh():
    """Every model's parameters have a layout and are as many as are counted; the training step of every
    wiring (all but sizes and numbers), and each kind in every dtype and with every remat, is traced on four
    devices."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", TRACES, ",".join(ALL)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen, wired = map(int, done.stdout.split())
    assert seen > 50 and wired > 5
