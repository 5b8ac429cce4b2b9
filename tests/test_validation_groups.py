"""Bits per byte by group of the text: of a sample while a run trains, of the test text at its end, in
reports; and that the sample changes nothing else."""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from fabricated_runs import add_run, analysed
from prepared_texts import data
from test_dictionary import undocumented

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.data import corpus, prepare, splits
from bltjax.report import by_group
from bltjax.results import run_directories
from bltjax.run import evaluate
from bltjax.storage import rundir
from bltjax.training import checkpoint, metrics, trackers

HERE = pathlib.Path(__file__).parent
STEPS, EVERY, SAMPLE = 12, 4, 1500


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Three languages of different share."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    words = {"a": ["alpha", "beta", "gamma"], "b": ["uno", "dos", "tres"], "c": ["eins", "zwei", "drei"]}
    langs = rng.choice(list("aaabbc"), 180)
    lines = [
        json.dumps({"text": " ".join(rng.choice(words[lang], n)) + f" {i}.", "lang": lang})
        for i, (lang, n) in enumerate(zip(langs, rng.integers(8, 60, 180)))
    ]
    (folder / "a.jsonl").write_text("\n".join(lines))
    prepare.prepare(data(folder, test=0.15, validation=0.15), folder / "out")
    return folder / "out"


def arguments(prepared, out, name, *settings):
    said = [
        "data.source=prepared",
        f"data.folder={prepared}",
        "budget_flops=0",
        f"train.steps={STEPS}",
        "train.checkpoint_every=6",
        "train.keep=9",
        f"eval.every={EVERY}",
        f"eval.sample_bytes={SAMPLE}",
        *settings,
    ]
    own = ["--config", str(HERE / "tiny_experiment.py"), "--run", name, "--run-dir", str(out)]
    return ["train", *own, *(part for one in said for part in ("--set", one))]


def train(prepared, out, name="bpe", *settings, code=0):
    assert main.main(arguments(prepared, out, name, *settings)) == code
    return out


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """A run of two families, and one of them that scores nothing while it trains."""
    root = tmp_path_factory.mktemp("runs") / "e"
    for name in ("space", "bpe"):
        train(prepared, root / name, name)
    train(prepared, root / "silent", "bpe", "eval.every=0")
    return root


def lines(run_dir):
    return [
        {key: value for key, value in line.items() if key not in metrics.WALL_CLOCK}
        for line in metrics.read(run_dir / "metrics.jsonl")
    ]


def validations(run_dir):
    return {line["step"]: line["validation"] for line in lines(run_dir) if "validation" in line}


def evaluation(run_dir):
    return json.loads((run_dir / "eval.json").read_text())


def params(run_dir):
    return checkpoint.load_params(run_dir)


def test_every_family_is_scored_on_the_same_sample(runs, prepared):
    chosen = splits.first(splits.opened({str(prepared): 1.0}).validation, SAMPLE)
    assert 1 < len(chosen) < len(chosen.documents) and chosen.lengths.sum() >= SAMPLE
    for name in ("space", "bpe"):
        said = rundir.read_json(runs / name / "planned.json")["validation"]
        assert said["every"] == EVERY and said["bytes"] == chosen.lengths.sum()
        assert said["documents_digest"] == evaluate.digest(list(chosen)) and said["documents"] == len(chosen)
        found = validations(runs / name)
        assert list(found) == [4, 8, 12]
        names = {chosen.group_names[i] for i in chosen.groups}
        for one in found.values():
            assert set(one["groups"]) == names and all(bits > 0 for bits in one["groups"].values())
            assert one["bpb_of_groups"] == pytest.approx(np.mean(list(one["groups"].values())))
            sizes = np.bincount(chosen.groups, chosen.lengths, len(chosen.group_names))
            micro = sum(one["groups"][n] * s for n, s in zip(chosen.group_names, sizes) if s) / sizes.sum()
            assert one["bpb"] == pytest.approx(micro)
        assert found[12]["bpb"] < found[4]["bpb"]
        documents = evaluation(runs / name)["validation"]["documents"][: len(chosen)]
        nats, size = (sum(d[key] for d in documents) for key in ("nats", "bytes"))
        # after the last step the parameters are those that are scored at the end
        assert found[12]["bpb"] == pytest.approx(nats / size / math.log(2), rel=1e-5)


def test_it_changes_neither_what_is_learned_nor_what_is_scored(runs):
    plain = [{k: v for k, v in line.items() if k != "validation"} for line in lines(runs / "bpe")]
    assert plain == lines(runs / "silent")
    assert jax.tree.all(jax.tree.map(np.array_equal, params(runs / "bpe"), params(runs / "silent")))
    with_it, without = evaluation(runs / "bpe"), evaluation(runs / "silent")
    assert with_it.pop("config_fingerprint") != without.pop("config_fingerprint") and with_it == without
    assert rundir.read_json(runs / "silent" / "planned.json")["validation"] is None


