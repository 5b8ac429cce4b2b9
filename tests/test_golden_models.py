"""Logits and entropies of the released implementation, which the port must reproduce. If one of these fails
after a change, the change broke loading of released weights: correct the change, never the vectors."""

import json
import pathlib

import numpy as np
import pytest

from bltjax import config, models
from bltjax.errors import UserError
from bltjax.formats import golden_vectors as golden
from bltjax.formats import released_batches
from bltjax.models import patcher

GOLDEN = pathlib.Path(__file__).parent / "golden"
TOLERANCE = 1e-4


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as f:
        arrays = {key: f[key] for key in f.files}
    return (
        json.loads(str(arrays["config"])),
        {key[6:]: value for key, value in arrays.items() if key.startswith("param/")},
        arrays,
    )


@pytest.mark.parametrize("name", ["blt_short_window", "blt_projection_window_512"])
@pytest.mark.parametrize("case", ["one_document", "documents"])
def test_blt_logits(name, case):
    reference, tensors, arrays = load(name)
    model, params = golden.from_reference(tensors, reference)
    batch = released_batches.batch_from_lengths(
        arrays[f"{case}/ids"], arrays[f"{case}/patch_lengths"], reference["eos_id"]
    )
    found = models.logits(model, params, batch)
    assert np.abs(np.asarray(found) - arrays[f"{case}/logits"]).max() < TOLERANCE


def test_entropy_model():
    reference, tensors, arrays = load("entropy_model")
    model, params = golden.entropy_model_from_reference(tensors, reference)
    ids = arrays["ids"]
    batch = dict(
        bytes=ids,
        doc_ids=released_batches.batch_from_lengths(
            ids, np.ones((len(ids), ids.shape[1] + 1)), reference["eos_id"]
        )["doc_ids"],
    )
    assert np.abs(np.asarray(models.logits(model, params, batch)) - arrays["logits"]).max() < TOLERANCE
    assert (
        np.abs(np.asarray(patcher.entropies(model, params, batch)) - arrays["entropies_nats"]).max()
        < TOLERANCE
    )


def test_every_tensor_is_accounted_for():
    reference, tensors, _ = load("blt_short_window")
    with pytest.raises(UserError, match="missing tensor local_decoder.norm.weight"):
        golden.from_reference(
            {key: value for key, value in tensors.items() if key != "local_decoder.norm.weight"}, reference
        )
    with pytest.raises(UserError, match="unknown tensor local_decoder.extra.weight"):
        golden.from_reference({**tensors, "local_decoder.extra.weight": np.zeros(3)}, reference)
    with pytest.raises(UserError, match=r"local_decoder.output.weight has shape \[3, 3\]"):
        golden.from_reference({**tensors, "local_decoder.output.weight": np.zeros((3, 3))}, reference)
    with pytest.raises(UserError, match="config has no window"):
        golden.from_reference(tensors, {key: value for key, value in reference.items() if key != "window"})


def test_lengths_that_break_the_rules():
    ids = np.zeros((1, 4), np.int32)
    for lengths, said in (
        ([[1, 3]], "sum to 5"),
        ([[2, 3]], "first patch"),
        ([[1, 0, 4]], "end of a row"),
        ([[1, -1, 5]], "sum to 5"),
    ):
        with pytest.raises(UserError, match=said):
            released_batches.batch_from_lengths(ids, lengths)


def test_narrow_encoder_feed_forward_is_filled_with_nothing():
    """An encoder whose feed-forward is narrower than the decoder's (Hugging Face's default) loads, and the
    filling changes nothing."""
    reference, tensors, arrays = load("blt_short_window")
    narrow = dict(tensors)
    for name, cut in (("w1", np.s_[:64]), ("w3", np.s_[:64]), ("w2", np.s_[:, :64])):
        key = f"local_encoder.layers.0.feed_forward.{name}.weight"
        narrow[key] = tensors[key][cut]
        tensors = {**tensors, key: tensors[key].copy()}
        tensors[key][np.s_[64:] if name != "w2" else np.s_[:, 64:]] = 0
    batch = released_batches.batch_from_lengths(
        arrays["one_document/ids"], arrays["one_document/patch_lengths"]
    )
    (model, params), (same, wide) = (
        golden.from_reference(narrow, reference),
        golden.from_reference(tensors, reference),
    )
    assert config.to_dict(model) == config.to_dict(same)
    np.testing.assert_array_equal(models.logits(model, params, batch), models.logits(same, wide, batch))
