"""Noise on text: the same characters for everybody, the shares that the paper names."""

import pytest

from bltjax.errors import UserError
from bltjax.evaluation import noise

TEXT = "The quick brown fox jumps over 13 lazy dogs. " * 60


def test_five_noises():
    core = TEXT.strip()
    made = {name: noise.noised(TEXT, name, seed=1) for name in noise.NOISES}
    assert made["upper_case"] == TEXT.upper() and made["antspeak"].strip() == " ".join(core.upper())
    assert made["random_case"].lower() == TEXT.lower() and made["random_case"] != TEXT
    upper = sum(c.isupper() for c in made["random_case"]) / sum(c.isalpha() for c in TEXT)
    assert 0.45 < upper < 0.55
    assert 0.87 < len(made["drop"].strip()) / len(core) < 0.93
    # a fifth of the characters, two to four times: 20% · 2 more
    assert 1.33 < len(made["repeat"].strip()) / len(core) < 1.47
    assert all(text.endswith(" ") for text in made.values())


def test_decided_by_seed_item_and_part_alone():
    assert noise.noised(TEXT, "drop", 3, "a") == noise.noised(TEXT, "drop", 3, "a")
    assert noise.noised(TEXT, "drop", 3, "a") != noise.noised(TEXT, "drop", 4, "a")
    assert noise.noised(TEXT, "drop", 3, "a") != noise.noised(TEXT, "drop", 3, "b")
    # bytes that were once made stay: a change of them changes what was measured
    assert noise.noised("a text with noise", "drop", 0, "x") == "a textwith noise"
    assert noise.noised("a text", "repeat", 0, "x") == noise.noised("a text", "repeat", 0, "x")


def test_items():
    item = {"id": "7", "context": "One two", "choices": [" three", " four"], "answer": 1}
    assert len(noise.variants()) == 15 == len(set(noise.variants()))
    for name, place in noise.variants():
        made = noise.noised_item(item, name, place)
        assert (made["context"] == item["context"]) == (place == "completion") or name in ("drop", "repeat")
        assert all(choice.startswith(" ") for choice in made["choices"]) and made["answer"] == 1
    assert noise.noised("a", "drop") == "a" and noise.noised("  ", "drop") == "  "
    for bad in (("loud", "both"), ("drop", "nowhere")):
        with pytest.raises(UserError, match="allowed"):
            noise.noised_item(item, *bad)
