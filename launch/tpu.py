"""What Google calls the slices of a topology."""

import itertools
import math

from bltjax.compile import chips
from bltjax.errors import UserError

# {chip: (prefix of its types, what a type counts per chip: TensorCores, or 1)}
NAMES = {"v4": ("v4", 2), "v5e": ("v5litepod", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1), "v7x": ("tpu7x", 2)}


def accelerator(topology: chips.Topology) -> str:
    """The type of one slice: v5p-32 for v5p:2x2x4, v5litepod-16, v6e-64. It says how many, not their grid.
    UserError for chips that are no TPUs."""
    if topology.chip.name not in NAMES:
        raise UserError(f"{topology.name}: {topology.chip.name} is no TPU")
    prefix, cores = NAMES[topology.chip.name]
    return f"{prefix}-{math.prod(topology.grid) * cores}"


def usual(topology: chips.Topology) -> bool:
    """Whether a type alone gives this grid: the most compact one of so many chips, in whatever order of its
    sides."""
    return sorted(topology.grid) == _compact(math.prod(topology.grid), topology.chip.axes)


def grid(topology: chips.Topology) -> str:
    """Of one slice, sides ascending, as Google writes it: 4x4x8; 2x2x1 is the exception."""
    sides = sorted(topology.grid)
    if topology.chip.axes == 3 and sides[0] == 1:
        sides = [*sides[1:], 1]
    return "x".join(map(str, sides))


def _compact(count: int, axes: int) -> list[int]:
    """The sides, ascending, of the grid of so many chips that has the least sum; [] where there is none.
    Large grids of three axes are made of cubes of 4x4x4."""
    found = []
    for sides in itertools.product([n for n in range(1, count + 1) if count % n == 0], repeat=axes - 1):
        last = count // math.prod(sides)
        sides = sorted((*sides, last))
        if math.prod(sides) == count and (axes < 3 or count < 64 or all(side % 4 == 0 for side in sides)):
            found.append(sides)
    return min(found, key=sum, default=[])
