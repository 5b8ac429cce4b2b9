"""Claim: the learning rates found at the quickstart's middle budget serve at its largest, too.

Figure     none; the rule is the paper's: one learning rate for all sizes (section 4.8).
Hardware   2 CPU cores
Expect     at the largest budget no family is better, by validation text and by more than seeds differ, at
           half or twice its learning rate.
Command    bltjax run quickstart_lr_check && bltjax report quickstart_lr_check

Results: docs/results/quickstart_lr_check/.
"""

from ml_collections import ConfigDict

from bltjax.experiments import quickstart, quickstart_lr

FACTORS = (0.5, 1.0, 2.0)
SIZE = "L"


def get_config(arg: str | None = None) -> ConfigDict:
    runs = [run for run in quickstart.runs_of(None) if run.size == SIZE]
    return ConfigDict(
        dict(
            claim="the rule that carries learning rates to other sizes, at the largest",
            figure="",
            runs=tuple(quickstart_lr.at(run, factor * run.train.lr) for run in runs for factor in FACTORS),
        )
    ).lock()
