"""What stands behind the points of a figure: the text that hovering over one shows, and the data file."""

from bltjax.results.columns import TITLES
from bltjax.results.run_table import budget_key
from bltjax.results.tables import csv_text, short_flops

DIFFERENCE = "difference [bit/byte]"


def note(row: dict) -> str:
    """Of a point of a curve, the mean over a configuration's seeds: its name, then a line a fact."""
    low, high = row["bpb_low"], row["bpb_high"]
    facts = [
        ("series", row["series"] if row["series"] != row["name"] else None),
        ("budget", f"{short_flops(budget_key(row))} FLOPs"),
        ("test bits/byte", ("≤ " if row["upper_bound"] else "") + f"{row['bpb']:.4f}"),
        ("95% interval", None if low is None else f"{low:.4f} to {high:.4f}"),
        ("seeds", row.get("seeds")),
        ("patch size", None if row["patch_size"] is None else f"{row['patch_size']:.2f} bytes"),
        ("directory", directories(row.get("run_dirs") or [row["run_dir"]])),
    ]
    return lines(row["name"], facts)


def pair_note(pair: dict) -> str:
    """Of a difference to the reference."""
    facts = [
        ("budget", f"{short_flops(pair['budget_flops'])} FLOPs"),
        (f"minus {pair['against_run']}", f"{pair['difference']:+.4f} bits/byte".replace("-", "−")),
        (
            "95% interval",
            (
                pair["note"]
                if pair["low"] is None
                else f"{pair['low']:+.4f} to {pair['high']:+.4f}".replace("-", "−")
            ),
        ),
        ("covers", pair["covers"].removeprefix("over ")),
        ("seeds", " and ".join(map(str, pair["seeds"]))),
        ("documents", pair["documents"]),
    ]
    return lines(pair["run"], facts)


def sweep_note(sweep: dict, tried: dict, rows: dict) -> str:
    """Of a value that was tried. rows: by name."""
    first = rows.get(tried["runs"][0], {})
    size = first.get("patch_size")
    facts = [
        ("series", sweep["series"]),
        ("budget", f"{short_flops(sweep['budget_flops'])} FLOPs"),
        (
            sweep["label"],
            f"{tried['value']:g}" if isinstance(tried["value"], (int, float)) else tried["value"],
        ),
        ("validation bits/byte", f"{tried['validation_bpb']:.4f}"),
        ("seeds", tried["seeds"]),
        ("patch size", None if size is None else f"{size:.2f} bytes"),
        ("directory", directories([rows[name]["run_dir"] for name in tried["runs"] if name in rows])),
    ]
    return lines(tried["runs"][0], facts)


def training_note(row: dict, text: str, flops: float, bits: float) -> str:
    """Of a place on a curve of training or validation text."""
    facts = [
        ("series", row["series"]),
        ("here", f"{short_flops(float(f'{flops:.2g}'))} FLOPs"),
        (f"{text} bits/byte", f"{bits:.3f}, smoothed"),
        ("at its end", f"{row['bpb']:.4f} test bits/byte"),
        ("directory", row["run_dir"]),
    ]
    return lines(row["name"], facts)


def lines(title, facts: list) -> str:
    """The title, then "what: value" a line; facts that nothing is known of are left out."""
    kept = [f"{what}: {value}" for what, value in facts if value not in (None, "")]
    return "\n".join([str(title), *kept])


def directories(dirs: list) -> str:
    more = f" and {len(dirs) - 1} more" if len(dirs) > 1 else ""
    return f"{dirs[0]}{more}" if dirs else ""


def curve_data(rows: list, x: str) -> str:
    """CSV of a curve per series: a line a point. rows: chosen rows; x: the key on the horizontal axis."""
    keys = ("series", "family", "budget_flops", x, "bpb", "bpb_low", "bpb_high", "seeds", "patch_size")
    keys = tuple(dict.fromkeys(keys))
    return csv_text(
        [*(TITLES[key] for key in keys), "run_dirs"],
        [[*(row[key] for key in keys), " ".join(row["run_dirs"])] for row in rows],
    )


