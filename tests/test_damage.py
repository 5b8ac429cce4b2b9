"""Files damaged on disk: what can be made again is, status and report say which file it was, and no run is in
the way of the others."""

import json
import re
import types

import pytest
from fabricated_runs import add_run

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.report import report as reporting
from bltjax.run import execute, jobs
from bltjax.storage import rundir
from bltjax.sweep import graph, runner, status, status_table
from bltjax.tokenizers import bpe

GARBLED = [None, b"", b'{"a": ', b"\xff\xfe\x00", b"[1]", b"{}", b"null"]  # None: removed
TEXT = [b"def first(x):\n    return x + 1\n\n\ndef second(y):\n    return first(y) - 12345\n" * 3]


def damage(path, content):
    path.unlink() if content is None else path.write_bytes(content)


@pytest.fixture
def run_dir(tmp_path):
    """A finished run that lies where status and the report look for it, beside another."""
    add_run(tmp_path / "experiment", "blt-space", 1e11, name="other")
    return add_run(tmp_path / "experiment", "bpe", 1e11, name="run")


def standing(run_dir):
    return {
        row["name"]: row
        for row in status.of_experiment(run_dir.parent.parent, "experiment", ["run", "other"])
    }


@pytest.mark.parametrize("content", GARBLED)
@pytest.mark.parametrize("name", ["done.json", "planned.json", "eval.json"])
def test_a_damaged_run_has_started_and_status_says_what_is_wrong(run_dir, name, content):
    assert rundir.state(run_dir) == "done" and standing(run_dir)["run"]["why"] is None
    damage(run_dir / name, content)
    rows = standing(run_dir)
    assert rundir.state(run_dir) == "started" and rows["other"]["state"] == "done"
    if name == "done.json" and content is None:  # nothing tells it from a run that was stopped
        assert rows["run"]["state"] == "stopped"
        return
    assert rows["run"]["state"] == "damaged" and rows["run"]["test_bpb"] is None
    assert (
        name in rows["run"]["why"]
        and "`bltjax run` will redo it" in rows["run"]["why"]
        and "\n" not in rows["run"]["why"]
    )
    assert rows["run"]["why"] in status_table.text({"runs": list(rows.values())})


@pytest.mark.parametrize("name, key", [(name, key) for name, keys in rundir.REDONE.items() for key in keys])
def test_a_key_that_others_read_is_missed(run_dir, name, key):
    values = json.loads((run_dir / name).read_text())
    *parents, last = key.split(".")
    part = values
    for parent in parents:
        part = part[parent]
    for broken in ("a", None):
        part[last] = broken
        rundir.write_json(run_dir / name, values)
        assert rundir.state(run_dir) == "started" and f"{name} lacks {key}" in standing(run_dir)["run"]["why"]


@pytest.mark.parametrize(
    "name, old, new, said",
    [
        ("eval.json", '"bpb"', '"bpb_as_it_was"', "eval.json lacks test.bpb"),
        ("planned.json", '"steps": 200', '"steps": 400', "metrics.jsonl ends at step 200 of 400"),
        ("config.json", '"budget_flops": 1', '"budget_flops": 3', "config.json has a budget of 3e+11 FLOPs"),
        ("done.json", '"realized_flops": 1', '"realized_flops": 7', "realized FLOPs, metrics.jsonl ends at"),
        ("metrics.jsonl", None, None, "metrics.jsonl has no step"),
    ],
)
def test_a_run_that_contradicts_itself_is_not_done(run_dir, name, old, new, said):
    content = (run_dir / name).read_text()
    if old is None:
        (run_dir / name).unlink()
    else:
        assert old in content
        (run_dir / name).write_text(content.replace(old, new))
    rows = standing(run_dir)
    assert (
        rows["run"]["state"] == "damaged" and said in rows["run"]["why"] and rows["other"]["state"] == "done"
    )
    assert "`bltjax run`" in rows["run"]["why"] and rows["run"]["test_bpb"] is None
    if "remove done.json" in rows["run"]["why"]:  # and then it is taken up again
        (run_dir / "done.json").unlink()
        assert rundir.state(run_dir) == ("started" if (run_dir / "metrics.jsonl").exists() else "new")


