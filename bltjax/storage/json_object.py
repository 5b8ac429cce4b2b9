"""The JSON object in a file that somebody may have damaged."""

import json
import pathlib

MISSING = "is missing"


def read(path: pathlib.Path) -> tuple[dict | None, str]:
    """(a file's JSON object, "") or (None, why there is none)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, MISSING
    except PermissionError as error:
        return None, f"may not be read ({error.strerror})"
    except (ValueError, OSError, RecursionError) as error:
        return None, f"cannot be read ({' '.join(str(error).split())})"
    return (value, "") if isinstance(value, dict) else (None, "holds no JSON object")
