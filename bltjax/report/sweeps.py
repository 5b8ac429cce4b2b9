"""Swept settings: what was tried at several values, and what was chosen on validation text."""

from bltjax.results.run_directories import lookup
from bltjax.results.series import by_budget, implied, swept_keys
from bltjax.results.tables import short_flops

LABELS = {
    "train.lr": "learning rate",
    "tokenizer.vocab": "BPE vocabulary",
    "model.ngrams.rows": "hash rows",
    "patching.size": "target patch size",
    "size": "model size",
}


def sweeps(configs: dict, candidates: list, swept: tuple) -> list:
    """What was tried at several values with all else that is swept held fixed, one entry per key, series,
    budget and rest:

    {"key", "label", "family", "series", "budget_flops", "fixed" {key: value}, "values": [{"value",
    "validation_bpb", "lexicon" (parameters, or None), "seeds", "runs"}], "chosen", "edge"}. values:
    ascending, validation bits per byte averaged over seeds. chosen: the lowest by validation; edge: it is the
    first or last of the grid (always so with two values).

    configs: {run_dir: nested config}; candidates: averaged rows; swept: the keys."""
    found = []
    for key in swept:
        groups = {}
        for (series, budget), members in by_budget(candidates).items():
            for row in members:
                config = configs[row["run_dir"]]
                rest = tuple(
                    (other, lookup(config, other))
                    for other in swept
                    if other != key and not implied(key, other)
                )
                value = lookup(config, key)
                if value is not None and row["validation_bpb"] is not None:
                    groups.setdefault((series, budget, rest), {}).setdefault(value, []).append(row)
        found += [
            entry(key, series, budget, rest, values)
            for (series, budget, rest), values in groups.items()
            if len(values) > 1
        ]
    for sweep in found:  # what is the same in all of a series' sweeps of this key is no news
        siblings = [s["all"] for s in found if (s["key"], s["series"]) == (sweep["key"], sweep["series"])]
        sweep["fixed"] = {
            name: value
            for name, value in sweep["all"].items()
            if len({str(fixed[name]) for fixed in siblings}) > 1
        }
    for sweep in found:
        del sweep["all"]
    return found


def entry(key: str, series: str, budget: float, rest: tuple, values: dict) -> dict:
    table = [
        dict(
            value=value,
            validation_bpb=sum(r["validation_bpb"] for r in tried) / len(tried),
            lexicon=tried[0]["params_lexicon"],
            seeds=min(r["seeds"] for r in tried),
            runs=[name for r in tried for name in r["runs"]],
        )
        for value, tried in sorted(values.items(), key=lambda item: (str(type(item[0])), item[0]))
    ]
    chosen = min(table, key=lambda item: item["validation_bpb"])["value"]
    return dict(
        key=key,
        label=LABELS.get(key, key),
        family=next(iter(values.values()))[0]["family"],
        series=series,
        budget_flops=budget,
        all=dict(rest),
        values=table,
        chosen=chosen,
        edge=chosen in (table[0]["value"], table[-1]["value"]),
    )


def lexicons(found: list) -> list:
    """Of sweeps of vocabularies and hash rows: the same with the size of the lexicon, in parameters, as the
    value, so that both kinds can stand on one axis."""
    out = []
    for sweep in found:
        if sweep["key"] in ("tokenizer.vocab", "model.ngrams.rows") and all(
            v["lexicon"] for v in sweep["values"]
        ):
            values = [{**v, "value": v["lexicon"]} for v in sweep["values"]]
            chosen = next(v["lexicon"] for v in sweep["values"] if v["value"] == sweep["chosen"])
            out.append({**sweep, "values": values, "chosen": chosen})
    return out


def all_swept(runs: list) -> tuple:
    """The keys that any run calls swept, those of LABELS first and in their order."""
    keys = dict.fromkeys(key for run in runs for key in swept_keys(run))
    return tuple(sorted(keys, key=lambda k: (list(LABELS).index(k) if k in LABELS else len(LABELS), k)))


PLURALS = {
    "train.lr": "learning rates",
    "tokenizer.vocab": "vocabularies",
    "model.ngrams.rows": "numbers of hash rows",
    "patching.size": "target patch sizes",
    "size": "model sizes",
}


def tuned(configs: dict, candidates: list, swept: tuple) -> list:
    """A sentence per budget at which one series is the best of several values and another the best of
    fewer."""
    counts = {}
    for (series, budget), members in by_budget(candidates).items():
        known = [r for r in members if r["validation_bpb"] is not None]  # `unseen` tells of the others
        values = {key: len({str(lookup(configs[r["run_dir"]], key)) for r in known}) for key in swept}
        words = [f"{n} {PLURALS.get(key, f'values of {key}')}" for key, n in values.items() if n > 1]
        counts.setdefault(budget, {})[series] = (max(1, len(known)), words)
    lines = []
    for budget, tried in counts.items():
        if len({number for number, _ in tried.values()}) > 1:
            said = [
                (
                    f"{series} is the best of {' and '.join(words) or number}"
                    if number > 1
                    else f"{series} of one"
                )
                for series, (number, words) in sorted(tried.items(), key=lambda item: -item[1][0])
            ]
            lines.append(
                f"Not chosen with equal care at {short_flops(budget)} FLOPs (on validation text):"
                f" {', '.join(said)}."
            )
    return lines


def unseen(candidates: list) -> list:
    """A sentence for each series and budget whose configurations were not all scored on validation text."""
    lines = []
    for (series, budget), members in by_budget(candidates).items():
        silent = [name for r in members if r["validation_bpb"] is None for name in r["runs"]]
        where = f"{series} at {short_flops(budget)} FLOPs"
        if len(members) > 1 and all(r["validation_bpb"] is None for r in members):
            lines.append(
                f"No validation score chooses among the {len(members)} configurations of {where}: the first"
                " by name stands there."
            )
        elif len(members) > 1 and silent:
            lines.append(
                f"Without a validation score, and not chosen among, of {where}: {', '.join(silent)}."
            )
    return lines
