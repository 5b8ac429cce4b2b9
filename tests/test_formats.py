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

from bltjax import api, convert, models
from bltjax import config as cfg
from bltjax.cli import main
from bltjax.errors import UserError
from bltjax.formats import huggingface, huggingface_export, released_batches, safetensors, weights
from bltjax.storage import locks

HF = pathlib.Path(__file__).parent / "golden" / "hf_blt"


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


def run(capfd, *arguments):
    code = main.main([str(a) for a in arguments])
    out, error = capfd.readouterr()
    return code, out, error


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


def released(folder, name, kind):
    """A directory of the released code's kind, from golden vectors."""
    folder.mkdir(parents=True)
    with np.load(HF.parent / f"{name}.npz") as f:
        arrays, c = (
            {key[6:]: f[key] for key in f.files if key.startswith("param/")},
            json.loads(str(f["config"])),
        )
    safetensors.write(
        folder / "consolidated.safetensors",
        {key: (x.dtype, x.shape) for key, x in arrays.items()},
        lambda key: [arrays[key]],
    )
    if kind == "blt":
        arguments = dict(
            dim_global=c["dim_global"],
            dim_local_encoder=c["dim_local"],
            dim_local_decoder=c["dim_local"],
            n_layers_global=c["layers_global"],
            n_layers_local_encoder=c["layers_encoder"],
            n_layers_local_decoder=c["layers_decoder"],
            n_heads_global=c["heads_global"],
            n_heads_local_encoder=c["heads_local"],
            n_heads_local_decoder=c["heads_local"],
            cross_attn_k=c["cross_attn_k"],
            cross_attn_nheads=c["heads_cross"],
            local_attention_window_len=c["window"],
            rope_theta=c["rope_theta"],
            norm_eps=c["norm_eps"],
            encoder_hash_byte_group_size=c["ngram_sizes"],
            encoder_hash_byte_group_vocab=c["hash_vocab"],
            encoder_hash_byte_group_nb_functions=c["hash_functions"],
            cross_attn_all_layers_encoder=c["cross_attn_all_layers_encoder"],
            cross_attn_all_layers_decoder=c["cross_attn_all_layers_decoder"],
            patching_mode="entropy",
            patching_threshold=1.33,
            patch_size=4.5,
        )
        (folder / "params.json").write_text(json.dumps({"model": arguments}))
    else:
        (folder / "params.json").write_text(
            json.dumps(
                {
                    "entropy_model": dict(
                        dim=c["dim"], n_layers=c["layers"], n_heads=c["heads"], norm_eps=c["norm_eps"]
                    )
                }
            )
        )


@pytest.mark.parametrize("name", ["blt_short_window", "blt_projection_window_512"])
def test_released_directories(tmp_path, name):
    released(tmp_path / "blt_1b", name, "blt")
    released(tmp_path / "entropy_model", "entropy_model", "lm")
    model = api.load(tmp_path / "blt_1b")
    with np.load(HF.parent / f"{name}.npz") as f:
        for case in ("one_document", "documents"):
            assert (
                np.abs(model.logits(f[f"{case}/ids"], f[f"{case}/patch_lengths"]) - f[f"{case}/logits"]).max()
                < 1e-4
            )
    convert.bring_in(tmp_path / "blt_1b", tmp_path / "ours")
    assert (
        api.load(tmp_path / "ours").entropy_model.config.model.window == 512
        and api.load(tmp_path / "ours").config.patching.threshold == 1.33
    )
    convert.bring_in(tmp_path / "entropy_model", tmp_path / "lm")
    ids = np.arange(4, 60)[None]
    np.testing.assert_array_equal(api.load(tmp_path / "lm").entropies(ids), model.entropies(ids))


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


@pytest.mark.parametrize("name", ["blt_short_window", "blt_projection_window_512"])
def test_vectors_as_models(name, tmp_path):
    path = HF.parent / f"{name}.npz"
    convert.bring_in(path, tmp_path / "ours", entropy_model=HF.parent / "entropy_model.npz")
    for model in (api.load(path), api.load(tmp_path / "ours")):
        with np.load(path) as f:
            for case in ("one_document", "documents"):
                assert (
                    np.abs(
                        model.logits(f[f"{case}/ids"], f[f"{case}/patch_lengths"]) - f[f"{case}/logits"]
                    ).max()
                    < 1e-4
                )
    with np.load(HF.parent / "entropy_model.npz") as f:
        assert np.abs(api.load(tmp_path / "ours").entropies(f["ids"]) - f["entropies_nats"]).max() < 1e-4
    (tmp_path / "bad.npz").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="is no .npz"):
        api.load(tmp_path / "bad.npz")


def test_generate_at_the_command_line(capfd, tmp_path):
    code, out, error = run(capfd, "generate", HF, "hello", "--max-new-bytes", 12, "--json")
    found = json.loads(out)
    assert (
        code == 0
        and not error
        and len(bytes.fromhex(found["new_hex"][0])) <= 12
        and found["global_passes_per_byte"] > 0
    )
    (tmp_path / "prompt").write_bytes(b"\xff\xfe no UTF-8")
    code, out, error = run(capfd, "generate", HF, "--file", tmp_path / "prompt", "--max-new-bytes", 12)
    assert code == 0 and "bytes/s" in error and "passes of the global model" in error and "weights" in error
    for arguments, says in (
        ((HF, ""), "the prompt is empty"),
        ((HF,), "the prompt is empty"),
        ((HF, "--file", tmp_path / "none"), "no file"),
        ((HF, "a", "--temperature", "nan"), "temperature"),
        ((HF, "a", "--draft", "4", "--temperature", "1"), "draft"),
    ):
        code, out, error = run(capfd, "generate", *arguments)
        assert code == 2 and says in error and len(error.strip().splitlines()) == 1 and not out
    assert run(capfd, "generate", HF, "--unconditional", "--max-new-bytes", 4)[0] == 0


def test_a_page_of_patches(capfd, tmp_path):
    code, out, error = run(
        capfd,
        "patch",
        "naive <b> caf\u00e9",
        "--run",
        HF,
        "--scheme",
        "entropy",
        "--threshold",
        5,
        "--page",
        tmp_path / "page.html",
        "--color",
        "always",
    )
    page = (tmp_path / "page.html").read_text()
    assert (
        code == 0
        and "\x1b[48;5;" in out
        and "<svg" in page
        and "&lt;" in page
        and "stroke-dasharray" in page
        and "http" not in page
    )
    assert page.count("nats</title>") == len("naive <b> caf\u00e9".encode())
    code, out, error = run(capfd, "patch", "abc", "--run", HF, "--page", tmp_path / "no" / "page.html")
    assert code == 2 and "cannot be written" in error and not out
