"""Plans from configs alone, the registry, and compute_optimal's table against the paper's formulas written
out again."""

import json
import math

import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import flops
from bltjax.errors import UserError
from bltjax.experiments import registry
from bltjax.run import budget as budgets
from bltjax.sweep import plan as planning
from bltjax.sweep import speed

PLAN_KEYS = {
    "name",
    "family",
    "size",
    "patch_size",
    "params_latent",
    "params_total",
    "params_hash",
    "flops_per_byte_paper",
    "flops_per_byte_exact",
    "train_bytes",
    "train_flops",
    "steps",
    "batch_bytes",
    "budget_flops",
    "entropy_model",
}


def blt_run(name="r", budget=1e12, **changes):
    lm = cfg.run(
        "lm",
        "entropy-model",
        cfg.transformer("byte", vocab=260, width=64, layers=2, heads=2, window=128),
        budget_flops=1e12,
    )
    model = cfg.blt_model(
        local_width=64,
        encoder_layers=1,
        decoder_layers=1,
        local_heads=2,
        global_width=128,
        global_layers=2,
        global_heads=2,
        k=2,
        ngram_rows=100,
        window=64,
    )
    run = cfg.run(
        name,
        "blt-entropy",
        model,
        patching_=cfg.patching("entropy", 5),
        entropy_model=lm,
        budget_flops=budget,
    )
    return cfg.replace(run, **changes)


def test_plan_spends_the_budget_in_whole_steps():
    (planned,) = planning.plan([blt_run()])
    assert PLAN_KEYS <= set(planned) and json.loads(json.dumps(planned)) == planned
    assert (
        planned["batch_bytes"] == 8 * 512
        and planned["train_bytes"] == planned["steps"] * planned["batch_bytes"]
    )
    assert planned["train_flops"] == pytest.approx(
        3 * planned["flops_per_byte_exact"] * planned["train_bytes"]
    )
    assert abs(planned["train_flops"] - 1e12) <= planned["train_flops"] / planned["steps"] / 2
    assert planned["executed_flops"] > planned["train_flops"]
    assert planned["state_bytes"] == 4 * 4 * planned["params_total"]
    assert (
        abs(planned["entropy_model"]["train_flops"] / 1e12 - 1) < 0.01
        and planned["entropy_model"]["exact"] > 0
    )
    assert planned["params_hash"] == 6 * 100 * 64


def test_steps_given_are_the_steps():
    assert planning.plan([blt_run(**{"train.steps": 7})])[0]["steps"] == 7
    with pytest.raises(UserError, match="run r: neither budget_flops nor train.steps"):
        planning.plan([blt_run(budget=0)])


def test_a_budget_too_small_names_the_run_and_what_would_do():
    with pytest.raises(
        UserError, match=r"^run tiny: .* pays for 5\d steps.*budget of (\S+) FLOPs, or batches of (\d+) rows"
    ) as caught:
        planning.plan([blt_run("tiny", 4e11)])
    words = str(caught.value)
    budget, rows = (
        float(words.split("budget of ")[1].split()[0]),
        int(words.split("batches of ")[1].split()[0]),
    )
    assert planning.plan([blt_run("tiny", budget)])[0]["steps"] >= 100
    assert planning.plan([blt_run("tiny", 4e11, **{"data.rows": rows})])[0]["steps"] >= 100
    with pytest.raises(UserError):
        planning.plan([blt_run("tiny", 4e11, **{"data.rows": rows + 1})])
    with pytest.raises(UserError) as caught:
        planning.plan([blt_run("tiny", 1e10)])
    assert "rows" not in str(caught.value)  # not even one row a batch would do


def test_steps_for_budget_is_nearest():
    useful = np.random.default_rng(0).uniform(0.8, 1.2, 400)
    for budget in (110.0, 200.3, 333.3):
        steps = budgets.steps_for_budget(useful, budget)
        assert all(
            abs(useful[:steps].sum() - budget) <= abs(useful[:other].sum() - budget)
            for other in (steps - 1, steps + 1)
        )
    with pytest.raises(UserError, match="run x: .* 50 steps"):
        budgets.steps_for_budget(np.ones(400), 50, "x", 8)
    with pytest.raises(UserError, match="pays for 50 steps.* needs a budget of 130 FLOPs"):
        budgets.steps_for_budget(np.ones(400), 50, "x", 8, full_step=1.3)  # later steps may cost more
    with pytest.raises(UserError, match="off"):
        budgets.steps_for_budget(np.array([1.0] * 100 + [50.0] * 9), 121)
    with pytest.raises(ValueError, match="more"):
        budgets.steps_for_budget(np.ones(400), 500)


def test_tables_for_the_terminal():
    bpe = cfg.run(
        "bpe-r",
        "bpe",
        cfg.transformer("token", vocab=512, width=64, layers=2, heads=2),
        budget_flops=1e12,
        tokenizer_=cfg.tokenizer("trained", 512, 3.0),
    )
    plans = planning.plan([blt_run(), bpe])
    for p in plans:
        p["seconds_here"] = planning.seconds(p, 1e9)
    text = planning.text_table(plans)
    assert "bpe-r" in text and "min" in text and max(map(len, text.splitlines())) < 160


