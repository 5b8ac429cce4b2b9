"""Runs that start from other models: a run, a Hugging Face Blt with its entropy model, a Llama as the global
model; learning rates by group."""

import json
import os
import pathlib
import subprocess
import sys

import hf_blt
import jax
import numpy as np
import optax
import pytest
import test_llama

from bltjax import api
from bltjax import config as cfg
from bltjax.cli import main
from bltjax.data import splits
from bltjax.errors import UserError
from bltjax.run import inputs, warm_start
from bltjax.storage import rundir
from bltjax.training import checkpoint, optimizer

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for i in range(12):
        (folder / f"{i}.txt").write_text(
            "".join(f"line {j} of text {i}: {i * j} is {i} times {j}\n" for j in range(40))
        )
    return folder


def arguments(run, out, *more):
    """Of `bltjax train`, for a run of the tiny experiment in a directory."""
    chosen = ["train", "--config", HERE / "tiny_experiment.py", "--run", run, "--run-dir", out]
    return [str(argument) for argument in (*chosen, *more)]


def settings(texts, *more):
    """--set for all of: text files, and what else is said."""
    pairs = (f'data.globs=["{texts}/*.txt"]', "data.source=files", *more)
    return [argument for pair in pairs for argument in ("--set", pair)]


SHORT = ("train.steps=6", "budget_flops=0")


def train(tmp_path, texts, name, *more, run="space", code=0):
    out = tmp_path / "runs" / "tiny" / name
    ended = main.main(arguments(run, out, *settings(texts, *SHORT), *more))
    assert ended == code
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def one(root, texts):
    """A run, from which others start."""
    return train(root, texts, "one")


@pytest.fixture(scope="module")
def two(root, texts, one):
    """A run from `one` that leaves it as it was."""
    return train(root, texts, "two", "--from", one, "--set", "train.lr=1e-9")


@pytest.fixture(scope="module")
def wide(root, texts):
    """A run on less text: most is test text."""
    return train(root, texts, "wide", "--set", "data.test=0.7")


def first_loss(run_dir):
    return json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])["loss"]


def test_from_a_run(root, texts, one, two):
    before, after = (checkpoint.load_params(d) for d in (one, two))
    for left, right in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-7)
    assert first_loss(two) < first_loss(one)
    record = json.loads((two / "config.json").read_text())["config"]["train"]["init_from"]
    assert record == str(one)
    # done already, and the same run
    assert train(root, texts, "two", "--from", one, "--set", "train.lr=1e-9") == two


def test_no_text_of_one_run_is_test_text_of_the_other(root, texts, one, two, wide, capfd):
    """Split alike, a run goes on from another; split otherwise, what one trained on is what the other is
    tested on."""
    capfd.readouterr()
    refused = train(root, texts, "refused", "--from", one, "--set", "data.test=0.7", code=2)
    said = capfd.readouterr().err
    assert "trained on text that is test text here" in said and said.count("\n") == 1
    assert not (refused / "checkpoints").exists()
    train(root, texts, "narrow", "--from", wide, code=2)
    assert "is tested on text that is training text here" in capfd.readouterr().err
    train(root, texts, "third", "--from", two)  # which itself is from another


def test_no_entropy_model_has_seen_test_text(one, wide, capfd):
    """One that is there already, and trained on what is test text here, gives no entropies: neither to a run
    nor to `bltjax data annotate`. What it was tested on may be training text."""
    tested, seen = (splits.opened(inputs.folders(run)) for run in (wide, one))
    config = rundir.load_config(wide)
    given = cfg.run(
        "lm",
        "entropy-model",
        cfg.transformer("byte", vocab=260, width=32, layers=1, heads=1),
        training_=cfg.replace(cfg.training(), init_from=str(one)),
    )
    config = cfg.replace(config, entropy_model=given)
    warm_start.check_text(config, seen)
    with pytest.raises(UserError, match="trained on text that is test text here"):
        warm_start.check_text(config, tested)
    warm_start.check_start(str(wide), seen, entropies=True)
    capfd.readouterr()
    (folder,) = inputs.folders(wide)
    assert main.main(["data", "annotate", folder, "--entropy-model", str(one)]) == 2
    said = capfd.readouterr().err
    assert "take entropies from another model" in said and said.count("\n") == 1


