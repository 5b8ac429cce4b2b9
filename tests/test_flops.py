"""Golden numbers of the paper's tables, parameters against the models' own leaves, FLOPs against the compiled
programs' products.

A golden number that changes means a formula changed: the tables did not. Mend bltjax/flops.py, not the
number."""

import itertools

import jax
import numpy as np
import pytest
from small_models import SMALL, small_blt, tokens

from bltjax import config as cfg
from bltjax import flops, models
from bltjax.errors import UserError

# name, model, bytes per token or patch, the formula's FLOPs per byte to the digits that the check table
# prints, Table 2's
CHECK_TABLE = [
    ("Llama 2 470M", tokens(24, 1280, 32_000), 3.7, 3.14e8, 3.1e8),
    ("Llama 3 450M", tokens(23, 1280, 128_256), 4.4, 3.05e8, 3.1e8),
    ("Llama 2 3.6B", tokens(32, 3072, 32_000), 3.7, 2.13e9, 2.1e9),
    ("Llama 3 3.9B, 34 layers", tokens(34, 3072, 128_256), 4.4, 2.02e9, None),
    ("Llama 3 3.9B, 35 layers", tokens(35, 3072, 128_256), 4.4, 2.07e9, 2.1e9),
    ("BLT 400M, patches of 6", cfg.sized_blt("400M"), 6, 3.16e8, None),
    ("BLT 8B, patches of 8", cfg.sized_blt("8B", encoder_layers=3), 8, 2.10e9, 2.1e9),
]


@pytest.mark.parametrize("name,model,size,formula,table_2", CHECK_TABLE, ids=[row[0] for row in CHECK_TABLE])
def test_paper_flops_per_byte(name, model, size, formula, table_2):
    total = flops.count(model, size, context=8192)["paper"]["total"]
    assert f"{total:.2e}" == f"{formula:.2e}"
    if table_2:
        assert f"{total:.1e}" == f"{table_2:.1e}"


def test_table_2_within_its_rounding():
    # 3.16e8 is printed as 3.1e8
    assert abs(flops.count(cfg.sized_blt("400M"), 6)["paper"]["total"] / 3.1e8 - 1) < 0.025
    assert round(flops.params_paper(cfg.sized_blt("400M"))["total"] / 1e6) == 547
    assert round(flops.params_paper(cfg.sized_blt("8B", encoder_layers=3))["total"] / 1e9, 2) == 6.68


# Table 10 by 12·l·h²: encoder, global, decoder, in millions; and the local modules' percentage of the FLOPs
# at patches of 4.5, 6, 8.
TABLE_10 = {
    "400M": ((7.1, 471.9, 49.5), (39, 46, 53)),
    "1B": ((12.6, 1258.3, 113.2), (35, 42, 49)),
    "2B": ((12.6, 2044.7, 113.2), (26, 31, 38)),
    "4B": ((12.6, 4076.9, 113.2), (15, 19, 23)),
    "8B": ((19.7, 6442.5, 118.0), (11, 14, 18)),
}


@pytest.mark.parametrize("size", TABLE_10)
def test_table_10_parameters_and_shares(size):
    model = cfg.sized_blt(size)
    counted = flops.params_paper(model)
    millions, shares = TABLE_10[size]
    assert tuple(round(counted[part] / 1e6, 1) for part in ("encoder", "latent", "decoder")) == millions
    assert flops.count(model)["params"]["latent_12lh2"] == counted["latent"]
    for patch_size, share in zip((4.5, 6, 8), shares):
        paper = flops.count(model, patch_size)["paper"]
        assert abs(100 * (1 - paper["latent"] / paper["total"]) - share) <= 0.51


def test_sizes_of_the_released_1b():
    """Encoder with its embedding, pool projection and cross-attention, as the checkpoint's files group
    them."""
    p = flops.params(cfg.sized_blt("1B", "released", ngram_rows=500_002))
    assert p["encoder"] + p["embeddings"] + p["cross_encoder"] == 19_406_848  # 19.4M, FFN 2816
    assert p["latent"] == 1_284_608_000
    assert p["decoder"] + p["cross_decoder"] == 157_586_432
    assert p["hash"] == 6 * 500_002 * 1024 and p["head"] == 266_240
    assert p["total_without_hash"] == p["total"] - p["hash"] == 1_461_867_520
    patcher = flops.params(cfg.transformer("byte", vocab=260, width=768, layers=14, heads=12, window=512))
    assert round(patcher["total"] / 1e6, 1) == 99.5


