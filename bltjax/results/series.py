"""Series: which runs make one curve, and which configuration stands for it at each budget.

A *series* is a family and what distinguishes its runs. The rule: an experiment says it (the key `series` of a
run); where it does not, runs of one family are told apart by

 1. the keys of ALWAYS that take several values at one budget and are not swept;
 2. further keys, in the config's order, as long as two runs at one budget would still be taken for one
    another: the same series, the same values of what is swept, and yet different configs.

What is swept (`swept` of the runs; `config.SWEPT` unless an experiment says otherwise) makes no series: among
its values the best is taken, on validation text averaged over seeds, never on test text. Runs that differ
only in seed and name are one *configuration*, of which the mean counts."""

import hashlib
import json
import math

from bltjax.results.run_directories import Run, flat
from bltjax.results.run_table import budget_key, family_order

ALWAYS = ("patching.scheme", "patching.size", "model.preset")
SWEPT = ("train.lr", "tokenizer.vocab", "model.ngrams.rows")  # of run directories that do not say
# a larger vocabulary means longer tokens, and patches of them
IMPLIED = {("tokenizer.vocab", "patching.size")}
# what a config is called, and what draws its weights: not what it is
LABELS = ("name", "seed", "series", "swept", "paper.figure", "paper.row")
NO_PART = (  # of what a configuration is
    *LABELS,
    "schema_version",
    "budget_flops",
    "eval.every",
    "eval.sample_bytes",
)
FORMS = {
    "patching.scheme": "{}",
    "patching.size": "{:g} bytes",
    "model.preset": "{}",
    "size": "{}",
    "tokenizer.vocab": "{:,} entries",
    "model.ngrams.rows": "{:,} hash rows",
    "train.lr": "lr {:g}",
}
LONGEST = 60  # characters of a value in a series' name
MEANS = (  # of a row, averaged over seeds
    "bpb",
    "validation_bpb",
    "realized_flops",
    "deviation_percent",
    "executed_flops",
    "executed_over_useful",
    "entropy_forward_flops",
    "flops_with_entropy_model",
    "patch_size",
    "patch_test",
    "steps",
    "train_bytes",
    "epochs",
    "bytes_per_batch",
    "packing_bytes",
    "packing_patches",
    "eos_nats",
    "mean_context_bytes",
    "wall_s",
)


def swept_keys(run: Run) -> tuple:
    keys = run.setting("swept", SWEPT)
    return tuple(keys) if isinstance(keys, (list, tuple)) else SWEPT


def identity(run: Run) -> str:
    """The run's config up to seed, name and labels, as text: equal for runs that differ in seed only."""
    config = {key: value for key, value in flat(run.config).items() if key not in NO_PART}
    return json.dumps(config, sort_keys=True)


def implied(key: str, other: str) -> bool:
    """Whether a swept key brings the other along."""
    return (key, other) in IMPLIED or (other, key) in IMPLIED


def name_series(runs: list, rows: list) -> None:
    """Writes "series" into every row. runs: the Run of each row."""
    families = {}
    for run, row in zip(runs, rows):
        families.setdefault(row["family"], []).append((run, row))
    for family, members in families.items():
        keys = distinguishing([member for member in members if not member[0].setting("series")])
        for run, row in members:
            words = run.setting("series") or ", ".join(worded(key, run.setting(key)) for key in keys)
            row["series"] = f"{family} ({words})" if words else family


def distinguishing(members: list) -> list:
    """The keys that tell series of one family apart. members: [(Run, row)]."""
    swept = tuple(dict.fromkeys(key for run, _ in members for key in swept_keys(run)))
    budgets = {}
    for run, row in members:
        budgets.setdefault(budget_key(row), []).append(run)
    keys = [
        key
        for key in ALWAYS
        if key not in swept
        and not any(implied(tuned, key) for tuned in swept if varies(budgets, tuned))
        and varies(budgets, key)
    ]
    configs = {str(run.path): flat(run.config) for run, _ in members}
    for runs in budgets.values():
        while further := another_key([configs[str(run.path)] for run in runs], keys, swept):
            keys.append(further)
    return keys


def varies(budgets: dict, key: str) -> bool:
    """Whether runs at one budget have several values of a key."""
    return any(len({json.dumps(run.setting(key)) for run in runs}) > 1 for runs in budgets.values())


