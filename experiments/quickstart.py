"""Claim: on one small machine, in minutes, BPE and BLT can be compared at the same FLOPs on real text, and
nothing is hidden.

Figure     6 of arXiv 2412.09871 in miniature: bits per byte against training FLOPs, four families, three
           budgets.
Hardware   2 CPU cores; text is the source code of Python's standard library, which is on every machine.
Time       minutes (see README.md); `quickstart:short` is the form that the tests run.
Expect     bits per byte fall with budget in every family. At this scale local modules take much of BLT's
           FLOPs, so BPE may well win; one seed is one seed.
Command    make quickstart

At one budget every family spends the same FLOPs, in batches of the same number of bytes, on the same
documents in the same order; BPE's transformer has the shape of BLT's latent one. A byte does not cost every
family the same, so they read different numbers of bytes: at S from 98 kB (bpe, whose output head takes most
of it) to 135 kB (blt-space, whose patches are long), at L from 290 to 740 kB. None reads a byte twice.

Budgets and shapes are such that all of it takes minutes: more than half of the time goes to starting and
compiling, whatever the budgets are. The larger ladder, with models of up to 1.8 million latent parameters, is
quickstart_seeds'."""

import dataclasses

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.config import families
from bltjax.errors import UserError
from bltjax.sweep import scales

FAMILIES = ("bpe", "blt-entropy", "blt-space", "blt-strided")


@dataclasses.dataclass(frozen=True)
class Shape:
    """A budget and what each kind of model spends it on. Every width has heads of 32."""

    budget: float  # FLOPs
    local: int  # BLT: width of encoder and decoder
    decoder_layers: int
    latent: int  # BLT: width and layers of the global model
    latent_layers: int
    bpe: int  # BPE: width and layers
    bpe_layers: int
    rows: int  # of 512 bytes in a batch
    window: int = 64  # of the local models, bytes
    hash_rows: int = 5464  # of each of BLT's six tables
    text: int = 1_100_000  # bytes of training text, of which none is read twice: the same for one ladder


# Latent parameters: 12k, 25k, 49k.
SHAPES = {
    "S": Shape(4e10, local=32, decoder_layers=1, latent=32, latent_layers=1, bpe=32, bpe_layers=1, rows=1),
    "M": Shape(1e11, local=32, decoder_layers=1, latent=32, latent_layers=2, bpe=32, bpe_layers=2, rows=2),
    "L": Shape(2.5e11, local=32, decoder_layers=1, latent=64, latent_layers=1, bpe=64, bpe_layers=1, rows=2),
}
CONTEXT = 512  # bytes
WINDOW = 128  # of the entropy model, bytes
PATCH = 4.5  # mean bytes per patch (Table 1: of the entropy model's run)
SPACE_PATCH = 7.9  # what the space rule gives on this text
# The models compute what the released ones do, but no document sees another. The preset `paper` would do as
# well (docs/results/ngram_normalisation).
NOTHING_CROSSES = {"ngrams.reset": True, "mask_encoder_documents": True}

# Of every family the best of four on validation text at the middle budget, none at an edge (quickstart_lr);
# carried to the other sizes as it is, the paper's rule (section 4.8), which quickstart_lr_check looks at.
LR = {"bpe": 1.6e-2, "blt-entropy": 3.2e-2, "blt-space": 3.2e-2, "blt-strided": 3.2e-2}
# Vocabulary and hash tables cost next to no FLOPs and decide much. Both were chosen on the ladder of
# quickstart_seeds, by the experiment lexicon. The vocabulary is the best on validation text at each budget
# there, and lies inside its grid; its smallest budget, 2e11 FLOPs, lies between M and L. Rows have no best up
# to half a million, the paper's number: BLT gains from each doubling, at a price in memory and time alone.
# Here BLT has so many (Shape.hash_rows) that at the largest budget six tables of them have as many parameters
# as BPE's embedding and head. Half a million rows would be about 0.1 bits per byte better.
VOCAB = 8192
BYTES_PER_TOKEN = scales.LAPTOP_TOKENS  # of vocabularies on this text; realized ones are in each run


def data(rows: int, text: int) -> ConfigDict:
    return cfg.replace(
        cfg.data(),
        **{
            "context": CONTEXT,
            "rows": rows,
            "packing_buffer": 1024,  # 512 kB of text wait: rows are full of bytes and of patches at once
            "patch_slack": 1.0,  # widened until rows hold the bytes that they should
            "max_train_bytes": text,
            "validation": 0.02,
            "test": 0.03,
        },
    )


def training(lr: float) -> ConfigDict:
    return cfg.replace(cfg.training(), **{"lr": lr})


def evaluation() -> ConfigDict:
    """All test text, and some validation text, which is there to choose by."""
    return cfg.replace(cfg.evaluation(), **{"validation_bytes": 100_000})


