"""Bits per byte by the place of a byte in its patch: what a patch's first byte costs, which the latent
transformer has just been asked about, and what those behind it cost, which it has seen less lately."""

import math

from bltjax.report.compare_series import by_series
from bltjax.results.run_directories import lookup
from bltjax.results.run_table import budget_key
from bltjax.results.series import order
from bltjax.results.tables import short_flops

SHOWN = 8  # places with a column of their own
_TH = ("1st", "2nd", "3rd", *(f"{n}th" for n in range(4, SHOWN + 1)))
COLUMNS = (*(f"{th} byte" for th in _TH), "those behind")


def table(rows: list, runs: list) -> dict | None:
    """{"columns", "rows"}: series and budgets down, places across, over all bytes and seeds of a point's
    runs; None where no run was scored by places. rows: points, of which each names its run_dirs."""
    places = {str(run.path): lookup(run.evaluation, "test.patch_places") for run in runs}
    found = {}
    for row in rows:
        of_seeds = [places.get(run_dir) for run_dir in row["run_dirs"]]
        if all(of_seeds):
            found[row["series"], budget_key(row)] = (row, [_cut(one) for one in of_seeds])
    names = by_series(sorted((row for row, _ in found.values()), key=order))
    made = [
        [series, short_flops(budget), *[_bits(place) for place in zip(*of_seeds)]]
        for name in names
        for (series, budget), (_, of_seeds) in sorted(found.items(), key=lambda item: item[0][1])
        if series == name
    ]
    return dict(columns=["series", "budget", *COLUMNS], rows=made) if made else None


def bits(places: list) -> list[str]:
    """Bits per byte under COLUMNS, of one text's patch_places."""
    return [_bits([place]) for place in _cut(places)]


def _cut(places: list) -> list:
    """(bytes, nats) of each place that is shown, and of those behind together."""
    pairs = [(one["bytes"], one["nats"]) for one in places]
    behind = tuple(map(sum, zip(*pairs[SHOWN:]))) if len(pairs) > SHOWN else (0, 0.0)
    return [*pairs[:SHOWN], behind]


def _bits(of_seeds) -> str:
    """Bits per byte of one place, over seeds."""
    size, nats = map(sum, zip(*of_seeds))
    return f"{nats / size / math.log(2):.3f}" if size else "–"
