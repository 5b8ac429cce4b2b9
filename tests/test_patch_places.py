"""Bits per byte by the place of a byte in its patch: every raw byte counts once, at its own place."""

import math
import types

import jax
import numpy as np

from bltjax.evaluation import bpb, windows
from bltjax.patching import vocab
from bltjax.report import patch_places


def test_every_byte_counts_at_its_place(monkeypatch):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 256, n).astype(np.uint8).tobytes() for n in (700, 3, 90)]
    lengths = []
    for document in documents:
        sizes = [1, *rng.integers(1, 30, 2000)]  # BOS is a patch
        whole = np.cumsum(sizes)
        kept = whole[whole < len(document) + 2]
        lengths.append(np.diff([0, *kept, len(document) + 2]))
    # nats of a slot: ten for its place in its patch, and the byte that it predicts
    nats = lambda batch: 10.0 * np.minimum(bpb.target_places(batch["patch_ids"]), 15) + batch["targets"]
    monkeypatch.setattr(bpb, "_scorer", lambda *_: lambda params, batch: nats(jax.device_get(batch)))
    shaped = windows.byte_windows(documents, lengths, 1024, 2)
    is_eos = lambda batch: batch["targets"] == vocab.EOS
    found = bpb.nats_by_document({}, None, shaped, len(documents), is_eos)
    want_bytes, want_nats = np.zeros(bpb.PLACES, int), np.zeros(bpb.PLACES)
    for document, sizes in zip(documents, lengths):
        places = np.concatenate([np.arange(n) for n in sizes])
        ids = vocab.encode(document)
        for place, value in zip(np.minimum(places[1:-1], 15), ids):
            want_bytes[place] += 1
            want_nats[place] += 10.0 * place + value
    np.testing.assert_array_equal(found.place_bytes_DxP.sum(0), want_bytes)
    np.testing.assert_allclose(found.place_nats_DxP.sum(0), want_nats)
    summed = bpb.summary([len(d) for d in documents], found, 9.0)
    assert sum(one["bytes"] for one in summed["patch_places"]) == summed["bytes"]
    for document, sizes, places in zip(documents, lengths, found.places()):
        assert sum(size for size, _ in places) == len(document) and len(places) <= bpb.PLACES
        assert len(places) <= max(sizes)
    total = sum(one["nats"] for one in summed["patch_places"]) / summed["bytes"] / math.log(2)
    assert abs(total - summed["bpb"]) < 1e-9


def test_a_model_without_patches_has_no_places():
    none = bpb.Scored.nothing(1)
    assert bpb.summary([8], none, 1.0)["patch_places"] is None and none.places() == [[]]


def test_the_table_adds_seeds_up_and_puts_places_behind_together():
    def run(name, scale):
        places = [{"bytes": 10, "nats": 10 * scale * math.log(2) * (n + 1)} for n in range(bpb.PLACES)]
        return types.SimpleNamespace(path=name, evaluation={"test": {"patch_places": places}})

    row = dict(
        name="a",
        series="blt-space",
        family="blt-space",
        budget_flops=1e9,
        run_dirs=["a", "b"],
        patch_size=4.0,
    )
    token = dict(row, series="bpe", family="bpe", run_dirs=["c"])
    runs = [run("a", 1.0), run("b", 3.0), types.SimpleNamespace(path="c", evaluation={"test": {}})]
    found = patch_places.table([row, token], runs)
    assert found["columns"][2:4] == ["1st byte", "2nd byte"]
    [line] = found["rows"]
    assert line[0] == "blt-space" and line[2:4] == ["2.000", "4.000"]
    assert line[-1] == f"{2 * np.mean(np.arange(9, 17)):.3f}"
    assert patch_places.table([token], runs) is None
