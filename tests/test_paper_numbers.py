"""Our runs beside the paper's printed numbers: never mixed up, missing ones said to be missing, and compared
only where they compare."""

import csv
import io

import pytest
from fabricated_runs import add_run, analysed

from bltjax.paper import paper_section, printed_tables
from bltjax.report import report as reporting

BUDGET = 1e12
TABLE_9 = {"no|1|9": 2.40, "no|5|5": 2.38, "yes|5|5": 2.37, "yes|1|9": 2.30}


def labels(figure, row, **more):
    return {"paper.figure": figure, "paper.row": row, "series": row, **more}


@pytest.fixture(scope="module")
def table_9(tmp_path_factory):
    """Four of Table 9's five rows, two seeds each, and one that is not finished: its report."""
    root = tmp_path_factory.mktemp("runs") / "local_layers"
    for number, (row, bpb) in enumerate(TABLE_9.items()):
        for seed in (0, 1):
            add_run(
                root,
                "blt-entropy",
                BUDGET,
                name=f"row{number}-seed{seed}",
                seed=seed,
                bpb=bpb + 0.001 * seed,
                noise_seed=2 * number + seed,
                changes=labels("Table 9", row),
            )
    add_run(root, "blt-entropy", BUDGET, name="late", finished=False, changes=labels("Table 9", "yes|3|7"))
    return reporting.report(root), root


def test_every_printed_number_has_a_place_and_a_source():
    for table in printed_tables.TABLES:
        assert table.mark in printed_tables.MARKS and set(table.marks.values()) <= set(printed_tables.MARKS)
        assert not table.reference or table.reference in table.rows
        for key, (_, values) in table.rows.items():
            assert len(values) == len(table.columns), (table.name, key)
        assert table.rows or table.says
    assert printed_tables.named("Table 7")[0].value("all|all|yes", "Train dist") == 0.844
    assert printed_tables.named("Table 8")[0].mark_of("none", "Train dist") == "S"
    assert printed_tables.named("Table 4")[0].value("blt-entropy", "Thai from") == 7.7


@pytest.mark.parametrize(
    "label, names",
    [
        ("Figure 6", ["Figure 6"]),
        ("Figure 1, Table 2", ["Table 2"]),
        ("Tables 1, 3 and 4", ["Table 1", "Table 3", "Table 4"]),
        ("table8", ["Table 8"]),
        ("Table 70", []),
        ("", []),
    ],
)
def test_labels_name_tables(label, names):
    assert [table.name for table in printed_tables.named(label)] == names


def test_rows_find_their_runs_and_differences_their_reference(table_9):
    result, root = table_9
    (entry,) = result["paper"]
    (at,) = entry["at"]
    rows = {row["row"]: row for row in at["rows"]}
    assert list(rows) == list(printed_tables.named("Table 9")[0].rows) and at["reference"] == "no|1|9"
    cell = rows["yes|1|9"]["cells"]["Train dist"]
    assert cell["ours"] == pytest.approx(2.3005) and cell["paper"] == 0.822 and cell["mark"] == "S"
    assert cell["ours_minus_reference"] == pytest.approx(-0.1)
    assert cell["low"] < cell["ours_minus_reference"] < cell["high"]
    assert cell["paper_minus_reference"] == pytest.approx(0.822 - 0.850)
    assert rows["yes|1|9"]["run_dir"] == str(root / "row3-seed0") and rows["yes|1|9"]["seeds"] == 2
    # of another scale: the difference to the paper's number itself is none
    assert not at["same_scale"] and cell["minus_paper"] is None
    assert rows["yes|3|7"]["run"] is None and "step 50 of 200" in rows["yes|3|7"]["missing"]


def test_what_the_page_says(table_9):
    result, root = table_9
    page = (root / "report" / "report.html").read_text()
    assert "The paper&#x27;s Table 9" in page and "Ours are of another scale" in page
    assert "Missing: n-grams, 3 and 7 layers (unfinished: step 50 of 200" in page
    assert "[S] from a secondary source" in page
    with (root / "report" / "paper_table_9.csv").open() as file:
        drawn = {row["row"]: row for row in csv.DictReader(file)}
    assert drawn["no|5|5"]["paper [bit/byte]"] == "0.843" and drawn["no|5|5"]["run"] == "row1"
    assert drawn["yes|3|7"]["ours [bit/byte]"] == "" and "unfinished" in drawn["yes|3|7"]["missing"]


def test_at_the_papers_scale_numbers_are_subtracted(tmp_path):
    planned = dict(params=dict(total=3.1e9, hash=2.1e9), train_bytes=100_000_000_000)
    for row, bpb in (("no|1|9", 0.86), ("yes|1|9", 0.83)):
        path = add_run(
            tmp_path,
            "blt-entropy",
            BUDGET,
            name=row[:2],
            bpb=bpb,
            changes=labels("Table 9", row),
            planned=planned,
        )
        (path / "metrics.jsonl").unlink()
    (entry,) = analysed(tmp_path)["paper"]
    rows = {row["row"]: row["cells"]["Train dist"] for row in entry["at"][0]["rows"]}
    assert entry["at"][0]["same_scale"] and rows["no|1|9"]["minus_paper"] == pytest.approx(0.01)
    table = paper_section.section(entry)["tables"][0]
    assert "ours minus the paper's" in table["columns"] and "+0.010" in table["rows"][0]


def test_tasks_that_are_not_evaluated_are_missing_and_runs_without_labels_are_of_no_table(tmp_path):
    add_run(tmp_path, "bpe", BUDGET, changes=labels("Table 1", "llama3"))
    add_run(tmp_path, "blt-space", BUDGET)
    (entry,) = analysed(tmp_path)["paper"]
    made = paper_section.section(entry)
    arc = next(row for row in made["tables"][0]["rows"] if row[0] == "ARC-E")
    assert arc == ["ARC-E", "missing", "77.6", "missing", "75.4", "missing", "79.6"]
    assert made["tables"][0]["rows"][-1] == ["our run", "bpe-1e12", "–"] + ["missing: no run", "–"] * 2
    assert any("Not evaluated in these runs, and so missing: ARC-E" in line for line in made["lines"])


def test_figure_1_crosses_where_the_measured_curves_do(tmp_path):
    """BPE falls as 2·B^-0.1 and BLT as 3·B^-0.12 from where they meet."""
    meet = 1e7
    for row, alpha in (("llama3-450M", 0.10), ("blt-6-610M", 0.12)):
        for data in (2e6, 8e6, 3.2e7):
            add_run(
                tmp_path,
                "bpe" if "llama" in row else "blt-entropy",
                data * 1e5,
                name=f"{row}-{data:.0e}".replace("+", ""),
                bpb=2.0 * (data / meet) ** -alpha,
                changes=labels("Figure 1, Table 2", row),
                planned=dict(train_bytes=data),
            )
    for path in tmp_path.iterdir():
        (path / "metrics.jsonl").unlink()
    result = reporting.report(tmp_path)
    (entry,) = result["paper"]
    cell = {row["row"]: row["cells"]["crossover"] for row in entry["at"][0]["rows"]}["blt-6-610M"]
    assert cell["ours"] == pytest.approx(meet, rel=1e-6) and cell["paper"] == 150e9
    data = (tmp_path / "report" / "paper_figure_1_small.csv").read_text()
    assert len(list(csv.reader(io.StringIO(data)))) == 7
