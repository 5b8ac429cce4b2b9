"""`python -m benchmarks.study_text --out DIR`: the study's text, from Debian packages, as JSON lines with the
fields text, language, kind, package and path.

Needs apt-get and dpkg-deb (Debian, Ubuntu and what is made from them); nothing is installed. DIR/debs keeps
the packages, DIR/packages what was taken from each, DIR/licences the copyright file of each,
DIR/LANGUAGE.jsonl the text, DIR/manifest.json versions and sizes. Run again, it goes on where it was."""

import argparse
import collections
import concurrent.futures
import gzip
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

from benchmarks.study_text import packages, plain
from benchmarks.study_text.kept import pieces, unrepeated
from bltjax.errors import UserError

LEAST_BYTES = 200  # of a document: a page below says nothing but its title
EITHER = {
    "postgresql-doc": r"postgresql-doc-\d+",
    "python3-doc": r"python3\.\d+-doc",
}  # name no text, but need


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args(argv)
    try:
        manifest = collect(args.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(manifest))
    return 0


def collect(out: pathlib.Path, sources=packages.SOURCES) -> dict:
    """Downloads, converts and writes everything into `out`; what the manifest holds."""
    if missing := [name for name in ("apt-get", "apt-cache", "dpkg-deb") if not shutil.which(name)]:
        raise UserError(
            f"{', '.join(missing)} missing: the study's text needs Debian's or Ubuntu's apt and dpkg"
        )
    for folder in ("debs", "packages", "licences"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        debs = {}
        for source in sources:
            if deb := downloaded(source.package, out / "debs"):
                debs[source] = deb
            else:
                print(f"{source.package}: not among this system's packages, left out", flush=True)
        if not debs:
            raise UserError("apt knows none of the packages: `apt-get update` first")
        list(pool.map(lambda pair: extracted(*pair, out), debs.items()))
    return merged(out, debs)


def downloaded(package: str, folder: pathlib.Path) -> pathlib.Path | None:
    """The file of a package, fetched unless it is there."""
    name = really(package)
    if have := sorted(folder.glob(f"{name}_*.deb")):
        return have[-1]
    done = subprocess.run(["apt-get", "-q", "download", name], cwd=folder, capture_output=True, text=True)
    have = sorted(folder.glob(f"{name}_*.deb"))
    if not have and "Unable to locate" not in done.stderr and "no installation candidate" not in done.stderr:
        raise UserError(f"{name}: {(done.stderr.strip() or 'apt-get failed').splitlines()[-1]}")
    return have[-1] if have else None


def really(package: str) -> str:
    """The package that holds what this one stands for: `python3-doc` needs `python3.11-doc`."""
    if package not in EITHER:
        return package
    shown = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True).stdout
    found = re.findall(rf"Depends: ({EITHER[package]})\s", shown)
    return found[0] if found else package


def extracted(source: packages.Source, deb: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the package's text as JSON lines, unless it is there."""
    file = out / "packages" / f"{deb.stem}.jsonl"
    if file.exists():
        return
    lines = []
    process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix(".")
            if not member.isfile():
                continue
            if path.endswith("/copyright"):
                (out / "licences" / deb.name.split("_")[0]).write_bytes(archive.extractfile(member).read())
            elif (
                re.search(source.files, path) and (language := packages.language(path)) in packages.LANGUAGES
            ):
                data = archive.extractfile(member).read()
                data = gzip.decompress(data) if path.endswith(".gz") else data
                text = plain.convert(data, source.markup)
                if len(text.encode()) >= LEAST_BYTES:
                    fields = dict(text=text, language=language, kind=source.kind)
                    lines.append({**fields, "package": deb.name.split("_")[0], "path": path})
    if process.wait():
        raise UserError(f"{deb}: dpkg-deb could not read it; remove it and run again")
    lines.sort(key=lambda line: line["path"])
    half = file.with_suffix(".half")
    half.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    half.rename(file)
    print(f"{deb.stem}: {len(lines)} documents", flush=True)


def merged(out: pathlib.Path, debs: dict) -> dict:
    """All packages' text by language, without what repeats and in pieces; the manifest, also as a file."""
    documents = []
    for deb in debs.values():
        with open(out / "packages" / f"{deb.stem}.jsonl") as file:
            documents += map(json.loads, file)
    # English first: what was not translated is then the copy.
    documents.sort(
        key=lambda line: (packages.LANGUAGES.index(line["language"]), line["package"], line["path"])
    )
    kept = unrepeated(documents)
    sizes = collections.defaultdict(lambda: dict(documents=0, bytes=0))
    for language in packages.LANGUAGES:
        half = out / f"{language}.half"
        with open(half, "w") as file:
            for line in (line for line in kept if line["language"] == language):
                for piece in pieces(line["text"]):
                    file.write(json.dumps({**line, "text": piece}, ensure_ascii=False) + "\n")
                    for key in (f"language {language}", f"kind {line['kind']}", "all"):
                        sizes[key]["documents"] += 1
                        sizes[key]["bytes"] += len(piece.encode())
        half.rename(out / f"{language}.jsonl")
    manifest = dict(
        packages={
            deb.name.split("_")[0]: deb.stem.split("_")[1].replace("%3a", ":") for deb in debs.values()
        },
        documents_read=len(documents),
        documents_left_out_as_repeated=len(documents) - len(kept),
        sizes=dict(sizes),
        licences="each package's own, in licences/: free documentation and software licences",
    )
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def table(manifest: dict) -> str:
    rows = ["| text | documents | MB |", "|---|---:|---:|"]
    for name, size in manifest["sizes"].items():
        rows.append(f"| {name} | {size['documents']:,} | {size['bytes'] / 1e6:.2f} |")
    left = manifest["documents_left_out_as_repeated"]
    return "\n".join(
        rows + [f"{len(manifest['packages'])} packages; {left:,} documents repeat others: left out"]
    )


if __name__ == "__main__":
    sys.exit(main())
