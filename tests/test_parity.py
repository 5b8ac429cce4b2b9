"""Against transformers itself, where it is installed (make setup EXTRAS=parity): random configurations in,
and out again."""

import numpy as np
import pytest

from bltjax import api, convert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


def random_config(seed: int):
    """A small Blt of a random shape: k 1 to 4, with and without projection, odd widths, one to three encoder
    layers, short and long windows."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: values[rng.integers(len(values))]
    heads, head_dim, k = int(pick(1, 2, 3, 4)), int(pick(6, 8, 10)), int(rng.integers(1, 5))
    # some widths are no multiple of their heads
    width = heads * head_dim + int(pick(0, 0, 1, 3)) * (heads > 3)
    latent_heads = int(pick(1, 2, 4))
    latent = (
        k * width
        if rng.random() < 0.4 and k * width % (2 * latent_heads) == 0
        else latent_heads * int(pick(10, 14, 16))
    )
    layers, window = int(rng.integers(1, 4)), pick(None, 4, 9, 16, 200)
    local = dict(
        vocab_size=260,
        hidden_size=width,
        num_attention_heads=heads,
        cross_attn_k=k,
        hidden_size_global=latent,
        max_position_embeddings=256,
    )
    return transformers.BltConfig(
        vocab_size=260,
        max_position_embeddings=256,
        patch_in_forward=True,
        patch_size=4,
        patching_mode="entropy",
        patching_threshold=float(pick(5.0, 5.3)),
        max_patch_length=pick(None, 5),
        local_attention_window_len=window,
        cross_attn_k=k,
        use_cache=False,
        encoder_hash_byte_group_size=[[3, 4, 5, 6, 7, 8], [2, 3], [5]][rng.integers(3)],
        encoder_hash_byte_group_vocab=int(pick(97, 256, 500)),
        encoder_hash_byte_group_nb_functions=int(pick(1, 1, 2)),
        encoder_config=dict(
            local,
            num_hidden_layers=layers,
            intermediate_size=int(pick(33, 64, 80)),
            cross_attn_all_layers=bool(rng.random() < 0.4),
        ),
        decoder_config=dict(
            local,
            num_hidden_layers=int(rng.integers(1, 4)),
            intermediate_size=int(pick(33, 64, 80)),
            cross_attn_all_layers=bool(rng.random() < 0.7),
        ),
        global_config=dict(
            hidden_size=latent,
            num_hidden_layers=int(rng.integers(1, 3)),
            num_attention_heads=latent_heads,
            intermediate_size=int(pick(41, 96)),
            max_position_embeddings=256,
        ),
        patcher_config=dict(
            vocab_size=260,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=256,
            sliding_window=pick(None, 7, 300),
        ),
    )


def lengths_of(rng, n: int):
    """Random patches of n bytes and the next one: [1, ...]."""
    found = [1]
    while sum(found) < n + 1:
        found.append(min(int(rng.integers(1, 8)), n + 1 - sum(found)))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_random_configurations(seed, tmp_path):
    torch.manual_seed(seed)
    model = transformers.BltForCausalLM(random_config(seed)).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            (
                tensor.normal_(std=tensor.shape[-1] ** -0.5)
                if tensor.ndim > 1
                else tensor.add_(0.3 * torch.randn_like(tensor))
            )
    model.save_pretrained(tmp_path / "hf")
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, 260, (2, 120))
    rows = [lengths_of(rng, 120) for _ in range(2)]
    lengths = np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])

    def theirs(model):
        with torch.no_grad():
            return model(
                torch.tensor(ids), patch_lengths=torch.tensor(lengths), use_cache=False
            ).logits.numpy()

    wanted = theirs(model)
    ours = api.load(tmp_path / "hf")
    assert np.abs(ours.logits(ids, lengths) - wanted).max() < 1e-4
    with torch.no_grad():
        entropies = (
            torch.distributions.Categorical(
                logits=model.model.patcher(torch.tensor(ids), patch_size=4, threshold=5.0)[2]
            )
            .entropy()
            .numpy()
        )
    assert np.abs(ours.entropies(ids) - entropies).max() < 1e-4
    convert.bring_in(tmp_path / "hf", tmp_path / "ours")
    convert.send_out(tmp_path / "ours", tmp_path / "out")
    assert (
        np.abs(theirs(transformers.BltForCausalLM.from_pretrained(tmp_path / "out").eval()) - wanted).max()
        < 1e-5
    )


def test_released_pickles(tmp_path):
    """A consolidated .pth, and one that wants to run code."""
    import hf_blt
    import test_released_directories

    test_released_directories.released(tmp_path / "a", "blt_short_window", "blt")
    from bltjax.formats import safetensors

    source = safetensors.Files(safetensors.header(tmp_path / "a" / "consolidated.safetensors"))
    torch.save(
        {"model": {name: torch.tensor(source.read(name)).to(torch.bfloat16) for name in source}},
        tmp_path / "a" / "consolidated.pth",
    )
    (tmp_path / "a" / "consolidated.safetensors").unlink()
    found = api.load(tmp_path / "a")
    assert str(found.raw_params()["decoder"]["head"]["kernel"].dtype) == "bfloat16"
    with np.load(hf_blt.HF.parent / "blt_short_window.npz") as f:
        assert (
            np.abs(
                found.logits(f["one_document/ids"], f["one_document/patch_lengths"])
                - f["one_document/logits"]
            ).max()
            < 0.5
        )


def test_llama(tmp_path):
    import test_llama

    for number, (kv_heads, scaled, tied) in enumerate([(4, False, False), (2, True, False), (1, True, True)]):
        folder = tmp_path / str(number)
        test_llama.llama_directory(folder, seed=number, kv_heads=kv_heads, scaled=scaled, tied=tied)
        theirs = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
        ids = np.random.default_rng(0).integers(0, 96, (1, 60))
        with torch.no_grad():
            wanted = theirs(torch.tensor(ids)).logits.numpy()
        from bltjax import models
        from bltjax.formats import llama

        found = llama.load(folder)
        logits = models.logits(
            found.config.model,
            found.params,
            {"tokens": ids.astype(np.int32), "doc_ids": np.ones((1, 60), np.int32)},
        )
        assert np.abs(np.asarray(logits) - wanted).max() < 1e-4