def entropy_model(budget: float = 1e11) -> ConfigDict:
    """The entropy model: small, but of the paper's kind (a byte transformer with a sliding window). It is
    scored as the runs are: it is compared with none."""
    model = cfg.transformer(
        "byte", vocab=260, width=32, layers=2, heads=1, window=WINDOW, rope_theta=1e4, ffn_multiple=32
    )
    run = cfg.run(
        "entropy-model",
        "entropy-model",
        model,
        data_=data(2, Shape.text),
        evaluation_=evaluation(),
        training_=training(8e-3),
        budget_flops=budget,
    )
    return scored_in_minutes(run)


def bpe(size: str, shape: Shape, lr: float, vocab: int = 0) -> ConfigDict:
    vocab = vocab or VOCAB
    model = cfg.transformer(
        "token", vocab=vocab, width=shape.bpe, layers=shape.bpe_layers, heads=shape.bpe // 32, ffn_multiple=32
    )
    return cfg.run(
        f"bpe-{size}",
        "bpe",
        model,
        tokenizer_=cfg.tokenizer("trained", vocab, BYTES_PER_TOKEN[vocab]),
        data_=data(shape.rows, shape.text),
        evaluation_=evaluation(),
        training_=training(lr),
        budget_flops=shape.budget,
        size=size,
    )


def blt(family: str, size: str, shape: Shape, lr: float, lm: ConfigDict, rows: int = 0) -> ConfigDict:
    scheme = families.family(family).scheme
    patching = {
        "entropy": cfg.patching("entropy", PATCH),
        "space": cfg.patching("space", SPACE_PATCH),
        "strided": cfg.patching("strided", 4),
    }
    model = cfg.blt_model(
        "released",
        local_width=shape.local,
        encoder_layers=1,
        decoder_layers=shape.decoder_layers,
        local_heads=shape.local // 32,
        global_width=shape.latent,
        global_layers=shape.latent_layers,
        global_heads=shape.latent // 32,
        k=-(-shape.latent // shape.local),
        window=shape.window,
        ngram_rows=rows or shape.hash_rows,
        ffn_multiple=32,
    )
    model = families.changed(cfg.replace(model, **NOTHING_CROSSES), family)
    return cfg.run(
        f"{family}-{size}",
        family,
        model,
        patching_=patching[scheme],
        data_=data(shape.rows, shape.text),
        evaluation_=evaluation(),
        training_=training(lr),
        entropy_model=lm if scheme == "entropy" else None,
        budget_flops=shape.budget,
        size=size,
    )


def one(family: str, size: str, shape: Shape, lr: float, lm: ConfigDict) -> ConfigDict:
    return bpe(size, shape, lr) if family == "bpe" else blt(family, size, shape, lr, lm)


def short(run: ConfigDict) -> ConfigDict:
    """A run with an eighth of its budget in batches of one short row, two sizes: everything happens, and
    little is learnt."""
    changes = {
        "data.context": CONTEXT // 4,
        "data.rows": 1,
        "data.max_train_bytes": 200_000,
        "eval.test_bytes": 20_000,
        "eval.validation_bytes": 20_000,
    }
    small = {"model.ngrams.rows": 4096}
    if run.family == "bpe":
        small = {
            "model.vocab": 1024,
            "tokenizer.vocab": 1024,
            "tokenizer.bytes_per_token": BYTES_PER_TOKEN[1024],
        }
    budgets = {"budget_flops": run.budget_flops / 8, **small}
    if len(run.entropy_model):
        budgets["entropy_model.budget_flops"] = run.entropy_model.budget_flops / 8
        budgets.update({f"entropy_model.{key}": value for key, value in changes.items()})
    return cfg.replace(run, **changes, **budgets)


def scored_in_minutes(run: ConfigDict) -> ConfigDict:
    """A run that is scored on a quarter of the test text: all of it takes longer to score than the small
    models take to train. Nothing is chosen here, so validation text is only looked at."""
    return cfg.replace(run, **{"eval.test_bytes": 100_000, "eval.validation_bytes": 20_000})


def runs_of(arg: str | None) -> tuple[ConfigDict, ...]:
    """All families at all sizes, scored on all test text; or "short" ones."""
    return of_ladder("quickstart", arg, FAMILIES, SHAPES, LR)


def of_ladder(name: str, arg: str | None, families_, shapes: dict, rates: dict) -> tuple[ConfigDict, ...]:
    """Some families at the sizes of a ladder, and at the learning rates of {family: rate}."""
    if arg not in (None, "runlocal", "short"):
        raise UserError(f"{name}:{arg}: allowed are short and runlocal")
    runs = tuple(
        one(family, size, shape, rates[family], entropy_model())
        for size, shape in shapes.items()
        for family in families_
    )
    return tuple(short(run) for run in runs if run.size != "L") if arg == "short" else runs


def get_config(arg: str | None = None) -> ConfigDict:
    runs = runs_of(arg)
    if arg != "short":
        runs = tuple(scored_in_minutes(run) for run in runs)
    return ConfigDict(
        dict(
            claim="BPE and BLT at the same training FLOPs on real text, on one small machine",
            figure="Figure 6, in miniature",
            runs=runs,
        )
    ).lock()
