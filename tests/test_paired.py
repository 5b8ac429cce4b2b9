"""Two models on the same items: intervals that cover, and what is refused."""

import json

import numpy as np
import pytest
from hf_blt import run
from scipy import stats

from bltjax.errors import UserError
from bltjax.evaluation import files, tasks
from bltjax.inspection import against
from bltjax.science import paired

COST = {"patch_size": 4.0, "flops_per_byte": 100.0, "entropy_flops_per_byte": 10.0}


@pytest.mark.parametrize("items", [12, 30])
def test_intervals_of_right_and_wrong_cover(items):
    """Exactly, over all that may come out: whatever two models have alone right."""
    counts = [(a, b) for a in range(items + 1) for b in range(items + 1 - a)]
    answers = [([1] * a + [0] * (items - a), [0] * a + [1] * b + [0] * (items - a - b)) for a, b in counts]
    found = [paired.right_or_wrong(*pair) for pair in answers]
    for alone in ((0.2, 0.1), (0.3, 0.2), (0.06, 0.02), (0.1, 0.1), (0.25, 0.05), (0.0, 0.0)):
        come = [(a, b, items - a - b) for a, b in counts]
        chances = stats.multinomial.pmf(come, items, [*alone, 1 - sum(alone)])
        held = [one["low"] <= alone[0] - alone[1] <= one["high"] for one in found]
        assert chances.sum() == pytest.approx(1) and 0.94 < chances @ held


def test_items_are_the_units_of_their_versions():
    rng, held, naive, trials = np.random.default_rng(1), 0, 0, 1000
    for _ in range(trials):
        own = rng.normal(size=(50, 1))  # how much better one model is at an item, whatever the noise
        values = 0.3 + own + 0.5 * rng.normal(size=(50, 15))
        one = paired.difference([(1.0, values.mean(axis=1))])
        held += one["low"] <= 0.3 <= one["high"]
        one = paired.difference([(1.0, values.ravel())])
        naive += one["low"] <= 0.3 <= one["high"]
    assert 0.93 < held / trials < 0.97 and naive / trials < 0.6


def test_tasks_of_their_own_items_add_their_variances():
    rng, held, trials = np.random.default_rng(2), 0, 1000
    for _ in range(trials):
        strata = [(0.25, rng.normal(0.1, scale, size)) for scale, size in ((1, 9), (2, 30), (1, 50), (3, 20))]
        one = paired.difference(strata)
        held += one["low"] <= 0.1 <= one["high"]
    assert 0.93 < held / trials < 0.98
    assert paired.difference([(1.0, [0.5])]) == {"difference": 0.5, "low": None, "high": None}


def test_documents_are_the_units_of_bits_per_byte():
    rng, held, trials = np.random.default_rng(3), 0, 200
    for _ in range(trials):
        sizes = rng.lognormal(6, 0.7, 60).astype(int) + 1
        hard = rng.normal(2, 0.5, 60)
        a, b = ((hard + level + 0.1 * rng.normal(size=60)) * sizes * np.log(2) for level in (0.1, 0.0))
        one = paired.of_documents(a, b, sizes)
        held += one["low"] <= 0.1 <= one["high"]
        assert one["high"] - one["low"] < 0.2  # what is hard for both cancels
    assert 0.9 < held / trials < 0.99
    assert paired.of_documents([1.0, 1], [2.0, 2], [1000, 1])["low"] is None


def test_mcnemar_is_exact():
    a, b = [1] * 9 + [0] * 2 + [1] * 5, [0] * 9 + [1] * 2 + [1] * 5
    one = paired.of_items(a, b)
    assert (one["only_a"], one["only_b"]) == (9, 2) and one["difference"] == pytest.approx(7 / 16)
    assert one["p"] == pytest.approx(2 * sum(stats.binom.pmf(k, 11, 0.5) for k in range(3)))
    none = paired.of_items([1, 0, 1], [1, 0, 1])
    assert none["p"] == 1 and none["low"] < 0 < none["high"]
    assert "p" not in paired.of_items([0.5, 0], [0, 1])


