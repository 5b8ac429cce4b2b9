"""Claim: that the paper divides the sum of a byte's embedding and its n-gram embeddings by their number costs
nothing in itself: it is a matter of initial scale and learning rate, and costs much where these stay what
they are.

Figure     none; the division is section 3.2's, and the released code has none. At the paper's scale the
           model, its tables and its data are Table 8's last row: 1B, n-grams of 3 to 8 bytes, 400,000 rows
           for each, 100B bytes.
Hardware   2 CPU cores (runlocal); one GPU (gpu); at the paper's scale a run is 2.4e20 FLOPs
Time       runlocal: 63 runs, 80 minutes of one core beside other work (measured); short: minutes
Expect     `sum` and `compensated` are one model, trained alike, and end alike; `divided` is far behind, and
           so is either half of the remedy for the tables alone.
Command    bltjax run ngram_normalisation --runlocal && bltjax report ngram_normalisation --runlocal
           bltjax run ngram_normalisation:gpu
           bltjax run ngram_normalisation --set 'data.globs=["/where/your/text/is/*.jsonl"]'

x = (e_byte + e_3 + ... + e_8) / 7. Write e = 7 u: x is the sum of the u. AdamW's step does not depend on the
gradient's scale, so the u are trained as in the released form if e starts 7 times as large, takes steps 7
times as large, and decays by the same share of itself as u does: learning rate times 7, but the decay, which
AdamW multiplies by it, not. (Beside it: the gradient norm that is clipped counts gradients of e, a seventh of
those of u, and Adam's eps is 7 times as large beside them.) That is `compensated`, the preset `paper`.
tests/test_ngram_normalisation.py has it step by step. `rate`, `scale` and `tables` change the n-gram tables
alone, by train.lr_scale with its decay: what one would try first.

Space patches only: how bytes become patches has no part in it. Results: docs/results/ngram_normalisation/.
"""

import dataclasses

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.experiments import quickstart, quickstart_seeds

FAMILY = "blt-space"
BUDGETS = {
    "S": 2e11,
    "M": 5e11,
    "L": 1.25e12,
}  # FLOPs on a laptop: 63 runs, so less each than quickstart_seeds''
PARTS = 7  # six sizes of n-grams, and the byte
RATE = {"train.lr_scale": (f"encoder/embed/ngrams={PARTS}",)}
SCALE = {"model.ngrams.init_scale": float(PARTS)}
DIVIDED = {"model.ngrams.compensate": False}

# What is compared: a preset, and what differs from it.
VARIANTS = {
    "released": ("released", {}),
    "sum": ("paper", {**DIVIDED, "model.ngrams.normalise": False}),
    "divided": ("paper", DIVIDED),
    "rate": ("paper", {**DIVIDED, **RATE}),
    "scale": ("paper", {**DIVIDED, **SCALE}),
    "tables": ("paper", {**DIVIDED, **RATE, **SCALE}),
    "compensated": ("paper", {}),
}

GPU = dataclasses.replace(
    quickstart_seeds.SHAPES["L"],
    budget=1e15,
    local=128,
    decoder_layers=3,
    latent=512,
    latent_layers=8,
    rows=64,
)
GPU_CHANGES = {"data.max_train_bytes": 0, "model.dtype": "bfloat16"}
GPU_LR = 4e-3  # not tuned


def variants(run: ConfigDict) -> list[ConfigDict]:
    """The run in every reading."""
    made = []
    for name, (preset, changes) in VARIANTS.items():
        switches = {f"model.{key}": value for key, value in cfg.flat(ConfigDict(cfg.PRESETS[preset])).items()}
        # no document sees another, in any reading
        alike = {f"model.{key}": value for key, value in quickstart.NOTHING_CROSSES.items()}
        names = {"name": f"{run.name}-{name}", "series": name, "model.preset": preset}
        made.append(cfg.replace(run, **{**switches, **alike, **changes, **names}))
    return made


def paper_scale() -> ConfigDict:
    """Table 8's model on its data. The paper's text is not public: bring your own."""
    context, batch, total = 8192, 2**22, 100e9  # bytes; a batch of 4 MiB is Llama 3's for such a budget
    data = cfg.replace(
        cfg.data(),
        **{
            "source": "files",
            "globs": ("data/ngram_normalisation/*.jsonl",),
            "context": context,
            "rows": batch // context,
            "validation": 0.001,
            "test": 0.001,
        },
    )
    model = cfg.replace(cfg.sized_blt("1B", ngram_rows=400_000), **{"dtype": "bfloat16", "remat": "full"})
    return cfg.run(
        f"{FAMILY}-1B",
        FAMILY,
        model,
        patching_=cfg.patching("space", 6),  # what the space rule gives on the paper's text
        data_=data,
        training_=cfg.replace(cfg.training(), **{"steps": round(total / batch), "warmup": 2000}),
        evaluation_=cfg.replace(
            cfg.evaluation(), **{"test_bytes": 64_000_000, "validation_bytes": 16_000_000}
        ),
        size="1B",
    )


def runs_of(arg: str | None) -> list[ConfigDict]:
    """The runs of a scale, before they are read in different ways."""
    if arg is None:
        return [paper_scale()]
    if arg == "gpu":
        return [cfg.replace(quickstart.blt(FAMILY, "G", GPU, GPU_LR, None), **GPU_CHANGES)]
    if arg not in ("runlocal", "short"):
        raise UserError(f"ngram_normalisation:{arg}: allowed are runlocal, short and gpu")
    runs = [run for run in quickstart_seeds.runs_of("ngram_normalisation", arg) if run.family == FAMILY]
    if arg == "short":
        return runs
    return [cfg.replace(run, budget_flops=BUDGETS[run.size]) for run in runs]


def get_config(arg: str | None = None) -> ConfigDict:
    return ConfigDict(
        dict(
            claim="dividing embeddings by their number costs bits only where initial scale and rate stay",
            figure="",
            seeds=1 if arg is None else 3,
            runs=tuple(made for run in runs_of(arg) for made in variants(run)),
        )
    ).lock()
