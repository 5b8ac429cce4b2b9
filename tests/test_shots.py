"""Whole shots go where a prompt does not fit, the first ones first, and it is said how many."""

from types import SimpleNamespace

import pytest

from bltjax.cli import score_tables
from bltjax.evaluation import cute_wording, encoding, likelihood, mmlu, multiple_choice, shots

SHOTS = ["one.", "second.", "third!!"]
ITEM = {
    "id": "0",
    **shots.joined("Say. ", SHOTS, "What?"),
    "choices": [" a", " longer"],
    "answer": 0,
}


def pairs_of(item):
    return [([1, *item["context"].encode()], list(choice.encode())) for choice in item["choices"]]


@pytest.mark.parametrize("dropped", range(4))
def test_as_many_shots_as_fit(dropped):
    context = "Say. " + "".join(SHOTS[dropped:]) + "What?"
    # BOS, the prompt and the longest choice, of which the last byte is not read
    for length in (len(context) + len(" longer"), len(context) + len(" longer") + 1):
        left, pairs, number = shots.fitted(ITEM, pairs_of, length)
        assert (left["context"], number) == (context, dropped) and pairs == pairs_of(left)


def test_a_question_that_does_not_fit_has_no_shots_left_and_items_without_shots_stay_as_they_are():
    left, pairs, dropped = shots.fitted(ITEM, pairs_of, 5)
    assert left["context"] == "Say. What?" and dropped == 3
    plain = {key: value for key, value in ITEM.items() if key != "shots"}
    left, _, dropped = shots.fitted(plain, pairs_of, 5)
    assert left["context"] == plain["context"] and dropped == 0


def test_prompts_say_where_their_shots_are():
    row = {"question": "Where?", "choices": ["a", "b", "c", "d"], "answer": 1}
    dev = [{**row, "question": f"Which {i}?"} for i in range(5)]
    (item,) = mmlu.items("virology", [row], dev)
    begin, *ends = item["shots"]
    assert len(ends) == mmlu.SHOTS and item["context"][:begin].startswith("The following are")
    texts = [item["context"][at:] for at in item["shots"]]
    assert all(text.startswith(f"Which {i}?") for i, text in enumerate(texts[:-1]))
    assert texts[-1].startswith("Where?")
    own = shots.joined("", *cute_wording.parts("spell", ["word"]))
    assert own["context"] == cute_wording.prompt("spell", ["word"])
    texts = [own["context"][a:b] for a, b in zip(own["shots"], own["shots"][1:])]
    assert len(texts) == 4 and all(text.startswith("Question: ") and text.endswith("\n\n") for text in texts)


def test_scores_are_of_what_is_left_and_count_it(monkeypatch):
    seen = []

    def loglikelihoods(model, pairs, *_):
        seen.extend(pairs)
        return [likelihood.Likelihood(-1.0, False, 0, len(a) + len(b) - 1, 3) for a, b in pairs]

    pair = lambda context, choice: pairs_of({"context": context, "choices": [choice]})[0]
    monkeypatch.setattr(encoding, "Encoding", lambda model: SimpleNamespace(pair=pair, apart=pair))
    monkeypatch.setattr(likelihood, "loglikelihoods", loglikelihoods)
    short = {**ITEM, "id": "1", **shots.joined("", ["x"], "?")}
    lines = multiple_choice.score(None, [ITEM, short], max_length=25)
    assert [line["shots_dropped"] for line in lines] == [2, 0] and not any(line["cut"] for line in lines)
    assert bytes(seen[0][0][1:]) == bytes(seen[1][0][1:]) == b"Say. third!!What?"
    assert lines[0]["sizes"] == [len(b"Say. third!!What?") + n for n in (2, 7)]
    monkeypatch.setattr(multiple_choice.costs, "of_rows", lambda *_, **__: {})
    assert multiple_choice.cost(None, lines) == {"cut": 0, "shots_dropped": 2}


def test_the_table_says_how_many():
    cost = {"patch_size": 2.0, "unit": "patch", "flops_per_byte": 1.0, "entropy_flops_per_byte": 0.0}
    result = {"task": "t", "items": 2, "metrics": {}, "cut": 7, "shots_dropped": 5, **cost}
    head, line = score_tables.of_tasks({"tasks": [result], "groups": []}).split("\n")
    assert head.endswith("cut  shots dropped") and line.split()[-2:] == ["7", "5"]
