"""Numbers as text, CSV and Markdown. A table is (columns, rows of strings); CSV keeps every digit."""

import csv
import io
import re

COLUMNS = (  # of report.csv and of the table of runs: key, heading, format
    ("name", "run", "{}"),
    ("family", "family", "{}"),
    ("series", "series", "{}"),
    ("chosen", "chosen", "{}"),
    ("budget_flops", "planned FLOPs (budget)", "flops"),
    ("bpb", "test bits/byte", "{:.4f}"),
    ("seeds", "seeds", "{}"),
    ("bpb_seed_sd", "standard deviation over seeds", "{:.4f}"),
    ("bpb_low", "95% from", "{:.4f}"),
    ("bpb_high", "95% to", "{:.4f}"),
    ("upper_bound", "upper bound", "{}"),
    ("validation_bpb", "validation bits/byte", "{:.4f}"),
    ("realized_flops", "realized FLOPs (useful)", "flops"),
    ("deviation_percent", "off budget", "{:+.2f}%"),
    ("executed_flops", "executed FLOPs", "flops"),
    ("executed_over_useful", "executed over useful", "{:.2f}"),
    ("entropy_forward_flops", "entropy model's forward FLOPs", "flops"),
    ("flops_with_entropy_model", "realized + entropy model", "flops"),
    ("patch_target", "patch size, target", "{:.3g}"),
    ("patch_size", "patch size, training rows", "{:.3f}"),
    ("patch_test", "patch size, test text", "{:.3f}"),
    ("steps", "steps", "{:,.0f}"),
    ("train_bytes", "training bytes", "{:,.0f}"),
    ("epochs", "epochs", "{:.2f}"),
    ("bytes_per_batch", "bytes per batch", "{:,.0f}"),
    ("packing_bytes", "packing, bytes or tokens", "{:.1%}"),
    ("packing_patches", "packing, patches", "{:.1%}"),
    ("params_total", "parameters", "{:,.0f}"),
    ("params_without_hash", "parameters without hash tables", "{:,.0f}"),
    ("params_hash", "hash tables", "{:,.0f}"),
    ("params_lexicon", "lexicon (hash tables, or embeddings and head of BPE)", "{:,.0f}"),
    ("params_without_lexicon", "parameters without lexicon", "{:,.0f}"),
    ("flops_per_byte_exact", "forward FLOPs/byte, exact", "{:,.0f}"),
    ("flops_per_byte_paper", "forward FLOPs/byte, paper", "{:,.0f}"),
    ("local_share", "FLOPs outside the latent transformer", "{:.0%}"),
    ("lr", "learning rate", "{:g}"),
    ("vocab", "vocabulary", "{:,.0f}"),
    ("hash_rows", "hash rows", "{:,.0f}"),
    ("size", "size", "{}"),
    ("seed", "seed", "{}"),
    ("threshold", "threshold, nats", "{:.4f}"),
    ("delta", "delta, nats", "{:.4f}"),
    ("eos_nats", "EOS nats (apart)", "{:.1f}"),
    ("test_bytes", "test bytes", "{:,.0f}"),
    ("test_documents", "test documents", "{}"),
    ("test_text", "test text (digest)", "{}"),
    ("mean_context_bytes", "mean left context, bytes", "{:,.1f}"),
    ("positions_trained", "positions trained", "{:,.0f}"),
    ("positions_scored", "positions scored", "{:,.0f}"),
    ("overlap", "test shingles in training text", "{:.2%}"),
    ("overlap_without_boilerplate", "the same without boilerplate", "{:.2%}"),
    ("wall_s", "wall, s", "{:,.0f}"),
    ("run_dir", "directory", "{}"),
)
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def flops(value, digits: int = 3) -> str:
    """1.03×10¹²; a bare power of ten where that is all the number says."""
    if value is None:
        return "–"
    if not value:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}×10" + str(int(exponent)).translate(SUPERSCRIPT)


def short_flops(value) -> str:
    """3×10¹¹ for a round number, more digits where it is not."""
    digits = (
        next((d for d in (1, 2, 3) if abs(float(f"{value:.{d - 1}e}") / value - 1) < 1e-3), 3) if value else 1
    )
    return flops(value, digits).removeprefix("1×")


def cell(value, form: str) -> str:
    """One value as text; nothing known is a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        flops(value)
        if form == "flops"
        else form.format(value).replace("-", "−") if form[0:2] == "{:" else form.format(value)
    )


def table(rows: list, keys=None) -> dict:
    """The table of runs as text: {"columns", "rows"}, columns that hold nothing left out; keys: only these
    columns."""
    kept = [
        c
        for c in COLUMNS
        if (keys is None or c[0] in keys) and any(r.get(c[0]) not in (None, "") for r in rows)
    ]
    return dict(
        columns=[heading for _, heading, _ in kept],
        rows=[[cell(r.get(key), form) for key, _, form in kept] for r in rows],
    )


def to_csv(rows: list) -> str:
    """Every column with every digit; empty where nothing is known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = [key for key, _, _ in COLUMNS if any(key in r for r in rows)]
    writer.writerow(keys)
    writer.writerows(
        [
            [
                "" if r.get(key) is None else repr(r[key]) if isinstance(r[key], float) else r[key]
                for key in keys
            ]
            for r in rows
        ]
    )
    return out.getvalue()


def to_markdown(columns: list, rows: list) -> str:
    """A GitHub table; numbers to the right."""

    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    numeric = [all(numeric_text(r[i]) for r in rows) for i in range(len(columns))]
    rule = "| " + " | ".join("---:" if right else "---" for right in numeric) + " |"
    return "\n".join([line(columns), rule, *map(line, rows)])


def numeric_text(text: str) -> bool:
    """Whether a cell should stand at the right: starts like a number, or is empty."""
    return str(text)[:1] in "0123456789+−–±" if str(text) else True


def listed_flops(values) -> str:
    return ", ".join(flops(value, 2) for value in values)


def in_ascii(text: str) -> str:
    """The same for a terminal that has no such signs: 3e11 for 3×10¹¹."""
    digits = {chr(v): chr(k) for k, v in SUPERSCRIPT.items()}

    def power(found):
        return f"{found[1] or '1'}e{''.join(digits[sign] for sign in found[2])}"

    text = re.sub(rf"(?:([\d.]+)×)?\b10([{''.join(digits)}]+)", power, text)
    for sign, plain_ in (
        ("≤", "<="),
        ("–", "-"),
        ("−", "-"),
        ("→", "->"),
        ("←", "<-"),
        ("×", "x"),
        ("·", "*"),
    ):
        text = text.replace(sign, plain_)
    return text.encode("ascii", "replace").decode("ascii")


def plain(columns: list, rows: list) -> str:
    """Columns of equal width, for a terminal."""
    widths = [max(len(str(r[i])) for r in [columns, *rows]) for i in range(len(columns))]
    return "\n".join(
        "  ".join(f"{str(c):{'<' if i == 0 else '>'}{w}}" for i, (c, w) in enumerate(zip(r, widths))).rstrip()
        for r in [columns, *rows]
    )