@pytest.mark.parametrize("stated", [True, False])
def test_a_config_of_another_run_is_not_this_ones(run_dir, monkeypatch, stated):
    """Of runs that state no fingerprint of their config, too, as older ones do not: then its name tells."""
    monkeypatch.setattr(reporting.figures, "draw", lambda *_: {})
    other = run_dir.parent / "other"
    for path in (run_dir, other) if stated else ():
        mark = rundir.config_fingerprint(json.loads((path / "config.json").read_text()))
        for name in ("planned.json", "eval.json", "done.json"):
            values = json.loads((path / name).read_text())
            rundir.write_json(path / name, {**values, "config_fingerprint": mark})
    assert {row["state"] for row in standing(run_dir).values()} == {"done"}
    record = json.loads((run_dir / "config.json").read_text())  # other labels change nothing
    rundir.write_json(
        run_dir / "config.json", {**record, "config": {**record["config"], "series": "called otherwise"}}
    )
    assert {row["state"] for row in standing(run_dir).values()} == {"done"}

    (run_dir / "config.json").write_bytes((other / "config.json").read_bytes())
    said = standing(run_dir)
    assert said["run"]["state"] == "damaged" and said["other"]["state"] == "done"
    assert "config.json is another run's (other); restore it" in said["run"]["why"]
    result = reporting.report(run_dir.parent)
    assert [row["name"] for row in result["runs"]] == ["other"]
    (left,) = result["unfinished"]
    assert said["run"]["why"] in left["reason"]


def test_status_says_what_a_run_differs_in(tmp_path):
    model = cfg.transformer("token", vocab=270, width=16, layers=1, heads=1)
    tokenizer = cfg.tokenizer("trained", 270, 2.0)
    config = cfg.run("r", "bpe", model, tokenizer_=tokenizer, budget_flops=1e9)
    rundir.create(tmp_path / "x" / "r", config, "x")
    why = lambda asked: status.of_experiment(tmp_path, "x", ["r"], {"r": asked})[0]["why"]
    other = cfg.replace(config, **{"train.lr": 0.5, "series": "another word for reports"})
    assert why(config) is None and why(other) is None  # nothing of it would be lost
    (tmp_path / "x" / "r" / "metrics.jsonl").write_text("")
    assert why(config) is None and why(cfg.replace(config, series="another")) is None
    assert why(other) == f"of another config: train.lr ({config.train.lr} there, 0.5 now)"
    record = json.loads((tmp_path / "x" / "r" / "config.json").read_text())
    rundir.write_json(tmp_path / "x" / "r" / "config.json", {**record, "config": {"model": 3}})
    assert "config.json is damaged (model is 3, not a section)" in why(config)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_nothing_makes_a_config_again(run_dir, content):
    (run_dir / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="config.json.*remove") as error:
        rundir.load_config(run_dir)
    rows = standing(run_dir)
    assert (
        "\n" not in str(error.value)
        and rows["run"]["state"] == "damaged"
        and rows["run"]["why"] == str(error.value)
    )
    assert rows["other"]["state"] == "done"


@pytest.mark.parametrize("name", ["planned.json", "metrics.jsonl", "notes.txt", "failed.json"])
def test_status_survives_what_a_stopped_run_left(run_dir, name):
    for gone in ("done.json", "eval.json"):
        (run_dir / gone).unlink()
    for content in (b"\xff\xfe\x00\n", b"5\n", b"[1]\n", b"{}\n"):
        (run_dir / name).write_bytes(content)
        row = standing(run_dir)["run"]
        assert row["state"] == {"planned.json": "damaged", "failed.json": "failed"}.get(name, "stopped")
        assert "\n" not in status_table.text({"runs": [row]}).split("\n\n")[0].split("\n", 1)[1]


def test_a_redone_run_that_fails_says_why(run_dir):
    (run_dir / "eval.json").unlink()
    rundir.write_json(run_dir / "failed.json", {"error": "disk full"})
    assert (standing(run_dir)["run"]["state"], standing(run_dir)["run"]["why"]) == ("failed", "disk full")


def test_old_notes_are_no_news_of_a_done_run(run_dir):
    (run_dir / "notes.txt").write_text("checkpoint 20 is not whole\n")
    assert "not whole" not in status_table.text({"runs": [standing(run_dir)["run"]]})
    (run_dir / "done.json").unlink()
    assert "not whole" in status_table.text({"runs": [standing(run_dir)["run"]]})


def test_execute_writes_the_files_again(run_dir, monkeypatch):
    wanted = {name: json.loads((run_dir / name).read_text()) for name in ("planned.json", "eval.json")}
    ready = types.SimpleNamespace(
        planned=wanted["planned.json"],
        inputs=types.SimpleNamespace(text=types.SimpleNamespace(fingerprint="abc")),
        config=None,
        rows=types.SimpleNamespace(longest=lambda steps: None),
        steps=200,
        useful=None,
        executed=None,
    )
    monkeypatch.setattr(execute, "ready", lambda *_: ready)
    monkeypatch.setattr(execute.loop, "train", lambda *_, **__: {})
    monkeypatch.setattr(execute.warm_start, "params", lambda *_: None)
    monkeypatch.setattr(execute.evaluate, "evaluate", lambda *_: wanted["eval.json"])
    monkeypatch.setattr(execute.evaluate, "sample", lambda *_: None)
    for name in rundir.REDONE:
        (run_dir / name).write_text('{"a": ')
        execute.execute(run_dir, progress=False)
        assert rundir.state(run_dir) == "done" and all(
            json.loads((run_dir / n).read_text()).items() >= value.items() for n, value in wanted.items()
        )


