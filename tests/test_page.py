"""The report's page in a real browser: drawn, without an error, and hovering over a point shows its run."""

import browser
import pytest
from fabricated_runs import BUDGETS, add_run, experiment

from bltjax.report import report as reporting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "a browser is there"),
]
RIGHT, ESCAPE = "\ue014", "\ue00c"
CARD = "const c = document.getElementById('card'); return c.hidden ? '' : c.innerText"
MIDDLE = """const figure = document.querySelectorAll('figure')[arguments[0]];
const p = figure.querySelectorAll('.pt')[arguments[1]];
p.scrollIntoView({block: 'center'}); const r = p.firstElementChild.getBoundingClientRect();
return [r.left + r.width / 2, r.top + r.height / 2]"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three families at three budgets and of a table of the paper; and its numbers."""
    root = experiment(tmp_path_factory.mktemp("runs") / "fabricated")
    for number, row in enumerate(("no|1|9", "yes|1|9")):
        labels = {"paper.figure": "Table 9", "paper.row": row, "series": row}
        add_run(root, "blt-strided", BUDGETS[-1], name=f"row{number}", bpb=1.6 - 0.1 * number, changes=labels)
    result = reporting.report(root)
    return root / "report" / "report.html", result


@pytest.fixture(scope="module")
def window():
    with browser.opened() as opened:
        yield opened


def facts(row) -> list:
    """What the card of a point must show."""
    size = f"{row['patch_size']:.2f} bytes"
    return [row["name"], f"{row['bpb']:.4f}", f"{row['bpb_low']:.4f} to", size, row["run_dir"]]


@pytest.mark.parametrize("width, dark", [(1300, False), (400, True)])
def test_it_is_drawn_without_an_error_and_fits_the_window(page, window, width, dark):
    window.screen(width, dark)
    window.open(page[0])
    assert window.errors() == []
    assert window.run("return document.documentElement.scrollWidth") <= width
    drawn = window.run(
        "return [...document.querySelectorAll('figure svg')].map(s => [s.getBoundingClientRect().width,"
        " [...s.querySelectorAll('path')].filter(p => p.getBoundingClientRect().width > 20).length])"
    )
    assert len(drawn) == page[0].read_text().count("<svg") >= 5
    assert all(wide > 0.8 * min(width, 500) and curves >= 3 for wide, curves in drawn)
    paper = window.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) < 150) == dark


def test_hovering_tapping_and_keys_show_the_run(page, window):
    rows = page[1]["runs"]
    window.screen(1300)
    window.open(page[0])
    assert window.run(CARD) == ""
    for index in (0, 4):
        window.point("mouse", *window.run(MIDDLE, 0, index))
        said = window.run(CARD)
        assert all(fact in said for fact in facts(rows[index])), said
        assert "FLOPs" in said and "seeds" in said
    window.point("mouse", 2, 2)
    assert window.run(CARD) == ""
    window.point("touch", *window.run(MIDDLE, 0, 1), press=True)
    assert rows[1]["name"] in window.run(CARD)
    window.run("document.querySelectorAll('figure')[0].querySelector('.pt[tabindex=\"0\"]').focus()")
    assert rows[0]["name"] in window.run(CARD)
    window.press(RIGHT)
    assert rows[1]["name"] in window.run(CARD)
    window.press(ESCAPE)
    assert window.run(CARD) == "" and window.errors() == []


def test_every_point_of_every_figure_has_a_card_inside_the_window(page, window):
    count = window.run(
        "return [...document.querySelectorAll('figure')].map(f => f.querySelectorAll('.pt').length)"
    )
    assert count[0] == len(page[1]["runs"]) and all(count)
    window.screen(400)
    outside = window.run("""
        const bad = [];
        for (const p of document.querySelectorAll('.pt')) {
            p.dispatchEvent(new FocusEvent('focus'));
            const r = document.getElementById('card').getBoundingClientRect();
            if (!(r.width > 50 && r.left >= 0 && r.right <= innerWidth)) bad.push(p.dataset.text);
            p.dispatchEvent(new FocusEvent('blur'));
        }
        return bad""")
    assert outside == []


def test_with_javascript_off_the_same_text_is_a_tooltip(page, window):
    text = window.without_scripts(page[0])
    assert 'id="card"' not in text and text.count("<svg") == page[0].read_text().count("<svg")
    for row in page[1]["runs"]:
        assert f"<title>{row['name']}\n" in text