def test_from_hugging_face_with_its_entropy_model(tmp_path, texts, capfd):
    out = train(tmp_path, texts, "hf", "--from", hf_blt.HF, run="entropy")
    planned = json.loads((out / "planned.json").read_text())
    assert (
        planned["threshold"] == pytest.approx(1.335442066192627)
        and planned["entropy_model"]["train_flops"] == 0.0
    )
    model = api.load(out)
    assert model.config.model.preset == "released" and model.entropy_model.config.model.window == 16
    assert model.patch("some text") == api.load(hf_blt.HF).patch("some text")
    assert len(model.generate([b"some"], 8)[0]) <= 8


def test_llama_into_a_blt(tmp_path, texts, capfd):
    test_llama.llama_directory(tmp_path / "llama")
    shape = (
        "--set",
        "model.latent.width=48",
        "--set",
        "model.latent.layers=2",
        "--set",
        "model.latent.heads=4",
        "--set",
        "model.latent.ffn=64",
    )
    out = train(tmp_path, texts, "llama", "--from", tmp_path / "llama", *shape)
    config = json.loads((out / "config.json").read_text())["config"]
    assert config["train"]["lr_scale"] == ["latent/blocks=0.1"] and config["model"]["latent"][
        "rope_scaling"
    ] == [8.0, 1.0, 4.0, 32.0]
    code = main.main(arguments("space", tmp_path / "x", "--from", tmp_path / "llama"))
    assert (
        code == 2
        and "must have the checkpoint's shape" in capfd.readouterr().err
        and not (tmp_path / "x").exists()
    )
    code = main.main(arguments("bpe", tmp_path / "x", "--from", hf_blt.HF))
    assert code == 2 and "kind 'blt'" in capfd.readouterr().err and not (tmp_path / "x").exists()


def test_a_llama_goes_on_as_a_bpe_model(tmp_path, texts, capfd):
    """With its own tokenizer, which the run keeps; and what it becomes goes on in the same way."""
    folder = test_llama.llama_with_tokenizer(tmp_path / "llama", 288, eos_token_id=[1, 2])
    one = train(tmp_path, texts, "llama-1", "--from", folder, "--set", "train.lr=1e-9", run="bpe")
    before, after = api.load(folder), api.load(one)
    assert after.tokenizer.token_bytes == before.tokenizer.token_bytes and after.config.tokenizer.ends == (
        1,
        2,
    )
    ids = before.tokenizer.encode(b"line 3 of text")[None]
    np.testing.assert_allclose(before.logits(ids), after.logits(ids), atol=1e-4)
    two = train(tmp_path, texts, "llama-2", "--from", one, run="bpe")
    assert api.load(two).tokenizer.fingerprint == after.tokenizer.fingerprint
    code = main.main(arguments("bpe", tmp_path / "x", "--set", "tokenizer.kind=given"))
    assert code == 2 and "train.init_from" in capfd.readouterr().err


def test_a_tokenizer_of_a_file(tmp_path, texts, capfd):
    pytest.importorskip("sentencepiece")
    path = HERE / "golden" / "sentencepiece.model"
    changes = (
        "--set",
        "tokenizer.kind=file",
        "--set",
        f"tokenizer.path={path}",
        "--set",
        "tokenizer.vocab=700",
        "--set",
        "model.vocab=700",
    )
    model = api.load(train(tmp_path, texts, "file", *changes, run="bpe"))
    assert (
        model.tokenizer.kind == "sentencepiece"
        and b"".join(model.patch("line 3 of text")) == b"line 3 of text"
    )
    given = arguments("bpe", tmp_path / "x", "--set", f'data.globs=["{texts}/*.txt"]')
    for more, says in (
        (("--set", "tokenizer.kind=file"), "goes with kind 'file'"),
        (changes[:4], "700 entries, the model 300"),
    ):
        assert main.main([*given, *more]) == 2
        assert says in capfd.readouterr().err


