"""Which figures a report has, drawn from its numbers: each a name, a caption, and its SVG and PNG."""

import dataclasses

from bltjax.report import plot
from bltjax.report.rows import budget_key
from bltjax.report.runs import finite
from bltjax.report.tables import short_flops

SHORT = {"train.lr": "lr", "tokenizer.vocab": "vocab", "patching.size": "patch", "size": "size"}
EXACT = "training FLOPs (exact, useful)"


@dataclasses.dataclass(frozen=True)
class Picture:
    """name: of its files; alt: one line for those who cannot see it; caption: how to read it."""

    name: str
    alt: str
    caption: str
    svg: str
    png: bytes


def draw(result: dict, runs: list) -> dict:
    """{name: Picture} of those that the runs have numbers for."""
    with plot.look():
        drawn = {
            name: Picture(name, alt, caption, plot.svg(figure, name), plot.png(figure))
            for name, alt, caption, figure in figures(result, runs)
        }
    return drawn


def figures(result: dict, runs: list):
    """(name, alt, caption, Figure), in the report's order."""
    chosen = [r for r in result["runs"] if r["realized_flops"]]
    budgets = [budget_key(r) for r in chosen]
    intervals = "Bars: 95% intervals over test documents, drawn side by side. Lines: "
    fits = intervals + "power-law fits, drawn over the measured range only."
    if not result["fits"]:
        fits = intervals + "none fitted, a power law needs three budgets; dotted lines join the points."
    if chosen:
        yield (
            "bpb_vs_flops",
            "Test bits per byte against training FLOPs, a curve per family",
            fits,
            plot.curves(series(chosen, "realized_flops"), result["fits"], EXACT, budgets),
        )
    if any(r["entropy_forward_flops"] for r in chosen):
        yield (
            "bpb_vs_flops_with_entropy_model",
            (
                "Test bits per byte against training FLOPs with the entropy model's forward FLOPs, a curve"
                " per family"
            ),
            (
                "The same, with the entropy model's forward FLOPs over the training bytes added to the runs"
                " that use it; its own training is in a table of its own."
            ),
            plot.curves(
                series(chosen, "flops_with_entropy_model"),
                result["fits_with_entropy_model"],
                "training FLOPs + entropy model's forward FLOPs",
                budgets,
            ),
        )
    if result["pairs"]:
        against = result["pairs"][0]["against"]
        lines = {}
        for pair in result["pairs"]:
            line = lines.setdefault(pair["family"], dict(family=pair["family"], x=[], y=[], low=[], high=[]))
            for key, value in (
                ("x", pair["budget_flops"]),
                ("y", pair["difference"]),
                ("low", pair["low"]),
                ("high", pair["high"]),
            ):
                line[key].append(value)
        order = [f for f in dict.fromkeys(r["family"] for r in chosen) if f in lines]
        yield (
            "difference_to_bpe",
            f"Paired difference in test bits per byte to {against} at each budget",
            (
                "Bars: 95% intervals of the paired difference, both families under the same resampled"
                " documents, drawn side by side. A bar that does not touch 0 is a difference these documents"
                " can tell."
            ),
            plot.differences(
                [lines[f] for f in order], "budget, training FLOPs (exact, useful)", budgets, against
            ),
        )
    curves = training_curves(chosen, runs)
    if curves:
        yield (
            "training_curves",
            "Training bits per byte against training FLOPs, a panel per family",
            (
                "Each panel: one family's chosen runs in colour over all others in grey. Running mean over 2%"
                " of the steps, on training rows."
            ),
            plot.training(curves, EXACT),
        )
    for key, name in (
        ("train.lr", "learning_rate_sweep"),
        ("tokenizer.vocab", "vocabulary_sweep"),
        ("patching.size", "patch_size_sweep"),
    ):
        found = [
            s
            for s in result["sweeps"]
            if s["key"] == key and all(finite(v["value"]) and v["value"] > 0 for v in s["values"])
        ]
        if found:
            label = found[0]["label"]
            unit = {"tokenizer.vocab": " (entries)", "patching.size": " (bytes)"}.get(key, "")
            yield (
                name,
                f"Validation bits per byte against {label}",
                "On validation text; test text plays no part in the choice. Filled: the chosen value.",
                plot.swept(found, label + unit, namer(found)),
            )


def series(chosen: list, x: str) -> list:
    """[{"family", "x", "y", "low", "high"}] with x ascending."""
    out = {}
    for r in sorted(chosen, key=lambda r: r[x]):
        line = out.setdefault(r["family"], dict(family=r["family"], x=[], y=[], low=[], high=[]))
        for key, name in (("x", x), ("y", "bpb"), ("low", "bpb_low"), ("high", "bpb_high")):
            line[key].append(r[name])
    return [out[f] for f in dict.fromkeys(r["family"] for r in chosen)]


def training_curves(chosen: list, runs: list) -> list:
    """[{"family", "x", "y"}] of the chosen runs that logged at least two steps, smoothed."""
    logged = {str(run.path): run.metrics for run in runs}
    out = []
    for r in chosen:
        points = [
            (m["useful_flops"], m["bpb"])
            for m in logged[r["run_dir"]]
            if finite(m.get("useful_flops")) and finite(m.get("bpb")) and m["useful_flops"] > 0
        ]
        if len(points) > 1:
            x, y = plot.smooth(*zip(*points))
            out.append(dict(family=r["family"], x=x, y=y))
    return out


def namer(sweeps: list):
    """Direct labels that say as much as tells these sweeps apart."""
    budgets = len({s["budget_flops"] for s in sweeps}) > 1
    families = len({s["family"] for s in sweeps}) > 1

    def name(sweep):
        parts = [sweep["family"]] if families or not budgets else []
        parts += [short_flops(sweep["budget_flops"])] if budgets else []
        parts += [
            f"{SHORT[key]} {value:g}" if finite(value) else str(value)
            for key, value in sweep["fixed"].items()
        ]
        return ", ".join(parts)

    return name
