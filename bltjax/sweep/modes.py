"""The planner's modes: which cells of size and budget, or of size and data, an experiment trains.

Budgets are FLOPs, data bytes. What a cell becomes is up to sweep/ladder.py."""

from bltjax.errors import UserError
from bltjax.sweep import ladder


def isoflop(sizes, budgets, offsets, first: int = 1) -> list[tuple[str, float]]:
    """(size, budget) of an IsoFLOP grid whose centre moves on by one size with every budget.

    sizes: smallest first; the first budget's centre is sizes[first]. offsets: for every budget the places
    from its centre that are trained: (-1, 0, 1) is a parabola, (0,) the centre alone. Centres alone lie near
    one line of size and data: enough to compare, not to fit L(N, D)."""
    cells = []
    for i, (budget, places) in enumerate(zip(budgets, offsets, strict=True)):
        for place in places:
            if not 0 <= first + i + place < len(sizes):
                raise UserError(f"this IsoFLOP grid needs more sizes than {', '.join(sizes)}")
            cells.append((sizes[first + i + place], budget))
    return cells


def compute_optimal(scale: ladder.Scale, sizes) -> list[tuple[str, float]]:
    """(size, budget), matched in the latent: every family has the latent transformer of the size, and the
    budget for which Llama 3's law makes the BPE baseline of that size optimal (paper section 5.1)."""
    return [(size, ladder.optimal_budget(scale, size)) for size in sizes]


def fixed_data(sizes, amounts) -> list[tuple[str, float]]:
    """(size, bytes): every family reads the same bytes, whatever they cost."""
    return [(size, amount) for size in sizes for amount in amounts]
