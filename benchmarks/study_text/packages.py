"""Which packages the study's text comes from, and which of their files are text."""

import dataclasses
import re

LANGUAGES = ("en", "cs", "de", "el", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "uk", "zh")
HELP = ("en-us", "cs", "de", "el", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt-br", "ru", "zh-cn")
MANUALS = (
    *("", "-de", "-es", "-fr", "-it", "-ja", "-pl", "-pt-br", "-ru", "-uk", "-zh"),
    *("-dev", "-de-dev", "-es-dev", "-fr-dev", "-ja-dev", "-pl-dev", "-ru-dev"),
)
# A directory that names a language: .../man/pt_BR/man1/, .../html/ja-JP/, .../help/de/text/
IN_PATH = re.compile(r"/(?:man|html|help|installation-guide-amd64)/([a-z]{2})(?:[_-][A-Za-z]{2})?/")


@dataclasses.dataclass(frozen=True)
class Source:
    """A package: its name, what kind of text it holds, which of its files (a pattern that is searched for in
    their paths) and how they are marked up."""

    package: str
    kind: str
    files: str
    markup: str  # roff | html | plain


SOURCES = (
    *(Source(f"manpages{name}", "manual page", r"/man\d/[^/]+\.gz$", "roff") for name in MANUALS),
    *(Source(f"libreoffice-help-{name}", "help", r"/text/.*\.html$", "html") for name in HELP),
    Source("debian-handbook", "book", r"/html/[^/]+/[^/]+\.html$", "html"),
    Source("installation-guide-amd64", "book", r"\.html$", "html"),
    Source("postgresql-doc", "reference", r"/html/[^/]+\.html$", "html"),
    Source("python3-doc", "reference", r"/_sources/.*\.rst\.txt$", "plain"),
)


def language(path: str) -> str:
    """The language of a file, as its two letters, by the directory that names it; English where none does."""
    found = IN_PATH.search(path)
    return found.group(1) if found else "en"
