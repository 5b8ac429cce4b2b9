"""`bltjax eval MODEL FILES`: nats of documents and groups, kept as they are known, on any model."""

import json
import math

import numpy as np
import pytest
from hf_blt import HF, run
from test_llama import llama_with_tokenizer

from bltjax import api
from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.evaluation import files, setup
from bltjax.patching import vocab


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    (folder / "a" / "one.txt").write_text("The first document is short.")
    (folder / "a" / "two.txt").write_text("Zwei Zeilen,\nund Umlaute: äöü.\n" * 9)
    (folder / "b" / "three.txt").write_bytes(b"no UTF-8: \xff\xfe\n")
    return folder


def test_table_json_and_lines(texts, tmp_path, capfd):
    out = tmp_path / "out"
    arguments = ("eval", HF, f"{texts}/**/*.txt", "--context", 64, "--out", out)
    code, said, error = run(capfd, *arguments)
    assert code == 0 and "bits/byte" in said and "one.txt" in said and "mean of 2 groups" in said
    code, said, error = run(capfd, *arguments, "--json")
    found = json.loads(said)
    lines = [json.loads(line) for line in (out / "documents.jsonl").read_text().splitlines()]
    assert code == 0 and len(lines) == len(found["documents"]) == 3  # the second call scored nothing anew
    sizes = [p.stat().st_size for p in sorted(texts.glob("**/*.txt"))]
    assert [d["bytes"] for d in found["documents"]] == sizes
    assert found["bpb"] == pytest.approx(
        sum(d["nats"] for d in lines) / math.log(2) / sum(d["bytes"] for d in lines)
    )
    assert found["patch_size"] >= 1 and found["flops_per_byte"] > 0 and found["entropy_flops_per_byte"] > 0
    assert [g["documents"] for g in found["groups"]] == [2, 1]


def test_a_short_document_is_scored_as_logits_say(texts):
    """One window: the nats of files are the log-likelihood of the text behind BOS."""
    model = api.load(HF)
    data = (texts / "a" / "one.txt").read_bytes()
    found = files.evaluate(model, [str(texts / "a" / "one.txt")], context=64)
    ids = vocab.encode_document(data)[None, :-1]
    scores = model.logits(ids).astype(np.float64)[0, :-1]
    log_p = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    nats = -log_p[np.arange(len(data)), ids[0, 1:]].sum()
    assert found["nats"] == pytest.approx(nats, rel=1e-5)


def test_goes_on_where_it_was(texts, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(files, "CHUNK", 1)
    out, scored = tmp_path / "out", []
    score = files._scored

    def dies(model, config, longest, chunk):
        if len(scored) == 1:
            raise KeyboardInterrupt
        scored.append(chunk)
        return score(model, config, longest, chunk)

    monkeypatch.setattr(files, "_scored", dies)
    arguments = ("eval", HF, f"{texts}/*/*.txt", "--context", 16, "--out", out, "--json")
    assert run(capfd, *arguments)[0] == 42
    with (out / "documents.jsonl").open("a") as file:
        file.write('{"file": "torn')  # a line that a kill cut
    kept = (out / "documents.jsonl").read_text().count("\n")
    scored[:] = [None, None]  # never again as many as one
    code, said, _ = run(capfd, *arguments)
    lines = (out / "documents.jsonl").read_text().splitlines()
    assert code == 0 and kept >= 1 and len(lines) == 3
    assert {json.loads(line)["file"] for line in lines} == {d["file"] for d in json.loads(said)["documents"]}
    code, _, error = run(capfd, *arguments, "--limit", 1)
    assert code == 2 and "another evaluation (limit)" in error
    with setup.held(out):
        code, _, error = run(capfd, *arguments)
    assert code == 2 and "being written by another process" in error


def test_tokens_separators_and_fields(tmp_path, capfd):
    folder = llama_with_tokenizer(tmp_path / "model", 288)
    (tmp_path / "t.txt").write_text("one document<|end|>and another<|end|>")
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": f"text {i}", "lang": "de" if i % 2 else "en"}) + "\n" for i in range(4))
    )
    code, said, _ = run(capfd, "eval", folder, tmp_path / "t.txt", "--separator", "<|end|>", "--json")
    found = json.loads(said)
    assert code == 0 and [d["index"] for d in found["documents"]] == [0, 1] and found["unit"] == "token"
    assert not found["entropy_flops_per_byte"] and found["patch_size"] >= 1
    code, said, _ = run(capfd, "eval", folder, tmp_path / "t.jsonl", "--group", "lang", "--json")
    assert code == 0 and {g["group"] for g in json.loads(said)["groups"]} == {"de", "en"}
    code, said, _ = run(capfd, "eval", folder, tmp_path / "t.jsonl", "--limit", 3, "--json")
    assert code == 0 and len(json.loads(said)["documents"]) == 3


def test_what_cannot_be_scored_is_one_line_and_the_rest_is(texts, tmp_path, capfd):
    (texts / "a" / "empty.txt").write_bytes(b"")
    (texts / "a" / "binary.txt").write_bytes(bytes(range(256)) * 4)
    code, said, error = run(capfd, "eval", HF, f"{texts}/a/*.txt", "--context", 64, "--json")
    found = json.loads(said)
    assert code == 2 and len(found["documents"]) == 2 and len(found["skipped"]) == 2
    assert len(error.strip().splitlines()) == 2 and "is empty" in error and "is binary" in error
    for arguments, says in (
        ((HF,), "nothing to score"),
        ((HF, texts / "none.txt"), "no file matches"),
        ((HF, texts / "a" / "empty.txt"), "no text to score"),
        ((tmp_path, texts / "a" / "one.txt"), "no"),
        ((HF, texts / "a" / "one.txt", "--context", 2), "context"),
        ((HF, texts / "a" / "one.txt", "--limit", -1), "--limit"),
    ):
        code, out, error = run(capfd, "eval", *arguments)
        assert code == 2 and says in error.splitlines()[-1] and not out and "Traceback" not in error


def test_what_failed_before_its_first_result_claims_no_folder(capfd, texts, tmp_path):
    out = ("--context", 64, "--out", tmp_path / "out")
    assert run(capfd, "eval", HF, texts / "a" / "empty.txt", *out)[0] == 2
    assert run(capfd, "eval", HF, texts / "a" / "one.txt", *out)[0] == 0
    code, _, error = run(capfd, "eval", HF, texts / "a" / "two.txt", *out)
    assert code == 2 and "another evaluation (what)" in error


def test_a_threshold_has_its_realized_cost(texts):
    model = api.load(HF)
    costs = {}
    for threshold in (0.0, 50.0):
        model.config = cfg.replace(model.config, **{"patching.threshold": threshold})
        found = files.evaluate(model, [str(texts / "a" / "two.txt")], context=64)
        costs[threshold] = found["patch_size"], found["flops_per_byte"]
    assert costs[0.0][0] < costs[50.0][0] and costs[0.0][1] > costs[50.0][1]


def test_nothing_is_kept_by_half(tmp_path):
    with pytest.raises(UserError, match="no text"):
        files.evaluate(api.load(HF), [str(_empty(tmp_path))], tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out" / "files.json").exists()


def _empty(folder):
    (folder / "e.txt").write_bytes(b"")
    return folder / "e.txt"
