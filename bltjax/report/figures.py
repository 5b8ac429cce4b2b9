"""The figures of a report, drawn from its numbers: each a name, a caption, SVG, PNG and data."""

from bltjax.paper import comparison, paper_section, redrawn
from bltjax.plots import curves, points, scores, swept_values, training_curves
from bltjax.plots.drawing import look, picture
from bltjax.report.sweeps import lexicons
from bltjax.results.run_directories import finite, lookup
from bltjax.results.run_table import budget_key, family_order
from bltjax.results.tables import short_flops

SHORT = {"train.lr": "lr", "tokenizer.vocab": "vocab", "model.ngrams.rows": "rows", "patching.size": "patch"}
SWEEPS = {  # swept key -> name of its figure
    "train.lr": "learning_rate_sweep",
    "tokenizer.vocab": "vocabulary_sweep",
    "model.ngrams.rows": "hash_rows_sweep",
    "patching.size": "patch_size_sweep",
}
LEXICONS = "lexicon_sweep"
OURS_ALONE = "Our runs alone: the paper prints no points. Bars: 95% intervals; dotted lines join points."
EXACT = "training FLOPs (exact, useful)"


def draw(result: dict, runs: list) -> dict:
    """{name: Picture} of those that the runs have numbers for."""
    with look():
        drawn = {}
        for name, alt, caption, drawing, data in (*figures(result, runs), *of_paper(result, runs)):
            drawn[name] = picture(name, alt, caption, drawing, data)
    return drawn


def figures(result: dict, runs: list):
    """(name, alt, caption, Drawing, data as CSV), in the report's order."""
    chosen = [r for r in result["runs"] if r["realized_flops"] and r["compared"]]
    budgets = [budget_key(r) for r in chosen]
    variants = variants_of(chosen)
    seeds = [r["seeds"] > 1 for r in chosen]
    over = (
        "over test documents and seeds" if all(seeds) else "of these test documents only: seeds are missing"
    )
    intervals = f"Points: means over seeds. Bars: 95% intervals {over}; drawn side by side. Lines: "
    fits = intervals + "power-law fits, drawn over the measured range only."
    if len(variants) > curves.MANY:
        intervals = "Points: means over seeds; the tables and hovering have their intervals. Lines: "
        fits = intervals + "power-law fits, drawn over the measured range only."
    if not result["fits"]:
        fits = intervals + "none fitted, a power law needs three budgets; dotted lines join the points."
    if chosen and len(set(budgets)) == 1:
        yield (
            "bpb_vs_flops",
            f"Test bits per byte at {short_flops(budgets[0])} FLOPs, a line a series",
            f"Points: means over seeds. Bars: 95% intervals {over}.",
            scores.scores(
                lines_of(chosen, "realized_flops"),
                f"test bits per byte at {short_flops(budgets[0])} training FLOPs",
            ),
            points.curve_data(chosen, "realized_flops"),
        )
    elif chosen:
        yield (
            "bpb_vs_flops",
            "Test bits per byte against training FLOPs, a curve per series",
            fits,
            curves.curves(lines_of(chosen, "realized_flops"), result["fits"], EXACT, budgets),
            points.curve_data(chosen, "realized_flops"),
        )
    if len(set(budgets)) > 1 and any(r["entropy_forward_flops"] for r in chosen):
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
            curves.curves(
                lines_of(chosen, "flops_with_entropy_model"),
                result["fits_with_entropy_model"],
                "training FLOPs + entropy model's forward FLOPs",
                budgets,
            ),
            points.curve_data(chosen, "flops_with_entropy_model"),
        )
    pairs = [
        pair for pair in result["pairs"] if pair["difference"] is not None and pair["series"] in variants
    ]
    if pairs:
        against = pairs[0]["against"]
        lines = {}
        for pair in pairs:
            blank = dict(variants[pair["series"]], x=[], y=[], low=[], high=[], notes=[])
            line = lines.setdefault(pair["series"], blank)
            for key, value in (
                ("x", pair["budget_flops"]),
                ("y", pair["difference"]),
                ("low", pair["low"]),
                ("high", pair["high"]),
                ("notes", points.pair_note(pair)),
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
            curves.differences(
                [lines[s] for s in variants if s in lines],
                "budget, training FLOPs (exact, useful)",
                budgets,
                against,
            ),
            points.pair_data(pairs),
        )
    logged = logged_curves(chosen, result["all_runs"], runs)
    if logged:
        yield (
            "training_curves",
            "Training bits per byte against training FLOPs, a panel per family",
            (
                "Each panel: one family's chosen runs in colour over all others in grey. Running mean over 2%"
                " of the steps, on training rows."
            ),
            training_curves.training(logged, EXACT, "training"),
            points.training_data(logged, "training"),
        )
    validated = logged_curves(chosen, result["all_runs"], runs, "validation.bpb")
    if validated:
        yield (
            "validation_curves",
            "Validation bits per byte while training, a panel per family",
            (
                "The same of a sample of validation text, the same for all runs of one data set and"
                " eval.sample_bytes (`validation` in metrics.jsonl, which has it by group)."
            ),
            training_curves.training(validated, EXACT, "validation"),
            points.training_data(validated, "validation"),
        )
    rows = {r["name"]: r for r in result["all_runs"]}

    def note(sweep, tried):
        return points.sweep_note(sweep, tried, rows)

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
                swept_values.swept(found, label + unit, namer(found), note),
                points.sweep_data(found),
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
            swept_values.swept(found, "lexicon (parameters)", namer(found), note),
            points.sweep_data(found),
        )


