"""Claim: how large the vocabulary of BPE and the hash tables of BLT are decides which of them is ahead, at
next to no FLOPs; so each is chosen, at every budget, until the best lies inside its grid.

Figure     none; the paper takes Llama 3's 128,256 entries and 500,000 rows for each of six tables as given.
Hardware   2 CPU cores
Time       as planned: 32 runs of 3.0e13 FLOPs in all, half an hour or more
Expect     BPE has a best vocabulary at every budget: a larger one pays for its output head and sees each
           entry seldom. BLT's bits per byte fall with every doubling of rows, less each time, up to the
           paper's half a million: more rows cost memory and time, not FLOPs.
Command    bltjax run lexicon && bltjax report lexicon

Chosen by bits per byte of validation text, on the ladder of quickstart_seeds. The values that it and the
quickstart use, and the plot of bits per byte against the size of the lexicon for both, are kept in
docs/results/lexicon/.
"""

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.experiments import quickstart
from bltjax.experiments.quickstart_seeds import LR, SHAPES

# At most as large as leaves a budget its 100 steps: the head of a larger vocabulary takes too much of it.
VOCABS = {"S": (2048, 4096, 8192, 10240), "M": (2048, 4096, 8192, 16384), "L": (4096, 8192, 16384)}
ROWS = (4096, 16384, 32768, 65536, 131072, 262144, 524288)
FAMILY = "blt-space"


def of_size(size: str) -> list[ConfigDict]:
    shape = SHAPES[size]
    runs = [(quickstart.bpe(size, shape, LR["bpe"], vocab), f"v{vocab}") for vocab in VOCABS[size]]
    runs += [(quickstart.blt(FAMILY, size, shape, LR[FAMILY], None, rows), f"r{rows}") for rows in ROWS]
    return [cfg.replace(run, name=f"{run.name}-{value}") for run, value in runs]


def get_config(arg: str | None = None) -> ConfigDict:
    chosen = {None: tuple(SHAPES), "runlocal": ("S",), **{size: (size,) for size in SHAPES}}
    if arg not in chosen:
        raise UserError(f"lexicon:{arg}: allowed are runlocal and {', '.join(SHAPES)}")
    sizes = chosen[arg]
    runs = tuple(run for size in sizes for run in of_size(size))
    return ConfigDict(
        dict(
            claim="the lexicon of each family, at every budget",
            figure="",
            swept=("tokenizer.vocab", "model.ngrams.rows"),
            runs=runs,
        )
    ).lock()
