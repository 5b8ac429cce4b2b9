"""Marked-up documentation to plain text: paragraphs with an empty line between them, preformatted lines as
they are. Small converters for what the study's packages hold, not for every document there is."""

import html.parser
import re

BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
SPACES = re.compile(r"[ \t\r\n\f\v]+")


def filled(lines: list[str]) -> str:
    """Lines of one paragraph as one line. No space where both ends are Chinese or Japanese characters, which
    are broken anywhere."""
    text = ""
    for line in filter(None, (SPACES.sub(" ", line).strip() for line in lines)):
        between = "" if not text or (wide(text[-1]) and wide(line[0])) else " "
        text += between + line
    return text


def wide(character: str) -> bool:
    """Whether no space stands between this character and the next one of its script."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or character >= "\uff00"


# ------------------------------------------------------------------------------------------------------ HTML

SKIPPED_TAGS = {"head", "script", "style", "nav", "header", "footer", "aside", "noscript", "svg", "button"}
SKIPPED_CLASSES = {"navheader", "navfooter", "toc", "docnav", "index", "legalnotice", "footnotes-title"}
SKIPPED_IDS = {"banner", "title", "DEBUG", "SearchFrame", "DonationFrame"}
BLOCKS = set(
    "address article blockquote body caption center dd div dl dt fieldset figcaption figure form h1 h2 h3 h4 "
    "h5 h6 hr li main ol p pre section summary table tbody tfoot thead tr ul".split()
)
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class _Page(html.parser.HTMLParser):
    """Collects paragraphs; what only leads about (menus, tables of contents, footers) is left out."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.paragraphs, self.parts, self.preformatted = [], [], 0
        self.skipping, self.depth = None, 0  # the tag whose end ends the skipping, how deep in itself

    def handle_starttag(self, tag, attributes):
        if self.skipping:
            self.depth += tag == self.skipping
            return
        named = {name: value or "" for name, value in attributes}
        classes = set(named.get("class", "").split())
        if tag not in VOID and (
            tag in SKIPPED_TAGS or classes & SKIPPED_CLASSES or named.get("id") in SKIPPED_IDS
        ):
            self.skipping, self.depth = tag, 1
        elif tag == "br":
            self.parts.append("\n" if self.preformatted else " ")
        elif tag in ("td", "th"):
            self.parts.append("  ")
        elif tag in BLOCKS:
            self.close_paragraph()
            self.preformatted += tag == "pre"

    def handle_startendtag(self, tag, attributes):
        if tag in VOID:
            self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        if self.skipping:
            self.depth -= tag == self.skipping
            if not self.depth:
                self.skipping = None
        elif tag in BLOCKS:
            self.close_paragraph()
            self.preformatted = max(0, self.preformatted - (tag == "pre"))

    def handle_data(self, data):
        if not self.skipping:
            self.parts.append(data)

    def close_paragraph(self):
        text = "".join(self.parts)
        text = text.strip("\n").rstrip() if self.preformatted else filled(text.split("\n"))
        self.parts = []
        if text.strip():
            self.paragraphs.append(text)


def from_html(text: str) -> str:
    """What a page of HTML says, without its menus, tables of contents and footers."""
    page = _Page()
    page.feed(text)
    page.close()
    page.close_paragraph()
    return "\n\n".join(page.paragraphs)


# ------------------------------------------------------------------------------------------------------ roff

CHARACTERS = {
    **{"aq": "'", "dq": '"', "cq": "’", "oq": "‘", "lq": "“", "rq": "”", "bu": "•", "em": "—", "en": "–"},
    **{"hy": "-", "co": "©", "rg": "®", "tm": "™", "mu": "×", "+-": "±", "->": "→", "<-": "←", "<=": "≤"},
    **{">=": "≥", "!=": "≠", "ha": "^", "ti": "~", "rs": "\\", "ga": "`", "aa": "´", "lB": "[", "rB": "]"},
    **{"lC": "{", "rC": "}", "ba": "|", "or": "|", "sh": "#", "at": "@", "Do": "$", "de": "°", "12": "½"},
    **{"Fo": "«", "Fc": "»", "mc": "µ", "*m": "μ", "if": "∞", "**": "*", "pl": "+", "mi": "−", "sl": "/"},
    **{"ss": "ß", ":a": "ä", ":o": "ö", ":u": "ü", ":A": "Ä", ":O": "Ö", ":U": "Ü", "'e": "é", "`e": "è"},
}
ESCAPE = re.compile(
    r"""\\(?: f\[[^\]]*\] | f\(.. | f.                      # fonts
      | [mMFgnkV*](?:\[[^\]]*\]|\(..|.)                     # colours, registers, strings
      | s(?:\[[^\]]*\]|\([+-]?..|[+-]?\d+|'[^']*')          # sizes
      | [hvwlLDobxXZzRAB]'[^']*'                            # motions, widths, lines
      | \[(?P<long>[^\]]*)\] | \((?P<pair>..) | (?P<one>.) | $ )""",
    re.VERBOSE,
)
SINGLE = {
    "-": "-",
    "e": "\\",
    "\\": "\\",
    " ": " ",
    "~": " ",
    "0": " ",
    "'": "'",
    "`": "`",
    ".": ".",
    "t": "\t",
}
FONTS = {"B", "I", "R", "SM", "SB", "BI", "BR", "IB", "IR", "RB", "RI", "CW", "OP", "SY", "MR"}
BREAKS = {"PP", "P", "LP", "TP", "TQ", "IP", "HP", "sp", "Sp", "RS", "RE", "YS", "bp", "ti"}
DEFINED_UNTIL = {"de": "..", "de1": "..", "ig": "..", "am": ".."}
COMMENT = re.compile(r'(?<!\\)\\".*$')
CONTINUED = re.compile(r"(?<!\\)\\\n")
ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\ |\S)+)')


