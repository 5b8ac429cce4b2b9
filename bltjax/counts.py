"""Counts in the messages that people read: `1 run`, `2 runs`, `1,024 entries`."""

import re


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is given in the singular; of several words the last one changes."""
    if number != 1:
        sibilant = noun.endswith(("s", "x", "ch", "sh"))
        noun = re.sub(r"(?<=[^aeiou])y$", "ie", noun) + ("es" if sibilant else "s")
    return f"{number:,} {noun}"
