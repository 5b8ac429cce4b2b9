"""The section "Scaling law" of a report: L(N, D), or L(N, D, T) where patch sizes vary, of all its runs, by
what `bltjax fit` does. Where the runs tell no such law, one line says why."""

import dataclasses

from bltjax.errors import UserError
from bltjax.fits import analysis, experiment, figures, text
from bltjax.fits.approaches import Settings
from bltjax.fits.source import Source

ATTEMPTS = (("N", "D", "T"), ("N", "D"))  # a law of FLOPs alone is in the report already
SETTINGS = Settings(draws=400)
MOST_REASONS = 2


@dataclasses.dataclass(frozen=True)
class Scaling:
    """result: of `fit.analyse`, JSON-ready. found, source: what figures are drawn from. why: there is no
    law."""

    result: dict | None
    found: dict | None = None
    source: Source | None = None
    why: str = ""

    def drawn(self) -> list:
        """Its Pictures."""
        return [] if self.why else figures.draw(dict(self.result, found=self.found), self.source)


def of(name: str, runs: list, rows: list) -> Scaling:
    """Of finished Runs and their rows (`run_table.row`, with their series), in any order."""
    by_path = {row["run_dir"]: row for row in rows}
    done = [run for run in runs if str(run.path) in by_path]
    try:
        source = experiment.of_rows(name, done, [by_path[str(run.path)] for run in done])
    except UserError as error:
        return Scaling(None, why=f"no law L(N, D): {error}")
    result = analysis.analyse(source, SETTINGS, attempts=ATTEMPTS)
    found = result.pop("found")
    refused = {entry.get("refused", "") for entry in result["fits"] if entry["method"] == "parametric"}
    if "" not in refused:
        reasons = sorted(refused)[:MOST_REASONS]
        return Scaling(None, why=f"no law L(N, D) from these runs: {'; '.join(reasons)}")
    told = [e["group"] for e in result["fits"] if e["method"] == "parametric" and not e.get("refused")]
    result["fits"] = [entry for entry in result["fits"] if entry["group"] in told]
    return Scaling(result, {group: found[group] for group in told}, source)


def section(scaling: dict | None, pictures) -> dict | None:
    """{"title", "lines", "tables", "figures"} of a report's "scaling_law"; None where there is none.
    pictures: the names of its figures."""
    if not scaling:
        return None
    units = ", ".join(f"{name}: {unit}" for name, unit in scaling["units"].items())
    lines = [f"{scaling['objective']}; {units}.", *scaling["findings"], *scaling["notes"]]
    lines += [f"Warning: {said}" for said in scaling["warnings"]]
    lines += text.reasons(scaling)["separate"]
    tables = [table for _, table in text.all_tables(scaling).values()]
    return dict(title="Scaling law", lines=lines, tables=tables, figures=list(pictures))