def unescaped(text: str) -> str:
    """A line of roff without its escapes."""

    def character(found) -> str:
        name = found.group("long") or found.group("pair")
        if name:
            if re.fullmatch(r"u[0-9A-F]{4,6}", name):
                return chr(int(name[1:], 16))
            return CHARACTERS.get(name, "")
        return SINGLE.get(found.group("one") or "", "")

    return ESCAPE.sub(character, text)


def arguments(text: str) -> list[str]:
    return [
        (quoted.replace('""', '"') if quoted or not bare else bare) for quoted, bare in ARGUMENT.findall(text)
    ]


def from_roff(text: str) -> str:
    """What a manual page in the macros `man` says. Empty for a page that only includes another, and for
    pages in `mdoc`, whose macros are a language of their own."""
    lines = CONTINUED.sub("", text).split("\n")
    if any(re.match(r"\.\s*(so\s+\S|Dd\b|Dt\b)", line) for line in lines[:400]):
        return ""
    paragraphs, waiting = [], []
    verbatim = table = False
    until, braces = None, 0

    def close():
        paragraph = "\n".join(waiting).rstrip() if verbatim or table else filled(waiting)
        waiting.clear()
        if paragraph.strip():
            paragraphs.append(paragraph)

    for line in lines:
        if until:
            until = None if line.startswith(until) else until
            continue
        line = COMMENT.sub("", line)
        if braces:  # of a conditional: what stands in it is for one kind of output
            braces += line.count("\\{") - line.count("\\}")
            continue
        control = re.match(r"[.']\s*([A-Za-z0-9]*)\s*(.*)$", line)
        if not control:
            if not line.strip() and not verbatim:
                close()
            elif table and (line.rstrip().endswith((";", ".")) and "\t" not in line and len(line) < 60):
                continue  # the format of a table's columns
            elif not (table and line.strip() in ("T{", "T}", "_", "=")):
                plain = unescaped(line)
                waiting.append(plain.replace("\t", "  ") if table else plain)
            continue
        name, rest = control.groups()
        if name in DEFINED_UNTIL:
            until = DEFINED_UNTIL[name]
        elif name in ("if", "ie", "el", "while"):
            braces = max(0, line.count("\\{") - line.count("\\}"))
        elif name in ("SH", "SS"):
            close()
            verbatim = table = False
            if heading := " ".join(map(unescaped, arguments(rest))):
                paragraphs.append(heading)
        elif name == "TH":
            if words := [unescaped(word) for word in arguments(rest)]:
                paragraphs.append(words[0] + (f"({words[1]})" if len(words) > 1 else ""))
        elif name in ("nf", "EX", "Vb"):
            close()
            verbatim = True
        elif name in ("fi", "EE", "Ve"):
            close()
            verbatim = False
        elif name == "TS":
            close()
            table = True
        elif name == "TE":
            close()
            table = False
        elif name in BREAKS and not table:
            close()
            if name == "IP" and (words := arguments(rest)):
                waiting.append(unescaped(words[0]))
        elif name == "br":
            close()
        elif name in ("UR", "MT"):
            waiting.append(unescaped(rest))
        elif name in FONTS:
            between = "" if len(name) == 2 and name not in ("SM", "SB", "CW", "OP", "SY") else " "
            waiting.append(between.join(map(unescaped, arguments(rest))))
    close()
    return "\n\n".join(paragraphs)


def from_plain(text: str) -> str:
    return text


CONVERTERS = {"html": from_html, "roff": from_roff, "plain": from_plain}


def convert(data: bytes, markup: str) -> str:
    """Text of a file. Bytes that are no UTF-8 make it empty: such pages are rare and old."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    text = CONVERTERS[markup](text.replace("\r\n", "\n"))
    return BLANK_LINES.sub("\n\n", text).replace("\xad", "").strip() + "\n"
