"""Directories of the released code, and golden vectors, as models."""

import json

import numpy as np
import pytest
from hf_blt import HF

from bltjax import api, convert
from bltjax.errors import UserError
from bltjax.formats import safetensors


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
