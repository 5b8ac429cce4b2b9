"""Which ids begin and end a text: what the files beside a tokenizer say, else the tokenizer itself, else the
usual names."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from bltjax.errors import UserError

BOS_NAMES = ("<|begin_of_text|>", "<s>", "<|endoftext|>")
EOS_NAMES = ("<|end_of_text|>", "</s>", "<|endoftext|>")
# the first that says it
BESIDE = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


class Ends(NamedTuple):
    """Ids of the specials that begin and end a text."""

    bos: int
    eos: int


def ends(path, special: dict[int, str], told: Ends | None = None, own=(None, None)) -> Ends:
    """The ends of the tokenizer in the file `path`. special: the text of each of its special ids. told: what
    a saved tokenizer had. own: ids that the tokenizer itself names, or None. UserError where there are none.
    """
    if told is not None:
        return told
    found = []
    for key, names, mine in (("bos", BOS_NAMES, own[0]), ("eos", EOS_NAMES, own[1])):
        said = _beside(Path(path).parent, key, special)
        found.append(said if said is not None else mine if mine is not None else _named(special, names))
    if None in found:
        raise UserError(
            f"{path} has no special tokens for the beginning and the end of a text; looked for were"
            f" {', '.join(BOS_NAMES)} and {', '.join(EOS_NAMES)}, and what {', '.join(BESIDE)} beside it name"
        )
    return Ends(*found)


def said(path, special: dict[int, str]) -> set[int]:
    """The ids that the files beside a tokenizer give as its ends, if they are among `special`."""
    return {_beside(Path(path).parent, key, special) for key in ("bos", "eos")} - {None}


def fingerprint(content: bytes, special: dict[int, str], found: Ends) -> str:
    """Of a tokenizer: its file, and its ends where they are not those of the usual names."""
    usual = (_named(special, BOS_NAMES), _named(special, EOS_NAMES))
    more = b"" if found == usual else f"{found.bos} {found.eos}".encode()
    return hashlib.sha256(content + more).hexdigest()[:12]


def write_beside(folder: Path, found: Ends) -> None:
    """Says in a folder what the ends of its tokenizer are."""
    said = {"bos_token_id": found.bos, "eos_token_id": found.eos}
    (Path(folder) / "tokenizer_config.json").write_text(json.dumps(said) + "\n", encoding="utf-8")


def _named(special: dict[int, str], names) -> int | None:
    number_of = {text: number for number, text in special.items()}
    return next((number_of[name] for name in names if name in number_of), None)


def _beside(folder: Path, key: str, special: dict[int, str]) -> int | None:
    """The id that a file in `folder` gives as bos or eos, by number (of a list the first that is a special)
    or by text. What is no special of this tokenizer is passed over: files of small models often say what
    their libraries' defaults are."""
    for name in BESIDE:
        try:
            said = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if not isinstance(said, dict):
            continue
        numbers, text = said.get(f"{key}_token_id"), said.get(f"{key}_token")
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if isinstance(number, int) and not isinstance(number, bool) and number in special:
                return number
        text = text.get("content") if isinstance(text, dict) else text
        if isinstance(text, str) and (number := _named(special, (text,))) is not None:
            return number
    return None
