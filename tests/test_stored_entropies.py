"""Entropies at rest: those of one pass, whatever killed their making; two jobs never make the same shard;
what does not fit is said."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import models, patching
from bltjax.cli.main import main
from bltjax.data import corpus, prepare
from bltjax.entropy import annotate, store
from bltjax.errors import UserError
from bltjax.inspection import rows as inspect_data
from bltjax.patching import vocab
from bltjax.storage import locks

MODEL = cfg.transformer("byte", vocab=vocab.SIZE, width=16, layers=2, heads=2, window=16, ffn_multiple=16)


@pytest.fixture(scope="module")
def params():
    return models.init(MODEL, jax.random.key(0))


@pytest.fixture
def prepared(tmp_path):
    """Forty documents, one of them long, one of one byte, in two shards."""
    rng = np.random.default_rng(0)
    sizes = [1, 5000, *rng.integers(2, 120, 38)]  # a program for each power of two from 64 on
    lines = (json.dumps({"text": "".join(map(chr, rng.integers(32, 120, n)))}) for n in sizes)
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    settings = cfg.replace(
        cfg.data(), source="files", globs=(str(tmp_path / "a.jsonl"),), min_bytes=1, test=0.1
    )
    prepare.prepare(settings, tmp_path / "data", shard_count=2)
    return tmp_path / "data"


def test_they_are_those_of_a_pass_rounded(prepared, params):
    made = store.make(prepared, MODEL, params)
    documents = corpus.Documents(corpus.shards(prepared))
    assert (
        made["made"] == made["shards"] == len(documents.shards) and made["bytes"] == documents.lengths.sum()
    )
    found = store.Entropies(documents, made["fingerprint"])
    live = annotate.annotate(MODEL, params, list(documents))
    for i, values in enumerate(live):
        assert found[i].dtype == np.float32 and found[i][-1] == 0
        assert np.abs(found[i][:-1] - values[:-1]).max() <= patching.RESOLUTION / 2 + 1e-5
        settings = dict(
            threshold=float(np.median(values)) // patching.RESOLUTION * patching.RESOLUTION
            + patching.RESOLUTION / 2
        )
        ids = vocab.encode_document(documents[i])
        assert patching.lengths(
            ids, "entropy", entropies=found[i], include_next=False, **settings
        ) == patching.lengths(
            ids, "entropy", entropies=values, include_next=False, resolution=patching.RESOLUTION, **settings
        )
    assert store.make(prepared, MODEL, params)["there"] == made["shards"]


def test_a_byte_that_changed_is_found(prepared, params):
    made = store.make(prepared, MODEL, params)
    shard = corpus.shards(prepared)[0]
    store.verify(shard, made["fingerprint"])
    path = store.folder_of(shard, made["fingerprint"]) / shard.path.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="checksum"):
        inspect_data.of(prepared, verify=True)
    store.seal(path.parent, shard).unlink()
    assert inspect_data.of(prepared)["entropies"] == {made["fingerprint"]: made["shards"] - 1}
    store.make(prepared, MODEL, params)
    assert inspect_data.of(prepared, verify=True)["verified"]


def test_killed_and_begun_again_they_are_the_same(prepared, params, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 500)
    whole = store.make(prepared, MODEL, params)
    files = {path.name: path.read_bytes() for path in sorted(prepared.glob("entropies-*/[a-z]*"))}
    for path in prepared.glob("entropies-*/*"):
        path.unlink()
    replace, count = os.replace, [0]

    def dies(*arguments):
        count[0] += 1
        if count[0] % 4 == 0:
            raise KeyboardInterrupt
        replace(*arguments)

    monkeypatch.setattr(os, "replace", dies)
    computed = []
    annotated = annotate.annotate
    monkeypatch.setattr(
        annotate,
        "annotate",
        lambda model, params, documents, **more: (
            computed.append(len(documents)) or annotated(model, params, documents, **more)
        ),
    )
    for _ in range(100):
        try:
            again = store.make(prepared, MODEL, params)
            break
        except KeyboardInterrupt:
            documents = corpus.Documents(corpus.shards(prepared))
            with pytest.raises(UserError, match="no entropies of"):
                store.Entropies(documents, whole["fingerprint"])
    assert {path.name: path.read_bytes() for path in sorted(prepared.glob("entropies-*/[a-z]*"))} == files
    assert again["fingerprint"] == whole["fingerprint"] and not list(prepared.glob("entropies-*/.*.chunks"))
    assert sum(computed) < 2 * 40  # little was computed twice


def test_two_jobs_do_not_make_the_same_shard(prepared, params):
    first = corpus.shards(prepared)[0]
    folder = prepared / f"entropies-{store.fingerprint(MODEL, params)}"
    with locks.held(folder / f".{first.path.name}.lock"):
        made = store.make(prepared, MODEL, params)
    assert made["elsewhere"] == 1 and made["made"] == made["shards"] - 1 and not store.whole(folder, first)
    parts = [store.make(prepared, MODEL, params, part=part, parts=2) for part in (0, 1)]
    assert sum(p["made"] for p in parts) == 1 and sum(p["made"] + p["there"] for p in parts) == made["shards"]


def test_what_does_not_fit_is_said(prepared, params):
    mark = store.make(prepared, MODEL, params)["fingerprint"]
    documents = corpus.Documents(corpus.shards(prepared))
    folder, shard = prepared / f"entropies-{mark}", documents.shards[0]
    with pytest.raises(UserError, match="no entropies of"):
        store.Entropies(documents, "0123456789ab")
    seal = store.seal(folder, shard)
    record = json.loads(seal.read_text())
    seal.write_text(json.dumps({**record, "text_sha256": "0"}))
    with pytest.raises(UserError, match="of other text"):
        store.Entropies(documents, mark)
    seal.write_text(json.dumps(record))
    (folder / shard.path.name).write_bytes((folder / shard.path.name).read_bytes()[:-1])
    with pytest.raises(UserError, match="not what its seal says"):
        store.Entropies(documents, mark)
    changed = jax.tree.map(lambda x: x + 1e-3, params)
    assert (
        store.fingerprint(MODEL, changed) != mark
        and store.fingerprint(MODEL, jax.tree.map(np.asarray, params)) == mark
    )


SPREAD = """
import sys, jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
sys.path.insert(0, sys.argv[2])
from bltjax import models
from bltjax.entropy import annotate
from test_stored_entropies import MODEL
params = models.init(MODEL, jax.random.key(0))
documents = [bytes(range(40)) * k for k in (1, 2, 100)] + [b"x"]
np.savez(sys.argv[1], *annotate.annotate(MODEL, params, documents))
"""


def test_on_several_devices_they_are_the_same(tmp_path):
    out = tmp_path / "four.npz"
    subprocess.run(
        [sys.executable, "-c", SPREAD, str(out), os.path.dirname(__file__)],
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    documents = [bytes(range(40)) * k for k in (1, 2, 100)] + [b"x"]
    with np.load(out) as four:
        for one, other in zip(
            annotate.annotate(MODEL, models.init(MODEL, jax.random.key(0)), documents),
            four.values(),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_annotate_and_calibrate_by_the_command_line(prepared, params, tmp_path, capsys, monkeypatch):
    from bltjax import api

    lm = api.Model(cfg.run("lm", "entropy-model", MODEL), lambda: params, tmp_path / "lm")
    monkeypatch.setattr(api, "load", lambda path, entropy_model=None: lm)
    assert main(["data", "annotate", str(prepared), "--entropy-model", "lm", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["made"] == made["shards"]
    for scheme, more in (("entropy", []), ("monotonic", []), ("both", ["--delta", "-0.1"])):
        arguments = [
            "data",
            "calibrate",
            "--data",
            str(prepared),
            "--scheme",
            scheme,
            "--size",
            "4.5",
            "--plot",
            str(tmp_path / "a.png"),
            *more,
        ]
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert abs(found["patch_size"] / 4.5 - 1) < 0.02 and found["entropies"] == made["fingerprint"]
        documents = corpus.Documents([shard for shard in corpus.shards(prepared) if shard.split == "train"])
        entropies = store.Entropies(documents, made["fingerprint"])
        settings = {
            "delta" if scheme == "monotonic" else "threshold": found["threshold"],
            **({"delta": -0.1} if more else {}),
        }
        patches = sum(
            len(
                patching.lengths(
                    vocab.encode_document(d), scheme, entropies=entropies[i], include_next=False, **settings
                )
            )
            for i, d in enumerate(documents)
        )
        assert np.isclose((documents.lengths + 2).sum() / patches, found["patch_size"]) and set(
            found["splits"]
        ) >= {"train", "test"}
        assert found["errors"].keys() == found["splits"].keys() and 0 < found["errors"]["train"] < 0.5
        assert (tmp_path / "a.png").stat().st_size > 1000 and len(found["curve"]["all"][0]) > 20
    for wrong, said in (
        (["--data", str(tmp_path)], "no prepared data"),
        ([], "--entropy-model DIR or --data DIR"),
        (["--data", str(prepared), "--max-length", "4"], "--max-length"),
        (["--data", str(prepared), "--bytes", "0"], "--bytes"),
        (["--data", str(prepared), "--size", "1e9"], "no threshold"),
        (["--data", str(prepared), "--plot", str(tmp_path / "none" / "a.png")], "cannot write the plot"),
        (["--entropy-model", "x", "--plot", "a.png"], "--plot needs"),
    ):
        assert main(["data", "calibrate", "--size", "3", *wrong]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err, wrong
    assert main(["data", "annotate", str(tmp_path), "--entropy-model", "lm"]) == 2
    assert "no prepared data" in capsys.readouterr().err
