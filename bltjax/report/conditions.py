"""What two points of a report differ in beside their series, and runs that are no runs of their own: a
difference between families is theirs only where all else is equal (docs/contracts.md)."""

import hashlib

from bltjax.results.run_directories import Run, finite, lookup, scored_documents
from bltjax.results.run_table import budget_key
from bltjax.results.tables import short_flops

SETTINGS = (  # of the recipe; the learning rate is each family's own, and what an experiment sweeps is chosen
    "data.seed",
    "train.init_from",
    "train.branch_from",
    "train.schedule",
    "train.warmup",
    "train.decay",
    "train.final_lr",
    "train.beta1",
    "train.beta2",
    "train.eps",
    "train.clip",
    "train.weight_decay",
    "model.dtype",
)
ALONG = (  # what the points of one curve have in common; other settings may go with a budget
    "patching.scheme",
    "patching.size",
    "model.preset",
    "model.dtype",
    "data.seed",
    "train.init_from",
    "train.branch_from",
    "train.schedule",
)
MORE_FLOPS = 0.01  # as far as a run may be off its budget
RATIOS = {  # column: (what it is, how far apart it may be)
    "bytes_per_batch": ("bytes a batch", 0.005),
    "mean_context_bytes": ("bytes of left context", 0.02),
}
EPOCHS = 1.2  # times as many, where text is repeated at all


def of(run: Run) -> dict:
    """The columns of a run's row that the rest here reads. scores_digest: of its test documents' nats and
    its validation score; None where there are no documents."""
    swept = run.setting("swept", ())
    nats = [row["nats"] for row in scored_documents(lookup(run.evaluation, "test", {}))]
    scores = nats, lookup(run.evaluation, "validation.bpb")
    return dict(
        settings={key: run.setting(key) for key in SETTINGS if key not in swept},
        recipe={key: run.setting(key) for key in ALONG if key not in swept},
        scores_digest=hashlib.sha256(repr(scores).encode()).hexdigest()[:12] if nats else None,
        tokenizer=lookup(run.planned, "tokenizer_fingerprint"),
        entropy_model=lookup(run.planned, "entropy_model.fingerprint"),
        entropy_train_flops=_number(lookup(run.planned, "entropy_model.train_flops")),
    )


def _number(value):
    return value if finite(value) else None


def unlike(a: dict, b: dict) -> list:
    """What two rows differ in beside their series, in words."""
    words = []
    if len({a["data_fingerprint"], b["data_fingerprint"]} - {None}) > 1:
        words.append("they were trained on different text")
    if a["realized_flops"] and b["realized_flops"]:
        less, more = sorted((a, b), key=lambda r: r["realized_flops"])
        if (ratio := more["realized_flops"] / less["realized_flops"]) > 1 + MORE_FLOPS:
            words.append(f"{more['series']} spent {ratio - 1:.1%} more FLOPs")
    for key, mine in a["settings"].items():
        named = f"{key.removeprefix('model.')} " in a["series"] + b["series"]  # what a series is named after
        theirs = b["settings"].get(key, mine)
        if (mine or None) != (theirs or None) and not named:
            words.append(f"{key} is {_said(mine)} for {a['series']} and {_said(theirs)} for {b['series']}")
    for column, (what, tolerance) in RATIOS.items():
        words += _apart(a, b, column, what, 1 + tolerance)
    if max(a["epochs"] or 0, b["epochs"] or 0) > 1:
        words += _apart(a, b, "epochs", "epochs", EPOCHS)
    return words


def _apart(a: dict, b: dict, column: str, what: str, most: float) -> list:
    mine, theirs = a[column], b[column]
    if not mine or not theirs or max(mine, theirs) <= most * min(mine, theirs):
        return []
    return [f"{what}: {mine:,.4g} for {a['series']} and {theirs:,.4g} for {b['series']}"]


def _said(value) -> str:
    return "none" if value in (None, "") else str(value)


def with_unlike(pairs: list, chosen: list) -> list:
    """The pairs, each with "unlike": what its two rows differ in beside their series."""
    rows = {(row["series"], budget_key(row)): row for row in chosen}
    both = lambda pair: (rows[pair[which], pair["budget_flops"]] for which in ("series", "against"))
    return [{**pair, "unlike": unlike(*both(pair))} for pair in pairs]


def along(chosen: list) -> list:
    """A line for each series whose points are not of one recipe: what its curve shows is then not of the
    budget alone."""
    series = {}
    for row in sorted(chosen, key=budget_key):
        series.setdefault(row["series"], []).append(row)
    lines = []
    for name, rows in series.items():
        for key in ALONG:
            found = {}
            for row in rows:
                found.setdefault(_said(row["recipe"].get(key)), []).append(short_flops(budget_key(row)))
            if len(found) > 1:
                said = ", ".join(f"{value} at {' and '.join(budgets)}" for value, budgets in found.items())
                lines.append(f"The points of {name} are not of one recipe: {key} is {said} FLOPs.")
    return lines


def copies(rows: list) -> list:
    """A line for runs that have the same scores to the last digit though they are not the same run: of
    seeds that are copies one counts."""
    same = {}
    for row in rows:
        if row["scores_digest"]:
            same.setdefault((row["scores_digest"], row["test_text"]), []).append(row)
    lines = []
    for group in same.values():
        if len({(row["series"], row["budget_flops"], str(row["seed"])) for row in group}) > 1:
            names = ", ".join(row["name"] for row in group)
            lines.append(f"The same scores to the last digit, as copies of one run have them: {names}.")
    return lines


def within(chosen: list, rows: list) -> list:
    """A line where the seeds of one configuration did not read the same tokenizer or entropy model."""
    by_dir = {row["run_dir"]: row for row in rows}
    lines = []
    for point in chosen:
        for key, what in (("tokenizer", "tokenizers"), ("entropy_model", "entropy models")):
            found = sorted({by_dir[d][key] for d in point["run_dirs"] if by_dir[d][key]})
            if len(found) > 1:
                lines.append(
                    f"{point['name']} is a mean over runs with different {what}: {', '.join(found)}."
                )
    return lines
