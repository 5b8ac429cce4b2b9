"""Series of one experiment compared: their scores with documents and seeds resampled, differences to the
reference at each budget, fits, and where curves meet. Only scores of the same test text stand beside each
other."""

import collections

import numpy as np

from bltjax.results import tables
from bltjax.results.run_table import DIFFER, REFERENCE, budget_key, why_apart
from bltjax.science import bootstrap, crossing, power_law
from bltjax.science.noise import Noise, between_seeds

TOO_FEW = "fewer than two test documents"
ONE_DOCUMENT = "one test document has most of the bytes"
ONE_SEED = "of these documents only, since a run of one seed is in it"
BOTH = "over documents and seeds"


def scores(chosen: list, samples: dict, documents: dict) -> dict:
    """{(series, budget): Score} of chosen rows whose seeds were scored on the same documents; the seed
    variance is pooled over a series' budgets. samples, documents: by run directory."""
    found = {}
    for row in chosen:
        dirs = row["run_dirs"]
        same = len({len(documents[d]) for d in dirs}) == 1
        if same and (len(dirs) == 1 or row["test_text"]) and all(d in samples for d in dirs):
            drawn, own = [samples[d] for d in dirs], documents[dirs[0]]
            found.setdefault(row["series"], {})[budget_key(row)] = bootstrap.score(
                row["seed_bpb"], drawn, len(own), bootstrap.worth([d["bytes"] for d in own])
            )
    pooled = {}
    for series, at in found.items():
        pooled.update({(series, budget): s for budget, s in zip(at, bootstrap.pool(list(at.values())))})
    return pooled


def by_series(chosen: list) -> dict:
    """{series: its chosen rows, budgets ascending}."""
    out = {}
    for row in chosen:
        out.setdefault(row["series"], []).append(row)
    return out


def reference_of(chosen: list) -> str | None:
    """The series that others are compared with: of REFERENCE's the one at most budgets, then the first by
    name."""
    mine = by_series([r for r in chosen if r["family"] == REFERENCE])
    return min(mine, key=lambda s: (-len(mine[s]), s)) if mine else None


def main_text(chosen: list) -> str | None:
    """The test text on which the most points were scored, of as many the reference's first: those are
    compared. None: that of runs which do not say."""
    against = reference_of(chosen)
    counts = collections.Counter(r["test_text"] for r in chosen)
    mine = {r["test_text"] for r in chosen if r["series"] == against}
    return min(counts, key=lambda text: (-counts[text], text not in mine, text is None, str(text)))


def why_few(rows: list) -> str:
    """Why nothing is known of the spread over the documents of rows, of which one has no Score."""
    return TOO_FEW if any(row["test_documents"] < 2 for row in rows) else ONE_DOCUMENT


def covers(scores_: list) -> str:
    """What an interval over these scores covers, in words."""
    return BOTH if all(s.covers_seeds for s in scores_) else ONE_SEED


def pairs(chosen: list, scored: dict) -> list:
    """Differences of every series to the reference at the same budget, on the same test documents; on other
    text there is none, and "note" says so."""
    against = reference_of(chosen)
    reference = {budget_key(r): r for r in chosen if r["series"] == against}
    out = []
    for row in sorted(chosen, key=budget_key):
        base = reference.get(budget_key(row))
        if base is None or row is base:
            continue
        a, b = (scored.get((r["series"], budget_key(r))) for r in (row, base))
        note = why_apart([row, base]) or (
            why_few([row, base]) if a is None or b is None else DIFFER if a.documents != b.documents else ""
        )
        low, high = (None, None) if note else bootstrap.difference_interval(a, b)
        out.append(
            dict(
                budget_flops=budget_key(row),
                family=row["family"],
                series=row["series"],
                against=against,
                difference=None if note == DIFFER else row["bpb"] - base["bpb"],
                low=low,
                high=high,
                excludes_zero=low is not None and (low > 0 or high < 0),
                covers="" if note else covers([a, b]),
                covers_seeds=not note and a.covers_seeds and b.covers_seeds,
                seeds=[row["seeds"], base["seeds"]],
                run=row["name"],
                against_run=base["name"],
                documents=row["test_documents"],
                note=note,
            )
        )
    return out