@pytest.mark.parametrize("last", [6, 12])
def test_a_resumed_run_writes_the_same_numbers(runs, prepared, tmp_path, last):
    """As it was when it was killed after step 12: the last whole checkpoint that of step 6, or that of 12."""
    shutil.copytree(runs.parent / "_shared", tmp_path / "_shared")
    out = tmp_path / "e" / "bpe"
    shutil.copytree(runs / "bpe", out)
    for name in ("done.json", "eval.json"):
        (out / name).unlink()
    if last == 6:
        shutil.rmtree(out / "checkpoints" / "12")
        (out / "checkpoints" / "12.manifest.json").unlink()
    train(prepared, out)
    assert lines(out) == lines(runs / "bpe") and evaluation(out) == evaluation(runs / "bpe")
    assert jax.tree.all(jax.tree.map(np.array_equal, params(out), params(runs / "bpe")))


def test_test_text_is_scored_by_group(runs, prepared):
    text = splits.opened({str(prepared): 1.0}).test
    for name in ("space", "bpe"):
        test = evaluation(runs / name)["test"]
        assert [g["bytes"] for g in test["groups"]] == sorted(
            (g["bytes"] for g in test["groups"]), reverse=True
        )
        for group in test["groups"]:
            own = [
                document
                for document, number in zip(test["documents"], text.groups)
                if text.group_names[number] == group["group"]
            ]
            assert group["documents"] == len(own) and group["bytes"] == sum(d["bytes"] for d in own)
            assert group["nats"] == pytest.approx(sum(d["nats"] for d in own))
            assert group["bpb"] == pytest.approx(group["nats"] / group["bytes"] / math.log(2))
        assert {g["group"] for g in test["groups"]} == {"a", "b", "c"}
        assert sum(g["bytes"] for g in test["groups"]) == test["bytes"]
        assert test["bpb_of_groups"] == pytest.approx(np.mean([g["bpb"] for g in test["groups"]]))
        assert undocumented(runs / name) == {}


def test_on_a_mesh_the_numbers_are_those_of_one_device(runs, prepared, tmp_path):
    out = tmp_path / "e" / "bpe"
    command = [sys.executable, "-m", "bltjax.cli.main", *arguments(prepared, out, "bpe")]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent)}
    subprocess.run([*command, "--devices", "2", "--mesh", "2x1"], env=env, check=True, capture_output=True)
    assert rundir.read_json(out / "config.json")["mesh"]["data"] == 2
    found, wanted = validations(out), validations(runs / "bpe")
    assert list(found) == list(wanted)
    for step, one in wanted.items():
        assert found[step]["bpb"] == pytest.approx(one["bpb"], rel=1e-4)
        assert found[step]["groups"] == pytest.approx(one["groups"], rel=1e-4)


