"""The study's text: what the converters make of marked-up pages, and what is kept of a package."""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.study_text import __main__ as command
from benchmarks.study_text import kept, packages, plain

PAGE = r""".\" a comment
.TH LN 1 "2024"
.SH NAME
ln \- make links
.SH SYNOPSIS
.BI "int f(const char " s1 [. n "], \
size_t " n );
.TP
\fB\-s\fP, \fB\-\-symbolic\fP
make symbolic
links \(bu \[u00E9] a\eb
.if n \{\
.ds X never
shown \}
.nf
  first  line
    second
.fi
.de XX
macro body
..
end
"""


def test_roff_becomes_paragraphs_and_verbatim_lines():
    assert plain.convert(PAGE.encode(), "roff") == (
        "LN(1)\n\nNAME\n\nln - make links\n\nSYNOPSIS\n\nint f(const char s1[.n], size_t n);\n\n"
        "-s, --symbolic make symbolic links • é a\\b\n\n  first  line\n    second\n\nend\n"
    )


def test_lines_of_chinese_and_japanese_join_without_a_space():
    assert plain.convert("名前\nです\nof two\nwords\n".encode(), "roff") == "名前です of two words\n"


def test_pages_that_say_nothing_or_speak_mdoc_are_empty():
    assert not plain.convert(b".so man1/other.1\n", "roff").strip()
    assert not plain.convert(b".Dd May 1\n.Dt LS 1\n.Sh NAME\nls\n", "roff").strip()
    assert not plain.convert(b"\xff\xfe no UTF-8", "html").strip()


def test_html_loses_menus_and_keeps_what_is_preformatted():
    page = (
        "<html><head><title>no</title></head><body><div class='navheader'><div>no</div>no</div>"
        "<h1>A &amp; B</h1><p>one\n  <b>two</b><br/>three</p><pre>x = 1\n  y</pre><nav>no</nav>"
        "<table><tr><td>l</td><td>r</td></tr></table><footer>no</footer></body></html>"
    )
    assert plain.convert(page.encode(), "html") == "A & B\n\none two three\n\nx = 1\n  y\n\nl r\n"


@pytest.mark.parametrize("text", ["a" * 90 + "\n\n" + "b" * 30, "x\n" * 200, "é" * 301, "short"])
def test_pieces_join_to_the_text_and_are_short(text):
    pieces = kept.pieces(text, 100)
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= 100 for piece in pieces)
    assert len(pieces) <= 2 + 4 * len(text.encode()) // 100


def test_a_piece_ends_with_a_paragraph():
    first, second = kept.pieces("a" * 60 + "\n\n" + "b" * 60, 100)
    assert first.endswith("\n\n") and set(second) == {"b"}


def test_untranslated_copies_are_left_out_and_translations_stay():
    english = [f"This is sentence {i} of a page that was written once, in English." for i in range(4)]
    german = [f"Dies ist Satz {i} einer Seite, die einmal auf Englisch geschrieben wurde." for i in range(4)]
    texts = (english, german, english[:3] + german[:1], english[:1] + german[1:2] + ["Neu: " + "o" * 80] * 2)
    documents = [{"text": "\n\n".join(text)} for text in texts]
    assert kept.unrepeated(documents) == [documents[0], documents[1], documents[3]]


def test_a_path_says_the_language():
    paths = {
        "/usr/share/man/pt_BR/man1/ls.1.gz": "pt",
        "/usr/share/man/man3/printf.3.gz": "en",
        "/usr/share/doc/debian-handbook/html/zh-TW/index.html": "zh",
        "/usr/share/libreoffice/help/de/text/scalc/01.html": "de",
        "/usr/share/doc/installation-guide-amd64/zh_CN/ch01.html": "zh",
        "/usr/share/doc/postgresql-doc-15/html/intro.html": "en",
    }
    assert {path: packages.language(path) for path in paths} == paths


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_a_package_becomes_json_lines(tmp_path):
    tree, out = tmp_path / "tree", tmp_path / "out"
    page = PAGE + "\n".join(f"Sentence number {i} stands here.\n" for i in range(20))
    files = {
        "usr/share/man/de/man1/ln.1.gz": gzip.compress(page.encode()),
        "usr/share/man/xx/man1/ln.1.gz": gzip.compress(page.replace("Sentence", "Xx").encode()),  # not wanted
        "usr/share/man/de/man1/short.1.gz": gzip.compress(b".TH X 1\n"),
        "usr/share/doc/manpages-de/copyright": b"free",
        "DEBIAN/control": b"Package: manpages-de\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\n"
        b"Description: test\n",
    }
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    (out / "debs").mkdir(parents=True)
    built = [
        "dpkg-deb",
        "--build",
        "--root-owner-group",
        str(tree),
        str(out / "debs" / "manpages-de_1.0_all.deb"),
    ]
    subprocess.run(built, check=True, capture_output=True)
    sources = [source for source in packages.SOURCES if source.package == "manpages-de"]
    manifest = command.collect(out, sources)
    assert manifest["packages"] == {"manpages-de": "1.0"} and manifest["sizes"]["all"]["documents"] == 1
    lines = [json.loads(line) for line in (out / "de.jsonl").read_text().splitlines()]
    assert [(line["language"], line["kind"], line["package"]) for line in lines] == [
        ("de", "manual page", "manpages-de")
    ]
    assert lines[0]["text"].startswith("LN(1)\n\nNAME") and "Sentence number 19" in lines[0]["text"]
    assert (out / "licences" / "manpages-de").read_text() == "free"
    assert not (out / "en.jsonl").read_text()
    # again: what was taken from a package is not taken again
    taken = next((out / "packages").iterdir())
    before = taken.stat().st_mtime_ns
    assert command.collect(out, sources) == manifest and taken.stat().st_mtime_ns == before


def test_without_apt_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
