"""Claim: where the paper's text and the released code disagree, it matters which of them a small BLT
computes.

Figure     none
Hardware   2 CPU cores
Expect     dividing byte embeddings by the number of n-grams plus one (paper section 3.2) costs about half a
           bit per byte at this scale; the other differences cost little.
Command    bltjax run quickstart_presets && bltjax report quickstart_presets

Results: docs/results/quickstart_presets/.
"""

from bltjax.experiments import quickstart, quickstart_lr
from ml_collections import ConfigDict

from bltjax import config as cfg

# the learning rate is the best one of `paper`, of 1e-3 to 1.6e-2; the others are better still at twice that
SIZE, LR = "M", 8e-3
PAPER = {
    f"{part}.{key}": value
    for part in ("cross", "ngrams")
    for key, value in cfg.PRESETS["paper"][part].items()
}
READINGS = {"released": {}, "paper": PAPER, "paper-sum": {**PAPER, "ngrams.normalise": False}}


def get_config(arg: str | None = None) -> ConfigDict:
    runs = []
    for run in quickstart.runs_of(arg):
        if run.size == SIZE and run.family in ("blt-entropy", "blt-space"):
            for name, changes in READINGS.items():
                changed = cfg.replace(
                    quickstart_lr.at(run, LR), **{f"model.{key}": value for key, value in changes.items()}
                )
                runs.append(cfg.replace(changed, name=f"{run.name}-{name}", series=name))
    return ConfigDict(
        dict(
            claim="what the differences between the paper's text and the released code cost at a small scale",
            figure="",
            runs=tuple(runs),
        )
    ).lock()
