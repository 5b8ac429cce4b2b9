"""The report's body as data, rendered by page.py as HTML and here as Markdown: titles, sentences, tables,
figures."""

import json

from bltjax.fits import scaling_law_section
from bltjax.paper import paper_section
from bltjax.report import by_group, patch_places, task_scores
from bltjax.report.compare_series import by_series
from bltjax.report.figures import LEXICONS, SWEEPS
from bltjax.results.run_directories import finite
from bltjax.results.run_table import REFERENCE, budget_key
from bltjax.results.series import order
from bltjax.results.tables import flops, short_flops, signed, span, table, to_markdown

POINT = (  # columns of the table of points
    "name",
    "series",
    "budget_flops",
    "bpb",
    "seeds",
    "bpb_seed_sd",
    "validation_bpb",
    "patch_size",
    "epochs",
    "bytes_per_batch",
    "executed_over_useful",
    "mean_context_bytes",
    "params_total",
    "params_lexicon",
    "params_without_lexicon",
    "lr",
    "vocab",
    "hash_rows",
)

FEWEST = 0.01  # of resamples that meet: an interval of fewer is not shown


def of(result: dict, runs: list, figures: dict) -> list:
    """[{"title", "lines": [...], "figures": [names], "tables": [{"columns", "rows"}]}], empty sections left
    out."""
    made = [
        section(
            "Bits per byte at each budget",
            figures=["bpb_vs_flops", "bpb_vs_flops_with_entropy_model"],
            tables=[score_table(result)],
            lines=[
                "Test bits per byte, lower is better: means over seeds, with 95% intervals "
                + covered(result["runs"])
                + ". ≤ marks an upper bound: one tokenization of many."
            ],
        ),
        (
            section(f"Differences to {REFERENCE}", figures=["difference_to_bpe"], tables=[pair_table(result)])
            if result["pairs"]
            else None
        ),
        *paper_section.sections(result),
        section(
            "Groups of text",
            tables=[by_group.table([r for r in result["runs"] if r["compared"]], runs)],
            lines=[
                "Test bits per byte of each group of the text (`data.group_field`), over all its bytes and"
                " seeds. The mean gives every group the same weight; the groups with most bytes are shown."
            ],
        ),
        section(
            "The place of a byte in its patch",
            tables=[patch_places.table([r for r in result["runs"] if r["compared"]], runs)],
            lines=[
                "Test bits per byte of the bytes that are first in their patch, of the second, and so on."
                " Where patches begin where entropy is high, the first byte is the dearest."
            ],
        ),
        section(
            "Tasks and files",
            tables=task_scores.tables(runs),
            lines=[
                "What `bltjax eval` kept in these runs, ± standard errors over items. FLOPs are exact forward"
                " FLOPs: the model's, and behind a plus its entropy model's."
            ],
        ),
        section("Power laws", tables=[fit_table(result), crossing_table(result)], lines=fit_lines(result)),
        scaling_law_section.section(result.get("scaling_law"), result.get("scaling_figures", [])),
        sweep_section(result),
        section("Training curves", figures=["training_curves", "validation_curves"]),
        section(
            "Points",
            tables=[table(result["runs"], POINT)],
            lines=[
                "What stands behind each point: means over its seeds, of the configuration that is best on"
                " validation text. A lexicon is the hash tables of a BLT, or the embeddings and the output"
                " head of a BPE vocabulary: many parameters, almost no FLOPs."
            ],
        ),
        section(
            "Runs",
            tables=[table(result["all_runs"])],
            lines=[
                "FLOPs are exact useful training FLOPs: unpadded bytes and patches, the entropy model left"
                " out and shown beside. Executed FLOPs include padding and masked blocks. EOS nats are totals"
                " over the test documents and no part of bits per byte. Patch sizes of bpe are bytes per"
                " token."
            ],
        ),
        entropy_section(runs),
        unfinished_section(result),
        machine_section(runs),
    ]
    made = [part for part in made if part]
    for part in made:
        part["figures"] = [name for name in part["figures"] if name in figures]
        part["tables"] = [t for t in part["tables"] if t and t["rows"]]
    return [part for part in made if part["figures"] or part["tables"] or part.get("kept")]


def section(title: str, lines=(), figures=(), tables=()) -> dict:
    return dict(title=title, lines=list(lines), figures=list(figures), tables=list(tables))


def bits(row: dict) -> str:
    text = ("≤ " if row["upper_bound"] else "") + f"{row['bpb']:.4f}"
    return text + (f" ({row['bpb_low']:.3f} to {row['bpb_high']:.3f})" if row["bpb_low"] is not None else "")


