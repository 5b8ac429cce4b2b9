"""report.html: one file that needs nothing else. Figures are inline SVG whose colours follow the reader's
light or dark mode; hovering over a point shows its run (hover.py). It reads the same with JavaScript off."""

import html as escaping
import json
import re

from bltjax.config import families
from bltjax.counts import counted
from bltjax.plots import drawing
from bltjax.report import hover
from bltjax.results.run_directories import flat
from bltjax.results.tables import numeric_text

# light colour in the figures -> (name of the variable, colour in dark mode)
PAGE = {
    drawing.INK: ("ink", "#ecebe7"),
    drawing.MUTED: ("muted", "#a3a29c"),
    drawing.FAINT: ("faint", "#56554f"),
    drawing.GRID: ("grid", "#393834"),
    drawing.PAPER: ("paper", "#1c1c1a"),
}

STYLE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;max-width:68rem;padding:1.6rem 1.1rem 4rem;background:var(--paper);color:var(--ink);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1rem;margin:0;color:var(--muted);font-weight:600}
h2{font-size:1.15rem;line-height:1.3;margin:3rem 0 .5rem}
.lead{font-size:1.3rem;line-height:1.4;margin:.3rem 0 1.2rem;max-width:52rem;text-wrap:pretty}
p,ul{max-width:46rem}p{margin:.5rem 0}ul{padding-left:1.1rem;margin:.5rem 0}li{margin:.25rem 0}
.note{color:var(--muted);font-size:.88rem}.note li{margin:.3rem 0}
.warn{border-left:3px solid var(--faint);padding:.1rem 0 .1rem .9rem;margin:1.2rem 0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1.4rem 2rem;
 margin:1.2rem 0 1.6rem}
figure{margin:0;max-width:34rem}figure svg{display:block;width:100%;height:auto;overflow:visible}
figcaption{color:var(--muted);font-size:.84rem;margin-top:.4rem;max-width:34rem}
.scroll{overflow-x:auto;margin:.9rem 0 1.4rem;max-width:100%;overscroll-behavior-x:contain}
table{border-collapse:collapse;font-size:.84rem;line-height:1.35;font-variant-numeric:tabular-nums}
th,td{padding:.34rem 1.1rem .34rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid)}
th{font-weight:600;color:var(--muted);vertical-align:bottom;max-width:9.5em}th.wide{max-width:none}
td{white-space:nowrap}td.long{white-space:normal;min-width:16em;overflow-wrap:anywhere}
.r{text-align:right}.dim{color:var(--muted)}
th:first-child,td:first-child{position:sticky;left:0;background:var(--paper);z-index:1;padding-right:1.4rem}
details{border-bottom:1px solid var(--grid);padding:.4rem 0}summary{cursor:pointer}
details.fold{border:0;margin:.6rem 0}details.fold>summary{color:var(--muted);font-size:.88rem}
summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--faint);outline-offset:2px}
pre{overflow-x:auto;font-size:.78rem;line-height:1.4}
@media (max-width:34rem){body{padding:1.1rem .8rem 3rem}.lead{font-size:1.15rem}h2{margin-top:2.4rem}
 figure svg{width:calc(100% + .8rem);margin:0 -.4rem}
 th:first-child,td:first-child{max-width:40vw;min-width:8.5em;white-space:normal;
 overflow-wrap:break-word;padding-right:.8rem}}
