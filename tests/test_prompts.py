"""Prompts that end with a space or within a word: nothing to a model of bytes, another text's tokens to a
tokenizer."""

import json

import numpy as np
import pytest
from hf_blt import HF, run
from test_llama import llama_with_tokenizer

from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import encoding, likelihood, prompts, task, tasks

TEXT = "Every quick brown fox jumps over two lazy dogs, and äöü says the baker at the open door. " * 12
QUESTIONS = [
    {"context": f"Question: {q}\nAnswer:", "choices": [" the door", " the bread", " a"], "answer": i % 3}
    for i, q in enumerate(("What opens?", "What is baked there?", "Who?", "And then?"))
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama") / "m"
    return api.load(llama_with_tokenizer(folder, 400, entries=380, max_position_embeddings=512))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "cut_prompts" / "de").mkdir(parents=True)
    (folder / "cut_prompts" / "de" / "one.txt").write_text(TEXT)
    (folder / "cut_prompts" / "two.jsonl").write_text(json.dumps({"text": TEXT[9:200]}) + "\n")
    (folder / "piqa.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return folder


def score(model, name, data, **settings):
    settings = task.Settings(**settings)
    return tasks.TASKS[name].score(model, tasks.TASKS[name].items(data, settings), settings, None)


def test_bytes_lose_nothing_to_a_space(data):
    model = api.load(HF)
    result, lines = score(model, "piqa_trailing_space", data)
    clean, clean_lines = score(model, "piqa", data)
    for line, other in zip(lines, clean_lines, strict=True):
        assert line["clean_nats"] == other["nats"]
        of_space = np.subtract(other["nats"], line["nats"])  # predicted no more, alike for every choice
        np.testing.assert_allclose(of_space, of_space[0], atol=1e-4)
        assert of_space[0] < 0 and all(line[name] == other[name] for name in ("acc", "sizes", "patches"))
    assert result["metrics"]["acc_lost"] == {"value": 0.0, "stderr": 0.0}
    assert result["metrics"]["acc"] == clean["metrics"]["acc"] and result["chance"] == clean["chance"]


def test_tokens_read_the_space_that_was_sent(data, tokens):
    result, lines = score(tokens, "piqa_trailing_space", data)
    ids = encoding.Encoding(tokens)
    prompt = f"{QUESTIONS[0]['context']} "
    pair = ids.apart(prompt, "the door")
    assert pair == (ids.encode(prompt, bos=True), ids.encode("the door"))
    assert lines[0]["nats"][0] == pytest.approx(likelihood.loglikelihoods(tokens, [pair])[0].value, abs=1e-4)
    assert any(line["nats"] != line["clean_nats"] for line in lines)
    clean, clean_lines = score(tokens, "piqa", data)
    lost = [b["acc"] - a["acc"] for a, b in zip(lines, clean_lines)]
    assert result["metrics"]["acc_lost"]["value"] == pytest.approx(np.mean(lost))
    kept = clean["metrics"]["acc"]["value"] - result["metrics"]["acc_lost"]["value"]
    assert result["metrics"]["acc"]["value"] == pytest.approx(kept)


def test_choices_without_a_space_are_refused():
    item = {"id": "7", "context": "a", "choices": [" b", "c"], "answer": 0}
    with pytest.raises(UserError, match="piqa_trailing_space: item 7"):
        prompts.spaced("piqa_trailing_space", [item])


def test_a_cut_is_within_a_word_and_hangs_on_seed_and_text():
    found = [prompts.cut(TEXT[i:], seed) for i in range(20) for seed in range(5)]
    for i, (prompt, rest) in enumerate(found):
        text = TEXT[i // 5 :]
        assert text.startswith(prompt + rest) and prompt[-1].isalnum() and rest[0].isalnum()
        assert prompts.NEXT <= len(rest) <= 2 * prompts.NEXT and len(prompt) >= prompts.SHORTEST
        assert len(rest) == 2 * prompts.NEXT or not (rest[-1] + text[len(prompt + rest)]).isalnum()
    assert len({len(prompt) for prompt, _ in found}) > 20
    assert prompts.cut(TEXT, 3) == prompts.cut(TEXT, 3) != prompts.cut(TEXT, 4)
    assert prompts.cut("x" * 60) is None and prompts.cut(". " * 99) is None
    joined = "".join(prompts.pieces(TEXT)).replace(" ", "")
    assert joined == TEXT.replace(" ", "") and max(map(len, prompts.pieces("x" * 999))) == prompts.PIECE


def test_the_aligned_prompt_ends_with_a_token_of_the_text(tokens):
    ids, counts = encoding.Encoding(tokens), tokens.tokenizer.byte_counts
    split = 0
    for seed in range(30):
        prompt, rest = prompts.cut(TEXT, seed)
        head, tail = ids.aligned(prompt, rest)
        assert head + tail == ids.encode(prompt + rest, bos=True)
        size, first = int(counts[head[1:]].sum()), int(counts[tail[0]])
        assert size <= len(prompt.encode()) < size + first
        split += size < len(prompt.encode())
    assert split > 3
    coded = encoding.Encoding(api.load(HF))
    assert coded.aligned("äb c", "d e") == coded.apart("äb c", "d e") == coded.pair("äb c", "d e")


def test_bits_that_a_cut_adds(data, tokens):
    result, lines = score(api.load(HF), "cut_prompts", data)
    assert len(lines) == len({line["id"] for line in lines}) > 2 and result["main"] == "bits_added"
    assert {line["bits_added"] for line in lines} == {0.0} and result["metrics"]["bits"]["value"] > 1
    assert result["metrics"]["bits_added"] == {"value": 0.0, "stderr": 0.0}
    result, lines = score(tokens, "cut_prompts", data)
    asked = tasks.TASKS["cut_prompts"].items(data, task.Settings())
    ids = encoding.Encoding(tokens)
    for item, line in zip(asked, lines, strict=True):
        pairs = [way(item["prompt"], item["next"]) for way in (ids.apart, ids.aligned)]
        alone, other = (-one.value for one in likelihood.loglikelihoods(tokens, pairs))
        per = np.log(2) * len(item["next"])
        assert line["bits"] == pytest.approx(alone / per, abs=1e-4)
        assert line["bits_added"] == pytest.approx((alone - other) / per, abs=1e-4)
    assert any(line["bits_added"] for line in lines)
    assert len(score(tokens, "cut_prompts", data, limit=2)[1]) == 2


def test_from_the_command(data, tmp_path, capfd):
    names = "trailing_space,cut_prompts"
    code, said, error = run(capfd, "eval", HF, "--tasks", names, "--task-data", data)
    assert code == 2 and "bits_added" in said and "acc_lost" in said  # three tasks have no data here
    assert len(error.strip().splitlines()) == 3
    (tmp_path / "none").mkdir()
    code, _, error = run(capfd, "eval", HF, "--tasks", "cut_prompts", "--task-data", tmp_path / "none")
    assert code == 2 and "no texts to cut" in error and len(error.strip().splitlines()) == 1
    (tmp_path / "none" / "cut_prompts.txt").write_text("short")
    code, _, error = run(capfd, "eval", HF, "--tasks", "cut_prompts", "--task-data", tmp_path / "none")
    assert code == 2 and "have no word to cut" in error and len(error.strip().splitlines()) == 1
