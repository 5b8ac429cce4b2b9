"""Files of JSON lines that grow while they are written: what a kill leaves of a last line is no line."""

import json
import pathlib


def read(path: pathlib.Path) -> list[dict]:
    """The objects of whole lines; none where there is no file."""
    try:
        data = pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def tail(path: pathlib.Path, lines: int) -> list[bytes]:
    """The last so many whole lines, without reading much of what stands before them."""
    with pathlib.Path(path).open("rb") as file:
        size = file.seek(0, 2)
        for part in (1 << bits for bits in range(12, 64)):  # a line may be long
            file.seek(max(0, size - part))
            found = file.read(size).split(b"\n")[:-1]
            if part >= size:
                return found[-lines:]
            if len(found) > lines:  # of the first of them the beginning may be missing
                return found[-lines:]


def appending(path: pathlib.Path):
    """A text file to write whole lines to, behind the whole lines that there are: the rest is cut away."""
    path = pathlib.Path(path)
    if path.exists():
        with path.open("r+b") as file:
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
    return path.open("a", encoding="utf-8")
