"""Text with noise (paper section 6.1): five noises, on prompts, on completions, or on both. Which characters
change is decided by a seed, the item and the part alone, so that every model reads the same bytes."""

import hashlib
import random

from bltjax.errors import UserError

PLACES = ("prompt", "completion", "both")
DROPPED, REPEATED = 0.1, 0.2  # shares of characters
TIMES = 4  # a repeated character stands so often at most; the paper does not say whether the first counts


def antspeak(text: str, draw: random.Random) -> str:
    """Upper case, a space between characters."""
    return " ".join(text.upper())


def drop(text: str, draw: random.Random) -> str:
    """Each character left out with probability DROPPED."""
    return "".join(c for c in text if draw.random() >= DROPPED)


def random_case(text: str, draw: random.Random) -> str:
    """Each character in upper or lower case, as a coin says."""
    return "".join(c.upper() if draw.random() < 0.5 else c.lower() for c in text)


def repeat(text: str, draw: random.Random) -> str:
    """Each character with probability REPEATED two to TIMES times in a row."""
    return "".join(c * draw.randint(2, TIMES) if draw.random() < REPEATED else c for c in text)


def upper_case(text: str, draw: random.Random) -> str:
    """Upper case."""
    return text.upper()


NOISES = {
    "antspeak": antspeak,
    "drop": drop,
    "random_case": random_case,
    "repeat": repeat,
    "upper_case": upper_case,
}


def draws(*of) -> random.Random:
    """What draws by a seed and names and texts alone, whatever was drawn before."""
    told = "\0".join(map(str, of)).encode("utf-8", "surrogateescape")
    return random.Random(int.from_bytes(hashlib.sha256(told).digest()[:8]))


def noised(text: str, noise: str, seed: int = 0, key: str = "") -> str:
    """The text with a noise of NOISES. key: what it is of (item and part): equal texts of different items
    get different noise. White space around the text stays as it is: it holds a completion apart from its
    prompt. UserError for an unknown noise."""
    if noise not in NOISES:
        raise UserError(f"unknown noise {noise!r}; allowed: {', '.join(NOISES)}")
    core = text.strip()
    if not core:
        return text
    at = text.index(core)
    changed = NOISES[noise](core, draws(seed, noise, key, text))
    return text[:at] + (changed or core[:1]) + text[at + len(core) :]  # never nothing at all


def named(text: str) -> list[str]:
    """The noises of a comma-separated list, each once; `all`: every one. UserError for an unknown one."""
    names = list(NOISES) if text == "all" else list(dict.fromkeys(name for name in text.split(",") if name))
    if unknown := [name for name in names if name not in NOISES]:
        raise UserError(f"unknown noise {unknown[0]!r}; allowed: {', '.join(NOISES)}, or all")
    return names


def variants() -> list[tuple[str, str]]:
    """The 15 (noise, place)."""
    return [(noise, place) for noise in NOISES for place in PLACES]


def noised_item(item: dict, noise: str, place: str, seed: int = 0) -> dict:
    """A multiple-choice item {"context", "choices", ...} with a noise on its prompt, on its completions or on
    both. UserError for an unknown noise or place."""
    if place not in PLACES:
        raise UserError(f"unknown place of noise {place!r}; allowed: {', '.join(PLACES)}")
    key = str(item.get("id", ""))
    out = dict(item)
    if place != "completion":
        out["context"] = noised(item["context"], noise, seed, f"{key}/context")
    if place != "prompt":
        out["choices"] = [noised(choice, noise, seed, f"{key}/choice") for choice in item["choices"]]
    return out
