"""Families compared by their best runs at each budget, with the noise of seeds."""

import numpy as np

from bltjax.fits import best_runs
from bltjax.fits.source import Source, of_table
from bltjax.fits.table import read
from bltjax.science import fit_runs

BUDGETS = np.array([1e15, 4e15, 1.6e16])
SIZES = np.array([1e6, 3e6, 9e6])
UNITS = dict(N="parameters", D="bytes", loss="bits per byte")


def source(low, steps, noise=0.01, seeds=3, seed=0, budgets=BUDGETS, chosen_by=None):
    """Two families, three sizes at each budget (the middle one best) and some seeds of each; the second
    family's loss is that of the first times low[budget]."""
    rng = np.random.default_rng(seed)
    rows = []
    for family, factors in (("bpe", np.ones(len(budgets))), ("blt", low)):
        for budget, factor in zip(budgets, factors):
            for size in SIZES:
                for _ in range(seeds):
                    bent = 1 + steps * abs(np.log(size / SIZES[1]))
                    loss = 1.2 * (budget / 1e15) ** -0.05 * factor * bent * np.exp(rng.normal(0, noise))
                    rows.append((family, budget, size, budget / size, loss))
    family, budget, n, d, loss = map(np.array, zip(*rows))
    runs = fit_runs.of(dict(N=n, D=d), loss, UNITS)
    of_all = Source("planted", runs, budget, "planted", budget, family, chosen_by=chosen_by)
    return of_all, runs.only(family == "blt", ""), runs.only(family == "bpe", "")


def test_the_crossing_and_the_differences_lie_in_their_intervals():
    true = np.array([1.04, 0.98, 0.94])
    crossing = np.exp(np.interp(0, -np.log(true), np.log(BUDGETS)))
    held, apart, draws = 0, 0, 100
    for seed in range(draws):
        found = best_runs.compared(*source(true, 0.5, seed=seed), 400, seed)
        held += bool(found["flops"]) and found["low"] <= crossing <= found["high"]
        ends = [(one["low"], one["high"]) for one in found["budgets"]]
        apart += sum(low <= np.log(factor) <= high for (low, high), factor in zip(ends, true))
    assert 88 <= held <= 100 and 0.9 * 3 * draws <= apart <= 0.99 * 3 * draws
    assert "they cross at" in found["says"] and [one["of"] for one in found["budgets"]] == [3, 3, 3]


def test_none_in_range_one_budget_and_no_seeds_are_said():
    never = best_runs.compared(*source([0.9, 0.88, 0.86], 0.5), 200, 0)
    assert never["flops"] == [] and never["share"] == 0 and "do not cross between 1e+15" in never["says"]
    alone = best_runs.compared(*source([0.9], 0.5, budgets=BUDGETS[:1]), 200, 0)
    assert len(alone["budgets"]) == 1 and "no crossing can be told" in alone["says"]
    quiet = best_runs.compared(*source([1.1, 1, 0.9], 0.5, seeds=1), 200, 0)
    assert quiet["share"] is None and quiet["budgets"][0]["low"] is None
    assert "several seeds" in quiet["says"]
    of_all, mine, theirs = source([0.9, 0.88, 0.86], 0.5)
    last = theirs.only(theirs.values["N"] * theirs.values["D"] > 1e16, "")
    first = mine.only(mine.values["N"] * mine.values["D"] < 2e15, "")
    assert best_runs.compared(of_all, first, last, 200, 0) is None


def test_a_table_says_which_column_is_validation_text(tmp_path, fit):
    of_all, *_ = source([1, 1, 1], 0.5, noise=0, seeds=1)
    path, runs = tmp_path / "runs.csv", of_all.runs
    lines = [
        f"{f},{c},{n},{d},{loss},{loss if n < 9e6 else 0.1}"
        for f, c, n, d, loss in zip(
            of_all.groups, of_all.budgets, runs.values["N"], runs.values["D"], runs.loss_N, strict=True
        )
    ]
    path.write_text("\n".join(["f,C,N,D,L,V", *lines]) + "\n")
    columns = dict(N="N", D="D", L="L")
    for choose_by, size in (("", 3e6), ("V", 9e6)):
        told = of_table(read(path), columns, columns, "C", "f", choose_by=choose_by)
        mine = told.runs.only(np.array([told.groups[row] == "blt" for row in told.runs.rows_N]), "")
        sizes = dict(zip(mine.rows_N, mine.values["N"], strict=True))
        assert {round(sizes[one.row]) for one in best_runs.best(told, mine).values()} == {size}
    asked = (path, "--columns", "N=N,D=D,L=L", "--group", "f")
    for more, says in (
        (("--choose-by", "V"), "--choose-by takes --budget"),
        (("--choose-by", "f", "--budget", "C"), "holds text"),
        (("--where", "V>abc"), "'abc', which is no number"),
    ):
        status, _, error = fit(*asked, *more)
        assert status == 2 and says in error and error.count("\n") == 1


def test_the_best_is_chosen_on_validation_text_where_there_is_some():
    of_all, mine, _ = source([1, 1, 1], 0.5, noise=0)
    assert {round(of_all.runs.values["N"][one.row]) for one in best_runs.best(of_all, mine).values()} == {3e6}
    other = -of_all.runs.values["N"]  # validation text prefers the largest
    of_all, mine, _ = source([1, 1, 1], 0.5, noise=0, chosen_by=other)
    assert {round(of_all.runs.values["N"][one.row]) for one in best_runs.best(of_all, mine).values()} == {9e6}


def test_a_best_run_at_the_edge_is_said():
    of_all, mine, _ = source([1, 1, 1], 0.5, noise=0)
    assert best_runs.at_edges(of_all, mine) == []
    [said] = best_runs.at_edges(*source([1, 1, 1], -0.2, noise=0, chosen_by=of_all.runs.values["N"])[:2])
    assert said.startswith("at 1e+15, 4e+15, 1.6e+16 FLOPs the best run has the smallest size")
