"""Claim: how many bytes a patch or a token should hold depends on the budget, and one law of size, data and
compression, L(N, D, T), says how.

Figure     Laws I and II of Compute Optimal Tokenization (arXiv 2605.01188): mean patch size x size x budget.
           That study has 988 BLTs and 320 token models, no joint law, and one seed of each; its cells are not
           printed, these are fewer.
Hardware   paper's scale: 100M to 8B, 5e18 to 2e21 FLOPs, patches of 1 to 12 bytes; a pod.
           compression:gpu: one GPU, 0.1M to 11M latent parameters, 3e14 to 1e16 FLOPs. Ten such runs side by
           side reach 4.6e13 FLOPs/s on an H200, 17 reach 7.7e13 (docs/results/study_gpu); the 66
           runs to 3e15 are 6.9e16 FLOPs, the four of 1e16 4e16. A run of 3e15 reads 200 to 500 MB.
           --runlocal: two CPU cores, 3k to 221k latent parameters, 1e11 to 1.5e12 FLOPs, 91 runs in about two
           hours; the middle sizes read 50 to 100 bytes for each latent parameter.
Expect     parameters scale with bytes, not tokens, and the best compression falls with compute (the authors:
           3.7 bytes at 1e20 FLOPs, 3.3 at 2e21)
Command    bltjax run compression --runlocal && bltjax report compression --runlocal

At laptop scale every family has one learning rate, LR: the best on validation text at the middle size and
budget, on the study's text (docs/results/study; lr_tuning).

Cells beside the centre of a budget take the runs of a family off any one line of size and data, so that its
law is identified. Strided patches have a whole number of bytes: 4 stands for 4.5."""

from ml_collections import ConfigDict

from bltjax.config import families
from bltjax.sweep import designs, ladder, rules, scales

# places from a budget's centre (designs.isoflop)
FIVE, ALL, WIDE, MIDDLE, SMALL, NONE = (-2, -1, 0, 1, 2), (-1, 0, 1), (-2, 0, 2), (0,), (-2,), ()
LOWER, BELOW = (-2, -1, 0), (-1,)  # where the best is smaller than the centre
# scale: sizes, budgets, and for each family {bytes of a patch, or entries: places for each budget}
GRIDS = {
    "": (
        ("100M", "210M", "400M", "1B", "2B", "4B", "8B"),
        (5e18, 2.2e19, 1e20, 4.5e20, 2e21),
        {
            "blt-entropy": dict.fromkeys((2, 4, 6, 8, 12), (ALL,) * 5),
            "blt-strided": dict.fromkeys((1, 2, 4, 6, 8, 12), (MIDDLE, MIDDLE, ALL, MIDDLE, MIDDLE)),
            "bpe": dict.fromkeys((8192, 32_000, 128_256), (MIDDLE, ALL, MIDDLE, ALL, MIDDLE)),
        },
    ),
    "gpu": (
        ("100k", "200k", "400k", "1M", "3M", "6M", "11M"),
        (3e14, 1e15, 3e15, 1e16),
        {
            "blt-entropy": {
                3: (FIVE, LOWER, BELOW, NONE),
                4.5: (FIVE, (*LOWER, 1), LOWER, BELOW),
                8: (FIVE, LOWER, LOWER, NONE),
            },
            "blt-strided": {4: (MIDDLE, BELOW, NONE, NONE), 8: (LOWER, LOWER, NONE, NONE)},
            "bpe": {
                8192: (FIVE, (-1, 0, 1, 2), (-1, 0, 1, 2), ALL),
                32_768: (MIDDLE, MIDDLE, MIDDLE, NONE),
                2048: (MIDDLE, MIDDLE, NONE, NONE),
            },
        },
    ),
    "runlocal": (
        ("3k", "6k", "12k", "25k", "49k", "98k", "S"),
        (1e11, 4e11, 1.5e12),
        {
            "blt-entropy": {
                2: (WIDE, WIDE, MIDDLE),
                4.5: (WIDE, WIDE, (-2, -1, 0, 2)),
                8: (WIDE, WIDE, LOWER),
                **dict.fromkeys((3, 6), (MIDDLE, MIDDLE, NONE)),
            },
            "blt-strided": {
                4: ((-2, 0), WIDE, (-2, 0)),
                8: ((-2, 0), (-2, 0), (-2, 0)),
                **dict.fromkeys((2, 3, 6), (MIDDLE, MIDDLE, NONE)),
            },
            "bpe": {
                1024: ((-2, 0), (-2, 0), SMALL),
                4096: ((-2, 0), WIDE, (-3, *LOWER)),
                8192: (MIDDLE, MIDDLE, SMALL),
                16_384: ((-2, 0), (-2, 0), (-2, 0)),
                32_768: (SMALL, SMALL, (-3, -2)),
                65_536: (SMALL, SMALL, (-3,)),
                **dict.fromkeys((512, 2048), (MIDDLE, MIDDLE, NONE)),
            },
        },
    ),
}
FIRST = {"": 1, "gpu": 2, "runlocal": 2}  # which size is the centre of the first budget
LR = 1.6e-2
SEEDS = 3  # of the cells that are named here, the noise of the others
SEEDED = (
    ("blt-entropy", 4.5, "400k", 3e14),
    ("blt-entropy", 4.5, "400k", 1e15),
    ("bpe", 8192, "400k", 3e14),
    ("bpe", 8192, "1M", 1e15),
    ("blt-entropy", 4.5, "12k", 1e11),
    ("blt-entropy", 4.5, "25k", 4e11),
    ("blt-strided", 4, "25k", 4e11),
    ("bpe", 4096, "25k", 4e11),
)


def cells(scale: ladder.Scale) -> list[tuple]:
    """(family, bytes of a patch or entries, size, budget), the cheapest first."""
    sizes, budgets, units = GRIDS[scale.name]
    found = [
        (family, unit, size, budget)
        for family, of_units in units.items()
        for unit, places in of_units.items()
        for size, budget in designs.isoflop(sizes, budgets, places, FIRST[scale.name])
    ]
    return sorted(found, key=lambda cell: cell[-1])


def one(scale: ladder.Scale, family: str, unit: float, size: str, budget: float) -> ConfigDict:
    tokens = families.family(family).kind == "token"
    name = f"{family}-{'v' * tokens}{unit:g}-{size}-{ladder.short(budget)}"
    return ladder.run(
        scale,
        name,
        family,
        size,
        budget=budget,
        series=f"{unit:,} entries, {size}" if tokens else f"{unit:g} bytes, {size}",
        figure="Laws I and II of arXiv 2605.01188",
        changes={
            "train.warmup": rules.SHORT_WARMUP,
            **({"train.lr": LR} if scale.name == "runlocal" else {}),
        },
        **({"vocab": unit} if tokens else {"patch": unit}),
    )


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("compression", arg)
    chosen = cells(scale)
    return ConfigDict(
        dict(
            claim="one law of size, data and bytes per patch or token, with the best compression at a budget",
            figure="Laws I and II of arXiv 2605.01188",
            law="L(N, D, T)",
            swept=("train.lr",),
            seeds=tuple(SEEDS if cell in SEEDED else 1 for cell in chosen),
            runs=tuple(one(scale, *cell) for cell in chosen),
        )
    ).lock()
