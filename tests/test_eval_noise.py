"""Files scored with noise, and by the place of a byte in its patch."""

import json
import math

import pytest
from hf_blt import HF, run
from test_llama import llama_with_tokenizer

from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import files, noise


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.txt").write_text("A first text, which is of some length. " * 3)
    (folder / "two.txt").write_bytes("Noch ein Text: äöü ".encode() * 2 + b"\xff no UTF-8\n")
    return folder


def test_noised_bytes_are_those_that_the_noise_makes(texts, tmp_path, capfd):
    out, names = tmp_path / "out", ["drop", "upper_case"]
    arguments = ("eval", HF, texts / "*.txt", "--context", 64, "--out", out, "--noise", ",".join(names))
    code, said, _ = run(capfd, *arguments, "--seed", 3)
    assert code == 0 and "bits/clean byte" in said and "upper_case, " in said and "by place" in said
    lines = (out / "documents.jsonl").read_text().splitlines()
    code, said, _ = run(capfd, *arguments, "--seed", 3, "--json")
    found = json.loads(said)
    assert code == 0 and (out / "documents.jsonl").read_text().splitlines() == lines and len(lines) == 6
    assert [one["noise"] for one in found["noises"]] == names
    for one in found["noises"]:
        assert [g["documents"] for g in one["groups"]] == [1, 1]
        for document, clean in zip(one["documents"], found["documents"], strict=True):
            data = open(clean["file"], "rb").read()
            text = noise.noised(data.decode("utf-8", "surrogateescape"), one["noise"], 3)
            made = text.encode("utf-8", "surrogateescape")
            (tmp_path / "made.txt").write_bytes(made)
            assert document["bytes"] == len(made) and document["clean_bytes"] == clean["bytes"] == len(data)
            nats = files.evaluate(api.load(HF), [str(tmp_path / "made.txt")], context=64)["nats"]
            assert document["nats"] == pytest.approx(nats, rel=1e-5)
        bits = sum(d["nats"] for d in one["documents"]) / math.log(2)
        assert one["bits_per_clean_byte"] == pytest.approx(bits / found["bytes"])
        assert one["bpb"] == pytest.approx(bits / one["bytes"])
    code, _, error = run(capfd, *arguments, "--seed", 4)
    assert code == 2 and "another evaluation (what)" in error


def test_places_add_up(texts, tmp_path):
    model = api.load(HF)
    found = files.evaluate(model, [str(texts / "*.txt")], tmp_path / "out", context=64, group="file")
    for one in (found, *found["groups"]):
        assert sum(place["bytes"] for place in one["patch_places"]) == one["bytes"]
        assert sum(place["nats"] for place in one["patch_places"]) == pytest.approx(one["nats"])
    kept = json.loads((tmp_path / "out" / "files.json").read_text())
    assert kept["patch_places"] == found["patch_places"]
    again = files.evaluate(model, [str(texts / "*.txt")], tmp_path / "out", context=64, group="file")
    assert again == found  # from the lines that were kept


def test_tokens_read_the_same_bytes_and_have_no_places(texts, tmp_path):
    tokens = api.load(llama_with_tokenizer(tmp_path / "m", 288))
    found = files.evaluate(tokens, [str(texts / "*.txt")], noises=["repeat"], context=64)
    assert found["patch_places"] is None and found["noises"][0]["patch_places"] is None
    other = files.evaluate(api.load(HF), [str(texts / "*.txt")], noises=["repeat"], context=64)
    digests = [[d["digest"] for d in one["noises"][0]["documents"]] for one in (found, other)]
    assert digests[0] == digests[1]


def test_names_of_noises(texts, capfd):
    assert noise.named("all") == list(noise.NOISES) and noise.named("") == []
    assert noise.named("drop,drop,repeat") == ["drop", "repeat"]
    with pytest.raises(UserError, match="unknown noise 'clean'"):
        noise.named("clean")
    one = texts / "one.txt"
    for arguments, says in (
        ((one, "--noise", "loud"), "unknown noise 'loud'"),
        ((one, "--seed", 3), "--seed is of noise"),
        (("--tasks", "piqa", "--task-data", texts, "--noise", "drop"), "--noise is of files"),
    ):
        code, said, error = run(capfd, "eval", HF, *arguments)
        assert code == 2 and not said and says in error and len(error.splitlines()) == 1