def keep(folder, name, values, metric="acc", digests=None, **setup):
    """A task's results as `bltjax eval` keeps them."""
    folder.mkdir(parents=True, exist_ok=True)
    what = {"data": str(folder), "seed": 0, "cute_template": "", **setup}
    (folder / "setup.json").write_text(json.dumps({"what": what, "context": 0, "separator": ""}))
    lines = [{"id": str(i), metric: v, "digest": f"{i}"} for i, v in enumerate(values)]
    lines = [{**line, "digest": d} for line, d in zip(lines, digests or [line["digest"] for line in lines])]
    (folder / f"{name}.items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = {"schema_version": tasks.SCHEMA_VERSION, "task": name, "items": len(lines), "main": metric}
    (folder / f"{name}.json").write_text(
        json.dumps({**result, "metrics": {metric: {"value": float(np.mean(values))}}, **COST})
    )


def documents(folder, nats, digests, noises=()):
    lines = [
        {"digest": d, "bytes": 100, "nats": n, "group": "ab"[i % 2]}
        for i, (n, d) in enumerate(zip(nats, digests))
    ]
    groups = {"groups": [{"group": name, **COST, "flops_per_byte": 7.0} for name in "ab"]}
    made = lambda noise: [
        {**line, "digest": noise + line["digest"], "bytes": 90, "nats": 1.5 * line["nats"]} for line in lines
    ]
    with_noise = [{"noise": noise, "documents": made(noise), **groups, **COST} for noise in noises]
    result = {"documents": lines, "noises": with_noise, **groups, **COST}
    result["schema_version"] = files.SCHEMA_VERSION
    (folder / "files.json").write_text(json.dumps(result))


def test_what_was_kept_of_two_models(tmp_path, capfd):
    rng, a, b = np.random.default_rng(4), tmp_path / "a" / "eval" / "tasks-1", tmp_path / "b"
    values = {}
    for name in tasks.expand(["piqa_noised"]):
        values[name] = rng.integers(0, 2, (2, 30))
        for folder, right in zip((a, b), values[name].tolist()):
            keep(folder, name, right, "acc_norm")
    for folder, scale in ((a, 1.0), (b, 1.1)):
        noises = ("drop", "repeat") if folder == a else ("drop",)
        documents(folder, [scale * n for n in (80.0, 90, 70, 85)], "wxyz", noises)
    keep(tmp_path / "a" / "eval" / "tasks-0", "piqa", [1, 0], "acc_norm")  # of another limit
    code, said, error = run(capfd, "eval", tmp_path / "a", "--against", b, "--json")
    found = json.loads(said)
    assert code == 0 and not error and len(found["tasks"]) == 16
    one = next(t for t in found["tasks"] if t["task"] == "piqa")["metrics"]["acc_norm"]
    x, y = values["piqa"]
    assert one["difference"] == pytest.approx((x - y).mean()) and one["only_a"] == ((x == 1) & (y == 0)).sum()
    [group] = found["groups"]
    noised = np.mean([v[0] - v[1] for name, v in values.items() if name != "piqa"], axis=0)
    assert group["difference"] == pytest.approx(noised.mean()) and group["low"] < group["difference"]
    half = stats.t.ppf(0.975, 29) * noised.std(ddof=1) / np.sqrt(30)
    assert group["high"] - group["difference"] == pytest.approx(half)
    assert group["drop"]["difference"] == pytest.approx((x - y - noised).mean())
    shown = [(one["noise"], one["group"], one["documents"]) for one in found["files"]]
    assert shown == [(noise, group, 2 if group else 4) for noise in ("", "drop") for group in ("", "a", "b")]
    assert [one["flops"] for one in found["files"][:2]] == [[110.0, 110.0], [17.0, 17.0]]
    drop = found["files"][3]
    assert drop["difference"] == pytest.approx(-0.15 * 325 / 360 / np.log(2))
    assert drop["added"]["difference"] == pytest.approx(-0.05 * 325 / 400 / np.log(2))
    assert drop["added"]["low"] < drop["added"]["difference"] < drop["added"]["high"]
    assert found["files"][0]["difference"] == pytest.approx(-0.1 * 325 / 400 / np.log(2))
    code, said, _ = run(capfd, "eval", tmp_path / "a", "--against", b)
    assert code == 0 and "piqa acc_norm" in said and "below clean" in said and "bits/byte a" in said


def test_groups_of_tasks_of_their_own(tmp_path):
    names = tasks.expand(["cute"])
    for name in names:
        for folder, values in ((tmp_path / "a", [1, 0, 1, 1]), (tmp_path / "b", [0, 0, 1, 0])):
            keep(folder, name, values)
    [group] = against.compare(tmp_path / "a", tmp_path / "b")["groups"]
    assert group["tasks"] == len(names) and group["drop"] is None
    assert group["difference"] == pytest.approx(0.5)
    own = np.var([1, 0, 0, 1], ddof=1) / 4 / len(names)
    half = stats.t.ppf(0.975, 3 * len(names)) * np.sqrt(own)
    assert group["high"] - 0.5 == pytest.approx(half)


def test_other_items_are_refused_in_a_line(tmp_path, capfd):
    a, b = tmp_path / "a", tmp_path / "b"
    with pytest.raises(UserError, match="has no results"):
        against.compare(a, b)
    for name, theirs, more in (
        ("piqa", [1, 0, 1], {}),
        ("arc_easy", [1, 0], {"digests": ["0", "9"]}),
        ("hellaswag", [1, 0], {}),
    ):
        keep(a, name, [1, 0])
        keep(b, name, theirs, **more)
    code, said, error = run(capfd, "eval", a, "--against", b)
    lines = error.strip().splitlines()
    assert code == 2 and "hellaswag" in said and "piqa" not in said and len(lines) == 2
    assert "2 and 3 items" in error and "1 of 2 items differ" in error
    keep(b, "hellaswag", [1, 0], seed=1)
    code, said, error = run(capfd, "eval", a, "--against", b)
    assert code == 2 and not said and "nothing can be compared" in error and len(error.splitlines()) == 1
    keep(tmp_path / "c", "cute_spell", [1, 0])
    code, _, error = run(capfd, "eval", a, "--against", tmp_path / "c")
    assert code == 2 and "on no task that is the same" in error
    code, _, error = run(capfd, "eval", a, "--against", b, "--limit", 3)
    assert code == 2 and "--limit has no effect on --against" in error
