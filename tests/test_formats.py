"""Released formats in and out: the golden directory, both ways, every tensor accounted for, and one line for
what is damaged."""

import json
import pathlib
import pickle
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import test_generation as generation
from hf_blt import HF, run

from bltjax import api, convert, models
from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.formats import huggingface, huggingface_export, released_batches, safetensors, weights
from bltjax.storage import locks


@pytest.fixture
def hf(tmp_path):
    return shutil.copytree(HF, tmp_path / "hf")


def expected():
    with np.load(HF / "expected.npz") as f:
        return {name: f[name] for name in f.files}


def test_logits_and_entropies_of_the_released_format(tmp_path):
    vectors = expected()
    direct = api.load(HF)
    convert.bring_in(HF, tmp_path / "ours")
    for model in (direct, api.load(tmp_path / "ours")):
        assert np.abs(model.logits(vectors["ids"], vectors["patch_lengths"]) - vectors["logits"]).max() < 1e-4
        assert np.abs(model.entropies(vectors["ids"]) - vectors["patcher_entropies"]).max() < 1e-4
    assert direct.patch("some text") == api.load(tmp_path / "ours").patch("some text")


def test_out_again(tmp_path):
    """What was imported comes out tensor for tensor, and with its config."""
    convert.bring_in(HF, tmp_path / "ours")
    convert.send_out(tmp_path / "ours", tmp_path / "out")
    before, after = safetensors.open_directory(HF), safetensors.open_directory(tmp_path / "out")
    assert set(before) == set(after)
    for name in before:
        np.testing.assert_array_equal(before.read(name), after.read(name))
    read = lambda folder: huggingface.parse(json.loads((folder / "config.json").read_text()))
    assert [cfg.to_dict(c) for c in read(HF)[:3]] == [cfg.to_dict(c) for c in read(tmp_path / "out")[:3]]


def test_shards_and_bfloat16(tmp_path, monkeypatch):
    model = api.load(HF)
    half = lambda tree: jax.tree.map(lambda x: np.asarray(x).astype(ml_dtypes.bfloat16), tree)
    monkeypatch.setattr(huggingface_export, "SHARD", 200_000)
    monkeypatch.setattr(weights, "SLICE", 4096)  # tables in many slices
    huggingface_export.save(
        model.config,
        half(model.raw_params()),
        (model.entropy_model.config.model, half(model.entropy_model.raw_params())),
        tmp_path / "out",
    )
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    convert.bring_in(tmp_path / "out", tmp_path / "ours")
    again, vectors = api.load(tmp_path / "ours"), expected()
    for left, right in zip(
        jax.tree.leaves(again.raw_params()), jax.tree.leaves(half(model.raw_params())), strict=True
    ):
        assert left.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(left, right)
    rounded = jax.tree.map(lambda x: np.asarray(x, np.float32), half(model.raw_params()))
    batch = released_batches.batch_from_lengths(vectors["ids"], vectors["patch_lengths"])
    wanted = models.logits(model.config.model, rounded, batch)
    assert np.abs(again.logits(vectors["ids"], vectors["patch_lengths"]) - wanted).max() < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {"cross.decoder": "first"},
        {"ngrams.functions": 2},
        dict(k=1, global_width=32),
        dict(encoder_layers=3, decoder_layers=1, k=3),
    ],
)
def test_every_weight_survives_both_ways(tmp_path, changes):
    """No part of any parameter is lost, in whichever shape: random weights out, in, and in once more from our
    own directory."""
    model = generation.of(
        cfg.run("m", "blt-strided", generation.blt(**changes), patching_=cfg.patching("strided", 1))
    )
    params = jax.tree.map(np.asarray, model.raw_params())
    huggingface_export.save(model.config, params, None, tmp_path / "out")
    convert.bring_in(tmp_path / "out", tmp_path / "ours")
    for again in (api.load(tmp_path / "out"), api.load(tmp_path / "ours")):
        found = again.raw_params()
        assert jax.tree.structure(found) == jax.tree.structure(params)
        for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
            np.testing.assert_array_equal(left, right)


def test_many_lengths_are_few_compilations():
    model = api.load(HF)
    api._compiled.cache_clear()
    for n in range(30, 50):
        model.logits(np.full((1, n), 70))
    function = api._compiled(models.logits, cfg_frozen(model))
    assert function._cache_size() <= 3


