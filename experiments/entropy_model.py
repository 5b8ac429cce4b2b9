"""Claim: a larger entropy model with a longer window gives better patches, with little gain beyond 50M
parameters and 512 bytes.

Figure     8 of arXiv 2412.09871: bits per byte of BLTs of 400M and 1B against their entropy models (1M to
           100M parameters, windows of 64 to 512 bytes); `lm-100M-w512` is the paper's own (section 4.2: 14
           layers of 768, window 512)
Hardware   the entropy models: a few accelerators, the paper's is 6.6e18 FLOPs, ten hours of one v5p chip at
           40% utilization; the BLTs: a pod. entropy_model:gpu: one GPU. --runlocal: two CPU cores.
Time       as planned: 48 runs of 5.4e21 FLOPs in all, 8,200 hours of one v5p chip at 40% utilization; gpu: 24
           runs, 2.6e17; runlocal: 18 runs, 9.8e12, some 10 minutes of two cores beside what is compiled
Expect     test bits per byte of the entropy models and of the BLTs fall with size and with window
Command    bltjax run entropy_model --set 'data.globs=["/where/your/text/is/*.jsonl"]'
           bltjax run entropy_model --runlocal
           bltjax run entropy_model --only lm-        the entropy models alone

How long the paper trained its model is not said: here every one reads 100 bytes for each of its
parameters."""

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops
from bltjax.sweep import ladder, scales

BYTES_PER_PARAMETER, FEWEST_STEPS = 100, 1000
# scale: {entropy model: (layers, width, heads)}, windows, {BLT: its budget, None for Llama 3's law}
GRIDS = {
    "": (
        {"1M": (4, 128, 4), "10M": (6, 384, 6), "50M": (12, 576, 9), "100M": (14, 768, 12)},
        (64, 128, 256, 512),
        {"400M": None, "1B": None},
    ),
    "gpu": (
        {"100k": (2, 64, 1), "1M": (4, 128, 2), "3M": (4, 256, 4), "10M": (6, 384, 6)},
        (64, 512),
        {"3M": 1e15, "11M": 1e16},
    ),
    "runlocal": (
        {"16k": (1, 32, 1), "100k": (2, 64, 2), "400k": (2, 128, 4)},
        (16, 128),
        {"S": 2e11, "M": 6.5e11},
    ),
}
BATCH = {"": 2**20, "gpu": 2**16, "runlocal": 2**11}  # bytes
LAPTOP_STEPS = 300  # of the entropy models there: 100 bytes per parameter take too long


def model(layers: int, width: int, heads: int, window: int, ffn_multiple: int = 256, **changes) -> ConfigDict:
    one = cfg.transformer(
        "byte",
        vocab=260,
        width=width,
        layers=layers,
        heads=heads,
        window=window,
        rope_theta=1e4,
        ffn_multiple=ffn_multiple,
    )
    return cfg.replace(one, **changes)


def entropy_model(scale: ladder.Scale, size: str, shape, window: int) -> ConfigDict:
    one = model(*shape, window, scale.ffn, **scale.changes)
    batch = BATCH[scale.name]
    steps = max(FEWEST_STEPS, int(BYTES_PER_PARAMETER * flops.params(one)["total"]) // batch)
    if scale.name == "runlocal":
        steps = LAPTOP_STEPS
    run = cfg.run(
        f"lm-{size}-w{window}",
        "entropy-model",
        one,
        data_=scale.text,
        evaluation_=scale.evaluation,
        size=size,
        figure="Figure 8",
    )
    return cfg.replace(
        run,
        **{
            "data.rows": batch // scale.text.context,
            "train.steps": steps,
            "train.warmup": min(500, steps // 10),
            "train.lr": scale.entropy_model.train.lr,
        },
    )


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("entropy_model", arg)
    shapes, windows, sizes = GRIDS[scale.name]
    models = [entropy_model(scale, *shape, window) for shape in shapes.items() for window in windows]
    blts = [
        ladder.run(
            scale,
            f"blt-{size}-{lm.name}",
            "blt-entropy",
            size,
            patch=4.5,
            budget=budget or ladder.optimal_budget(scale, size),
            entropy_model=cfg.replace(lm, **{"name": "entropy-model", "paper.figure": ""}),
            series=f"{size}, {lm.name}",
            figure="Figure 8",
        )
        for size, budget in sizes.items()
        for lm in models
    ]
    return ConfigDict(
        dict(
            claim="larger entropy models with longer windows predict bytes better, and BLTs with them",
            figure="Figure 8",
            runs=(*models, *blts),
        )
    ).lock()
