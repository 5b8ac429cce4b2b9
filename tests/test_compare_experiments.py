"""`bltjax report --compare A B`: the same cells of two experiments, their differences, what else differs."""

import csv
import json

import pytest
import tiny_experiment
from fabricated_runs import BUDGETS, add_run, experiment, law

from bltjax.cli import main
from bltjax.errors import UserError
from bltjax.report import compare_experiments

BETTER = 0.03  # bits per byte


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The same experiment twice: the second at another learning rate and lower by BETTER, with a budget less
    and a family more."""
    root = tmp_path_factory.mktemp("roots")
    a = experiment(root / "a" / "tiny_experiment", ("bpe", "blt-space"))
    b = root / "b" / "tiny_experiment"
    for family in ("bpe", "blt-space"):
        for budget in BUDGETS[:2]:
            add_run(b, family, budget, lr=2e-3, bpb=law(family, budget) - BETTER)
    add_run(b, "blt-entropy", BUDGETS[0])
    return a, b


@pytest.fixture(scope="module")
def result(two):
    return compare_experiments.compared(*two)


def test_cells_stand_side_by_side_with_intervals(result):
    assert [(c["series"], c["budget_flops"]) for c in result["cells"]] == [
        (family, budget) for family in ("bpe", "blt-space") for budget in BUDGETS[:2]
    ]
    for cell in result["cells"]:
        assert cell["difference"] == pytest.approx(-BETTER)
        assert (
            cell["low"] < -BETTER < cell["high"] < 0
        )  # of the same documents: far narrower than the scores'
        assert cell["covers"].startswith("of these documents only")
    assert [(r["series"], r["budget_flops"]) for r in result["only_b"]] == [("blt-entropy", BUDGETS[0])]
    assert {r["budget_flops"] for r in result["only_a"]} == {BUDGETS[2]}


def test_what_differs_is_said_once(result):
    (differs,) = result["differs"]
    assert (differs["key"], differs["a"], differs["b"]) == ("train.lr", 1e-3, 2e-3) and len(
        differs["cells"]
    ) == 4
    text = compare_experiments.text(result)
    assert "train.lr" in text and "all 4" in text and "−0.0300" in text and "in B alone: blt-entropy" in text


def test_series_of_another_name_match_where_nothing_else_can_be_meant(tmp_path):
    add_run(tmp_path / "a", "blt-space", 1e11, changes={"series": "old"})
    add_run(tmp_path / "b", "blt-space", 1e11, changes={"series": "new"})
    (cell,) = compare_experiments.compared(tmp_path / "a", tmp_path / "b")["cells"]
    assert (cell["series"], cell["series_b"]) == ("blt-space (old)", "blt-space (new)") and cell[
        "difference"
    ] == 0


def test_other_test_text_is_refused_and_text_that_is_not_known_has_no_interval(two, tmp_path):
    other = add_run(tmp_path / "other", "bpe", 1e11, digest="e" * 12).parent
    with pytest.raises(UserError, match="the test texts differ.*cannot stand side by side"):
        compare_experiments.compared(two[0], other)
    unknown = add_run(tmp_path / "unknown", "bpe", 1e11, digest=None).parent
    (cell,) = compare_experiments.compared(two[0], unknown)["cells"]
    assert cell["low"] is None and "documents_digest" in cell["note"]


def test_the_command(two, tmp_path, capsys):
    a, b = two
    assert main.main(["report", "--compare", str(a), str(b), "--out", str(tmp_path), "--json"]) == 0
    named = json.loads(capsys.readouterr().out)
    kinds = {path.rpartition(".")[2] for path in named["files"]}
    assert kinds == {"csv", "html", "md", "png", "svg"}
    with (tmp_path / "compare.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    page = (tmp_path / "compare.html").read_text()
    assert 'class="pt"' in page and "<script>" in page and "train.lr" in page
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    compare_experiments.write(compare_experiments.compared(a, b), tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for roots in ([], [tiny_experiment.__file__]):  # two roots, with and without the name of what is in them
        assert main.main(["report", *roots, "--compare", str(a.parent), str(b.parent)]) == 0
        assert "B minus A" in capsys.readouterr().out
    for wrong in (
        ["report"],
        ["report", "--compare", str(a), "nowhere"],
        ["report", "--compare", str(a), str(b), "--export", "runs.csv"],
        ["report", tiny_experiment.__file__, "--compare", str(a), "nowhere"],
    ):
        assert main.main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
