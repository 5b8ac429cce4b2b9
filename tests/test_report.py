"""Reports from fabricated run directories whose exponents, differences and best runs are known."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from fabricated_runs import BUDGETS, LAWS, add_run, experiment, law, write

from bltjax.report import figures, sections
from bltjax.report import report as reporting
from bltjax.results import run_directories


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A report of three families and three budgets, an unfinished run and a failed one among them."""
    root = experiment(tmp_path_factory.mktemp("runs") / "fabricated")
    half = add_run(root, "blt-strided", 1e11, finished=False)
    with (half / "metrics.jsonl").open("a") as file:
        file.write('{"step": 51, "bp')  # killed while it wrote
    write(
        root / "blt-strided-3e11" / "failed.json",
        {"error": "disk full while writing\n metrics.jsonl", "time": 0},
    )
    return reporting.report(root), root


def test_rows_equal_the_run_directories(reported):
    result, root = reported
    assert len(result["runs"]) == 9
    row = next(r for r in result["runs"] if r["family"] == "blt-entropy" and r["budget_flops"] == 3e11)
    for key in ("name", "family", "budget_flops", "realized_flops", "patch_size", "bpb", "run_dir"):
        assert row[key] is not None
    planned = json.loads((root / "blt-entropy-3e11" / "planned.json").read_text())
    assert row["bpb"] == law("blt-entropy", 3e11) and row["patch_size"] == 4.52 and row["patch_target"] == 4.5
    assert row["deviation_percent"] == pytest.approx(0.2) and row["executed_flops"] == pytest.approx(3.6e11)
    assert row["flops_with_entropy_model"] == pytest.approx(
        row["realized_flops"] + 9000 * planned["train_bytes"]
    )
    assert row["params_without_hash"] == 600_000 and row["bpb_low"] < row["bpb"] < row["bpb_high"]
    assert next(r for r in result["runs"] if r["family"] == "bpe")["upper_bound"] is True
    json.dumps(result, allow_nan=False)


def test_csv_holds_every_digit(reported):
    result, root = reported
    with (root / "report" / "report.csv").open() as file:
        lines = {line["name"]: line for line in csv.DictReader(file)}
    assert len(lines) == 9
    for row in result["all_runs"]:
        for key in (
            "bpb",
            "bpb_low",
            "realized_flops",
            "budget_flops",
            "validation_bpb",
            "flops_with_entropy_model",
        ):
            assert float(lines[row["name"]][key]) == row[key]


def test_fits_recover_the_laws_behind_the_runs(reported):
    fits = reported[0]["fits"]
    for family in ("bpe", "blt-entropy", "blt-space"):
        assert fits[family]["alpha"] == pytest.approx(LAWS[family][1], rel=1e-6)
        assert fits[family]["alpha_low"] < LAWS[family][1] < fits[family]["alpha_high"]
    assert reported[0]["scaling_law"] is None
    assert any(said.startswith("No law L(N, D): fabricated: no row") for said in reported[0]["caveats"])
    beside = reported[0]["fits_with_entropy_model"]
    assert beside["bpe"]["A"] == fits["bpe"]["A"] and beside["blt-entropy"]["A"] > fits["blt-entropy"]["A"]


def test_pairs_and_crossovers_of_the_report(reported):
    result, _ = reported
    assert {(p["family"], p["budget_flops"]) for p in result["pairs"]} == {
        (f, b) for f in ("blt-entropy", "blt-space") for b in BUDGETS
    }
    for p in result["pairs"]:
        assert p["difference"] == pytest.approx(
            law(p["family"], p["budget_flops"]) - law("bpe", p["budget_flops"])
        )
        assert p["low"] < p["difference"] < p["high"] and p["excludes_zero"] == (
            p["low"] > 0 or p["high"] < 0
        )
    crossing = {c["family"]: c for c in result["crossovers"]}["blt-entropy"]
    assert 3e11 < crossing["measured"][0] < 1e12


def test_files_are_there_and_the_page_needs_nothing_else(reported):
    result, root = reported
    names = {path.name for path in (root / "report").iterdir()}
    assert {
        "report.csv",
        "report.md",
        "report.html",
        "bpb_vs_flops.png",
        "bpb_vs_flops.svg",
        "bpb_vs_flops_with_entropy_model.png",
        "difference_to_bpe.svg",
        "training_curves.png",
    } <= names
    drawn = {name.removesuffix(".png") for name in names if name.endswith(".png")}
    for kind in ("svg", "csv"):
        assert {f"{name}.{kind}" for name in drawn} <= names
    page = (root / "report" / "report.html").read_text()
    assert not re.search(r"(?:src|href|url|@import)\s*[=(]?\s*[\"']?\s*(?:https?:)?//", page)
    assert page.count("<script") == page.count("<script>") == 1 and "fetch(" not in page
    assert (
        "<link" not in page
        and "<img" not in page
        and page.count("<svg") == 4
        and "prefers-color-scheme:dark" in page
    )
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {target for target in re.findall(r'href="#([^"]+)"', page)} <= set(ids)
    assert "2.50×10¹⁰" in page  # the entropy model's training cost
    assert (root / "report" / "report.md").read_text().count("![") == 4