def covered(rows: list) -> str:
    """What the rows' intervals cover, in words."""
    seeds = [r["seeds"] > 1 for r in rows]
    if all(seeds):
        return "over documents and seeds"
    return "of these documents only" + (" where there is one seed" if any(seeds) else "")


def score_table(result: dict) -> dict:
    """Series down, budgets across."""
    budgets = sorted({budget_key(r) for r in result["runs"] if r["compared"]})
    rows = [r for r in result["runs"] if r["compared"]]
    cells = {(r["series"], budget_key(r)): bits(r) for r in rows}
    return dict(
        columns=["series", *[f"{short_flops(b)} FLOPs" for b in budgets]],
        rows=[[s, *[cells.get((s, b), "–") for b in budgets]] for s in by_series(sorted(rows, key=order))],
    )


def pair_table(result: dict) -> dict:
    rows = [
        [
            short_flops(p["budget_flops"]),
            p["series"],
            signed(p["difference"], 4) if p["difference"] is not None else "–",
            span(p["low"], p["high"], 4) if p["low"] is not None else p["note"],
            verdict(p),
            " and ".join(map(str, p["seeds"])),
            str(p["documents"]),
        ]
        for p in result["pairs"]
    ]
    against = result["pairs"][0]["against"] if result["pairs"] else REFERENCE
    return dict(
        columns=[
            "budget",
            "series",
            f"bits/byte minus {against}'s",
            "95% interval",
            "it covers",
            "seeds",
            "documents",
        ],
        rows=rows,
    )


def verdict(pair: dict) -> str:
    """What an interval covers and, where that is documents and seeds, whether it excludes 0."""
    if pair["low"] is None:
        return "–"
    if not pair["covers_seeds"]:
        return "these documents only"
    apart = "; unequal conditions" if pair["unlike"] else ""
    return "documents and seeds: " + ("excludes 0" if pair["excludes_zero"] else "includes 0") + apart


def fit_table(result: dict) -> dict:
    rows = []
    for key, what in (("fits", "without"), ("fits_with_entropy_model", "with")):
        for series, f in result[key].items():
            if key == "fits" or f != result["fits"].get(series):
                rows.append(
                    [
                        series,
                        what,
                        f["form"],
                        f"{f['E']:.4g}",
                        f"{f['A']:.4g}",
                        f"{f['alpha']:.4f}",
                        alpha_interval(f),
                        str(f["points"]),
                        f"{f['largest_residual']:.2%}",
                    ]
                )
    return dict(
        columns=[
            "series",
            "entropy model",
            "form",
            "E",
            "A",
            "alpha",
            "95% of alpha",
            "points",
            "largest residual",
        ],
        rows=rows,
    )


def alpha_interval(fit: dict) -> str:
    """A fit's interval in words: an end that the points do not bound, and what it takes for granted."""
    low, high = (None if end is None else f"{end:.4f}" for end in (fit["alpha_low"], fit["alpha_high"]))
    if low is None and high is None:
        return "–"
    text = f"{low} to {high}" if low and high else f"from {low}, no upper end" if low else f"up to {high}"
    return text + (f", if {fit['alpha_if']}" if fit["alpha_if"] else "")


def fit_lines(result: dict) -> list:
    notes = {}
    for series, f in result["fits"].items():
        covers = f"interval of alpha {f['covers']}" if f["covers"] else ""
        for note in (f["note"], covers, f["no_interval"] and f"no interval: {f['no_interval']}"):
            if note:
                notes.setdefault(note, []).append(series)
    lines = [f"{'; '.join(series)}: {note}." for note, series in notes.items()]
    return [*lines, "A wrong form of the law is in no interval."] if lines else lines


def crossing_table(result: dict) -> dict:
    rows = [
        [
            c["series"],
            c["text"],
            _share(c["share"]),
            f"{flops(c['low'], 2)} to {flops(c['high'], 2)}" if _enough(c) else "–",
            c["covers"] or "–",
            ", ".join(flops(f, 2) for f in c["fits"]) or "none in range",
        ]
        for c in result["crossovers"]
    ]
    against = result["crossovers"][0]["against"] if result["crossovers"] else REFERENCE
    columns = [
        "series",
        f"measured curve meets {against}'s at",
        "resamples that meet",
        "95% of those",
        "it covers",
        "fits meet at",
    ]
    return dict(columns=columns, rows=rows)


def _share(share) -> str:
    return "–" if share is None else "<1%" if 0 < share < FEWEST else f"{share:.0%}"


def _enough(crossover: dict) -> bool:
    """Whether so many resamples meet that their interval means anything."""
    return crossover["low"] is not None and (crossover["share"] is None or crossover["share"] >= FEWEST)


