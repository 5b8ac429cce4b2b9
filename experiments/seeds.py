"""Claim: how much of a difference between two runs is the draw of their weights.

Figure     none; neither the paper nor its follow-up repeats a run
Hardware   paper's scale: a few accelerators, 5e18 FLOPs a run. seeds:gpu: one GPU. --runlocal: two CPU cores.
Time       as planned: 20 runs of 1.0e20 FLOPs in all, 150 hours of one v5p chip at 40% utilization; gpu: 20
           runs, 2.0e16; runlocal: 20 runs, 4.0e12, some 5 minutes of two cores beside what is compiled
Expect     standard deviations of a hundredth of a bit per byte on a laptop, and less where runs are longer
Command    bltjax run seeds --runlocal && bltjax report seeds --runlocal

Five seeds of one cell of each family. A difference that is smaller than its noise is none."""

from ml_collections import ConfigDict

from bltjax.sweep import ladder, scales

AT = {"": ("210M", 5e18), "gpu": ("3M", 1e15), "runlocal": ("S", 2e11)}  # size, budget
SEEDS = 5


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("seeds", arg)
    size, budget = AT[scale.name]
    runs = tuple(ladder.of_every_family(scale, size, budget))
    return ConfigDict(dict(claim="the noise of a cell", figure="", seeds=SEEDS, runs=runs)).lock()