def leaves(model) -> int:
    shapes = jax.eval_shape(lambda key: models.init(model, key), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("preset", cfg.PRESETS)
@pytest.mark.parametrize(
    "encoder,decoder", list(itertools.product(["none", "last", "all"], ["none", "first", "all"]))
)
def test_counted_parameters_are_the_models_leaves(preset, encoder, decoder):
    for changes, width in (
        ({}, 64),
        ({"ngrams.sizes": ()}, 48),
        ({"cross.heads": 5, "ngrams.functions": 2}, 24),
    ):
        model = cfg.replace(
            cfg.blt_model(preset, **{**SMALL, "global_width": width}),
            **{"cross.encoder": encoder, "cross.decoder": decoder, **changes},
        )
        assert flops.params(model)["total"] == leaves(model)


def test_counted_parameters_of_tables_sizes_and_plain_transformers():
    for model in (
        tokens(3, 256, 1000),
        cfg.transformer("byte", vocab=260, width=64, layers=2, heads=2, window=16),
        cfg.sized_blt("400M"),
    ):
        assert flops.params(model)["total"] == leaves(model)


def some_run(**changes):
    lm = cfg.run(
        "lm", "entropy-model", cfg.transformer("byte", vocab=260, width=64, layers=2, heads=2, window=128)
    )
    return cfg.replace(
        cfg.run("r", "blt-entropy", small_blt(), patching_=cfg.patching("entropy", 5), entropy_model=lm),
        **changes,
    )


def test_entropy_model_is_beside_and_not_inside():
    run = some_run()
    with_lm, without = flops.count(run), flops.count(run.model, 5, context=512)
    assert with_lm["exact"] == without["exact"] and with_lm["params"] == without["params"]
    lm = flops.count(run.entropy_model)
    assert with_lm["entropy_model"] == dict(
        paper=lm["paper"]["total"], exact=lm["exact"]["total"], params=leaves(run.entropy_model.model)
    )
    assert without["entropy_model"] == dict(paper=0.0, exact=0.0, params=0)
    # 14 x 768, window 512: about 2.1e8 forward FLOPs per byte.
    big = cfg.transformer("byte", vocab=260, width=768, layers=14, heads=12, window=512)
    assert f"{flops.count(big)['paper']['total']:.1e}" == "2.1e+08"


def test_components_add_up_and_patch_size_can_be_given():
    for model in (
        small_blt(),
        tokens(1, 128, 500),
        cfg.transformer("byte", vocab=260, width=64, layers=1, heads=2),
    ):
        counted = flops.count(model)
        for convention in ("paper", "exact"):
            assert counted[convention]["total"] == pytest.approx(
                sum(v for k, v in counted[convention].items() if k != "total")
            )
    assert (
        flops.count(some_run())["patch_size"] == 5
        and flops.count(some_run(), patch_size=7)["patch_size"] == 7
    )
    assert flops.count(some_run(), 7)["exact"]["total"] < flops.count(some_run(), 5)["exact"]["total"]


def test_train_flops_of_counts_per_step():
    run = some_run()
    per = flops.per_unit(run)
    counts = {
        "slots": np.array([10, 20]),
        "patches": np.array([2, 3]),
        "pairs": np.array([55.0, 70.0]),
        "patch_pairs": np.array([3.0, 4.0]),
        "bytes": np.array([9, 19]),  # which cost nothing of their own
    }
    expected = [3 * sum(counts[unit][i] * per[unit] for unit in flops.UNITS) for i in range(2)]
    assert flops.train_flops(run, counts) == pytest.approx(expected)
    of_components = flops.components(run, counts)
    assert 3 * sum(of_components.values()) == pytest.approx(expected)
    per_byte = flops.count(run, 8)["exact"]
    full = flops.full_rows(run, 1, 512, 64)
    assert flops.train_flops(run, full) == pytest.approx(3 * 512 * per_byte["total"])
    assert flops.components(run, full)["latent"] == pytest.approx(512 * per_byte["latent"])


def test_what_cannot_be_counted_says_so():
    bpe = cfg.run("r", "bpe", tokens(1, 128, 500))
    with pytest.raises(UserError, match="bytes_per_token"):
        flops.count(bpe)
    with pytest.raises(UserError, match="neither a run config"):
        flops.count(cfg.data())
