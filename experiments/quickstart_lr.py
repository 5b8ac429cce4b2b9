"""Claim: each family of the quickstart is trained at a learning rate that was best for it, not at another
family's.

Figure     none; the paper searched 1e-3 to 1e-4 at 400M and 1B and found one optimum for BPE and BLT
           (section 4.8).
Hardware   2 CPU cores
Expect     for every family the best of four learning rates at the middle budget, by bits per byte of
           validation text, is not at the edge.
Command    bltjax run quickstart_lr && bltjax report quickstart_lr

What it has shown so far stands in docs/results/README.md.
"""

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.experiments import quickstart

SIZE = "M"
BYTES = (1.6e-2, 3.2e-2, 6.4e-2, 1.28e-1)
LRS = {"bpe": (4e-3, 8e-3, 1.6e-2, 3.2e-2), "blt-entropy": BYTES, "blt-space": BYTES, "blt-strided": BYTES}


def at(run: ConfigDict, lr: float) -> ConfigDict:
    """A run of the quickstart at another learning rate, judged by validation text; test text, of which it has
    no say, is scored as briefly as can be."""
    return cfg.replace(run, **{"name": f"{run.name}-lr{lr:g}", "train.lr": lr, "eval.test_bytes": 20_000})


def get_config(arg: str | None = None) -> ConfigDict:
    runs = [run for run in quickstart.runs_of(arg) if run.size == SIZE]
    return ConfigDict(
        dict(
            claim="the learning rate of every family, at the middle budget",
            figure="",
            runs=tuple(at(run, lr) for run in runs for lr in LRS[run.family]),
        )
    ).lock()
