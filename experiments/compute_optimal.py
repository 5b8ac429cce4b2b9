"""Claim: trained at the same FLOPs, each at its compute-optimal budget, byte patches match BPE tokens from
400M to 8B parameters.

Figure     6 of arXiv 2412.09871: bits per byte against training FLOPs. Left, space patches: BLT, BLT without
           cross-attention, SpaceByte, MegaByte (4, 6). Right, entropy patches: 4.5, 6, 8. Both against the
           Llama 3 tokenizer. (The paper's axis starts at 1B; 400M is its smallest shape.)
Hardware   A pod: a run of 8B is 7.1e21 FLOPs, 10,800 hours of one v5p chip at 40% utilization; a run of 400M
           70 hours; all 45 runs 9.8e22 FLOPs. compute_optimal:gpu: one GPU, 6e15 to 5e17 FLOPs a run.
           --runlocal: two CPU cores, 2e11 to 2.1e12 FLOPs, 27 runs in less than an hour.
Expect     The paper prints no points. It says: entropy patches match or beat BPE; patches of 8 are clearly
           worse at 1B and better than Llama 2's BPE near 7B; SpaceByte beats MegaByte, and both stay far
           behind BPE.
Command    bltjax plan compute_optimal
           bltjax run compute_optimal --set 'data.globs=["/where/your/text/is/*.jsonl"]'
           bltjax run compute_optimal --runlocal

At one size all families have one budget, one batch in bytes and one context in bytes."""

from ml_collections import ConfigDict

from bltjax.config import families
from bltjax.sweep import designs, ladder, scales

PATCHED = (  # family, patch size
    ("blt-entropy", 4.5),
    ("blt-entropy", 6),
    ("blt-entropy", 8),
    ("blt-space", 6),
    ("blt-space-no-cross", 6),
    ("spacebyte", 6),  # 6: what the space rule gives on the paper's text
    ("megabyte", 4),
    ("megabyte", 6),
)
ENCODER_LAYERS = {8: 3}  # by patch size; others have one (section 5.3)
SIZES = {"": ("400M", "1B", "2B", "4B", "8B"), "gpu": ("6M", "11M", "25M", "71M")}
LAPTOP = (("S", 2e11), ("M", 6.5e11), ("L", 2.1e12))  # the law's own are a hundred times as much


def one(scale: ladder.Scale, family: str, patch: float, size: str, budget: float) -> ConfigDict:
    if families.family(family).scheme == "space":
        patch = scale.space
    return ladder.run(
        scale,
        f"{family}-{patch:g}-{size}" if patch else f"{family}-{size}",
        family,
        size,
        patch=patch,
        budget=budget,
        encoder_layers=ENCODER_LAYERS.get(patch, 0),
        figure="Figure 6",
    )


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("compute_optimal", arg)
    cells = LAPTOP if arg == "runlocal" else designs.compute_optimal(scale, SIZES[scale.name])
    return ConfigDict(
        dict(
            claim="at the same training FLOPs, byte patches match BPE tokens from 400M to 8B parameters",
            figure="Figure 6",
            runs=tuple(one(scale, *which, *cell) for cell in cells for which in (("bpe", 0), *PATCHED)),
        )
    ).lock()
