"""Run directories as a report reads them: damaged, unfinished and failed ones are said to be so."""

import pytest
from fabricated_runs import add_run, analysed

from bltjax.errors import UserError
from bltjax.report import report as reporting
from bltjax.results import run_directories


def test_nothing_to_report_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        reporting.report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run directories"):
        reporting.report(tmp_path)
    add_run(tmp_path, "bpe", 1e11, finished=False)
    with pytest.raises(UserError, match="1 run, of which none has finished.*step 50 of 200"):
        reporting.report(tmp_path)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["config.json", "planned.json", "eval.json", "done.json"])
def test_damaged_json_names_the_file(tmp_path, name):
    path = add_run(tmp_path, "bpe", 1e11)
    (path / name).write_text('{"a": ')
    with pytest.raises(UserError) as error:
        reporting.report(tmp_path)
    assert name in str(error.value) and "\n" not in str(error.value)
    (path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=name):
        reporting.report(tmp_path)


def test_damaged_metrics_line_names_file_and_line(tmp_path):
    path = add_run(tmp_path, "bpe", 1e11)
    lines = (path / "metrics.jsonl").read_text().split("\n")
    (path / "metrics.jsonl").write_text("\n".join([lines[0], "{broken", *lines[1:]]))
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2"):
        reporting.report(tmp_path)


def test_a_step_logged_twice_counts_once_and_the_later_line_wins(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "bpb": 3}\n{"step": 2, "bpb": 9}\n{"step": 2, "bpb": 2}\n'
    )
    assert [m["bpb"] for m in run_directories.read_metrics(tmp_path / "metrics.jsonl")] == [3, 2]


def test_run_whose_score_is_not_finite_has_failed(tmp_path):
    add_run(tmp_path, "bpe", 1e11)
    path = add_run(tmp_path, "blt-space", 1e11)
    (path / "eval.json").write_text('{"test": {"bpb": NaN}}')
    (failed,) = analysed(tmp_path)["unfinished"]
    assert failed["state"] == "failed" and "not a finite number" in failed["reason"]