def test_text_of_one_group_has_only_a_total(prepared, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    every = [d for split in corpus.SPLITS for d in getattr(splits.opened({str(prepared): 1.0}), split)]
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": d.decode()}) for d in every))
    prepare.prepare(data(folder, test=0.15, validation=0.15, group_field=""), folder / "out")
    out = train(folder / "out", tmp_path / "e" / "bpe", "bpe", "train.steps=4")
    (found,) = validations(out).values()
    assert found["bpb"] > 0 and found["bpb_of_groups"] is None and found["groups"] is None
    assert evaluation(out)["test"]["groups"] is None and undocumented(out) == {}


@pytest.mark.parametrize(
    "setting, said",
    [
        ("eval.every=-2", "eval.every is -2; it must be -1 or more"),
        ("eval.every=often", "eval.every"),
        ("eval.every=0.5", "eval.every"),
        ("eval.sample_bytes=0", "eval.sample_bytes is 0; it must be 1 or more"),
    ],
)
def test_a_value_that_cannot_be_meant_is_one_line(prepared, tmp_path, capsys, setting, said):
    train(prepared, tmp_path / "e" / "bpe", "bpe", setting, code=2)
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


class Texts:
    """Documents of three groups whose lengths hang on their group."""

    fingerprint, group_names = "texts", ("long", "short", "rare")

    def __init__(self, seed, count=400):
        rng = np.random.default_rng(seed)
        self.groups = rng.choice(3, count, p=[0.2, 0.75, 0.05])
        self.lengths = rng.integers(50, np.array([3000, 200, 900])[self.groups])

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        return b"ab c" * (int(self.lengths[i]) // 4) + b"." * (int(self.lengths[i]) % 4)


def test_the_sample_has_each_group_in_its_share_of_bytes():
    shares = []
    for seed in range(1000):
        chosen = splits.first(Texts(seed, 60), 8000)
        shares.append(np.bincount(chosen.groups, chosen.lengths, 3))
    whole = sum(np.bincount(t.groups, t.lengths, 3) for t in map(Texts, range(3000, 3300)))
    shares = np.array(shares) - np.sum(shares, axis=1, keepdims=True) * whole / whole.sum()
    assert (abs(shares.mean(0)) < 4 * shares.std(0) / math.sqrt(len(shares))).all()


def test_by_default_it_costs_two_percent_at_most(prepared):
    text = types.SimpleNamespace(validation=Texts(0))
    inputs = types.SimpleNamespace(text=text, entropies=lambda chosen: None, tokenizer=None)
    from tiny_experiment import get_config

    (config,) = (run for run in get_config().runs if run.name == "space")
    sample = lambda steps, **changes: evaluate.sample(cfg.replace(config, **changes), inputs, steps, None)
    whole = sample(10**6)
    assert whole.every == 10**5 and whole.facts()["share_of_training"] < 0.02
    batches = whole.text.windows.batches
    assert batches == len(list(whole.text.windows))
    some = sample(60 * batches)
    assert some.every == math.ceil(batches / 3 / 0.02) and 0.0195 < some.facts()["share_of_training"] <= 0.02
    assert sample(40) is None and sample(10**6, **{"eval.every": 0}) is None
    # of what is scored at the end there are entropies, and no more
    less = sample(10**6, **{"eval.validation_bytes": 2000})
    assert sum(less.text.sizes) == splits.first(text.validation, 2000).lengths.sum()


def test_a_name_of_a_shared_directory_knows_nothing_of_it():
    from tiny_experiment import get_config

    lm = get_config().runs[1].entropy_model
    assert cfg.identified(lm)["eval"] == {"test_bytes": 0, "validation_bytes": 0}
    assert cfg.identified(cfg.replace(lm, **{"eval.every": 7}))["eval"]["every"] == 7


def test_numbers_of_groups_reach_tensorboard(tmp_path, monkeypatch):
    written = []
    board = types.SimpleNamespace(add_scalar=lambda *one: written.append(one), close=lambda: None)
    monkeypatch.setattr(trackers, "_board", lambda folder: board)
    writer = metrics.Writer(tmp_path / "metrics.jsonl", trackers.chosen(tmp_path, None, tensorboard=True))
    own = {"bpb": 2.0, "bpb_of_groups": None, "groups": {"cs": 1.5}}
    writer.write({"step": 3, "bpb": 4.0, "packing_patches": None, "time": 1.0, "validation": own})
    writer.close()
    assert written == [("bpb", 4.0, 3), ("validation/bpb", 2.0, 3), ("validation/groups/cs", 1.5, 3)]


def test_a_long_line_of_many_groups_is_read(tmp_path):
    many = {f"group {i}": 1.0 for i in range(2000)}
    kept = [{"step": i, "useful_flops": 1.0, "validation": {"groups": many}} for i in (1, 2)]
    for count in (1, 2):
        text = "".join(json.dumps(line) + "\n" for line in kept[:count]) + '{"torn'
        (tmp_path / "metrics.jsonl").write_text(text)
        assert rundir.last_metrics(tmp_path)["step"] == count


def with_groups(path, sizes, level=2.0):
    found = json.loads((path / "eval.json").read_text())
    found["test"]["groups"] = [
        {"group": f"g{i}", "documents": 1, "bytes": size, "nats": size * level * (1 + i / 100), "bpb": 0.0}
        for i, size in enumerate(sizes)
    ]
    (path / "eval.json").write_text(json.dumps(found))


def test_the_report_has_a_table_of_groups(tmp_path):
    for seed, level in ((0, 2.0), (1, 3.0)):
        path = add_run(tmp_path, "bpe", 1e11, name=f"bpe-{seed}", seed=seed, noise_seed=seed)
        with_groups(path, [100, 400, 200], level)
    with_groups(add_run(tmp_path, "blt-space", 1e11), range(1, 41))
    add_run(tmp_path, "blt-entropy", 1e11)  # of before
    rows = analysed(tmp_path)["runs"]
    table = by_group.table(rows, run_directories.read_experiment(tmp_path))
    assert table["columns"][:5] == ["series", "budget", "mean of 40", "g1", "g2"]
    assert table["columns"][-1] == "25 others" and len(table["columns"]) == 3 + by_group.SHOWN + 1
    assert [row[0] for row in table["rows"]] == ["bpe", "blt-space"]
    bpe = dict(zip(table["columns"], table["rows"][0]))
    assert bpe["g1"] == f"{2.5 * 1.01 / math.log(2):.3f}" and bpe["g30"] == "–"
    assert bpe["mean of 40"] == f"{2.5 * 1.01 / math.log(2):.4f}"
    assert by_group.table([r for r in rows if r["series"] == "blt-entropy"], []) is None
