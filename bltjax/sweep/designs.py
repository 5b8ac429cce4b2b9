"""Experimental designs: which cells of size and budget, or of size and data, an experiment trains.

Budgets are FLOPs, data bytes. What a cell becomes is up to sweep/ladder.py, whose `data_bytes` is the fourth
mode: fixed data, the same bytes for all, whatever they cost."""

from bltjax import config as cfg
from bltjax import flops
from bltjax.errors import UserError
from bltjax.sweep import ladder

DEEPEST = 200  # layers that fixed_inference looks at
CLOSE = 0.01  # of its target


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


def fixed_inference(
    scale: ladder.Scale, family: str, size: str, target: float, layers: int = 0, **unit
) -> dict:
    """Changes that give a family at a size `target` forward FLOPs per byte (`exact`), and with them the same
    cost of a byte at inference: other layers of the latent (or token) transformer, as many as leave its
    feed-forward width nearest to 8/3 of its width (or `layers`), and that width. unit: as of ladder.run.
    UserError where its other parts alone cost as much."""
    model, mean = ladder.model_of(scale, family, size, **unit)
    stack = "latent." if model.kind == "blt" else ""
    usual = cfg.flat(model)[f"{stack}ffn"]
    multiple = 32 if usual >= 1024 else 8

    def cost(layers, ffn):
        changed = cfg.replace(model, **{f"{stack}layers": layers, f"{stack}ffn": ffn})
        return flops.count(changed, mean, context=scale.text.context)["exact"]["total"]

    # linear in layers, and in the feed-forward width of each
    one, two, wide = cost(1, usual), cost(2, usual), cost(1, 2 * usual)
    per_layer, per_width = two - one, (wide - one) / usual
    rest = one - per_layer
    best = None
    for deep in (layers,) if layers else range(1, DEEPEST + 1):
        ffn = usual + ((target - rest) / deep - per_layer) / per_width
        ffn = max(multiple, multiple * round(ffn / multiple))
        off = abs((rest + deep * (per_layer + (ffn - usual) * per_width)) / target - 1)
        unlike = max(ffn / usual, usual / ffn)
        if off < CLOSE and (best is None or unlike < best[0]):
            best = unlike, deep, ffn
    if best is None:
        raise UserError(
            f"no {family} of size {size} costs {target:.3g} FLOPs per byte: {rest:.3g} go to what is not its"
            " latent transformer"
        )
    return {f"model.{stack}layers": best[1], f"model.{stack}ffn": best[2]}
