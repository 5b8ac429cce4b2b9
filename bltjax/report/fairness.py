"""Conditions that should be equal in one sweep and are not (docs/contracts.md), a line each."""

from bltjax.results.run_directories import lookup
from bltjax.results.run_table import budget_key
from bltjax.results.tables import listed, short_flops

# column of a row: (what it is, tolerance between runs at one budget)
WITHIN = {
    "bytes_per_batch": ("Bytes per batch", 0.005),
    "mean_context_bytes": ("Mean left context in bytes", 0.02),
}
OVERLAP = 0.02  # share of test shingles in training text, boilerplate left out
EXECUTED = 1.2  # over useful FLOPs


def apart(chosen: list, left: list) -> list:
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
        for column, (what, tolerance) in WITHIN.items():
            here = [r for r in rows if budget_key(r) == budget]
            found = {r["name"]: r[column] for r in here if r[column]}
            if silent := [r["name"] for r in here if found and not r[column]]:
                lines.append(f"{what} at {short_flops(budget)} FLOPs: not recorded of {listed(silent)}.")
            if found and max(found.values()) > (1 + tolerance) * min(found.values()):
                low, high = min(found, key=found.get), max(found, key=found.get)
                lines.append(
                    f"{what} at {short_flops(budget)} FLOPs differ by more than {tolerance:.1%}:"
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