def test_this_machine_has_a_speed():
    with speed.measuring() as machine_flops:
        assert 1e7 < machine_flops() < 1e16


# The registry.

RUN = """
from ml_collections import ConfigDict
from bltjax import config as cfg
def run(name, family="bpe"):
    small = dict(width=32, layers=1, heads=1)
    lm = cfg.run("lm", "entropy-model", cfg.transformer("byte", vocab=260, **small), budget_flops=1e10)
    return cfg.run(name, family, cfg.transformer("token", vocab=512, **small), entropy_model=lm,
                   budget_flops=1e10, tokenizer_=cfg.tokenizer("trained", 512, 2.0))
"""
GOOD = RUN + """
def get_config(arg=None):
    return ConfigDict(dict(claim="c", figure="f", runs=(run("a"), run(f"b-{arg}")))).lock()
"""


def write(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_file_of_ones_own(tmp_path):
    path = write(tmp_path, GOOD)
    experiment = registry.load(path)
    assert (experiment.name, experiment.claim, experiment.figure) == ("mine", "c", "f")
    assert [r.name for r in experiment.runs] == ["a", "b-None"] and all(r.is_locked for r in experiment.runs)
    assert registry.load(path + ":x").name == "mine-x" and registry.load(path + ":x").runs[1].name == "b-x"
    local = registry.load(path, runlocal=True)
    assert local.name == "mine-runlocal" and [r.name for r in local.runs] == ["a", "b-runlocal"]


def test_overrides_reach_every_run_and_the_entropy_model_reads_the_same_text(tmp_path):
    runs = registry.load(
        write(tmp_path, GOOD), ["train.lr=0.25", "data.source=files", 'data.globs=["x/*.txt"]', "data.rows=3"]
    ).runs
    for run in runs:
        assert run.train.lr == 0.25 and run.data.source == run.entropy_model.data.source == "files"
        assert (
            run.data.globs == run.entropy_model.data.globs == ("x/*.txt",)
            and run.data.rows == 3
            and run.entropy_model.data.rows == 8
        )
    with pytest.raises(UserError, match="run a: unknown key 'train.lrr'; did you mean train.lr"):
        registry.load(write(tmp_path, GOOD), ["train.lrr=1"])
    with pytest.raises(UserError, match="unknown key 'data.heldout'; did you mean data.test"):
        registry.load(write(tmp_path, GOOD), ["data.heldout=0.1"])
    with pytest.raises(UserError, match="unknown key 'nothing'; docs/run_directory.md has them all"):
        registry.load(write(tmp_path, GOOD), ["nothing=1"])


BAD = {
    "no get_config": ("x = 1", "has no get_config"),
    "no import": (
        "import no_such_module_",
        r"fails to import: ModuleNotFoundError: .*no_such_module_.*\(line 1\)",
    ),
    "no syntax": ("def get_config(:", r"fails to import: SyntaxError.*line 1"),
    "raises": (
        "def get_config(arg=None):\n    return 1 / 0",
        r"get_config fails: ZeroDivisionError.*\(line 2\)",
    ),
    "returns nothing": ("def get_config(arg=None): pass", "must return a ConfigDict"),
    "no runs": (RUN + "def get_config(arg=None): return ConfigDict(dict(runs=()))", "at least one"),
    "not a run": (
        RUN + "def get_config(arg=None): return ConfigDict(dict(runs=(1,)))",
        "run 0 is no run config",
    ),
    "same name": (
        RUN + "def get_config(arg=None): return ConfigDict(dict(runs=(run('a'), run('a'))))",
        "two runs are named 'a'",
    ),
    "bad name": (
        RUN + "def get_config(arg=None): return ConfigDict(dict(runs=(run('../a'),)))",
        "a name is a directory",
    ),
    "a report's name": (
        RUN + "def get_config(arg=None): return ConfigDict(dict(runs=(run('report'),)))",
        "beside the runs",
    ),
    "a name too long": (
        RUN + "def get_config(arg=None): return ConfigDict(dict(runs=(run('a' * 300),)))",
        "150 characters at most",
    ),
    "family": (
        RUN + "def get_config(arg=None): return ConfigDict(dict(runs=(run('a', 'blt-entropie'),)))",
        "family is 'blt-entropie'; allowed: bpe, blt-entropy",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_mistake_in_a_file_is_one_line(tmp_path, what):
    text, message = BAD[what]
    with pytest.raises(UserError, match=message) as caught:
        registry.load(write(tmp_path, text))
    assert "\n" not in str(caught.value) and "mine.py" in str(caught.value)


def test_unknown_names_say_what_is_known(tmp_path):
    with pytest.raises(UserError, match="did you mean compute_optimal.*known: .*compute_optimal"):
        registry.load("compute_optmal")
    with pytest.raises(UserError, match="no experiment file"):
        registry.load(str(tmp_path / "none.py"))
    with pytest.raises(UserError, match="after the colon"):
        registry.load("compute_optimal:")
    with pytest.raises(UserError, match="takes no argument"):
        registry.load(write(tmp_path, "def get_config(): pass") + ":x")


# compute_optimal, against Eq. 13-17 written out a second time.


def paper_flops_per_byte(size, family, n_p):
    s = cfg.SIZES[size]
    layer = lambda h, l, m: 24 * l * h * h + 4 * l * h * (m + 1) / 2
    if family == "bpe":
        return (layer(s.global_width, s.global_layers, 8192 / 4.4) + 2 * s.global_width * 128_256) / 4.4
    l_e, h, k = 3 if n_p == 8 else 1, s.local_width, s.k
    total = (
        layer(s.global_width, s.global_layers, 8192 / n_p) / n_p
        + layer(h, l_e, 512)
        + layer(h, s.decoder_layers, 512)
        + 2 * h * 256
    )
    cross = lambda l, p, r: 4 * l * h * (p + 1) / 2 + (2 * r + 2) * 2 * l * h * h
    if family in ("blt-entropy", "blt-space"):
        total += cross(l_e, n_p, n_p / k) * k / n_p + cross(s.decoder_layers, k, k / n_p)
    return total


def test_compute_optimal_is_figure_6():
    experiment = registry.load("compute_optimal")
    plans = {p["name"]: p for p in planning.plan(experiment)}
    latent = {"400M": 471.9e6, "1B": 1.2583e9, "2B": 2.0447e9, "4B": 4.0769e9, "8B": 6.4425e9}
    patched = {
        ("blt-entropy", 4.5),
        ("blt-entropy", 6),
        ("blt-entropy", 8),
        ("blt-space", 6),
        ("blt-space-no-cross", 6),
        ("spacebyte", 6),
        ("megabyte", 4),
        ("megabyte", 6),
    }
    assert set(plans) == {f"{f}-{p:g}-{size}" for size in latent for f, p in patched} | {
        f"bpe-{size}" for size in latent
    }
    for p in plans.values():
        assert p["params_latent"] == pytest.approx(latent[p["size"]], rel=1e-4)
        assert p["flops_per_byte_paper"] == pytest.approx(
            paper_flops_per_byte(p["size"], p["family"], p["patch_size"]), rel=1e-9
        )
        assert 1.0 <= p["flops_per_byte_exact"] / p["flops_per_byte_paper"] < 1.06 and p["context"] == 8192
        no_tables = p["family"] in ("bpe", "spacebyte", "megabyte")
        assert p["params_hash"] == (0 if no_tables else 6 * 500_000 * cfg.SIZES[p["size"]].local_width)
        assert p["entropy_model"]["params"] == (99_512_064 if p["family"] == "blt-entropy" else 0)
    for size in latent:  # equal conditions
        same = [p for p in plans.values() if p["size"] == size]
        assert len({p["budget_flops"] for p in same}) == len({p["batch_bytes"] for p in same}) == 1
    assert plans["blt-entropy-6-400M"]["flops_per_byte_paper"] == pytest.approx(3.16e8, rel=2e-3)
    assert plans["blt-entropy-8-8B"]["flops_per_byte_paper"] == pytest.approx(2.10e9, rel=2e-3)
    assert flops.params_paper(next(r for r in experiment.runs if r.name == "blt-entropy-8-8B"))[
        "total"
    ] == pytest.approx(6.68e9, rel=1e-3)


def test_compute_optimal_budgets_are_on_llama_3s_law():
    plans = {p["name"]: p for p in planning.plan(registry.load("compute_optimal"))}
    budgets = [plans[f"bpe-{size}"]["budget_flops"] for size in cfg.SIZES]
    # the figure's axis: 2e20 to 1.25e22
    assert budgets == sorted(budgets) and 1e22 > budgets[-1] > 5e21 and 2e20 < budgets[1] < 4e20
    # Table 2: 50B bytes are optimal near 470M, 400B near 3.9B; 8B models had about 27 tokens per parameter.
    assert plans["bpe-400M"]["train_bytes"] == pytest.approx(50e9, rel=0.1)
    assert plans["bpe-4B"]["train_bytes"] == pytest.approx(400e9, rel=0.1)
    for size in cfg.SIZES:
        p = plans[f"bpe-{size}"]
        tokens = p["train_bytes"] / 4.4
        assert tokens == pytest.approx(
            0.29 * p["budget_flops"] ** (math.log(16.55e12 / 0.29) / math.log(3.8e25)), rel=0.01
        )
        assert 20 < tokens / p["params_latent"] < 32
    assert plans["bpe-8B"]["batch_bytes"] == 2**24 and all(
        p["batch_bytes"] % 8192 == 0 for p in plans.values()
    )
