"""One table of families: a new one of existing kinds is one entry, and runs are held to what they say."""

import pytest

from bltjax import config as cfg
from bltjax import models
from bltjax.config import families
from bltjax.errors import UserError
from bltjax.plots import curves, drawing
from bltjax.report import page
from bltjax.results import series
from bltjax.run import validate
from bltjax.sweep import plan as planning


def blt(**changes):
    model = cfg.blt_model(
        local_width=32,
        encoder_layers=1,
        decoder_layers=1,
        local_heads=2,
        global_width=64,
        global_layers=1,
        global_heads=2,
        k=2,
        ngram_rows=64,
    )
    return cfg.replace(model, **changes)


def run(family="blt-space", model=None, scheme="space", size=6.0, **changes):
    made = cfg.run(
        "r",
        family,
        model or families.changed(blt(), family),
        patching_=cfg.patching(scheme, size),
        budget_flops=1e12,
    )
    return cfg.replace(made, **changes)


NEW = families.Family(
    "BLT that reads latents in its first layer only, patches by chance",
    "blt",
    ("random", "strided"),
    "#123456",
    "#abcdef",
    "8",
    {"cross.decoder": "first", "ngrams.sizes": (3, 4)},
)


def test_a_new_family_is_one_entry(monkeypatch):
    """It plans, validates, is ordered and drawn, with no other change."""
    table = {"first": NEW, **families.FAMILIES}
    monkeypatch.setattr(families, "FAMILIES", table)
    made = run("first", scheme=NEW.scheme)
    assert made.model.cross.decoder == "first" and made.model.ngrams.sizes == (3, 4)
    assert validate.check(made) is made
    validate.check(run("first", scheme="strided"))
    with pytest.raises(
        UserError, match=r"run r: patching.scheme is 'space'; family first has random, strided"
    ):
        validate.check(run("first", scheme="space"))
    (planned,) = planning.plan([made])
    assert planned["family"] == "first" and planned["params_hash"] == 2 * 64 * 32
    names = ("bpe", "unheard-of", "first")
    reported = [dict(family=name, series=name, budget_flops=1e12, name=name) for name in names]
    assert [name for name, _ in series.by_budget(reported)] == ["first", "bpe", "unheard-of"]
    line = dict(family="first", series="first", x=[1e12, 2e12], y=[2.0, 1.9], low=[None] * 2, high=[None] * 2)
    assert "#123456" in drawing.svg(curves.curves([line], {}, "FLOPs").figure, "new")
    assert page.themed()["#123456"][1] == "#abcdef" and "#abcdef" in page.colours()


def test_the_table_is_whole():
    for name, entry in families.FAMILIES.items():
        assert entry.words and entry.kind in models.KINDS and set(entry.schemes) <= set(cfg.SCHEMES), name
        for key, value in entry.changes.items():
            assert cfg.flat(families.changed(blt(), name))[key] == value
    assert families.REFERENCE in families.FAMILIES and families.ENTROPY_MODEL in families.FAMILIES
    covered = {scheme for entry in families.FAMILIES.values() for scheme in entry.schemes}
    assert covered == set(cfg.SCHEMES)
    with pytest.raises(UserError, match="family is 'blt-spice'; allowed: bpe, blt-entropy"):
        families.changed(blt(), "blt-spice")


TOKEN = cfg.transformer("token", vocab=512, width=32, layers=1, heads=1)


@pytest.mark.parametrize(
    "made, says",
    [
        (lambda: run("blt-spice", blt()), "family is 'blt-spice'; allowed: bpe, blt-entropy, "),
        (
            lambda: run(**{"patching.scheme": "spice"}),
            "patching.scheme is 'spice'; allowed: strided, space, ",
        ),
        (lambda: run(**{"model.kind": "spice"}), "model.kind is 'spice'; allowed: blt, token, byte"),
        (lambda: run(scheme="strided"), "patching.scheme is 'strided'; family blt-space has space"),
        (lambda: run("bpe", blt()), "model.kind is 'blt'; family bpe has 'token'"),
        (
            lambda: cfg.replace(run("blt-space", TOKEN), tokenizer=cfg.tokenizer("trained", 512, 3.0)),
            "model.kind is 'token'; family blt-space has 'blt'",
        ),
        # What a family changes is the family.
        (lambda: run("spacebyte", blt()), "model.cross.encoder is 'last'; family spacebyte has 'none'"),
        (
            lambda: cfg.replace(run("megabyte", scheme="strided"), **{"model.ngrams.sizes": (3,)}),
            r"model.ngrams.sizes is \(3,\); family megabyte has \(\)",
        ),
        (lambda: run("megabyte", scheme="strided", size=4.5), "patching.size is 4.5; strided patches"),
        (lambda: run(**{"model.vocab": 300}), "model.vocab is 300; models of bytes have 260 ids"),
        (lambda: run(**{"model.local.heads": 5}), "model.local.heads is 5; heads must cut model.local.width"),
        (lambda: run("blt-entropy", scheme="entropy"), "patching.scheme 'entropy' needs entropies: give"),
        # A warm-up as long as the run never reaches its learning rate.
        (lambda: run(**{"train.steps": 200, "train.warmup": 200}), "train.warmup is 200 of 200 steps"),
    ],
)
def test_a_mistake_is_one_line(made, says):
    with pytest.raises(UserError, match=f"^run r: {says}") as caught:
        validate.check(made())
    assert "\n" not in str(caught.value)


def test_a_warm_up_shorter_than_the_run_is_none():
    validate.check(run(**{"train.steps": 200, "train.warmup": 199}))
    validate.check(run(**{"train.warmup": 2000}))  # of a run whose steps its budget decides


def test_an_entropy_model_is_of_its_family():
    lm = cfg.run("lm", "bpe", TOKEN, tokenizer_=cfg.tokenizer("trained", 512, 3.0), budget_flops=1e10)
    made = cfg.run(
        "r", "blt-entropy", blt(), patching_=cfg.patching("entropy", 4.5), entropy_model=lm, budget_flops=1e12
    )
    with pytest.raises(UserError, match="entropy_model.family is 'bpe'; it must be entropy-model"):
        validate.check(made)


def test_a_whole_number_written_as_a_float():
    changed = cfg.parse_set(run(), ["data.max_train_bytes=1e6", "train.steps=300.0", "train.lr=1"])
    assert changed.data.max_train_bytes == 1_000_000 and type(changed.data.max_train_bytes) is int
    assert changed.train.steps == 300 and type(changed.train.lr) is float
    for wrong in ("data.rows=1.5", "data.rows=true", "data.rows=NaN", "data.rows=Infinity", "train.lr=true"):
        with pytest.raises(UserError, match="is not of type"):
            cfg.parse_set(run(), [wrong])
