"""Claim: at the same inference FLOPs per byte, BLT with longer patches overtakes BPE once both read more than
is compute optimal for BPE.

Figure     1 and Table 2 of arXiv 2412.09871: Llama 2's and Llama 3's tokenizers and entropy patches of 6 and
           8 bytes, in two classes of FLOPs per byte (3.1e8 and 2.1e9), over a range of data.
Hardware   paper's scale: a pod; 44 runs of 25B to 2T bytes. fixed_inference:gpu: one GPU, hours. --runlocal:
           two CPU cores, an hour.
Time       as planned: 44 runs of 1.1e23 FLOPs in all, 170,000 hours of one v5p chip at 40% utilization; gpu:
           36 runs, 3.9e18; runlocal: 28 runs, 3.7e13, some 40 minutes of two cores beside what is compiled
Expect     BPE is better where it is compute optimal (50B and 400B bytes); patches of 8 cross it at 150B bytes
           in the small class (3x) and 1T in the large one (2.5x). The paper prints no points.
Command    bltjax run fixed_inference --runlocal && bltjax report fixed_inference --runlocal

What is held fixed is the cost of a byte: layers and feed-forward width of every latent transformer are chosen
for it (designs.fixed_inference). Parameters follow: of the paper's 610M, 760M, 5.2B and 6.6B the large class
has 5.2B and 6.6B, the small one fewer, as its legend in Figure 1 has (550M)."""

import math

from ml_collections import ConfigDict

from bltjax import flops
from bltjax.sweep import designs, ladder, scales

ENCODER_LAYERS = {8: 3}  # section 5.3
# scale: vocabularies of the two tokenizers, {class: (size of the BPE and of the BLT, bytes that are read)}
GRIDS = {
    "": (
        (32_000, 128_256),
        {
            "small": ("400M", "400M", (25e9, 50e9, 100e9, 150e9, 200e9, 400e9)),
            "large": ("4B", "8B", (200e9, 400e9, 700e9, 1e12, 2e12)),
        },
    ),
    "gpu": (
        (2048, 8192),
        {
            "small": ("11M", "11M", (1e8, 2e8, 4e8, 8e8, 1.6e9)),
            "large": ("71M", "71M", (4e8, 8e8, 1.6e9, 3.2e9)),
        },
    ),
    "runlocal": (
        (1024, 4096),
        {"small": ("S", "S", (2e5, 4e5, 8e5, 1.6e6)), "large": ("L", "L", (2e5, 4e5, 8e5))},
    ),
}
# {class: rows of Table 2}: both tokenizers, then patches of 6 and 8
ROWS = {
    "small": ("llama2-470M", "llama3-450M", "blt-6-610M", "blt-8-760M"),
    "large": ("llama2-3.6B", "llama3-3.9B", "blt-6-5.2B", "blt-8-6.6B"),
}
# That the paper's parameters tell (470M, 450M, 3.6B, 3.9B, 5.2B, 6.6B), or its FLOPs per byte.
LAYERS = {
    **{"llama2-470M": 24, "llama3-450M": 23, "blt-6-610M": 23, "blt-8-760M": 25},
    **{"llama2-3.6B": 32, "llama3-3.9B": 35, "blt-6-5.2B": 25, "blt-8-6.6B": 32},
}
# `exact` forward FLOPs per byte; 3.1e8 and 2.1e9 in the paper's convention
TARGETS = {"small": 3.17e8, "large": 2.1e9}


def of_class(scale: ladder.Scale, name: str) -> list[ConfigDict]:
    vocabs, classes = GRIDS[scale.name]
    bpe_size, blt_size, amounts = classes[name]
    units = [("bpe", bpe_size, {"vocab": vocab}) for vocab in vocabs]
    units += [
        ("blt-entropy", blt_size, {"patch": patch, "encoder_layers": ENCODER_LAYERS.get(patch, 0)})
        for patch in (6, 8)
    ]
    if scale.name:  # half-way between the baselines
        own = [ladder.flops_per_byte(scale, family, size, **unit) for family, size, unit in units[:2]]
        target, layers = math.prod(own) ** 0.5, {}
    else:
        target, layers = TARGETS[name], LAYERS
    runs = []
    for row, (family, size, unit) in zip(ROWS[name], units, strict=True):
        changes = designs.fixed_inference(scale, family, size, target, layers.get(row, 0), **unit)
        for amount in amounts:
            runs.append(
                ladder.run(
                    scale,
                    f"{row}-{ladder.short(amount)}",
                    family,
                    size,
                    data_bytes=amount,
                    like=flops.TRAIN * target * amount,
                    changes=changes,
                    series=row,
                    figure="Table 2",
                    row=row,
                    **unit,
                )
            )
    return runs


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("fixed_inference", arg)
    return ConfigDict(
        dict(
            claim="at equal FLOPs per byte of inference, longer patches overtake BPE with more data",
            figure="Figure 1, Table 2",
            runs=tuple(run for name in ROWS for run in of_class(scale, name)),
        )
    ).lock()