@media print{details>*{display:block}.scroll{overflow:visible}}
"""
FOLDED = 12  # columns; a table that has more is closed until it is asked for


def escape(text) -> str:
    return escaping.escape(str(text), quote=True)


def themed() -> dict:
    """{light colour: (name of its variable, colour in dark mode)}, of the page and of the families."""
    return {**{c: (f"c{i}", dark) for i, (c, dark) in enumerate(families.dark_colours().items())}, **PAGE}


def colours() -> str:
    light = "".join(f"--{name}:{colour};" for colour, (name, _) in themed().items())
    dark = "".join(f"--{name}:{colour};" for name, colour in themed().values())
    return f":root{{color-scheme:light dark;{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def inline(picture) -> str:
    """The picture as a figure: no prolog, no namespaces (HTML knows them), colours as variables, a name for
    screen readers."""
    text = picture.svg[picture.svg.index("<svg") :]
    opening, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening).group(0)
    role = "group" if picture.marks else "img"  # what stands inside an img is hidden from screen readers
    text = f'<svg role="{role}" aria-label="{escape(picture.alt)}" {box}>' + rest.replace(
        "xlink:href", "href"
    )
    # Presentation attributes do not take var(); style declarations do, and matplotlib writes colours as
    # those.
    known = themed()
    text = re.sub(
        r"#[0-9a-f]{6}\b",
        lambda m: f"var(--{known[m.group(0)][0]})" if m.group(0) in known else m.group(0),
        text,
    )
    body, end = text.rsplit("</svg>", 1)
    text = f"{body}{hover.targets(picture.marks)}</svg>{end}"
    return f"<figure>{text}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def table(columns: list, rows: list) -> str:
    """A table that scrolls sideways inside the page; one of many columns is folded."""
    # a word among numbers stands at the right with them
    most = 0.8 * len(rows)
    numeric = [i > 0 and sum(numeric_text(r[i]) for r in rows) >= most for i in range(len(columns))]

    def line(cells, tag):
        return (
            "<tr>"
            + "".join(
                f"<{tag}{marks(cell, right, tag)}>{escape(cell)}</{tag}>"
                for cell, right in zip(cells, numeric)
            )
            + "</tr>"
        )

    body = "".join(line(r, "td") for r in rows)
    text = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table: {escape(columns[0])}"><table>'
        f"<thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table></div>"
    )
    if len(columns) <= FOLDED:
        return text
    what = f"{counted(len(rows), 'row')}, {counted(len(columns), 'column')}"
    return f'<details class="fold"><summary>Table of {what}</summary>{text}</details>'


def marks(cell, right: bool, tag: str) -> str:
    """The class of a cell: numbers to the right, long text wrapped, what is not known in grey."""
    long = tag == "td" and len(str(cell)) > 60
    dim = tag == "td" and (str(cell) == "–" or str(cell).startswith("missing"))
    kinds = [name for name, on in (("r", right), ("long", long and not right), ("dim", dim)) if on]
    return f' class="{" ".join(kinds)}"' if kinds else ""


def items(lines) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def configurations(runs: list) -> str:
    """Every run's config, closed; what differs between the runs stands first."""
    flats = {str(run.path): flat(run.config) for run in runs}
    keys = dict.fromkeys(key for values in flats.values() for key in values)
    differing = [
        key
        for key in keys
        if len({json.dumps(values.get(key)) for values in flats.values()}) > 1 and key != "name"
    ]
    parts = []
    for run in runs:
        own = [
            [key, json.dumps(flats[str(run.path)][key])] for key in differing if key in flats[str(run.path)]
        ]
        first = "<p class=note>Differs between runs:</p>" + table(["key", "value"], own) if own else ""
        whole = escape(json.dumps(run.record, indent=1))
        parts.append(
            f"<details><summary>{escape(run.name)} <span"
            f" class=note>{escape(run.state)}</span></summary>{first}<p class=note>All of"
            f" config.json:</p><pre>{whole}</pre></details>"
        )
    return "<h2>How each run was configured</h2>" + "".join(parts)


def html(result: dict, parts: list, figures: dict, runs: list) -> str:
    """The whole page as text."""
    body = [
        f"<h1>{escape(result['experiment'])}: bits per byte at equal training FLOPs</h1>",
        f'<p class="lead">{escape(result["headline"])}</p>',
        items(result["findings"]),
    ]
    if result["warnings"]:
        body.append(f'<div class="warn">{items(result["warnings"])}</div>')
    if result["caveats"]:
        body.append(f'<div class="note">{items(result["caveats"])}</div>')
    for part in parts:
        body.append(f"<h2>{escape(part['title'])}</h2>")
        body += [f'<p class="note">{escape(line)}</p>' for line in part["lines"]]
        if part["figures"]:
            body.append(
                '<div class="figures">'
                + "".join(inline(figures[name]) for name in part["figures"])
                + "</div>"
            )
        body += [table(**t) for t in part["tables"]]
    body.append(configurations(runs))
    return document(result["experiment"], body)


def two(title: str, lines: list, pictures: list, made: list) -> str:
    """The page of two experiments side by side: sentences, figures, tables."""
    drawn = "".join(map(inline, pictures))
    body = [f"<h1>{escape(title)}</h1>", items(lines)]
    body += [f'<div class="figures">{drawn}</div>'] if pictures else []
    return document(title, [*body, *(table(**t) for t in made)])


def document(title: str, body: list) -> str:
    """A whole page around its parts, with the script where there is a point to hover over."""
    script = [f"<script>{hover.SCRIPT}</script>"] if any('class="pt"' in part for part in body) else []
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{colours()}{STYLE}{hover.STYLE}</style>"
    )
    return "\n".join(
        [f'<!doctype html>\n<html lang="en"><head>{head}</head><body>', *body, *script, "</body></html>\n"]
    )
