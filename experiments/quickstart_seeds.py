"""Claim: what the quickstart says of BPE and of BLT with space patches holds, or does not, beyond one draw of
weights.

Figure     6 of arXiv 2412.09871 in miniature, with seeds
Hardware   2 CPU cores
Expect     intervals that cover documents and seeds together; a family is called ahead only where they
           exclude 0.
Command    bltjax run quickstart_seeds && bltjax report quickstart_seeds

Two of the quickstart's four families, three seeds each, on a larger ladder than the quickstart's, which has
minutes to keep to: 2e11 to 2.1e12 FLOPs, 0.2 to 1.8 million latent parameters. It is also the ladder of
`lexicon` and `ngram_normalisation`. Results in docs/results/quickstart_seeds/.
"""

from ml_collections import ConfigDict

from bltjax.experiments import quickstart
from bltjax.experiments.quickstart import Shape
from bltjax.sweep import rules

FAMILIES = ("bpe", "blt-space")
SEEDS = 3
ALL = dict(window=128, hash_rows=8192, text=2_000_000)
SHAPES = {
    "S": Shape(2e11, 32, 1, latent=96, latent_layers=2, bpe=96, bpe_layers=2, rows=2, **ALL),
    "M": Shape(6.5e11, 64, 1, latent=128, latent_layers=3, bpe=128, bpe_layers=3, rows=3, **ALL),
    "L": Shape(2.1e12, 64, 2, latent=192, latent_layers=4, bpe=192, bpe_layers=4, rows=4, **ALL),
}
LR = rules.LAPTOP_LR


def runs_of(name: str, arg: str | None) -> tuple[ConfigDict, ...]:
    """Both families at the sizes of this ladder, scored on all test text; or "short" ones."""
    return quickstart.of_ladder(name, arg, FAMILIES, SHAPES, LR)


def get_config(arg: str | None = None) -> ConfigDict:
    return ConfigDict(
        dict(
            claim="BPE and BLT with space patches at the same training FLOPs, three seeds each",
            figure="Figure 6, in miniature",
            seeds=SEEDS,
            runs=runs_of("quickstart_seeds", arg),
        )
    ).lock()
