"""One row of numbers per run, the choice of one run per family and budget, and what was swept."""

import math

from bltjax.config import families
from bltjax.report.runs import Run, finite, lookup
from bltjax.science.bootstrap import bpb, interval

REFERENCE, family_order = families.REFERENCE, families.order
SWEPT = {
    "train.lr": "learning rate",
    "tokenizer.vocab": "BPE vocabulary",
    "patching.size": "target patch size",
    "size": "model size",
}
LATENT = ("latent", "total")  # every other component of a BLT's count is a local module or the output head
COMPONENTS = ("flops_per_byte_exact", "flops_components", "flops_by_component", "components", "flops.exact")


def number(*values):
    """The first finite number among values, else None."""
    return next((value for value in values if finite(value)), None)


def local_share(planned: dict):
    """Share of exact forward FLOPs per byte in the local modules (encoder, cross-attention, decoder, head);
    None: not recorded."""
    for key in COMPONENTS:
        parts = lookup(planned, key)
        if isinstance(parts, dict) and finite(parts.get("latent")):
            total = sum(value for name, value in parts.items() if name != "total" and finite(value))
            return 1 - parts["latent"] / total if total else None
    return None


def documents(run: Run) -> list:
    """[{"bytes", "nats"}, ...] of the test documents that hold bytes."""
    rows = lookup(run.evaluation, "test.documents", [])
    return [
        row for row in rows if isinstance(row, dict) and number(row.get("bytes")) and finite(row.get("nats"))
    ]


def row(run: Run, samples=None) -> dict:
    """All numbers of a finished run, flat and JSON-ready (None where a file does not say). FLOPs are exact
    useful training FLOPs.

    samples: its bits per byte under resampled test documents, for the interval.
    """
    planned, last = run.planned, run.metrics[-1] if run.metrics else {}
    token = run.setting("model.kind") == "token"
    budget = number(planned.get("budget_flops"), run.setting("budget_flops")) or 0.0
    realized = number(run.done.get("realized_flops"), last.get("useful_flops"), planned.get("train_flops"))
    train_bytes = number(last.get("bytes"), planned.get("train_bytes"))
    entropy = planned.get("entropy_model") or {}
    per_byte = number(entropy.get("forward_flops_per_byte"))
    forward = per_byte * train_bytes if per_byte is not None and train_bytes is not None else 0.0
    total, hashed = number(lookup(planned, "params.total")), number(lookup(planned, "params.hash"), 0)
    low, high = interval(samples) if samples is not None else (None, None)
    flat = {
        f"flops_per_byte_{kind}": number(
            planned.get(f"flops_per_byte_{kind}"), lookup(planned, f"flops_per_byte_{kind}.total")
        )
        for kind in ("exact", "paper")
    }
    target = run.setting("tokenizer.bytes_per_token") if token else run.setting("patching.size")
    return dict(
        name=run.name,
        family=str(run.setting("family", run.name)),
        size=run.setting("size", ""),
        seed=run.setting("seed"),
        budget_flops=budget,
        realized_flops=realized,
        deviation_percent=100 * (realized / budget - 1) if budget and realized else None,
        executed_flops=number(last.get("executed_flops"), planned.get("executed_flops")),
        entropy_forward_flops=forward,
        flops_with_entropy_model=realized + forward if realized is not None else None,
        patch_target=number(target),
        patch_size=number(planned.get("patch_size"), last.get("patch_size")),
        patch_test=number(lookup(run.evaluation, "test.patch_size")),
        steps=number(last.get("step"), planned.get("steps")),
        train_bytes=train_bytes,
        bytes_per_batch=number(planned.get("bytes_per_batch")),
        packing_bytes=number(lookup(planned, "packing_efficiency.bytes"), last.get("packing_bytes")),
        packing_patches=number(lookup(planned, "packing_efficiency.patches"), last.get("packing_patches")),
        params_total=total,
        params_hash=None if total is None else hashed,
        params_without_hash=None if total is None else total - hashed,
        **flat,
        local_share=local_share(planned),
        threshold=number(planned.get("threshold")),
        delta=number(planned.get("delta")),
        lr=number(run.setting("train.lr")),
        vocab=number(run.setting("tokenizer.vocab")) if token else number(run.setting("model.vocab")),
        bpb=float(lookup(run.evaluation, "test.bpb")),
        bpb_low=low,
        bpb_high=high,
        upper_bound=upper_bound(run),
        eos_nats=number(lookup(run.evaluation, "test.eos_nats")),
        test_bytes=number(lookup(run.evaluation, "test.bytes")),
        test_documents=len(lookup(run.evaluation, "test.documents", [])),
        validation_bpb=number(lookup(run.evaluation, "validation.bpb")),
        wall_s=number(run.done.get("wall_s"), last.get("wall_s")),
        run_dir=str(run.path),
    )