def of_paper(result: dict, runs: list):
    """The paper's figures and tables that the runs' labels name, redrawn from ours: as `figures` has them."""
    for entry in result["paper"]:
        name, what = paper_section.figure_name(entry), f"{entry['also'] or entry['name']} of the paper"
        bits = next((c["key"] for c in entry["columns"] if c["ours"] == "bpb"), None)
        drawable = [at for at in entry["at"] if sum(r["run"] is not None for r in at["rows"]) > 1]
        if bits and drawable:
            at = drawable[0]
            where = f" At {short_flops(at['budget_flops'])} FLOPs." if len(entry["at"]) > 1 else ""
            scale = "" if at["same_scale"] else f", which are of another scale ({entry['scale']})"
            yield (
                name,
                f"{what}: differences in bits per byte between its rows, ours and the paper's",
                (
                    f"Filled: our runs, with 95% intervals where the documents allow one. Open diamonds: the"
                    f" paper's numbers{scale}. Each against its own row “{redrawn.words(at)}”.{where}"
                ),
                redrawn.dots(entry, at, bits),
                points.paper_data(entry, at, bits),
            )
        if entry["name"] == "Table 2":
            rows = [r for r in result["runs"] if r["train_bytes"] and r["compared"]]
            for size, mine in comparison.classes(rows).items():
                yield (
                    name + paper_section.CLASSES[size],
                    f"{what}, {size} class: test bits per byte against training bytes, a curve per series",
                    OURS_ALONE,
                    redrawn.over_data(lines_of(mine, "train_bytes")),
                    points.curve_data(mine, "train_bytes"),
                )
        if entry["name"] == "Figure 8":
            models = comparison.entropy_models(runs, [r for r in result["runs"] if r["compared"]])
            if models:
                yield (
                    name,
                    f"{what}: test bits per byte against the size of the entropy model, a line a context",
                    OURS_ALONE,
                    redrawn.over_entropy_models(models),
                    points.entropy_model_data(models),
                )


def of_two(result: dict) -> list:
    """[Picture] of two experiments side by side (`compare_experiments.compared`): differences over the
    budgets, where there are any."""
    cells = [one for one in result["cells"] if one["difference"] is not None and one["budget_flops"]]
    if not cells:
        return []
    lines = {
        series: dict(v, x=[], y=[], low=[], high=[], notes=[]) for series, v in variants_of(cells).items()
    }
    for one in sorted(cells, key=lambda one: one["budget_flops"]):
        values = (one["budget_flops"], one["difference"], one["low"], one["high"], points.cell_note(one))
        for key, value in zip(("x", "y", "low", "high", "notes"), values):
            lines[one["series"]][key].append(value)
    budgets = [one["budget_flops"] for one in cells]
    name, alt = "compare", "Difference in test bits per byte, B minus A, at each budget, a line a series"
    caption = "Bars: 95% intervals of B minus A on the same test documents, drawn side by side."
    with look():
        drawing = curves.differences(
            list(lines.values()), "budget, training FLOPs (exact, useful)", budgets, "A"
        )
        return [picture(name, alt, caption, drawing, points.cell_data(cells))]


def variants_of(chosen: list) -> dict:
    """{series: {"series", "family", "variant"}}: series of one family share its colour and are numbered, for
    a line and a marker of their own."""
    out = {}
    for r in sorted(chosen, key=lambda r: (family_order(r["family"]), r["series"])):
        if r["series"] not in out:
            number = sum(v["family"] == r["family"] for v in out.values())
            out[r["series"]] = dict(series=r["series"], family=r["family"], variant=number)
    return out


def lines_of(chosen: list, x: str) -> list:
    """[{"series", "family", "variant", "x", "y", "low", "high", "notes"}] with x ascending."""
    keys = ("x", "y", "low", "high", "notes")
    out = {series: {**v, **{key: [] for key in keys}} for series, v in variants_of(chosen).items()}
    for r in sorted(chosen, key=lambda r: r[x]):
        out[r["series"]]["notes"].append(points.note(r))
        for key, name in (("x", x), ("y", "bpb"), ("low", "bpb_low"), ("high", "bpb_high")):
            out[r["series"]][key].append(r[name])
    return list(out.values())


def logged_curves(chosen: list, every: list, runs: list, key: str = "bpb") -> list:
    """[{"family", "row", "x", "y"}] of the chosen runs that logged key at two steps at least, smoothed. row:
    of the run."""
    logged = {str(run.path): run.metrics for run in runs}
    own = {r["run_dir"]: r for r in every}
    # every panel has every curve: of many runs fewer points each, or the page would be of megabytes
    most = min(300, max(40, 6000 // max(1, sum(len(r["run_dirs"]) for r in chosen))))
    out = []
    for r in chosen:
        for run_dir in r["run_dirs"]:
            logs = [
                (m["useful_flops"], lookup(m, key))
                for m in logged[run_dir]
                if finite(m.get("useful_flops")) and finite(lookup(m, key)) and m["useful_flops"] > 0
            ]
            if len(logs) > 1:
                x, y = training_curves.smooth(*zip(*logs), most)
                out.append(dict(family=r["family"], row=own[run_dir], x=x, y=y))
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