def test_colours_of_the_figures_follow_dark_mode(reported):
    page = (reported[1] / "report" / "report.html").read_text()
    for figure in re.findall(r"<svg.*?</svg>", page, re.S):
        assert "var(--ink)" in figure and not re.search(r"#[0-9a-f]{6}\b", figure)


def test_unfinished_and_failed_runs_are_listed_and_in_no_curve(reported):
    result, root = reported
    states = {u["name"]: (u["state"], u["reason"]) for u in result["unfinished"]}
    assert states["blt-strided-1e11"] == ("unfinished", "step 50 of 200; no eval.json, no done.json")
    assert states["blt-strided-3e11"] == ("failed", "disk full while writing metrics.jsonl")
    assert not any(r["family"] == "blt-strided" for r in result["all_runs"])
    assert "disk full" in (root / "report" / "report.html").read_text() and "disk full" in reporting.text(
        result
    )


def test_the_same_directories_give_the_same_files(reported, tmp_path):
    result, root = reported
    reporting.report(root, tmp_path)
    for path in (root / "report").iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_another_users_settings_give_the_same_files(reported, tmp_path):
    """A process of its own, with another matplotlibrc, locale, time zone and order of sets."""
    settings = tmp_path / "matplotlibrc"
    settings.write_text(
        "text.usetex: True\nsvg.fonttype: none\nsavefig.dpi: 37\nfont.size: 30\n"
        "axes.formatter.use_locale: True\nsvg.hashsalt: mine\n"
        "path.simplify: False\naxes.unicode_minus: False\nsavefig.bbox: tight\n"
    )
    program = (
        "import sys; from bltjax.parallel import host; host.import_matplotlib();"
        " from bltjax.report import report; report.report(sys.argv[1], sys.argv[2])"
    )
    mine = {
        "MATPLOTLIBRC": str(settings),
        "LC_ALL": "C",
        "LANG": "C",
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
    }
    root = reported[1]
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "theirs")]
    where = {**os.environ, **mine, "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
    subprocess.run(command, check=True, env=where)
    for path in (root / "report").iterdir():
        assert (tmp_path / "theirs" / path.name).read_bytes() == path.read_bytes(), path.name


def test_one_seed_names_no_winner(reported):
    result, root = reported
    page = (root / "report" / "report.md").read_text()
    captions = [
        figure.caption for figure in figures.draw(result, run_directories.read_experiment(root)).values()
    ]
    for text in (result["headline"], *result["findings"], *captions):
        assert not re.search(r"excludes|includes|lowest|better|winn|ahead|beat", text), text
    assert "excludes 0" not in page and "includes 0" not in page
    assert "Seeds are missing" in result["headline"]
    assert all(p["covers"].startswith("of these documents only") for p in result["pairs"])
    assert all("scatter about the fit (1 degrees of freedom)" in f["covers"] for f in result["fits"].values())
    assert all(c["covers"].startswith("of these documents only") for c in result["crossovers"])
    assert all(r["interval_covers"].startswith("of these documents only") for r in result["runs"])
    assert any("One seed is one seed" in line for line in result["caveats"])


def test_analysis_stands_apart():
    """A report and what it is made of import nothing of the package but themselves, the science, what
    families are called, how files are read and contradict one another, what a process takes of its machine,
    and the exception; science only itself."""
    mine = "report|paper|fits|plots|results"
    files = "storage import contradictions|storage.contradictions|storage import json_object"
    below = f"science|config|{files}|errors|counts|parallel import host"
    for folder, allowed in (
        *((name, rf"{mine}|{below}") for name in mine.split("|")),
        ("science", "science"),
    ):
        paths = list((pathlib.Path(reporting.__file__).parent.parent / folder).glob("*.py"))
        assert paths, folder
        for path in paths:
            imported = r"^\s*(?:from|import)\s+(bltjax[\w.]*(?: import (?:host|contradictions|json_object))?)"
            for module in re.findall(imported, path.read_text(), re.M):
                assert re.match(rf"bltjax\.({allowed})\b", module), (path.name, module)


def test_markdown_has_the_same_sections_as_the_data(reported):
    result, root = reported
    text = (root / "report" / "report.md").read_text()
    parts = sections.of(result, run_directories.read_experiment(root), {})
    assert all(f"## {part['title']}" in text for part in parts) and {
        "Runs",
        "Entropy model",
        "Not finished",
    } <= {p["title"] for p in parts}
