"""The report's section of what `bltjax eval` kept in run directories."""

import json
import types

from bltjax.report import task_scores


def test_tasks_and_files_of_runs(tmp_path):
    cost = dict(patch_size=4.5, flops_per_byte=1e6, entropy_flops_per_byte=1e5)
    kept = {
        "tasks-1/piqa.json": dict(
            task="piqa", items=9, metrics={"acc": {"value": 0.5, "stderr": 0.1}}, chance=0.5, **cost
        ),
        "files-1/files.json": dict(
            groups=[de := dict(group="de", documents=2, bytes=1000, bpb=2.0, **cost)],
            noises=[dict(noise="drop", groups=[{**de, "bytes": 900}])],
        ),
        "files-1/setup.json": dict(model="m"),
        "tasks-1/arc_easy.json": dict(task="arc_easy"),  # damaged
    }
    for name, value in kept.items():
        path = tmp_path / "eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    (tmp_path / "eval" / "tasks-1" / "torn.json").write_text("{")
    tasks, files = task_scores.tables([types.SimpleNamespace(name="run", path=tmp_path)])
    cost = ["4.50", "1,000,000 + 100,000"]
    assert tasks["rows"] == [["run", "piqa", "9", "acc 0.5000 ± 0.1000", "0.500", *cost]]
    assert files["rows"] == [
        ["run", "de", "2", "1,000", "2.0000", *cost],
        ["run", "de, drop", "2", "900", "2.0000", *cost],
    ]
    assert [len(row) for row in (tasks["rows"][0], files["rows"][0])] == [7, 7]
    nothing = task_scores.tables([types.SimpleNamespace(name="run", path=tmp_path / "none")])
    assert not any(table["rows"] for table in nothing)