def pair_data(pairs: list) -> str:
    keys = ("series", "family", "against", "budget_flops", "difference", "low", "high", "run", "against_run")
    titles = {"difference": DIFFERENCE, "low": "low [bit/byte]", "high": "high [bit/byte]", **TITLES}
    return csv_text([titles.get(key, key) for key in keys], [[pair[key] for key in keys] for pair in pairs])


def training_data(curves: list, text: str) -> str:
    """CSV of smoothed curves of training or validation text."""
    return csv_text(
        ["run", "family", "useful training FLOPs [FLOP]", f"{text} bpb, smoothed [bit/byte]"],
        [
            [curve["row"]["name"], curve["family"], float(x), float(y)]
            for curve in curves
            for x, y in zip(curve["x"], curve["y"])
        ],
    )


def sweep_data(sweeps: list) -> str:
    columns = ["key", "series", "family", TITLES["budget_flops"], "fixed", "value", TITLES["validation_bpb"]]
    return csv_text(
        [*columns, "seeds", "chosen", "runs"],
        [
            [
                *(s["key"], s["series"], s["family"], s["budget_flops"]),
                " ".join(f"{key}={value}" for key, value in s["fixed"].items()),
                *(tried["value"], tried["validation_bpb"], tried["seeds"], tried["value"] == s["chosen"]),
                " ".join(tried["runs"]),
            ]
            for s in sweeps
            for tried in s["values"]
        ],
    )


def paper_data(entry: dict, at: dict, column: str) -> str:
    """CSV of a table of the paper at one budget: ours and the paper's bits per byte, and the differences to
    the reference row."""
    keys = ("ours", "paper", "mark", "ours_minus_reference", "low", "high", "paper_minus_reference")
    unit = {key: " [bit/byte]" for key in keys if key != "mark"}
    return csv_text(
        ["row", "words", *(f"{key}{unit.get(key, '')}" for key in keys), "run", "run_dir", "missing"],
        [
            [row["row"], row["words"], *(row["cells"][column][key] for key in keys)]
            + [row["run"], row["run_dir"], row["missing"]]
            for row in at["rows"]
        ],
    )


def entropy_model_data(models: list) -> str:
    columns = ["whose", "family", "entropy model [parameter]", "context [byte]", TITLES["bpb"]]
    return csv_text(
        [*columns, TITLES["bpb_low"], TITLES["bpb_high"], "run", "run_dir"],
        [
            [m["whose"], m["family"], m["parameters"], m["context"]]
            + [m["row"][key] for key in ("bpb", "bpb_low", "bpb_high", "name", "run_dir")]
            for m in models
        ],
    )


def cell_note(cell: dict) -> str:
    """Of a difference between two experiments' cells."""
    facts = [
        ("budget", f"{short_flops(cell['budget_flops'])} FLOPs"),
        ("A, B", f"{cell['a']['bpb']:.4f}, {cell['b']['bpb']:.4f} bits/byte"),
        ("B minus A", f"{cell['difference']:+.4f} bits/byte".replace("-", "−")),
        (
            "95% interval",
            (
                cell["note"]
                if cell["low"] is None
                else f"{cell['low']:+.4f} to {cell['high']:+.4f}".replace("-", "−")
            ),
        ),
        ("seeds", " and ".join(str(cell[s]["seeds"]) for s in ("a", "b"))),
        ("A", directories(cell["a"]["run_dirs"])),
        ("B", directories(cell["b"]["run_dirs"])),
    ]
    return lines(cell["series"], facts)


def cell_data(cells: list) -> str:
    keys = ("series", "family", "budget_flops", "difference", "low", "high")
    titles = {"difference": DIFFERENCE, "low": "low [bit/byte]", "high": "high [bit/byte]", **TITLES}
    return csv_text([titles.get(key, key) for key in keys], [[one[key] for key in keys] for one in cells])
