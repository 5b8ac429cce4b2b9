"""The pages of the project: what they link to is there, and no machine's folders are in what was measured."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("benchmarks/**/*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def test_links_and_figures_are_there():
    there = [
        (page, target) for page in PAGES for target in LINK.findall(page.read_text()) if ":" not in target
    ]
    assert len(there) > 40
    assert not [f"{page.relative_to(ROOT)}: {at}" for page, at in there if not (page.parent / at).exists()]


def test_results_name_no_machines_folders():
    kept = [file for file in ROOT.glob("docs/results/**/*") if file.suffix in (".md", ".csv", ".jsonl")]
    assert len(kept) > 10
    own = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|Users)/\w")
    assert not [str(file.relative_to(ROOT)) for file in kept if own.search(file.read_text())]
