"""The one table of families: what distinguishes the models that are compared, and how they are drawn.

A family is a kind of model, the patching schemes it may have, and what it changes in the BLT of its size. A
new one of existing kinds is one entry here: planner, runner, checks, report and figures read this table when
they are asked, and keep no list of their own.
"""

import dataclasses

from ml_collections import ConfigDict

from bltjax.config.schema import replace
from bltjax.errors import UserError

REFERENCE = "bpe"  # the family that the others are compared with
ENTROPY_MODEL = "entropy-model"  # the family of the model that supplies entropies


@dataclasses.dataclass(frozen=True)
class Family:
    """words: what it is. kind: of model (bltjax/models). schemes: of patching that it may have, the usual one
    first. changes: dotted keys of the model config that differ from the BLT of the same size. colour and
    dark: "#rrggbb" in figures on a light and on a dark page. marker: matplotlib's sign, so that colour is
    never the only one."""

    words: str
    kind: str
    schemes: tuple[str, ...]
    colour: str
    dark: str
    marker: str
    changes: dict = dataclasses.field(default_factory=dict)

    @property
    def scheme(self) -> str:
        return self.schemes[0]


NO_CROSS = {"cross.encoder": "none", "cross.decoder": "none"}
# Neither n-grams nor cross-attention (paper section 5.3).
PLAIN = {**NO_CROSS, "ngrams.sizes": ()}

# In the order of tables and figures. Colours are Okabe and Ito's hues, darkened where white paper asks for
# it.
FAMILIES = {
    "bpe": Family("a transformer on BPE tokens", "token", ("none",), "#1f1f1e", "#ecebe7", "o"),
    "blt-entropy": Family(
        "BLT, patches by next-byte entropy",
        "blt",
        ("entropy", "monotonic", "both"),
        "#0072b2",
        "#58aee8",
        "s",
    ),
    "blt-space": Family("BLT, patches by spaces", "blt", ("space",), "#d55e00", "#ff8a45", "^"),
    "blt-space-no-cross": Family(
        "BLT without cross-attention, patches by spaces",
        "blt",
        ("space",),
        "#e69f00",
        "#f0b429",
        "v",
        NO_CROSS,
    ),
    "blt-strided": Family("BLT, patches of equal length", "blt", ("strided",), "#009e73", "#2fc79b", "D"),
    "blt-bpe": Family("BLT, patches by BPE tokens", "blt", ("bpe",), "#b5568f", "#e494c4", "P"),
    "blt-random": Family("BLT, patches of random length", "blt", ("random",), "#3f9fdc", "#8cc8f2", "X"),
    "spacebyte": Family(
        "SpaceByte-like: patches by spaces, no n-grams, no cross-attention",
        "blt",
        ("space",),
        "#8a6d1f",
        "#cdae5c",
        "<",
        PLAIN,
    ),
    "megabyte": Family(
        "MegaByte-like: patches of equal length, no n-grams, no cross-attention",
        "blt",
        ("strided",),
        "#7a5cc0",
        "#ab93e6",
        ">",
        PLAIN,
    ),
    ENTROPY_MODEL: Family(
        "the byte transformer that supplies entropies", "byte", ("none",), "#5f7f8a", "#9dbbc5", "h"
    ),
}
# (colour, dark, marker) of families that are not in the table: of runs made by other versions.
OTHERS = (("#a0522d", "#d98e6b", "p"), ("#4d4d99", "#9a9ae0", "*"))


def family(name: str) -> Family:
    """The table's entry. UserError for a name that it does not have."""
    if name not in FAMILIES:
        raise UserError(f"family is {name!r}; allowed: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def order(name: str) -> tuple:
    """Key to sort names by: the table's order, unknown ones behind it by name."""
    names = list(FAMILIES)
    return (names.index(name), "") if name in FAMILIES else (len(names), name)


def style(name: str) -> tuple[str, str]:
    """(colour on a light page, marker)."""
    if name in FAMILIES:
        return FAMILIES[name].colour, FAMILIES[name].marker
    colour, _, marker = OTHERS[sum(name.encode()) % len(OTHERS)]
    return colour, marker


def dark_colours() -> dict[str, str]:
    """{colour on a light page: the same on a dark one}, of everything that `style` can answer."""
    return {
        **{entry.colour: entry.dark for entry in FAMILIES.values()},
        **{colour: dark for colour, dark, _ in OTHERS},
    }


def changed(model: ConfigDict, name: str) -> ConfigDict:
    """The BLT of a size (`blt_model`) as this family has it. UserError for an unknown family."""
    return replace(model, **family(name).changes)
