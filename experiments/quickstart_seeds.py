"""Claim: what the quickstart says of BPE and of BLT with space patches holds, or does not, beyond one draw of
weights.

Figure     6 of arXiv 2412.09871 in miniature, with seeds
Hardware   2 CPU cores
Expect     intervals that cover documents and seeds together; a family is called ahead only where they
           exclude 0.
Command    bltjax run quickstart_seeds && bltjax report quickstart_seeds

Two of the quickstart's four families, three seeds each; results in docs/results/quickstart_seeds/.
"""

from ml_collections import ConfigDict

from bltjax.experiments import quickstart

FAMILIES = ("bpe", "blt-space")
SEEDS = 3


def get_config(arg: str | None = None) -> ConfigDict:
    runs = tuple(run for run in quickstart.runs_of(arg) if run.family in FAMILIES)
    return ConfigDict(
        dict(
            claim="BPE and BLT with space patches at the same training FLOPs, three seeds each",
            figure="Figure 6, in miniature",
            seeds=SEEDS,
            runs=runs,
        )
    ).lock()
