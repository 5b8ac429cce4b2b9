"""Claim: at 8B, dynamic patches (by entropy, by spaces) serve as well as BPE tokens at the same FLOPs.

Figure     Table 6 of arXiv 2412.09871: BPE, space and entropy patches on Llama 2's data, each for its optimal
           steps
Hardware   paper's scale: a pod, 7.1e21 FLOPs a run. patching_schemes:gpu: one GPU. --runlocal: two CPU cores.
Time       as planned: 3 runs of 2.1e22 FLOPs in all, 33,000 hours of one v5p chip at 40% utilization; gpu: 3
           runs, 2.2e17; runlocal: 3 runs, 2.0e12, some 2 minutes of two cores beside what is compiled
Expect     entropy patches lead, space patches are a close second
Command    bltjax run patching_schemes --runlocal && bltjax report patching_schemes --runlocal

The paper's space patches come from an earlier run without cross-attention; these have it."""

from ml_collections import ConfigDict

from bltjax.sweep import ladder, scales

RUNS = (("bpe", 0), ("blt-space", 0), ("blt-entropy", 4.5))  # family, patch size
SIZE = {"": "8B", "gpu": "25M", "runlocal": "M"}
LAPTOP_BUDGET = 6.5e11


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("patching_schemes", arg)
    size = SIZE[scale.name]
    budget = LAPTOP_BUDGET if arg == "runlocal" else ladder.optimal_budget(scale, size)
    runs = tuple(
        ladder.run(scale, family, family, size, patch=patch, budget=budget, figure="Table 6", row=family)
        for family, patch in RUNS
    )
    return ConfigDict(
        dict(claim="dynamic patches serve as well as BPE tokens", figure="Table 6", runs=runs)
    ).lock()
