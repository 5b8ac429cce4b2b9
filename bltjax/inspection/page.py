"""A text's patches as one HTML page without anything outside it: a bar of entropy for each byte, the
threshold, patches in colour."""

import html
import pathlib

from bltjax.counts import counted
from bltjax.errors import UserError

MOST = 20_000  # bytes of text on a page: more would be no picture
BAR, HEIGHT = 14, 120  # pixels of a byte, and of the highest bar
COLORS = ("#dbe9f6", "#fde3c8", "#dcf0d8", "#ead9f2")
MARKS = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": "␣"}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2em;color:#222}h1{font-size:1.3em}
.text{font-family:ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
.bars{overflow-x:auto;border:1px solid #ddd;padding:8px}svg text{font:11px ui-monospace,monospace}"""


def write(path: pathlib.Path, result: dict) -> None:
    """result: of inspect_patches.of_text. UserError where the page cannot be written, or the text is too long
    for one."""
    if result["bytes"] > MOST:
        raise UserError(f"--page shows at most {MOST} bytes, not {result['bytes']}")
    try:
        path.write_text(page(result), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def page(result: dict) -> str:
    """The page's HTML."""
    rule = ", ".join(
        f"{key} {value:.4g}{' nats' if key in ('threshold', 'delta') else ''}"
        for key, value in result["rule"].items()
    )
    title = (
        f"{result['scheme']} patches: {counted(result['bytes'], 'byte')},"
        f" {counted(len(result['patches']), 'patch')}, {result['mean']:.2f} bytes each"
    )
    colored = "".join(
        f'<span style="background:{COLORS[i % len(COLORS)]}">{html.escape(p)}</span>'
        for i, p in enumerate(result["patches"])
    )
    bars = (
        f'<div class="bars">{_bars(result)}</div><p>Height: entropy of the byte under the bar, before it was'
        " seen, in nats.</p>"
        if result["entropies"]
        else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1><p>{html.escape(rule)}</p>{bars}"
        f'<p class="text">{colored}</p></body></html>\n'
    )


def _bars(result: dict) -> str:
    """An SVG of one bar a byte, in its patch's colour, over the byte itself."""
    entropies, threshold = result["entropies"], result["rule"].get("threshold")
    highest = max([*entropies, threshold or 0, 1e-6])
    lengths, parts, at = result["lengths"], [], 0
    shown = _byte_texts(result)
    for number, length in enumerate(lengths):
        color = COLORS[number % len(COLORS)]
        parts.append(
            f'<rect x="{at * BAR}" y="0" width="{length * BAR}" height="{HEIGHT + 20}" fill="{color}"'
            ' opacity="0.5"/>'
        )
        for i in range(at, at + length):
            height = HEIGHT * entropies[i] / highest
            parts.append(
                f'<rect x="{i * BAR + 2}" y="{HEIGHT - height:.1f}" width="{BAR - 4}" height="{height:.1f}"'
                f' fill="#456"><title>{entropies[i]:.3f} nats</title></rect><text x="{i * BAR + BAR / 2}"'
                f' y="{HEIGHT + 14}" text-anchor="middle">{html.escape(shown[i])}</text>'
            )
        at += length
    if threshold is not None:
        y = HEIGHT - HEIGHT * threshold / highest
        parts.append(
            f'<line x1="0" x2="{at * BAR}" y1="{y:.1f}" y2="{y:.1f}" stroke="#c00" stroke-dasharray="4 3"/>'
        )
    return f'<svg width="{at * BAR}" height="{HEIGHT + 22}" role="img">{"".join(parts)}</svg>'


def _byte_texts(result: dict) -> list[str]:
    """What stands under each bar: the character at its first byte, a dot at the others of it, hex for what
    prints nothing."""
    out = []
    for patch, length in zip(result["patches"], result["lengths"]):
        data = patch.encode()
        if len(data) != length:  # a patch that cuts a character is shown with \\xNN
            out += ["·"] * length
            continue
        for character in patch:
            out += [MARKS.get(character, character if character.isprintable() else "·")] + ["·"] * (
                len(character.encode()) - 1
            )
    return out
