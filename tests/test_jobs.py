"""Jobs and their graph: everything that a run reads is made once, by a job of its own, and found again by all
that it is made of."""

import json
import multiprocessing
import pathlib
import time
import types

import pytest

from bltjax import config as cfg
from bltjax.data import corpus
from bltjax.errors import UserError
from bltjax.experiments import registry
from bltjax.run import execute, inputs, jobs
from bltjax.storage import locks, rundir
from bltjax.sweep import graph, status, status_table

TINY = pathlib.Path(__file__).parent / "tiny_experiment.py"


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(40):
        words = (f"{word}{i * k % 17}" for k, word in enumerate(("alpha", "beta", "gamma", "delta") * 12))
        (folder / f"{i}.txt").write_text(" ".join(words))
    return folder


def runs(texts, *more):
    return registry.load(str(TINY), [f'data.globs=["{texts}/*.txt"]', *more]).runs


def made(root, texts, *more):
    return graph.of_runs(root, "x", runs(texts, *more))


def test_an_order_in_which_they_can_be_made(tmp_path, texts):
    found = made(tmp_path, texts)
    assert [job.kind for job in found] == ["prepare", "tokenizer", "run", "run", "annotate", "run", "run"]
    before = set()
    for job in found:
        assert set(job.needs) <= before
        before.add(job.directory)
    own = {job.name: job for job in found if job.experiment}
    assert set(own) == {"bpe", "entropy", "space"} and all(job.flops > 0 for job in own.values())
    assert made(tmp_path, texts) == found  # asked again, the same


def test_what_runs_share_is_made_once(tmp_path, texts):
    found = made(tmp_path, texts)
    again = graph.of_runs(tmp_path, "y", [cfg.replace(run, seed=5) for run in runs(texts)])
    shared = lambda some: {job.directory for job in some if not job.experiment}
    assert shared(again) == shared(found)


@pytest.mark.parametrize(
    "change, kinds",
    [
        ("data.test=0.3", {"prepare", "tokenizer", "annotate", "run"}),
        ("tokenizer.vocab=310", {"tokenizer"}),
        ("entropy_model.train.lr=0.1", {"annotate", "run"}),
        ("train.lr=0.5", set()),
        ("eval.test_bytes=300", {"annotate"}),
    ],
)
def test_names_say_all_that_a_job_is_made_of(tmp_path, texts, change, kinds):
    def named(root, configs):
        found = graph.of_runs(root, "x", configs)
        return {(job.kind, job.directory.name) for job in found if not job.experiment}

    every = runs(texts, change) if change.startswith(("data.", "eval.", "train.")) else runs(texts)
    if change.startswith("entropy_model."):
        every = [cfg.parse_set(run, [change]) if len(run.entropy_model) else run for run in every]
    if change.startswith("tokenizer."):
        every = [cfg.parse_set(run, [change]) if run.tokenizer.vocab else run for run in every]
    before, after = named(tmp_path / "a", runs(texts)), named(tmp_path / "b", every)
    assert {kind for kind, _ in after - before} == kinds


@pytest.mark.parametrize("kind", sorted(jobs.VERSIONS))
def test_a_mended_job_never_finds_what_the_old_one_made(tmp_path, texts, kind, monkeypatch):
    before = {job.directory for job in made(tmp_path, texts) if job.kind == kind and not job.experiment}
    monkeypatch.setitem(jobs.VERSIONS, kind, 99)
    after = {
        job.directory for job in made(tmp_path / "again", texts) if job.kind == kind and not job.experiment
    }
    assert before and not {path.name for path in before} & {path.name for path in after}


def test_prepared_text_is_found_again_mended_and_kept(tmp_path, texts):
    (job,) = [job for job in made(tmp_path, texts) if job.kind == "prepare"]
    jobs.do(job.directory)
    assert jobs.state(job.directory, "prepare") == "done"
    shard = corpus.shards(job.directory)[0].path
    whole = shard.read_bytes()
    shard.unlink()
    assert jobs.state(job.directory, "prepare") == "started"
    jobs.do(job.directory)
    assert shard.read_bytes() == whole and jobs.state(job.directory, "prepare") == "done"
    for path in texts.glob("*.txt"):
        path.rename(path.with_suffix(".gone"))
    assert made(tmp_path, texts)[0].directory == job.directory  # what is done stays good without its source


def test_other_text_is_another_data_set(tmp_path, texts):
    first = made(tmp_path, texts)
    run_dir = tmp_path / "x" / "space"
    (texts / "new.txt").write_text("some more words " * 9)
    second = made(tmp_path, texts)  # nothing had begun
    assert first[0].directory != second[0].directory
    assert inputs.folders(run_dir) == {str(second[0].directory.resolve()): 1.0}
    (run_dir / "metrics.jsonl").write_text("")
    (texts / "newer.txt").write_text("and more words again " * 9)
    with pytest.raises(UserError, match="begun on other inputs"):
        made(tmp_path, texts)


