"""FLORES: pairs of languages of a folder, and scores that equal sacrebleu's own."""

import json
import pathlib

import pytest
from hf_blt import HF, run

from bltjax.errors import UserError
from bltjax.evaluation import references, tasks, translation
from bltjax.evaluation.task import Settings

metrics = pytest.importorskip("sacrebleu.metrics")

SPM = pathlib.Path(__file__).parent / "golden" / "sentencepiece.model"
ENGLISH = [f"Sentence number {i} is here." for i in range(6)]
GERMAN = [f"Satz Nummer {i} ist da." for i in range(6)]


def write(folder, split, language, lines):
    path = folder / split / f"{language}.{split}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for split in ("dev", "devtest"):
        write(folder, split, "eng", [f"{split} {line}" for line in ENGLISH])
        write(folder, split, "deu", GERMAN)
    return folder


@pytest.fixture
def answers(monkeypatch):
    """Models answer what is in this list, and then another question."""
    told = []
    made = lambda model, prompts, *args, **more: [f" {t}\n\nEnglish: x" for t in told[: len(prompts)]]
    monkeypatch.setattr(references.answers, "generate", made)
    return told


def test_prompts_have_four_shots_of_dev(data):
    items = translation.TASKS["flores_deu-eng"].items(data, Settings())
    assert len(items) == 6 and items[1]["reference"] == "devtest Sentence number 1 is here."
    shot = lambda i: f"German: Satz Nummer {i} ist da.\nEnglish: dev Sentence number {i} is here.\n\n"
    assert items[5]["context"] == "".join(map(shot, range(4))) + "German: Satz Nummer 5 ist da.\nEnglish:"
    items = translation.TASKS["flores_eng-deu"].items(data, Settings(limit=2))
    assert [item["reference"] for item in items] == GERMAN[:2]


def test_both_releases_are_read(data, tmp_path):
    other = tmp_path / "other" / "flores200_dataset"
    for split in ("dev", "devtest"):
        write(other, split, "eng_Latn", [f"{split} {line}" for line in ENGLISH])
        write(other, split, "deu_Latn", GERMAN)
    task = translation.TASKS["flores_eng-deu"]
    assert task.items(tmp_path / "other", Settings()) == task.items(data, Settings())
    assert len(translation.PAPER) == 27 and len(tasks.expand(["flores"])) == 54
    assert tasks.expand(["flores_from_eng"])[0] == "flores_eng-ara"
    assert len(tasks.expand(["flores_from_eng", "flores_to_eng", "flores_fra-eng"])) == 55


def test_scores_are_sacrebleus(data, tmp_path, capfd, answers):
    answers += [GERMAN[0], "Satz Nummer 1 war dort.", "", "ganz anders", GERMAN[4], "Nummer 5 Satz ist da."]
    out = tmp_path / "out"
    arguments = ("eval", HF, "--tasks", "flores_eng-deu", "--task-data", data, "--out", out, "--spm", SPM)
    code, said, error = run(capfd, *arguments, "--json")
    assert code == 0, error
    (result,) = json.loads(said)["tasks"]
    found = result["metrics"]
    assert list(found) == ["spbleu", "chrf++", "bleu", "nats_per_byte"] and result["main"] == "spbleu"
    measures = {"bleu": metrics.BLEU(), "chrf++": metrics.CHRF(word_order=2)}
    for name, measure in measures.items():
        assert found[name]["value"] == pytest.approx(measure.corpus_score(answers, [GERMAN]).score)
        assert found[name]["stderr"] > 1
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(SPM))
    cut = lambda texts: [" ".join(pieces.encode(text, out_type=str)) for text in texts]
    expected = metrics.BLEU(tokenize="none", force=True).corpus_score(cut(answers), [cut(GERMAN)]).score
    assert found["spbleu"]["value"] == pytest.approx(expected) and expected != found["bleu"]["value"]
    lines = [json.loads(line) for line in (out / "flores_eng-deu.items.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == answers and lines[0]["chrf++"] == pytest.approx(100)
    assert lines[2]["chrf++"] == 0 and all(line["nats_per_byte"] > 0 for line in lines)
    total = sum(line["nats"] for line in lines) / sum(len(line.encode()) for line in GERMAN)
    assert found["nats_per_byte"]["value"] == pytest.approx(total) and result["cut"] == 0
    answers[0] = "not asked again"
    assert json.loads(run(capfd, *arguments, "--json")[1])["tasks"] == [result]
    code, _, error = run(capfd, *arguments[:-2])
    assert code == 2 and "another evaluation" in error


def test_without_a_sentencepiece_model(data, capfd, answers):
    answers += GERMAN
    arguments = ("eval", HF, "--task-data", data, "--json", "--limit", 1)
    code, said, error = run(capfd, *arguments, "--tasks", "flores_eng-deu,flores_eng-zul")
    (result,) = json.loads(said)["tasks"]
    assert code == 2 and "no dev/zul.dev or dev/zul_Latn.dev" in error
    assert len(error.strip().splitlines()) == 1
    assert result["main"] == "chrf++" and result["metrics"]["chrf++"] == {"value": 100.0, "stderr": None}


def test_what_cannot_be(data, tmp_path, capfd, monkeypatch):
    task, junk = translation.TASKS["flores_eng-deu"], tmp_path / "junk"
    junk.write_text("no model")
    for spm, says in ((junk, "is no SentencePiece model"), (tmp_path / "none", "No such file")):
        with pytest.raises(UserError, match=says):
            translation.measures(spm)
        arguments = ("eval", HF, "--tasks", "flores_eng-deu", "--task-data", data, "--spm", spm)
        code, _, error = run(capfd, *arguments)
        assert code == 2 and says in error and len(error.strip().splitlines()) == 1
    code, _, error = run(capfd, "eval", HF, "--tasks", "piqa", "--task-data", data, "--spm", SPM)
    assert code == 2 and "--spm is of flores" in error
    code, _, error = run(capfd, "eval", HF, junk, "--spm", SPM)
    assert code == 2 and "--spm is of tasks" in error
    for split, lines, says in (
        ("devtest", GERMAN[:5], "eng has 6 lines and deu 5"),
        ("devtest", [*GERMAN[:2], "", *GERMAN[3:]], "line 3 is empty"),
        ("devtest", [], "line 1 is empty"),
        ("dev", [], "line 1 is empty"),
    ):
        write(data, split, "deu", lines)
        with pytest.raises(UserError, match=says):
            task.items(data, Settings())
    for split in ("dev", "devtest"):
        write(data, split, "deu", GERMAN[:3])
        write(data, split, "eng", ENGLISH[:3])
    with pytest.raises(UserError, match="has 3 lines; 4 are shots"):
        task.items(data, Settings())
    (data / "dev" / "deu.dev").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="cannot read"):
        task.items(data, Settings())
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    with pytest.raises(UserError, match="bltjax.eval"):
        task.items(data, Settings())
