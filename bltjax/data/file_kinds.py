"""What a file is: told by its content, in one place, by the signs of file_signs.py.

A name has a say only where the content has no sign of its own: it is then a promise (CLAIMS) that the content
must keep."""

import json
import re
from collections.abc import Callable

from bltjax.data.file_signs import (
    ARRAY_RECORD,
    ARROW,
    AS_IT_IS,
    COMPRESSIONS,
    HEAD,
    LINES_OF_JSON,
    PARQUET,
    PLAIN,
    READ,
    REFUSED,
    TF_RECORD,
    binary,
)
from bltjax.errors import UserError

LINES = 16  # by so many lines it is told whether a text is JSON lines
BOM = b"\xef\xbb\xbf"
RECORD_SEPARATOR = b"\x1e"  # before each object of a JSON text sequence (RFC 7464)

# What a name's ending promises, where the content has no sign.
CLAIMS = {
    **dict.fromkeys(("jsonl", "ndjson", "jl", "jsonlines"), LINES_OF_JSON),
    **dict.fromkeys(("parquet", "pq"), PARQUET),
    **dict.fromkeys(("arrow", "feather"), ARROW),
    **dict.fromkeys(("arrayrecord", "array_record"), ARRAY_RECORD),
    **dict.fromkeys(("tfrecord", "tfrecords"), TF_RECORD),
}
COMPRESSED = ("gz", "bz2", "xz", "lzma", "zst", "lz4")
PART = re.compile(r"[-_]?(\d+([-_]of[-_]\d+)?|\?+)$")  # of a name: 00000-of-01024, 1


def ending(path: str) -> str:
    """The last part of a name that says what it holds: json of c4-train.00000-of-01024.json.gz, jsonl of
    x.jsonl.1, array_record of x.array_record-00000-of-00010; "" where there is none."""
    if "://" in path:  # of a chain, what is in it
        path = next(link for link in path.split("::") if "://" in link)
    parts = path.rpartition("/")[2].lower().split(".")[1:]
    while parts and (not PART.sub("", parts[-1]) or parts[-1] in COMPRESSED):
        parts.pop()
    return PART.sub("", parts[-1]) if parts else ""


def compression(head: bytes) -> str:
    """How a file that begins so is compressed; "": not."""
    return next((kind.name for kind in COMPRESSIONS if kind.told(head)), "")


def refuse_by_name(head: bytes, path: str) -> None:
    """UserError where a file that begins so is of a kind that is not read."""
    for kind in REFUSED:
        if kind.told(head):
            raise UserError(f"{path} is {kind.name}; {kind.advice}")


def refuse_binary(data: bytes, path: str) -> bytes:
    """The bytes themselves, where no HEAD of them is binary; else UserError."""
    for at in range(0, len(data), HEAD):
        if binary(data[at : at + HEAD]):
            raise UserError(
                f"{path} is binary (control characters that text does not have); leave it out of the pattern,"
                f" or {AS_IT_IS}"
            )
    return data


def told(path: str, size: int, sample: Callable, text_field: str, longest: int) -> str:
    """The kind of a file, one of those above.

    size: bytes of it as it lies there; sample(n): its first n bytes, decompressed. UserError for what is
    refused, and for a name that promises what the content is not."""
    head = sample(HEAD)
    name = path.rpartition("/")[2].lower()
    claim = CLAIMS.get(ending(path), "")
    for kind in READ:
        if kind.told(head):
            return kind.name
    refuse_by_name(head, path)
    if not head and not size and name.rpartition(".")[2] in COMPRESSED:
        raise UserError(f"{path} is empty, which no compressed file is")
    refuse_binary(head, path)
    if claim == LINES_OF_JSON or _json(path, head, sample, text_field, longest):
        return LINES_OF_JSON
    if claim:
        raise UserError(
            f"{path} is {'text' if head else 'empty'}, where its name says {claim} (is it damaged?)"
        )
    return PLAIN


def integer(digits: str):
    """An integer of any length, which json.loads alone refuses above a few thousand digits."""
    import decimal

    return int(digits) if len(digits) < 640 else decimal.Decimal(digits)


def json_of(line: bytes) -> bytes:
    """A line without what may stand around its JSON."""
    return line.removeprefix(BOM).strip().removeprefix(RECORD_SEPARATOR).strip()


def json_object(line: bytes):
    """The JSON object that a line is; None where it is none."""
    line = json_of(line)
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return None
    try:
        found = json.loads(line.decode("utf-8", "surrogateescape"), parse_int=integer)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _json(path: str, head: bytes, sample: Callable, text_field: str, longest: int) -> bool:
    """Whether text is JSON lines: whether most of its first lines are JSON objects, so that a damaged line
    is found and not taken for text. UserError for records of JSON that are not one a line."""
    open_end = len(head) == HEAD
    begins = head.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")
    if open_end and (begins or head.count(b"\n") < 4):
        lines = _whole_lines(head, True)
        if not lines or not begins or json_object(lines[0]) is None:
            head = sample(longest + 1)  # a line, or a value over several lines, may be as long
            open_end = len(head) > longest
    lines = _whole_lines(head, open_end)
    if 2 * sum(json_object(line) is not None for line in lines) > len(lines):
        return True
    if begins:
        text = head.removeprefix(BOM).decode("utf-8", "surrogateescape").lstrip()
        _refuse_values(path, text, text_field)
        if re.match(rf'\{{.*"{re.escape(text_field)}"\s*:\s*"', text, re.DOTALL):
            raise UserError(
                f"{path} begins like a JSON object with the field {text_field!r} and is none (damaged?);"
                f" {AS_IT_IS}"
            )
    return False


def _whole_lines(text: bytes, open_end: bool) -> list[bytes]:
    """The first lines that are not blank; without the last, where it may go on."""
    lines = text.split(b"\n", 4 * LINES)
    if open_end or len(lines) > 4 * LINES:
        lines.pop()
    return [line for line in lines if line.strip(BOM + b" \t\r")][:LINES]


def _refuse_values(path: str, text: str, text_field: str) -> None:
    """UserError where a text begins as a list of JSON objects, several JSON objects, or one with the text
    field, on other lines than one each."""
    decoder = json.JSONDecoder(parse_int=integer)
    what = ""
    try:
        if text.startswith("["):
            inner = text[1:].lstrip()
            if inner.startswith("{"):
                decoder.raw_decode(inner)
                what = "one JSON list of objects"
        else:
            value, end = decoder.raw_decode(text)
            if text[end:].lstrip().startswith("{"):
                what = "JSON objects that are not one a line"
            elif isinstance(value.get(text_field), str):
                what = f"a JSON object with the field {text_field!r} over several lines"
    except (ValueError, RecursionError):
        return  # text that only begins like JSON
    if what:
        each = ".[]" if what.startswith("one") else "."
        raise UserError(f"{path} is {what}; write an object a line (jq -c '{each}'), or {AS_IT_IS}")
