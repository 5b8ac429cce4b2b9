"""What is kept of an experiment in docs/results: the table of its runs, configs, training curves and its
report; no checkpoints, and no metrics of every step.

    python -m benchmarks.keep_results RUNS/NAME docs/results/NAME

Of runs that are done: runs.csv (`bltjax report --export`: one row a run, units in the header), configs.jsonl
(one run a line: its config and what was counted ahead of it) and curves.csv (means over STRETCHES parts of
each run's steps); report.md where there is one, and those of its figures that are named. Run directories'
places are written relative to the folder that holds RUNS."""

import argparse
import csv
import json
import pathlib
import re
import shutil

import numpy as np

from bltjax.results import export, run_directories

STRETCHES = 40
MEANS = ("bpb", "grad_norm", "lr")
ENDS = ("step", "bytes", "useful_flops")


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("experiment", type=pathlib.Path, help="a folder of run directories")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--figures", nargs="*", default=[], help="names of the report's PNGs, without .png")
    given = parser.parse_args(arguments)
    report = given.experiment / "report"
    figures = [report / f"{name}.png" for name in given.figures]
    if missing := [str(file) for file in figures if not file.is_file()]:
        parser.error(f"not there: {', '.join(missing)}")
    runs = [run for run in run_directories.read_experiment(given.experiment) if run.state == "done"]
    if not runs:
        parser.error(f"no run of {given.experiment} is done")
    given.out.mkdir(parents=True, exist_ok=True)
    base = f"{given.experiment.resolve().parent.parent}/"
    table = export.content(pathlib.Path("runs.csv"), export.rows(runs, []))
    (given.out / "runs.csv").write_text(table.decode().replace(base, ""))
    for file in figures:
        shutil.copy(file, given.out / file.name)
    if (report / "report.md").is_file():
        said = without_figures((report / "report.md").read_text().replace(base, ""), given.figures)
        (given.out / "report.md").write_text(said)
    done = sorted(file.parent for file in given.experiment.glob("*/done.json"))
    configs = [json.dumps({"run": run.name, **_json(run, base)}, sort_keys=True) for run in done]
    (given.out / "configs.jsonl").write_text("\n".join(configs) + "\n")
    with (given.out / "curves.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["run", "step", "bytes", "useful FLOPs", "bits per byte", "gradient norm", "lr"])
        for run in done:
            rows.writerows([run.name, *row] for row in curve(run))
    print(f"{len(done)} runs kept in {given.out}")


def without_figures(report: str, kept: list[str]) -> str:
    """A report in Markdown without the figures that are not kept."""
    own = lambda found: found[0] if found["name"] in kept else ""
    return re.sub(r"!\[[^\]]*\]\((?P<name>[^)]*)\.png\)\n+", own, report)


def _json(run: pathlib.Path, base: str) -> dict:
    names = {"config": "config.json", "planned": "planned.json"}
    return {name: json.loads((run / file).read_text().replace(base, "")) for name, file in names.items()}


def curve(run: pathlib.Path) -> list[list]:
    """Rows of a run's training curve: where each stretch of its steps ends, and means over it."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = []
    for part in np.array_split(np.arange(len(lines)), min(STRETCHES, len(lines))):
        last = lines[part[-1]]
        means = [np.mean([lines[step][name] for step in part]) for name in MEANS]
        found.append([*(f"{last[name]:.7g}" for name in ENDS), *(f"{value:.5g}" for value in means)])
    return found


if __name__ == "__main__":
    main()