def cfg_frozen(model):
    from ml_collections import FrozenConfigDict

    return FrozenConfigDict(model.config.model)


def test_what_the_format_cannot_express(tmp_path):
    def refused(model, patching=cfg.patching("strided", 1)):
        run = cfg.run("m", "blt-strided", model, patching_=patching)
        with pytest.raises(UserError) as error:
            huggingface_export.save(run, {}, None, tmp_path / "out")
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
        return str(error.value)

    assert "preset `paper`" in refused(generation.blt("paper")) and "--loosely" in refused(
        generation.blt("paper")
    )
    assert "space patches" in refused(generation.blt(), cfg.patching("space", 6))
    assert "without cross-attention" in refused(generation.blt(**{"cross.encoder": "none"}))
    assert "document" in refused(cfg.replace(generation.blt(), mask_encoder_documents=True))


def test_every_tensor_is_accounted_for(hf):
    source = safetensors.open_directory(hf)
    arrays = {name: source.read(name) for name in source}

    def rewritten(change, then=lambda model: None):
        changed = change(dict(arrays))
        safetensors.write(
            hf / "model.safetensors",
            {name: (x.dtype, x.shape) for name, x in changed.items()},
            lambda name: [changed[name]],
        )
        with pytest.raises(UserError) as error:
            then(api.load(hf))
        return str(error.value)

    name = "model.local_decoder.norm.weight"
    assert f"missing tensor {name}" in rewritten(lambda a: {k: v for k, v in a.items() if k != name})
    assert "unknown tensor model.extra" in rewritten(lambda a: {**a, "model.extra": np.zeros(3, np.float32)})
    assert f"tensor {name} has shape [3]" in rewritten(lambda a: {**a, name: np.zeros(3, np.float32)})
    assert f"tensor {name} holds int32" in rewritten(lambda a: {**a, name: np.zeros(a[name].shape, np.int32)})
    assert f"tensor {name} holds NaN" in rewritten(
        lambda a: {**a, name: np.full_like(a[name], np.nan)}, lambda model: model.params
    )
    assert f"tensor {name} holds NaN" in rewritten(
        lambda a: {**a, name: np.full(a[name].shape, np.inf, ml_dtypes.bfloat16)}, lambda model: model.params
    )
    table = "model.encoder_hash_tok_embedding.weight"
    assert f"tensor {table} has shape" in rewritten(lambda a: {**a, table: a[table][:-1]})