def test_reading_an_entropy_model_never_trains_it(tmp_path, texts):
    found = made(tmp_path, texts)
    run_dir = tmp_path / "x" / "entropy"
    jobs.do(found[0].directory)
    with pytest.raises(UserError, match="not there yet") as error:
        execute.ready(run_dir)
    assert "\n" not in str(error.value)
    (model,) = [job.directory for job in found if job.directory.name.startswith("entropy-model-")]
    assert rundir.state(model) == "new"
    annotation = next(job.directory for job in found if job.kind == "annotate")
    with pytest.raises(UserError, match="not trained yet"):
        jobs.do(annotation)


def test_another_entropy_model_in_the_same_place_is_another_annotation(tmp_path, texts, monkeypatch):
    (entropy,) = [run for run in runs(texts) if run.name == "entropy"]
    changes = {"train.init_from": str(tmp_path / "model"), "train.steps": 0, "budget_flops": 0.0}
    config = cfg.replace(entropy, entropy_model=cfg.replace(entropy.entropy_model, **changes))

    def annotation(weights):
        facts = types.SimpleNamespace(facts={"fingerprint": weights})
        monkeypatch.setattr(inputs, "entropy_model", lambda config, folder: facts)
        found = graph.of_runs(tmp_path / weights, "x", [config])
        return [job.directory.name for job in found if job.kind == "annotate"]

    assert annotation("one") == annotation("one") != annotation("other")


@pytest.mark.parametrize("said", [{"data": 3}, {"data": {"a": "b"}}, {"data": {}, "annotation": []}, [], 3])
def test_damaged_inputs_are_written_anew(tmp_path, texts, said):
    made(tmp_path, texts)
    run_dir = tmp_path / "x" / "space"
    whole = (run_dir / inputs.NAME).read_text()
    rundir.write_json(run_dir / inputs.NAME, said)
    with pytest.raises(UserError, match="no whole inputs.json"):
        inputs.folders(run_dir)
    assert status.of_shared(tmp_path, "x", ["space"]) == []
    made(tmp_path, texts)
    assert (run_dir / inputs.NAME).read_text() == whole


def test_status_says_which_shared_job_is_damaged(tmp_path, texts):
    found = made(tmp_path, texts)
    (data,) = [job.directory for job in found if job.kind == "prepare"]
    jobs.do(data)
    state = lambda: {job["name"]: job for job in status.of_shared(tmp_path, "x", ["space"])}[data.name]
    assert state()["state"] == "done"
    corpus.shards(data)[0].path.unlink()
    assert state()["state"] == "waiting"
    (data / "config.json").write_text("{")
    assert state()["state"] == "damaged" and "config.json" in state()["why"]


def test_a_run_without_inputs_says_so(tmp_path, texts):
    rundir.create(tmp_path / "x" / "space", runs(texts)[2], "x")
    with pytest.raises(UserError, match="inputs.json") as error:
        execute.ready(tmp_path / "x" / "space")
    assert "\n" not in str(error.value)


def test_status_names_what_runs_wait_for(tmp_path, texts):
    found = made(tmp_path, texts)
    names = ["bpe", "entropy", "space"]
    shared = status.of_shared(tmp_path, "x", names)
    assert {job["name"] for job in shared} == {job.directory.name for job in found if not job.experiment}
    assert {job["state"] for job in shared} == {"waiting"}
    jobs.do(found[0].directory)
    rundir.write_json(found[1].directory / "failed.json", {"error": "no space"})
    by_kind = {job["kind"]: job for job in status.of_shared(tmp_path, "x", names)}
    assert by_kind["prepare"]["state"] == "done" and by_kind["tokenizer"]["why"] == "no space"
    waiting = {row["name"]: row["why"] for row in status.of_experiment(tmp_path, "x", names)}
    assert waiting["bpe"] == f"{found[1].directory.name} failed: no space" and not waiting["space"]
    table = status_table.text({"runs": status.of_experiment(tmp_path, "x", names), "jobs": shared})
    assert "shared by these runs" in table and found[0].directory.name in table


def hold(path, ready, done):
    with locks.held(path):
        ready.set()
        done.wait(60)


def test_a_lock_is_read_without_being_taken(tmp_path):
    path = tmp_path / ".lock"
    assert not locks.is_held(path)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, ready, done))
    process.start()
    assert ready.wait(60)
    path.chmod(0o444)  # a colleague's: it can be read and no more
    assert locks.is_held(path)
    with pytest.raises(locks.Busy), locks.held(path, wait=False):
        pass
    process.kill()
    process.join()
    assert not locks.is_held(path)
    with locks.held(path, wait=False):
        began = time.monotonic()
        assert locks.is_held(path) and time.monotonic() - began < 1


def test_a_job_s_config_says_what_it_makes(tmp_path, texts):
    for job in made(tmp_path, texts):
        record = json.loads((job.directory / "config.json").read_text())
        assert record.get("kind", "run") == job.kind == jobs.kind_of(job.directory)
    with pytest.raises(UserError, match="is no job"):
        jobs.kind_of(tmp_path / "none")
