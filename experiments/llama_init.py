"""Claim: a BLT whose global model begins as Llama 3.1's layers is better at the same FLOPs than one from
scratch.

Figure     Table 5 of arXiv 2412.09871: 8B on Llama 2's data, 220B tokens; BPE and BLT from scratch, and BLT
           from Llama 3.1 8B, whose own scores stand beside.
Hardware   paper's scale: a pod, 9.5e21 FLOPs a run, and Llama 3.1 8B (--set train.init_from=DIR with --only
           blt-from-llama3.1). llama_init:gpu and --runlocal: a BPE model trained ten times as long stands for
           it.
Time       as planned: 3 runs of 2.9e22 FLOPs in all, 44,000 hours of one v5p chip at 40% utilization; gpu: 4
           runs, 3.0e17; runlocal: 4 runs, 7.8e12, some 9 minutes of two cores beside what is compiled
Expect     MMLU 25.2 from scratch, 63.7 from Llama 3.1
Command    bltjax run llama_init --runlocal && bltjax report llama_init --runlocal

The layers that come from Llama learn at a tenth of the learning rate of the fresh ones (section 6.2)."""

from ml_collections import ConfigDict

from bltjax import flops
from bltjax.sweep import ladder, scales

AT = {"": ("8B", 220e9 * 4.4), "gpu": ("25M", 4e8), "runlocal": ("S", 4e5)}  # size, bytes that BPE reads
LONGER = 10  # times as much, for the model that stands for Llama 3.1
TENTH = {"train.lr_scale": ("latent/blocks=0.1",)}
LLAMA = {  # Llama 3.1 8B's layers; the directory is the user's
    "train.init_from": "models/Llama-3.1-8B",
    "model.latent.ffn": 14_336,
    "model.latent.rope_theta": 5e5,
    "model.latent.rope_scaling": (8.0, 1.0, 4.0, 8192.0),
}


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("llama_init", arg)
    size, data = AT[scale.name]
    budget = flops.TRAIN * ladder.flops_per_byte(scale, "bpe", size) * data

    def one(row: str, family: str, patch: float, budget: float, changes: dict) -> ConfigDict:
        name = {"llama3.1": ""}.get(row, row)
        return ladder.run(
            scale,
            row,
            family,
            size,
            patch=patch,
            budget=budget,
            changes=changes,
            series=row,
            figure="Table 5",
            row=name,
        )

    start = {"train.init_from": "run:llama3.1"} if scale.name else LLAMA
    runs = [
        one("llama3-220B", "bpe", 0, budget, {}),
        one("blt-220B", "blt-entropy", 4.5, budget, {}),
        one("blt-from-llama3.1", "blt-entropy", 4.5, budget, {**start, **TENTH}),
    ]
    if scale.name:
        runs.insert(0, one("llama3.1", "bpe", 0, LONGER * budget, {}))
    return ConfigDict(
        dict(claim="a global model that begins as Llama's layers", figure="Table 5", runs=tuple(runs))
    ).lock()