def another_key(configs: list, keys: list, swept: tuple):
    """The first key in which two configs differ that agree in keys and in what is swept; None: no two do."""
    alike = {}
    for config in configs:
        alike.setdefault(json.dumps([config.get(key) for key in (*keys, *swept)]), []).append(config)
    for group in alike.values():
        for key in dict.fromkeys(key for config in group for key in config):
            if key not in NO_PART and key not in swept and key not in keys:
                if len({json.dumps(config.get(key)) for config in group}) > 1:
                    return key
    return None


def worded(key: str, value) -> str:
    """A setting in a series' name: "4.5 bytes", "cross.pool states"; of a long one its beginning and what
    tells it from others, since a figure writes it out."""
    try:
        return FORMS[key].format(value)
    except (KeyError, ValueError, TypeError):
        text = str(value)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... ({hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]})"
    return f"{key.removeprefix('model.')} {text}"


def order(row: dict) -> tuple:
    """Sorts rows: families in their usual order, series by name, budgets ascending."""
    return family_order(row["family"]), row["series"], budget_key(row), row["name"]


def by_budget(rows: list) -> dict:
    """{(series, budget): rows}, in `order`."""
    groups = {}
    for row in sorted(rows, key=order):
        groups.setdefault((row["series"], budget_key(row)), []).append(row)
    return groups


def configurations(runs: list, rows: list) -> list:
    """[[rows of one configuration, one per seed], ...]. A seed that was run twice counts once: it is the same
    run, and so is one that has another's scores to the last digit. Runs that read or were scored on other
    text are another configuration."""
    groups = {}
    for run, row in sorted(zip(runs, rows), key=lambda pair: order(pair[1])):
        texts = (row["data_fingerprint"], row["test_text"], row["validation_text"])
        key = row["series"], budget_key(row), identity(run), texts
        group = groups.setdefault(key, {})
        scored = {r["scores_digest"] for r in group.values()} - {None}
        if row["scores_digest"] not in scored:
            group.setdefault(json.dumps(row["seed"]), row)
    return [
        sorted(group.values(), key=lambda r: (str(type(r["seed"])), r["seed"])) for group in groups.values()
    ]


def mean(values) -> float | None:
    values = list(values)
    return None if any(value is None for value in values) else math.fsum(values) / len(values)


def averaged(group: list) -> dict:
    """One row of a configuration: means over its seeds, and of the rest what its first seed says."""
    first = group[0]
    several = len(group) > 1
    bpb = [r["bpb"] for r in group]
    centre = mean(bpb)
    deviation = math.sqrt(sum((b - centre) ** 2 for b in bpb) / (len(bpb) - 1)) if several else None
    return {
        **first,
        **{key: mean(r[key] for r in group) for key in (MEANS if several else ())},
        "name": first["name"].removesuffix(f"-seed{first['seed']}") if several else first["name"],
        "seeds": len(group),
        "bpb_seed_sd": deviation,
        "seed_bpb": bpb,
        "seed": first["seed"] if not several else ", ".join(str(r["seed"]) for r in group),
        "runs": [r["name"] for r in group],
        "run_dirs": [r["run_dir"] for r in group],
    }


def of_one_text(candidates: list) -> list:
    """The candidates of each series and budget that were trained on one text and scored on one validation
    and one test text: of several the one of the most runs. Scores of different text are not chosen among,
    nor is the best of several training texts taken."""
    kept = []
    for group in by_budget(candidates).values():
        texts = {}
        for row in group:
            read = row["data_fingerprint"], row["validation_text"], row["test_text"]
            texts.setdefault(read, []).append(row)
        kept += max(
            texts.values(), key=lambda rows: sum(row["seeds"] for row in rows)
        )  # of as many the first
    return kept


def choose(candidates: list) -> list:
    """For each series and budget the configuration that is best on validation text, averaged over its seeds;
    without validation scores the first by name. candidates: averaged rows, as `of_one_text` leaves them.
    "tried": how many there were."""

    def validation(row):
        return (row["validation_bpb"] if row["validation_bpb"] is not None else math.inf, row["name"])

    return [{**min(group, key=validation), "tried": len(group)} for group in by_budget(candidates).values()]
