"""Equal conditions (docs/contracts.md): what runs of one sweep, or two points of a report, differ in beside
their series, a line each. A difference between families is theirs only where all else is equal."""

import hashlib

from bltjax.results.run_directories import Run, finite, lookup
from bltjax.results.run_table import budget_key
from bltjax.results.tables import listed, short_flops
from bltjax.storage.contradictions import scored_documents

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
    "bytes_per_batch": ("bytes per batch", 0.005),
    "mean_context_bytes": ("mean left context in bytes", 0.02),
}
EPOCHS = 1.2  # times as many, where text is repeated at all
OVERLAP = 0.02  # share of test shingles in training text, boilerplate left out
EXECUTED = 1.2  # over useful FLOPs


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


def scored_apart(chosen: list, left: list) -> list:
    """What is not compared, since it was scored on other text, a line each. left: configurations that were
    not chosen among for that."""
    lines = []
    if others := [r for r in chosen if not r["compared"]]:
        where = listed(f"{r['series']} at {short_flops(budget_key(r))}" for r in others)
        lines.append(
            f"Scored on other test text than the rest, and in no curve, fit or comparison: {where} FLOPs"
            " (documents_digest in eval.json)."
        )
    if left:
        names = listed(name for r in left for name in r["runs"])
        lines.append(
            "Trained or scored on different text than other runs of their series and budget, and not chosen"
            " among:"
            f" {names}."
        )
    return lines


def unequal(runs: list, rows: list) -> list:
    """Conditions that should be equal in one sweep and are not (docs/contracts.md), a line each; and budgets
    missed by more than 1%."""
    lines = []
    checks = {
        "training and test text (data_fingerprint)": lambda r: r.record.get("data_fingerprint"),
        "validation text (documents_digest)": lambda r: lookup(r.evaluation, "validation.documents_digest"),
        "order of documents (data.seed)": lambda r: r.setting("data.seed"),
        "format of run directories (schema_version)": lambda r: r.record.get("schema_version"),
        "version of JAX": lambda r: lookup(r.record, "versions.jax"),
        "variables of XLA and JAX": lambda r: lookup(r.record, "environment.variables"),
        "bytes of context": lambda r: r.setting("data.context"),
        "cores": lambda r: r.record.get("cores"),
        "platform": lambda r: r.record.get("platform"),
    }
    for what, read in checks.items():
        values = sorted({str(read(r)) for r in runs if read(r) is not None})
        if len(values) > 1:
            lines.append(f"Not the same in all runs: {what}: {listed(values)}.")
    for budget in sorted({budget_key(r) for r in rows}):
        for column, (what, tolerance) in RATIOS.items():
            here = [r for r in rows if budget_key(r) == budget]
            found = {r["name"]: r[column] for r in here if r[column]}
            if silent := [r["name"] for r in here if found and not r[column]]:
                lines.append(
                    f"{what.capitalize()} at {short_flops(budget)} FLOPs: not recorded of {listed(silent)}."
                )
            if found and max(found.values()) > (1 + tolerance) * min(found.values()):
                low, high = min(found, key=found.get), max(found, key=found.get)
                lines.append(
                    f"{what.capitalize()} at {short_flops(budget)} FLOPs differ by more than {tolerance:.1%}:"
                    f" {found[low]:,.0f} ({low}) to {found[high]:,.0f} ({high})."
                )
    off = [
        f"{r['name']} {r['deviation_percent']:+.2f}%" for r in rows if abs(r["deviation_percent"] or 0) > 1
    ]
    if off:
        lines.append(f"More than 1% off their budget: {listed(off)}.")
    if silent := [r["name"] for r in rows if r["realized_flops"] is None]:
        lines.append(f"How many FLOPs they spent is not recorded of {listed(silent)}.")
    if blind := [r["name"] for r in rows if r["test_text"] and r["test_text"] == r["validation_text"]]:
        lines.append(f"Chosen on the very text that they are scored on: {listed(blind)}.")
    positions = "{name} (trained on {positions_trained:,.0f}, scored at up to {positions_scored:,.0f})"
    beyond = [
        positions.format(**r)
        for r in rows
        if r["positions_trained"] and r["positions_scored"] and r["positions_scored"] > r["positions_trained"]
    ]
    if beyond:
        lines.append(f"Scored at positions that were never trained: {listed(beyond)}.")
    padded = [
        f"{r['name']} {r['executed_over_useful']:.2f}"
        for r in rows
        if (r["executed_over_useful"] or 0) > EXECUTED
    ]
    if padded:
        lines.append(f"Executed FLOPs over useful ones above {EXECUTED}: {listed(padded)}.")
    shared = {r["overlap_without_boilerplate"] for r in rows} - {None}
    if shared and max(shared) > OVERLAP:
        lines.append(
            f"{max(shared):.1%} of the test text's shingles, boilerplate left out, stand in training text"
            " too."
        )
    return lines