def resampled(rows: list, scored: dict, number: int):
    """(bits per byte of one series' rows under resampled documents and seeds [R, N], what that covers, "") or
    (None, "", why not). number: of the series, for noise of its own."""
    found, why = together(rows, scored)
    return (None, "", why) if why else (bootstrap.draws(found, number), covers(found), "")


def together(rows: list, scored: dict) -> tuple[list, str]:
    """(the Scores of rows, why they cannot be resampled together or "")."""
    found = [scored.get((r["series"], budget_key(r))) for r in rows]
    few = any(s is None for s in found)
    return found, why_apart(rows) or (
        why_few(rows) if few else DIFFER if len({s.documents for s in found}) > 1 else ""
    )


def noise(rows: list, found: list) -> Noise:
    """What a fit of some rows has to know of their noise. found: their Scores."""
    spread = between_seeds([row["seed_bpb"] for row in rows])
    documents = np.cov(np.log([s.samples_R for s in found])) * (1 + 1 / found[0].documents_freedom)
    seeds = np.array([s.seeds for s in found], np.float64)
    return Noise(seeds, *spread, documents, 1 + found[0].documents_freedom)


def fits(chosen: list, scored: dict, x: str) -> dict:
    """{series: fit} of test bits per byte over its budgets; series with fewer than three left out."""
    out = {}
    for series, rows in by_series(chosen).items():
        rows = [r for r in rows if r[x]]
        if len(rows) < 3:
            continue
        found, why = together(rows, scored)
        known = None if why else noise(rows, found)
        fit = power_law.fit([r[x] for r in rows], [r["bpb"] for r in rows], known)
        if not fit:
            continue
        covered = ""
        if fit["freedom"]:
            runs = "seeds and scatter" if any(s.covers_seeds for s in found) else "scatter"
            covered = f"over documents, and over runs by their {runs} about the fit"
            covered += f" ({fit['freedom']} degrees of freedom)"
        texts = len({r["data_fingerprint"] for r in rows} - {None})
        if texts > 1:
            fit["note"] = "; ".join(filter(None, [fit["note"], f"its runs read {texts} different data sets"]))
        out[series] = dict(
            fit, family=rows[0]["family"], covers=covered, no_interval=why or fit["no_interval"]
        )
    return out


def fitted_span(fit: dict, other: dict):
    """The range of FLOPs that two fits' points have in common, or None."""
    ends = [[one["low_flops"], one["high_flops"]] for one in (fit, other)]
    return crossing.overlap(*ends)


def crossings(chosen: list, scored: dict, fitted: dict) -> list:
    """Where each series' measured curve meets the reference's, inside the range that both were measured
    in."""
    x = "realized_flops"
    curves = {
        series: sorted((r for r in rows if r[x]), key=lambda r: r[x])
        for series, rows in by_series(chosen).items()
    }
    against, out = reference_of(chosen), []
    base = curves.get(against, [])
    numbers = {series: number for number, series in enumerate(curves)}
    for series, rows in curves.items():
        span = crossing.overlap([r[x] for r in rows], [r[x] for r in base]) if rows and base else None
        if series == against or not span:
            continue
        why = why_apart(rows + base)
        mine, theirs = (resampled(r, scored, numbers[r[0]["series"]]) for r in (rows, base))
        drawn = (None, None) if why or mine[0] is None or theirs[0] is None else (mine[0], theirs[0])
        met = crossing.measured(
            [r[x] for r in rows],
            [r["bpb"] for r in rows],
            [r[x] for r in base],
            [r["bpb"] for r in base],
            *drawn,
        )
        both = fitted.get(series), fitted.get(against)
        out.append(
            dict(
                family=rows[0]["family"],
                series=series,
                against=against,
                range=list(span),
                measured=met["flops"],
                low=met["low"],
                high=met["high"],
                share=met["share"],
                covers="" if drawn[0] is None else BOTH if mine[1] == theirs[1] == BOTH else ONE_SEED,
                fits=(
                    crossing.of_curves(*map(power_law.curve, both), fitted_span(*both)) if all(both) else []
                ),
                text=tables.listed_flops(met["flops"]) or "none in range",
            )
        )
    return out
