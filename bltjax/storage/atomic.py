"""Files that appear whole or not at all, whatever happens to the process that writes them."""

import contextlib
import json
import os
import pathlib
import secrets


@contextlib.contextmanager
def replacing(path: pathlib.Path):
    """Yields the path of a file to write; when the block ends well, that file stands at `path`."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str, durable: bool = False) -> None:
    """durable: on the disk before it returns, so that it survives the machine too."""
    path = pathlib.Path(path)
    with replacing(path) as part, part.open("w", encoding="utf-8") as out:
        out.write(text)
        if durable:
            out.flush()
            os.fsync(out.fileno())
    if durable:
        folder = os.open(path.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: pathlib.Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
