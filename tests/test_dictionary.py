"""docs/run_directory.md has every file and key of a run directory, and every column of the exported table."""

import csv
import fnmatch
import io
import json
import pathlib
import re

import pytest
import tiny_experiment
from fabricated_runs import add_run
from pyarrow import parquet

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.errors import UserError
from bltjax.launch import job as launched
from bltjax.launch import overview, submit
from bltjax.report import report as reporting
from bltjax.results import export
from bltjax.storage import attempts

DOC = (pathlib.Path(__file__).parent.parent / "docs" / "run_directory.md").read_text()
SCORED = "key of `test` and `validation`"  # the table of eval.json's that both splits share


def section(title: str) -> str:
    """The text under a heading of the dictionary."""
    return re.split(r"^## ", DOC.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def keys(text: str) -> list:
    """The first column of its tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.M)


def flat(value, prefix: str = "") -> set:
    """Dotted keys of nested JSON; [] stands for any element of a list of objects."""
    if isinstance(value, dict) and value:
        return set().union(
            *(flat(inner, f"{prefix}.{key}" if prefix else key) for key, inner in value.items())
        )
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return set().union(*(flat(inner, f"{prefix}[]") for inner in value))
    return {prefix}


def unknown(found: set, known: list) -> set:
    """Keys that no line stands for; a line "a.*" stands for a and all below."""
    return {
        key
        for key in found
        if not any(fnmatch.fnmatchcase(key, k.replace("[]", "[[]]")) or f"{key}.*" == k for k in known)
    }


def undocumented(run_dir) -> dict:
    """{file: its keys without a line}, of a run directory, files without a line among them."""
    out = {}
    files = keys(DOC.split("\n## ", 1)[0])
    names = {path.name + ("/" if path.is_dir() else "") for path in pathlib.Path(run_dir).iterdir()}
    out["files"] = {n for n in names if not any(n == f or f.startswith(n) and n.endswith("/") for f in files)}
    for path in sorted(pathlib.Path(run_dir).glob("*.json")):
        value = json.loads(path.read_text())
        if path.name == "config.json":
            out["config"] = unknown(flat(value.pop("config")), keys(section("config.json: `config`")))
            value["config"] = {"any": 0}
        own = section(path.name)
        if path.name == "eval.json":
            shared = keys(own.split(SCORED)[1])
            for split in ("test", "validation"):
                out[split] = unknown(flat(value.pop(split)), shared)
            own = own.split(SCORED)[0]
        out[path.name] = unknown(flat(value), keys(own))
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    out["metrics"] = unknown(set().union(*map(set, lines)), keys(section("metrics.jsonl")))
    return {file: missing for file, missing in out.items() if missing}


def test_every_key_of_a_config_has_a_line_and_a_key_that_is_new_does_not():
    known = keys(section("config.json: `config`"))
    for run in tiny_experiment.get_config().runs:
        assert not unknown(flat(cfg.to_dict(run)), known)
    assert unknown({"train.lr", "train.unheard_of"}, known) == {"train.unheard_of"}
    assert len(known) == len(set(known)) > 100


def test_the_exported_table_is_as_the_dictionary_says():
    lines = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section("The exported table"), re.M))
    assert lines == {column.title: column.meaning for column in export.KEYS}
    assert "bpb [bit/byte]" in lines and "train_bytes [byte]" in lines


def tables(title: str) -> dict:
    """{head of the first column: keys} of a section's tables."""
    found = re.findall(r"^\| (key[^|]*) \|.*\n((?:\|.*\n)+)", section(title), re.M)
    return {head: keys(rows) for head, rows in found}


def test_what_launches_and_attempts_leave_has_lines(tmp_path):
    job = launched.Job("a", "run", "/x/a", ("b",), own=True)
    launched.write(tmp_path, "x", [job], on="slurm", chip_hours=1.0, settings={"partition": "gpu"})
    known = tables("launch/")
    found = flat(json.loads((tmp_path / launched.NAME).read_text()))
    assert not unknown(found, known["key of `jobs.json`"]) and "jobs[].hours" in found
    submit._note(tmp_path, step="a", on="slurm", jobs=["a"], time=1.0)
    submit._note(tmp_path, step="a", id="1")
    lines = map(json.loads, (tmp_path / submit.RECORD).read_text().splitlines())
    assert set().union(*lines) == set(known["key of `submitted.jsonl`"])
    with attempts.recorded(tmp_path):
        pass
    attempts.forgive(tmp_path)
    attempt = json.loads((tmp_path / "attempts" / "0001.json").read_text())
    assert set(attempt) == set(keys(section("attempts/NNNN.json")))


def test_status_as_json_is_as_the_dictionary_says(tmp_path):
    experiment = tmp_path / "tiny_experiment"
    add_run(experiment, "blt-space", 1e11, name="space")
    paths = dict.fromkeys(("tokenizer", "entropy_model", "annotation"))
    paths["data"] = {"../../_shared/data": 1.0}
    (experiment / "space" / "inputs.json").write_text(json.dumps(paths))
    job = launched.Job("space", "run", "/x/space", own=True)
    launched.write(experiment / "launch", "tiny_experiment", [job], on="slurm")
    submit._note(experiment / "launch", step="a", on="slurm", jobs=["space"], time=1.0)
    found = overview.of_experiment(tmp_path, "tiny_experiment", list(tiny_experiment.get_config().runs))
    known = tables("`bltjax status --json`")
    rows = found.pop("runs") + found.pop("jobs")
    assert flat({**found, "runs": {"*": 0}, "jobs": {"*": 0}}) == {
        key.replace("[]", "") for key in known["key"] if key != "launch"
    }
    of_rows = set().union(*map(flat, rows))
    assert of_rows == set(known["key of a run or job"]) and len(rows) == 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs and one that is not."""
    root = tmp_path_factory.mktemp("runs") / "tiny_experiment"
    add_run(root, "bpe", 1e11)
    add_run(root, "blt-entropy", 1e11)
    add_run(root, "blt-space", 1e11, finished=False)
    return root


def test_one_row_a_run_and_the_same_values_in_every_kind_of_file(runs, tmp_path):
    for kind in export.KINDS:
        reporting.report(runs, tmp_path / "report", export=tmp_path / f"runs{kind}")
    titles = [column.title for column in export.KEYS]
    as_json = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [list(row) for row in as_json] == [titles] * 3
    rows = {row["name"]: row for row in as_json}
    done, half = rows["blt-entropy-1e11"], rows["blt-space-1e11"]
    assert done["state"] == "done" and done["bpb [bit/byte]"] > 0 and done["threshold [nat]"] == 1.4
    assert half["state"] == "unfinished" and "step 50 of 200" in half["reason"]
    assert half["bpb [bit/byte]"] is None and half["params_total [parameter]"] == 900_000
    table = parquet.read_table(tmp_path / "runs.parquet")
    assert table.to_pylist() == as_json
    found = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))
    for line, row in zip(found, as_json):
        for key, value in row.items():
            assert (
                (float(line[key]) == value)
                if isinstance(value, float)
                else line[key] == str(value or "") or value in (0, False)
            )


def test_a_table_that_cannot_be_written_is_refused_before_any_work(runs, tmp_path):
    for name, said in (("runs.xlsx", ".csv, .jsonl or .parquet"), ("nowhere/runs.csv", "no such folder")):
        with pytest.raises(UserError, match=said):
            reporting.report(runs, tmp_path / "report", export=tmp_path / name)
    assert not (tmp_path / "report").exists()


def test_the_command_exports(runs, tmp_path, capsys):
    arguments = [
        "report",
        tiny_experiment.__file__,
        "--root",
        str(runs.parent),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main.main([*arguments, "--export", str(tmp_path / "runs.csv")]) == 0
    assert (tmp_path / "runs.csv").read_text().startswith("name,state,reason,family,")
    assert not (tmp_path / "out" / "runs.csv").exists()
    assert (
        main.main([*arguments[:-1], str(tmp_path / "new"), "--export", str(tmp_path / "new/runs.csv")]) == 0
    )
    assert (tmp_path / "new" / "runs.csv").read_text() == (tmp_path / "runs.csv").read_text()
    assert main.main([*arguments, "--export", str(tmp_path / "runs.txt")]) == 2
    assert "--export" in capsys.readouterr().err