def test_the_runner_survives_a_job_beside_a_damaged_plan(run_dir):
    (run_dir / "planned.json").write_text('{"steps": 2')
    said = []
    job = graph.Job("entropy model", "run", run_dir, ())
    task = runner.Task(job, process=types.SimpleNamespace(returncode=0))
    runner.finish(task, types.SimpleNamespace(line=said.append))
    assert task.state == "done" and said == ["done     entropy model"]
    (run_dir / "metrics.jsonl").write_bytes(b"{}\n")
    task.state = "elsewhere"
    runner.Display("experiment", [task]).show()


@pytest.mark.parametrize(
    "name", ["config.json", "planned.json", "eval.json", "done.json", "failed.json", "metrics.jsonl"]
)
def test_the_report_goes_on_without_a_damaged_run(run_dir, monkeypatch, name):
    monkeypatch.setattr(reporting.figures, "draw", lambda *_: {})
    for content in (b'{"a": \n', b"\xff\xfe\x00\n", b"[1]\n"):
        (run_dir / name).write_bytes(content)
        result = reporting.report(run_dir.parent)
        assert [row["name"] for row in result["runs"]] == ["other"]
        (left,) = result["unfinished"]
        assert (
            left["name"] == "run"
            and left["state"] == "unfinished"
            and name in left["reason"]
            and "\n" not in left["reason"]
        )
    (run_dir.parent / "other" / "eval.json").write_text("")
    with pytest.raises(UserError, match="2 runs, of which none has finished"):
        reporting.report(run_dir.parent)


def test_a_damaged_tokenizer_is_trained_again(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(30):
        (texts / f"{i}.txt").write_bytes(b"%d " % i + TEXT[i % len(TEXT)])
    config = cfg.replace(
        cfg.run(
            "r", "bpe", cfg.transformer("token", vocab=270, width=16, layers=1, heads=1), budget_flops=1e9
        ),
        **{
            "tokenizer.kind": "trained",
            "tokenizer.vocab": 270,
            "data.source": "files",
            "data.globs": (f"{texts}/*.txt",),
            "data.test": 0.2,
            "data.validation": 0.2,
            "data.min_bytes": 1,
        },
    )
    data, tokenizer, run = graph.of_run(tmp_path / "runs" / "x" / "r", config, "x")
    jobs.do(data.directory)
    jobs.do(tokenizer.directory)
    path = tokenizer.directory / "tokenizer.json"
    whole = path.read_bytes()
    first = bpe.load(path)
    for content in (
        b"",
        whole[:-100],
        b"\xff\xfe",
        b"[]",
        b'{"kind": "trained"}',
        whole.replace(first.fingerprint.encode(), b"0" * 12),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=path.name) as error:
            bpe.load(path)
        assert "\n" not in str(error.value)
        assert jobs.state(tokenizer.directory, "tokenizer") == "started"
        jobs.do(tokenizer.directory)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("model", None, "model is None, not a section"),
        ("model", 3, "model is 3, not a section"),
        ("data.context", "many", "data.context is 'many', not a number"),
        ("model.ngrams", 7, "model.ngrams is 7, not a section"),
        ("train.schedule", 1.5, "train.schedule is 1.5, not a word"),
        ("name", 5, "name is 5"),
        ("patching", [], "patching is [], not a section"),
    ],
)
def test_a_config_that_was_damaged_within_is_said(run_dir, key, value, said):
    run_dir = run_dir.parent / "other"
    record = json.loads((run_dir / "config.json").read_text())
    *sections, last = key.split(".")
    node = record["config"]
    for section in sections:
        node = node[section]
    node[last] = value
    (run_dir / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=re.escape(f"config.json is damaged ({said})")):
        rundir.load_config(run_dir)


@pytest.mark.parametrize("documents", [None, "all", [{"bytes": 3}], [{"bytes": 3, "nats": None}]])
def test_scores_without_their_documents_are_damage(run_dir, documents):
    scored = json.loads((run_dir / "eval.json").read_text())
    scored["test"]["documents"] = documents
    (run_dir / "eval.json").write_text(json.dumps(scored))
    assert "eval.json lacks test.documents" in rundir.damage(run_dir)
