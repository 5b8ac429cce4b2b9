"""Claim: each family is compared at a learning rate, batch and beta2 that were best for it at its size.

Figure     none; the paper searched 1e-3 to 1e-4 at 400M and 1B and found one optimum, 4e-4, for BPE and BLT
           (section 4.8)
Hardware   paper's scale: 64 accelerators. lr_tuning:gpu: one GPU. --runlocal: two CPU cores.
Time       as planned: 72 runs of 4.3e21 FLOPs in all, 6,600 hours of one v5p chip at 40% utilization; gpu: 72
           runs, 4.7e16; runlocal: 72 runs, 3.8e13, some 40 minutes of two cores beside what is compiled
Expect     the best learning rate is not at an edge; at small batches a larger beta2 helps (Porian et al.
           2024)
Command    bltjax run lr_tuning --runlocal && bltjax report lr_tuning --runlocal

One thing is changed at a time, from what the scale's rules give: the learning rate by factors of two, then
batch and beta2. The best is chosen on validation text."""

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.sweep import ladder, scales

CELLS = {  # size, budget
    "": (("400M", 2e19), ("1B", 1e20)),
    "gpu": (("400k", 3e14), ("1M", 1e15)),
    "runlocal": (("25k", 4e11), ("M", 6.5e11)),
}
LR_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
BATCH_FACTORS = (0.5, 2.0)
BETA2 = (0.9, 0.99)


def variants(run: ConfigDict) -> list[ConfigDict]:
    """The run at every learning rate, and at every other batch and beta2."""
    rows = run.data.rows
    found = [(f"lr{factor * run.train.lr:.2g}", {"train.lr": factor * run.train.lr}) for factor in LR_FACTORS]
    batches = {max(1, round(factor * rows)) for factor in BATCH_FACTORS} - {rows}
    found += [(f"rows{n}", {"data.rows": n}) for n in sorted(batches)]
    found += [(f"beta2-{beta2:g}", {"train.beta2": beta2}) for beta2 in BETA2]
    return [cfg.replace(run, name=f"{run.name}-{name}", **changes) for name, changes in found]


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("lr_tuning", arg)
    centres = [
        run for size, budget in CELLS[scale.name] for run in ladder.of_every_family(scale, size, budget)
    ]
    return ConfigDict(
        dict(
            claim="learning rate, batch and beta2 of every family, at two sizes",
            figure="",
            swept=("train.lr", "train.beta2", "data.rows"),
            runs=tuple(run for centre in centres for run in variants(centre)),
        )
    ).lock()
