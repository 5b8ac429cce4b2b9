"""Which figures a report has, drawn from its numbers: each a name, a caption, and its SVG and PNG."""

import dataclasses

from bltjax.report import plot, plot_runs
from bltjax.report.run_table import budget_key
from bltjax.report.runs import finite
from bltjax.report.series import order
from bltjax.report.sweeps import lexicons
from bltjax.report.tables import short_flops

SHORT = {"train.lr": "lr", "tokenizer.vocab": "vocab", "model.ngrams.rows": "rows", "patching.size": "patch"}
SWEEPS = {  # swept key -> name of its figure
    "train.lr": "learning_rate_sweep",
    "tokenizer.vocab": "vocabulary_sweep",
    "model.ngrams.rows": "hash_rows_sweep",
    "patching.size": "patch_size_sweep",
}
LEXICONS = "lexicon_sweep"
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
    chosen = [r for r in result["runs"] if r["realized_flops"] and r["compared"]]
    budgets = [budget_key(r) for r in chosen]
    variants = variants_of(chosen)
    seeds = [r["seeds"] > 1 for r in chosen]
    over = (
        "over test documents and seeds" if all(seeds) else "of these test documents only: seeds are missing"
    )
    intervals = f"Points: means over seeds. Bars: 95% intervals {over}; drawn side by side. Lines: "
    fits = intervals + "power-law fits, drawn over the measured range only."
    if not result["fits"]:
        fits = intervals + "none fitted, a power law needs three budgets; dotted lines join the points."
    if chosen:
        yield (
            "bpb_vs_flops",
            "Test bits per byte against training FLOPs, a curve per series",
            fits,
            plot.curves(lines_of(chosen, "realized_flops"), result["fits"], EXACT, budgets),
        )
    if any(r["entropy_forward_flops"] for r in chosen):
        yield (
            "bpb_vs_flops_with_entropy_model",
            (
                "Test bits per byte against training FLOPs with the entropy model's forward FLOPs, a curve"
                " per series"
            ),
            (
                "The same, with the entropy model's forward FLOPs over the training bytes added to the runs"
                " that use it; its own training is in a table of its own."
            ),
            plot.curves(
                lines_of(chosen, "flops_with_entropy_model"),
                result["fits_with_entropy_model"],
                "training FLOPs + entropy model's forward FLOPs",
                budgets,
            ),
        )
    pairs = [
        pair for pair in result["pairs"] if pair["difference"] is not None and pair["series"] in variants
    ]
    if pairs:
        against = pairs[0]["against"]
        lines = {}
        for pair in pairs:
            blank = dict(variants[pair["series"]], x=[], y=[], low=[], high=[])
            line = lines.setdefault(pair["series"], blank)
            for key, value in (
                ("x", pair["budget_flops"]),
                ("y", pair["difference"]),
                ("low", pair["low"]),
                ("high", pair["high"]),
            ):
                line[key].append(value)
        covered = all(pair["covers_seeds"] for pair in pairs)
        yield (
            "difference_to_bpe",
            f"Difference in test bits per byte to {against} at each budget",
            (
                "Bars: 95% intervals of the difference on the same test documents, drawn side by side. "
                + (
                    "They cover documents and seeds: a bar that does not touch 0 shows a difference."
                    if covered
                    else "Of these documents only: seeds are missing."
                )
            ),
            plot.differences(
                [lines[s] for s in variants if s in lines],
                "budget, training FLOPs (exact, useful)",
                budgets,
                against,
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
            plot_runs.training(curves, EXACT),
        )
    for key, name in SWEEPS.items():
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
                plot_runs.swept(found, label + unit, namer(found)),
            )
    found = lexicons(result["sweeps"])
    if len({s["key"] for s in found}) > 1:
        yield (
            LEXICONS,
            "Validation bits per byte against the size of the lexicon",
            (
                "A lexicon is the hash tables of a BLT, or the embeddings and the output head of a BPE"
                " vocabulary. On validation text. Filled: the chosen value."
            ),
            plot_runs.swept(found, "lexicon (parameters)", namer(found)),
        )


def variants_of(chosen: list) -> dict:
    """{series: {"series", "family", "variant"}}: series of one family share its colour and are numbered, for
    a line and a marker of their own."""
    out = {}
    for r in sorted(chosen, key=order):
        if r["series"] not in out:
            number = sum(v["family"] == r["family"] for v in out.values())
            out[r["series"]] = dict(series=r["series"], family=r["family"], variant=number)
    return out


def lines_of(chosen: list, x: str) -> list:
    """[{"series", "family", "variant", "x", "y", "low", "high"}] with x ascending."""
    out = {series: dict(v, x=[], y=[], low=[], high=[]) for series, v in variants_of(chosen).items()}
    for r in sorted(chosen, key=lambda r: r[x]):
        for key, name in (("x", x), ("y", "bpb"), ("low", "bpb_low"), ("high", "bpb_high")):
            out[r["series"]][key].append(r[name])
    return list(out.values())


def training_curves(chosen: list, runs: list) -> list:
    """[{"family", "x", "y"}] of the chosen runs that logged at least two steps, smoothed."""
    logged = {str(run.path): run.metrics for run in runs}
    out = []
    for r in chosen:
        for run_dir in r["run_dirs"]:
            points = [
                (m["useful_flops"], m["bpb"])
                for m in logged[run_dir]
                if finite(m.get("useful_flops")) and finite(m.get("bpb")) and m["useful_flops"] > 0
            ]
            if len(points) > 1:
                x, y = plot_runs.smooth(*zip(*points))
                out.append(dict(family=r["family"], x=x, y=y))
    return out


def namer(sweeps: list):
    """Direct labels that say as much as tells these sweeps apart."""
    budgets = len({s["budget_flops"] for s in sweeps}) > 1
    several = len({s["series"] for s in sweeps}) > 1

    def name(sweep):
        parts = [sweep["series"]] if several or not budgets else []
        parts += [short_flops(sweep["budget_flops"])] if budgets else []
        parts += [
            f"{SHORT.get(key, key)} {value:g}" if finite(value) else str(value)
            for key, value in sweep["fixed"].items()
        ]
        return ", ".join(parts)

    return name