def test_a_run_that_was_refused_leaves_its_place(tmp_path, texts, capfd):
    """A mistake that is found after the directory was made does not bar the command that mends it; a run that
    has begun does."""
    given = arguments("space", tmp_path / "runs" / "tiny" / "x", *settings(texts))
    assert main.main([*given, "--set", "budget_flops=1e6"]) == 2
    assert "fewest" in capfd.readouterr().err
    assert main.main([*given, "--set", "budget_flops=0", "--set", "train.steps=6"]) == 0
    capfd.readouterr()
    assert main.main([*given, "--set", "budget_flops=0", "--set", "train.steps=7"]) == 2
    assert "another config" in capfd.readouterr().err


def test_learning_rates_by_group():
    """A group's updates are those of another learning rate, weight decay included; the others' are
    untouched."""
    params = {
        "latent": {"blocks": {"w": np.ones(3, np.float32)}, "project": np.ones(2, np.float32)},
        "head": np.ones(2, np.float32),
    }
    grads = jax.tree.map(lambda x: 0.1 * np.arange(1, 1 + len(x), dtype=np.float32), params)

    def updates(**changes):
        made = optimizer.optimizer(cfg.replace(cfg.training(), clip=0.0, warmup=0, **changes), 10)
        return made.update(grads, made.init(params), params)[0]

    plain, grouped = updates(), updates(lr_scale=("latent/blocks=0.1",))
    np.testing.assert_allclose(
        grouped["latent"]["blocks"]["w"], 0.1 * plain["latent"]["blocks"]["w"], rtol=1e-6
    )
    np.testing.assert_array_equal(grouped["head"], plain["head"])
    np.testing.assert_array_equal(
        updates(lr_scale=("latent=0", "latent/blocks=1"))["latent"]["blocks"]["w"],
        plain["latent"]["blocks"]["w"],
    )
    slower = updates(lr=4e-5, lr_scale=("latent=1",))
    np.testing.assert_allclose(grouped["latent"]["blocks"]["w"], slower["latent"]["blocks"]["w"], rtol=1e-5)
    assert isinstance(optimizer.optimizer(cfg.training(), 10), optax.GradientTransformation)


@pytest.mark.parametrize("scale", ["latent", "latent=x", "latent=-1", "=2", "latent=inf"])
def test_groups_that_cannot_be(scale):
    with pytest.raises(UserError, match="PATH=FACTOR"):
        cfg.lr_scales(cfg.replace(cfg.training(), lr_scale=(scale,)))
    with pytest.raises(UserError, match="no parameter is below"):
        made = optimizer.optimizer(cfg.replace(cfg.training(), lr_scale=("nothing/here=2",)), 10)
        params = {"head": np.ones(2, np.float32)}
        made.update(params, made.init(params), params)


@pytest.mark.slow
def test_on_a_mesh(root, texts, one):
    """Started from another run on two devices: the losses of one device."""
    here = train(root, texts, "here", "--from", one)
    out, mesh = root / "runs" / "tiny" / "mesh", ("--mesh", "2", "--devices", "2")
    trained = arguments("space", out, *settings(texts, *SHORT), "--from", one, *mesh)
    command = [sys.executable, "-m", "bltjax.cli.main", *trained]
    done = subprocess.run(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (here, out)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_configs_of_earlier_versions(tmp_path):
    """Keys that sections have gained since a run was written are filled in, and nothing else is touched."""
    from bltjax.experiments import registry

    for run in registry.load(str(HERE / "tiny_experiment.py")).runs:
        assert cfg.to_dict(cfg.completed(run)) == cfg.to_dict(run)
        old = cfg.to_dict(run)
        for path in (
            ("data", "mix"),
            ("patching", "resolution"),
            ("model", "rope_scaling"),
            ("model", "latent", "rope_theta"),
            ("entropy_model", "model", "reset"),
            ("entropy_model", "train", "keep"),
        ):
            node = old
            for key in path[:-1]:
                node = node.get(key, {})
            node.pop(path[-1], None)
        assert cfg.to_dict(cfg.completed(cfg.from_dict(old))) == cfg.to_dict(run)
