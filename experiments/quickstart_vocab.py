"""Claim: the quickstart's BPE baseline has the vocabulary that is best for it at this scale, its output
head's FLOPs counted.

Figure     none
Hardware   2 CPU cores
Expect     the best of 512 to 4,096 entries, by bits per byte of validation text at the middle budget.
Command    bltjax run quickstart_vocab && bltjax report quickstart_vocab

The results that the quickstart uses are kept in docs/results/quickstart_vocab/.
"""

from bltjax.experiments import quickstart
from ml_collections import ConfigDict

from bltjax import config as cfg

VOCABS = (512, 1024, 2048, 4096)
SIZE = "M"


def get_config(arg: str | None = None) -> ConfigDict:
    shape = quickstart.SHAPES[SIZE]
    runs = [quickstart.bpe(SIZE, shape, quickstart.LR["bpe"], vocab) for vocab in VOCABS]
    judged = {"eval.validation_bytes": 150_000, "eval.test_bytes": 30_000}
    return ConfigDict(
        dict(
            claim="the BPE vocabulary, at the middle budget",
            figure="",
            runs=tuple(
                cfg.replace(run, **{"name": f"{run.name}-v{run.tokenizer.vocab}", **judged}) for run in runs
            ),
        )
    ).lock()