def damage(hf, what):
    path = hf / "model.safetensors"
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif what == "truncated header":
        path.write_bytes(path.read_bytes()[:100])
    elif what == "no header":
        path.write_bytes(b"\xff" * 64)
    elif what == "no config":
        (hf / "config.json").unlink()
    elif what == "no weights":
        path.unlink()
    elif what == "another family":
        (hf / "config.json").write_text(json.dumps({"model_type": "bert"}))
    elif what == "broken config":
        (hf / "config.json").write_text("{")
    elif what == "odd config":
        config = json.loads((hf / "config.json").read_text())
        (hf / "config.json").write_text(json.dumps({**config, "encoder_config": 3}))
    elif what == "missing shard":
        path.unlink()
        (hf / safetensors.INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    elif what == "shard elsewhere":
        (hf / safetensors.INDEX).write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    elif what == "overlap" or what == "hole":
        head = path.read_bytes()
        length = int.from_bytes(head[:8], "little")
        fields = json.loads(head[8 : 8 + length])
        if what == "overlap":
            one, other = (
                name
                for name in fields
                if name.endswith("layers.0.input_layernorm.weight") and "local" in name
            )
            fields[one]["data_offsets"] = fields[other]["data_offsets"]
        text = json.dumps(fields).encode()
        path.write_bytes(
            len(text).to_bytes(8, "little")
            + text
            + head[8 + length :]
            + (b"\0" * 64 if what == "hole" else b"")
        )
    elif what == "index leaves one out":
        names = [name for name in safetensors.header(path) if "lm_head" not in name]
        (hf / safetensors.INDEX).write_text(
            json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")})
        )
    elif what.startswith("config: "):
        part, key, value = json.loads(what.removeprefix("config: "))
        config = json.loads((hf / "config.json").read_text())
        (config[part] if part else config)[key] = value
        (hf / "config.json").write_text(json.dumps(config))
    elif what == "config of none":
        (hf / "config.json").write_text("{}")
    elif what == "missing directory":
        shutil.rmtree(hf)


@pytest.mark.parametrize(
    "what, says",
    [
        ("truncated", "truncated"),
        ("truncated header", "no whole safetensors"),
        ("no header", "no whole safetensors"),
        ("no config", "neither config.json"),
        ("no weights", "no model.safetensors"),
        ("another family", "model_type 'bert'"),
        ("broken config", "cannot be read"),
        ("odd config", "cannot be understood"),
        ("missing shard", "no file"),
        ("shard elsewhere", "no file beside it"),
        ("missing directory", "no directory"),
        ("overlap", "overlap"),
        ("hole", "belong to none"),
        ("index leaves one out", "does not name"),
        ("config of none", "neither config"),
        ('config: ["global_config", "num_hidden_layers", "two"]', "global_config.num_hidden_layers is 'two'"),
        ('config: ["encoder_config", "num_hidden_layers", 1000000000]', "from 1 to 10000"),
        ('config: ["", "max_patch_length", -3]', "max_patch_length is -3"),
        ('config: ["", "local_attention_window_len", -5]', "local_attention_window_len is -5"),
        ('config: ["", "patching_threshold", NaN]', "no number"),
        ('config: ["patcher_config", "head_dim", 7]', "heads of 7"),
        ('config: ["decoder_config", "intermediate_size", 2.5]', "intermediate_size is 2.5"),
    ],
)
def test_damage_is_one_line(hf, what, says, tmp_path, capfd):
    damage(hf, what)
    for command in (("import", hf, "--out", tmp_path / "out"), ("generate", hf, "abc")):
        code, out, error = run(capfd, *command)
        assert code == 2 and says in error and len(error.strip().splitlines()) == 1 and not out, error
    assert [p.name for p in tmp_path.iterdir() if p.name != "hf"] == []


def test_a_pickle_that_wants_to_run_code(tmp_path, capfd):
    pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    source = tmp_path / "evil"
    source.mkdir()
    (source / "params.json").write_text("{}")
    (source / "consolidated.pth").write_bytes(pickle.dumps({"model": Evil()}))
    code, _, error = run(capfd, "import", source, "--out", tmp_path / "out")
    assert (
        code == 2
        and len(error.strip().splitlines()) == 1
        and not (tmp_path / "ran").exists()
        and not (tmp_path / "out").exists()
    )


def test_a_pickle_that_is_none_of_ours(tmp_path, capfd):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    source = tmp_path / "source"
    source.mkdir()
    (source / "params.json").write_text("{}")
    for content, says in (
        ({"model": Evil()}, "more than tensors"),
        ({"model": {"a": torch.zeros(2, dtype=torch.int64)}}, "tensor a is of int64"),
        (b"", "no zip archive"),
    ):
        (
            torch.save(content, source / "consolidated.pth")
            if content
            else (source / "consolidated.pth").write_bytes(content)
        )
        code, _, error = run(capfd, "import", source, "--out", tmp_path / "out")
        assert (
            code == 2 and says in error and error.count("\n") == 1 and not (tmp_path / "ran").exists()
        ), error


def test_two_imports_to_one_place(tmp_path):
    with locks.held(tmp_path / ".out.lock"):
        with pytest.raises(UserError, match="being written by another process"):
            convert.bring_in(HF, tmp_path / "out")
    convert.bring_in(HF, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_notes_of_an_export(tmp_path, capfd):
    model = api.load(HF)
    config = cfg.replace(model.config, **{"patching.max_length": 6})
    huggingface_export.save(
        config,
        model.raw_params(),
        (model.entropy_model.config.model, model.entropy_model.raw_params()),
        tmp_path / "limited",
    )
    code, _, error = run(capfd, "export", tmp_path / "limited", "--out", tmp_path / "out")
    assert code == 0 and "last position differs" in error
    strided = generation.of(
        cfg.run("m", "blt-strided", generation.blt(), patching_=cfg.patching("strided", 1))
    )
    huggingface_export.save(strided.config, strided.raw_params(), None, tmp_path / "strided")
    code, _, error = run(
        capfd, "export", tmp_path / "strided", "--out", tmp_path / "out2", "--entropy-model", HF
    )
    assert code == 2 and "--entropy-model means nothing" in error
