"""Claim: hash n-gram embeddings lower bits per byte at no FLOPs: short n-grams more than long ones, and
larger tables more.

Figure     Table 8 of arXiv 2412.09871: 1B, 100B bytes; n-grams of 3 to 8 bytes in tables of 100k to 400k rows
           each.
Hardware   paper's scale: 64 accelerators. ngram_tables:gpu: one GPU. --runlocal: two CPU cores; their tables
           are smaller, in the same proportions.
Time       as planned: 10 runs of 2.9e21 FLOPs in all, 4,400 hours of one v5p chip at 40% utilization; gpu: 10
           runs, 1.2e17; runlocal: 10 runs, 6.8e12, some 8 minutes of two cores beside what is compiled
Expect     on the training distribution from 0.850 without n-grams to 0.826 with all sizes in 400k rows
Command    bltjax run ngram_tables --runlocal && bltjax report ngram_tables --runlocal

Patches are by entropy, 4.5 bytes (the paper does not say)."""

from ml_collections import ConfigDict

from bltjax.sweep import ladder, scales

SIZES = {"6,7,8": (6, 7, 8), "3,4,5": (3, 4, 5), "3-8": (3, 4, 5, 6, 7, 8)}
ROWS = (  # in the table's order
    ("6,7,8", "100k"),
    ("6,7,8", "200k"),
    ("3,4,5", "100k"),
    ("6,7,8", "400k"),
    ("3,4,5", "200k"),
    ("3-8", "100k"),
    ("3,4,5", "400k"),
    ("3-8", "200k"),
    ("3-8", "400k"),
)
# scale: size, bytes, rows of a table that the paper has with 100k
AT = {"": ("1B", 100e9, 100_000), "gpu": ("11M", 4e8, 16_384), "runlocal": ("S", 1e6, 2048)}


def one(scale: ladder.Scale, row: str, name: str, intervention: dict) -> ConfigDict:
    size, data, _ = AT[scale.name]
    return ladder.run(
        scale,
        name,
        "blt-entropy",
        size,
        patch=4.5,
        data_bytes=data,
        changes=intervention,
        series=row.replace("@", " in "),
        figure="Table 8",
        row=row,
    )


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("ngram_tables", arg)
    hundred = AT[scale.name][2] // 100
    runs = [one(scale, "none", "none", {"model.ngrams.sizes": ()})]
    for sizes, rows in ROWS:
        intervention = {"model.ngrams.sizes": SIZES[sizes], "model.ngrams.rows": hundred * int(rows[:-1])}
        runs.append(one(scale, f"{sizes}@{rows}", f"ngrams-{sizes.replace(',', '')}-{rows}", intervention))
    return ConfigDict(
        dict(
            claim="hash n-grams help: short ones more than long ones, large tables more than small ones",
            figure="Table 8",
            swept=("train.lr",),
            runs=tuple(runs),
        )
    ).lock()
