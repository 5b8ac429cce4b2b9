"""Test bits per byte by group of the text: by language, say, where data.group_field is one."""

import math

from bltjax.report.compare_series import by_series
from bltjax.results.run_directories import finite, lookup
from bltjax.results.run_table import budget_key
from bltjax.results.series import order
from bltjax.results.tables import short_flops

SHOWN = 15  # groups with a column of their own, those with most bytes
MOST = 60  # points that are shown, those at the largest budgets


def table(rows: list, runs: list) -> dict | None:
    """{"columns", "rows"}: series and budgets down, groups across, over all bytes and seeds of a point's
    runs; None where no run was scored by group. rows: points, of which each names its run_dirs."""
    own = {str(run.path): _groups(run) for run in runs}
    found = {}
    for row in rows:
        of_seeds = [own.get(run_dir) for run_dir in row["run_dirs"]]
        if all(of_seeds):
            found[row["series"], budget_key(row)] = (row, _together(of_seeds))
    if not found:
        return None
    sizes = {}
    for _, groups in found.values():
        for name, (size, _) in groups.items():
            sizes[name] = max(size, sizes.get(name, 0))
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    shown, others = names[:SHOWN], names[SHOWN:]
    least = sorted((budget for _, budget in found), reverse=True)[:MOST][-1]
    made = [
        [series, short_flops(budget), _mean(groups), *[_bits([groups.get(name)]) for name in shown]]
        + [_bits([groups.get(name) for name in others])] * bool(others)
        for name in by_series(sorted((row for row, _ in found.values()), key=order))
        for (series, budget), (_, groups) in sorted(found.items(), key=lambda item: item[0][1])
        if series == name and budget >= least
    ]
    columns = ["series", "budget", f"mean of {len(names)}", *shown]
    return dict(columns=columns + [f"{len(others)} others"] * bool(others), rows=made[:MOST])


def _groups(run) -> dict:
    """{group: (bytes, nats)} of a run's test text; {} where it was not scored by group."""
    found = lookup(run.evaluation, "test.groups", [])
    whole = [
        one
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict) and finite(one.get("bytes")) and finite(one.get("nats")) and one["bytes"] > 0
    ]
    return {str(one.get("group")): (one["bytes"], one["nats"]) for one in whole}


def _together(of_seeds: list) -> dict:
    """{group: (bytes, nats)} summed over seeds, of the groups that all have."""
    names = [name for name in of_seeds[0] if all(name in groups for groups in of_seeds)]
    return {name: tuple(map(sum, zip(*[groups[name] for groups in of_seeds]))) for name in names}


def _bits(pairs: list) -> str:
    size, nats = map(sum, zip((0, 0.0), *filter(None, pairs)))
    return f"{nats / size / math.log(2):.3f}" if size else "–"


def _mean(groups: dict) -> str:
    bits = [nats / size / math.log(2) for size, nats in groups.values()]
    return f"{sum(bits) / len(bits):.4f}" if bits else "–"
