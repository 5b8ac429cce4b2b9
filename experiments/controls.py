"""Claim: what patches by entropy gain is due to where they begin, not to how many there are.

Figure     none; the paper has no such control
Hardware   paper's scale: 64 accelerators. controls:gpu: one GPU. --runlocal: two CPU cores.
Time       as planned: 12 runs of 2.0e21 FLOPs in all, 3,000 hours of one v5p chip at 40% utilization; gpu: 36
           runs, 2.0e17; runlocal: 36 runs, 1.5e13, some 15 minutes of two cores beside what is compiled
Expect     if boundaries matter, patches by entropy are better than patches of random and of equal length with
           the same mean; if compute per patch is what matters, all three are alike
Command    bltjax run controls --runlocal && bltjax report controls --runlocal

Means are whole numbers, so that patches of equal length have exactly as many patches as the others. Random
boundaries are a coin that is a hash of the text before, so that they are the same in training and in
generation. The report's table of places says of which bytes of a patch the difference is."""

from ml_collections import ConfigDict

from bltjax.sweep import ladder, scales

FAMILIES = ("blt-entropy", "blt-random", "blt-strided")
MEANS = (4, 8)  # bytes per patch
CELLS = {  # size, budget
    "": (("400M", None), ("1B", None)),
    "gpu": (("3M", 1e15), ("11M", 1e16)),
    "runlocal": (("S", 2e11), ("M", 6.5e11)),
}
SEEDS = {"": 1, "gpu": 3, "runlocal": 3}


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("controls", arg)
    runs = tuple(
        ladder.run(
            scale,
            f"{family}-{mean}-{size}",
            family,
            size,
            patch=mean,
            budget=budget or ladder.optimal_budget(scale, size),
        )
        for size, budget in CELLS[scale.name]
        for family in FAMILIES
        for mean in MEANS
    )
    return ConfigDict(
        dict(
            claim="entropy patches against random and equal ones, as many of them",
            figure="",
            seeds=SEEDS[scale.name],
            runs=runs,
        )
    ).lock()