def upper_bound(run: Run) -> bool:
    """Whether the figure is of one tokenization out of many, and so bounds the model's bits per byte from
    above."""
    return bool(lookup(run.evaluation, "upper_bound", run.setting("model.kind") == "token"))


def disagreement(run: Run, tolerance: float = 1e-4):
    """One line if eval.json's bits per byte is not what its own documents sum to, else None."""
    rows = documents(run)
    stated = lookup(run.evaluation, "test.bpb")
    summed = bpb([r["nats"] for r in rows], [r["bytes"] for r in rows]) if rows else stated
    if abs(summed - stated) <= tolerance * abs(stated):
        return None
    return f"{run.name}: eval.json states {stated:.4f} test bits per byte, its documents sum to {summed:.4f}"


def by_budget(rows: list) -> dict:
    """{(family, budget): rows}, families in their usual order, budgets ascending. Runs without a budget are
    told apart by their FLOPs."""
    groups = {}
    for entry in sorted(rows, key=lambda r: (family_order(r["family"]), budget_key(r), r["name"])):
        groups.setdefault((entry["family"], budget_key(entry)), []).append(entry)
    return groups


def budget_key(entry: dict) -> float:
    value = entry["budget_flops"] or entry["realized_flops"] or 0.0
    digits = 9 if entry["budget_flops"] else 2  # without a budget, equal steps make FLOPs nearly equal
    return float(f"{value:.{digits}g}") if value else 0.0


def choose(rows: list) -> list:
    """The best run of each family and budget by validation text, never by test text; without validation
    scores, the first by name."""
    return [
        min(
            group,
            key=lambda r: (r["validation_bpb"] if r["validation_bpb"] is not None else math.inf, r["name"]),
        )
        for group in by_budget(rows).values()
    ]


def sweeps(runs: list, rows: list) -> list:
    """What was tried at several values with all else that is swept held fixed, one entry per key, family,
    budget and rest:

    {"key", "label", "family", "budget_flops", "fixed" {key: value}, "values": [{"value", "validation_bpb",
    "runs"}], "chosen", "edge"}. values: ascending, validation bits per byte averaged over seeds. chosen: the
    lowest by validation; edge: it is the first or last of the grid (always so with two values)."""
    runs = {str(run.path): run for run in runs}
    found = []
    for key, label in SWEPT.items():
        groups = {}
        for (family, budget), members in by_budget(rows).items():
            for entry in members:
                config = runs[entry["run_dir"]]
                rest = tuple(
                    (other, config.setting(other))
                    for other in SWEPT
                    if other != key and not implied(key, other)
                )
                value = config.setting(key)
                if value is not None and entry["validation_bpb"] is not None:
                    groups.setdefault((family, budget, rest), {}).setdefault(value, []).append(entry)
        for (family, budget, rest), values in groups.items():
            if len(values) > 1:
                table = [
                    dict(
                        value=value,
                        validation_bpb=sum(e["validation_bpb"] for e in tried) / len(tried),
                        runs=[e["name"] for e in tried],
                    )
                    for value, tried in sorted(values.items(), key=lambda item: (str(type(item[0])), item[0]))
                ]
                chosen = min(table, key=lambda item: item["validation_bpb"])["value"]
                found.append(
                    dict(
                        key=key,
                        label=label,
                        family=family,
                        budget_flops=budget,
                        all_fixed=dict(rest),
                        values=table,
                        chosen=chosen,
                        edge=chosen in (table[0]["value"], table[-1]["value"]),
                    )
                )
    for sweep in found:  # what is the same in all of a family's sweeps of this key is no news
        siblings = [
            other["all_fixed"]
            for other in found
            if (other["key"], other["family"]) == (sweep["key"], sweep["family"])
        ]
        sweep["fixed"] = {
            name: value
            for name, value in sweep["all_fixed"].items()
            if len({fixed[name] for fixed in siblings}) > 1
        }
    for sweep in found:
        del sweep["all_fixed"]
    return found


def implied(key: str, other: str) -> bool:
    """Whether a swept key brings the other along: a larger vocabulary means longer tokens."""
    return {key, other} == {"tokenizer.vocab", "patching.size"}