def value_text(value) -> str:
    return f"{value:g}" if finite(value) else str(value)


def sweep_section(result: dict):
    if not result["sweeps"]:
        return None
    lines, tables = [], {}
    for s in result["sweeps"]:
        fixed = "".join(f", {key} {value_text(value)}" for key, value in s["fixed"].items())
        where = f"{s['series']}, {short_flops(s['budget_flops'])} FLOPs{fixed}"
        edge = (
            "at the edge of the grid, so the best value may lie outside" if s["edge"] else "inside the grid"
        )
        lines.append(
            f"{s['label'][0].upper()}{s['label'][1:]} of {where}: chosen {value_text(s['chosen'])}, {edge}."
        )
        tables.setdefault(s["label"], []).append((where, s))
    tables = [sweep_table(label, found) for label, found in tables.items()]
    return section("Sweeps, chosen on validation text", lines, [*SWEEPS.values(), LEXICONS], tables)


def sweep_table(label: str, found: list) -> dict:
    """Sweeps down, values across, the chosen one marked. found: [(where, sweep)]."""
    values = sorted({v["value"] for _, s in found for v in s["values"]}, key=lambda v: (str(type(v)), v))
    rows = []
    for where, s in found:
        cells = {
            v["value"]: f"{v['validation_bpb']:.4f}" + (" ←" if v["value"] == s["chosen"] else "")
            for v in s["values"]
        }
        rows.append([where, *[cells.get(value, "–") for value in values]])
    return dict(columns=[f"{label} → validation bits/byte", *map(value_text, values)], rows=rows)


def entropy_section(runs: list):
    models = {}
    for run in runs:
        model = run.planned.get("entropy_model")
        if model:
            models.setdefault(str(model.get("fingerprint")), (model, []))[1].append(run.name)
    rows = [
        [
            key,
            f"{model['params']:,.0f}" if finite(model.get("params")) else "–",
            flops(model["train_flops"]) if finite(model.get("train_flops")) else "–",
            f"{model['forward_flops_per_byte']:,.0f}" if finite(model.get("forward_flops_per_byte")) else "–",
            f"{model['bpb']:.4f}" if finite(model.get("bpb")) else "–",
            f"{model['epochs']:.2f}" if finite(model.get("epochs")) else "–",
            ", ".join(names),
        ]
        for key, (model, names) in models.items()
    ]
    columns = [
        "fingerprint",
        "parameters",
        "training FLOPs",
        "forward FLOPs/byte",
        "its bits/byte",
        "its epochs",
        "used by",
    ]
    return section(
        "Entropy model",
        [
            "A byte language model, trained once and shared; neither its training nor its forward FLOPs are"
            " in the runs' budgets."
        ],
        tables=[dict(columns=columns, rows=rows)],
    )


def unfinished_section(result: dict):
    rows = [[u["name"], u["state"], u["reason"]] for u in result["unfinished"]]
    return section(
        "Not finished",
        ["These runs are in no curve, table or sentence above."],
        tables=[dict(columns=["run", "state", "why"], rows=rows)],
    )


def machine_section(runs: list):
    """What the runs ran on and read; one line of values where they agree, all where they do not."""
    facts = {}
    for run in runs:
        for key, value in run.record.items():
            if key not in ("config", "experiment", "schema_version", "created"):
                for name, one in value.items() if isinstance(value, dict) else [(key, value)]:
                    text = one if isinstance(one, str) else json.dumps(one)
                    facts.setdefault(name, {}).setdefault(text, []).append(run.name)
    rows = [
        [
            name,
            "; ".join(
                text if len(values) == 1 else f"{text} ({len(names)} runs)" for text, names in values.items()
            ),
        ]
        for name, values in facts.items()
    ]
    return section("Machine, versions and data", tables=[dict(columns=["what", "value"], rows=rows)])


def markdown(result: dict, parts: list, figures: dict) -> str:
    lines = [f"# {result['experiment']}", "", result["headline"], ""]
    lines += [f"- {line}" for line in result["findings"]] + [""]
    for title, key in (("Keep in mind", "caveats"), ("Warnings", "warnings")):
        if result[key]:
            lines += [f"**{title}**", "", *[f"- {line}" for line in result[key]], ""]
    for part in parts:
        lines += [f"## {part['title']}", ""]
        for line in part["lines"]:
            lines += [line, ""]
        for name in part["figures"]:
            lines += [f"![{figures[name].alt}]({name}.png)", "", figures[name].caption, ""]
        for t in part["tables"]:
            lines += [to_markdown(**t), ""]
    return "\n".join(lines)
