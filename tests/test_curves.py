"""What `data calibrate` says of annotated data: each split's patch size, how sure that is, and what is
counted where not all is."""

import numpy as np
import pytest

from bltjax.entropy import curves, histogram
from bltjax.errors import UserError

LENGTHS = np.random.default_rng(0).integers(20, 4000, 500)
ENTROPIES = [
    np.random.default_rng(n).gamma(2, 0.5 + 0.1 * (n % 7), n + 2).astype(np.float32) for n in LENGTHS
]


@pytest.mark.parametrize("limit", [1, 5_000, 100_000, 10**9])
def test_a_sample_is_spread_over_all_documents(limit):
    numbers = histogram.sample(LENGTHS, limit)
    distances = np.diff(numbers)  # shards, in whose order documents come, all take part
    assert numbers[0] == 0 and (
        len(numbers) == 1
        or distances.min() > 0
        and len(LENGTHS) - numbers[-1] <= distances.max() <= distances.min() + 1
    )
    assert abs(LENGTHS[numbers].sum() - min(limit, LENGTHS.sum())) < 4000 + 0.2 * min(limit, LENGTHS.sum())


def test_the_error_of_a_sample_is_scaled_to_the_whole(monkeypatch):
    whole = curves.error(LENGTHS, ENTROPIES, np.arange(500), "entropy", 1.5, None)
    counts = histogram.patches("entropy", ENTROPIES, 1.5)
    assert np.isclose(whole, histogram.standard_error(LENGTHS + 2, counts))
    monkeypatch.setattr(curves, "SAMPLED", int(LENGTHS.sum()) // 3)
    assert 0.8 < curves.error(LENGTHS, ENTROPIES, np.arange(500), "entropy", 1.5, None) / whole < 1.25
    assert np.isclose(
        curves.error(LENGTHS, ENTROPIES, np.arange(0, 500, 2), "entropy", 1.5, None), whole * 2**0.5, rtol=0.2
    )  # half as much text
    assert curves.error(LENGTHS, ENTROPIES, np.arange(1), "entropy", 1.5, None) is None


@pytest.mark.parametrize(
    "size, error, documents, said",
    [
        (4.6, 0.01, 100, "4.600 (+2.2%; standard error 1.0%)"),
        (4.3, 0.01, 100, "by heart"),
        (4.8, 0.01, 100, "hardly chance; a few large"),
        (4.3, 0.02, 100, "4.300 (-4.4%; standard error 2.0%)"),
        (4.3, None, 1, "4.300 (-4.4%; a single document)"),
        (9.0, 0.01, 7, "9.000 (+100.0%; standard error 1.0%)"),
    ],
)
def test_a_split_is_said_to_differ_where_chance_does_not_explain_it(size, error, documents, said):
    found = curves.split_text(
        {
            "size": 4.5,
            "splits": {"train": 4.5, "test": size},
            "errors": {"train": 0.002, "test": error},
            "counted": {"train": 900, "test": documents},
        },
        "test",
    )
    near = {
        "size": 4.0,
        "splits": {"train": 4.3, "test": 4.31},
        "errors": {"train": 0.002, "test": 0.002},
        "counted": {"train": 900, "test": 900},
    }
    assert "hardly" not in curves.split_text(near, "test")  # what training text has, whatever was asked for
    assert said in found and ("hardly chance" in found) == (
        said in ("by heart", "hardly chance; a few large")
    )


def test_few_groups_are_counted_on_their_own(monkeypatch):
    monkeypatch.setattr(curves, "GROUPS", 2)

    class Documents:
        lengths, groups, group_names = (
            np.array([5, 1, 9, 2, 6]),
            np.array([0, 1, 2, 3, 0]),
            ("a", "b", "c", "d"),
        )

    names, groups = curves.largest(Documents())
    assert [names[group] for group in groups] == ["a", "all others", "c", "all others", "a"]
    Documents.group_names = ("all", "b", "all others", "d")
    names, groups = curves.largest(Documents())
    assert [names[group] for group in groups] == [
        "group all",
        "all others",
        "group all others",
        "all others",
        "group all",
    ]


def test_a_plot_has_a_file_s_name(tmp_path):
    for wrong in ("", str(tmp_path), "curve", "curve.xyz", str(tmp_path / "none" / "a.png")):
        with pytest.raises(UserError, match="cannot write the plot"):
            curves.check_plot(wrong)
    curves.check_plot(tmp_path / "a.PNG")
