"""Figures: labels that have room, families that look different, numbers as text."""

import numpy as np
import pytest

from bltjax.config import families
from bltjax.plots import drawing
from bltjax.report import page
from bltjax.results import tables


def test_labels_are_spread_apart_within_their_room():
    at = drawing.kept_apart([50.0, 51.0, 52.0, 90.0], 0, 100, 13)
    assert np.all(np.diff(at) >= 13 - 1e-9) and at[3] == 90 and at[:3].mean() == pytest.approx(51)
    assert drawing.kept_apart([99.0, 98.0], 0, 100, 13) == pytest.approx([100, 87])


@pytest.mark.parametrize("letters", [3, 200, 100_000])
def test_labels_of_any_length_leave_room_for_the_curves(letters):
    axes = drawing.place(drawing.canvas(), ["x" * letters])
    assert axes.get_position().width > 0.3


def test_every_family_looks_different():
    drawn = [drawing.style(name) for name in families.FAMILIES]
    colours, markers = zip(*drawn, *((colour, marker) for colour, _, marker in families.OTHERS))
    assert len(set(colours)) == len(set(markers)) == len(drawn) + len(families.OTHERS)
    assert drawing.style("somebody's own") in [(colour, marker) for colour, _, marker in families.OTHERS]
    assert set(page.themed()) >= set(colours)


def test_numbers_as_text():
    assert (tables.flops(1.234e12), tables.short_flops(3e11), tables.short_flops(1e12)) == (
        "1.23×10¹²",
        "3×10¹¹",
        "10¹²",
    )
    assert tables.to_markdown(["a", "b"], [["x|y", "1"]]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| x\\|y | 1 |",
    ]
    assert tables.signed(-0.0123) == "−0.012"
