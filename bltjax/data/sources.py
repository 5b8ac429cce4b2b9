"""Where text comes from. A source is a list of units (files, or ranges of records), each read from its
beginning, a document at a time.

A source gives the same documents in the same order every time it is asked on one machine; nothing is decoded
or normalised."""

import dataclasses
import decimal
import fractions
import functools
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

from bltjax.data import file_signs, files
from bltjax.data.records import within
from bltjax.errors import UserError

# Of the 31.5 MB under the library's folder 20.7 are tests; tables of encodings, `pydoc_data` and build
# settings are generated.
STDLIB_LEFT_OUT = frozenset(
    {
        "site-packages",
        "dist-packages",
        "__pycache__",
        "test",
        "tests",
        "idle_test",
        "testdata",
        "test_data",
        "encodings",
        "pydoc_data",
    }
)
RANGE = 10_000  # records of a unit, where a source is not made of files


@dataclasses.dataclass(frozen=True)
class Unit:
    """A part of a source that is read on its own. stamp changes when its content does; read() yields (bytes,
    group) in order. split: that of all its documents; "": their digests say it. check(): UserError where it
    will not be read. digest(): of its content, by which one whose stamp alone changed is the same; None: the
    stamp says all."""

    name: str
    stamp: str
    size: int  # bytes on disk; 0 where that is not known
    read: Callable
    split: str = ""
    check: Callable = lambda: None
    digest: Callable | None = None


def units(data_config) -> list[Unit]:
    """The units of the source that `data_config` (config.data) names.

    UserError for an unknown source, a pattern without a match, a data set that is not there, and a package
    that is not installed."""
    kind, _, name = data_config.source.partition(":")
    takes_name = kind in NAMED
    if kind == PREPARED:
        raise UserError("data.source=prepared: what is prepared already is no source")
    if kind not in SOURCES or takes_name != bool(name):
        is_path = "." in data_config.source
        hint = "; files and patterns stand behind the word: files 'texts/*.txt'" if is_path else ""
        raise UserError(
            f"unknown data.source {data_config.source!r}; allowed: {allowed(prepared=False)}{hint}"
        )
    check(data_config)
    return SOURCES[kind](data_config, name)


def check(data_config) -> None:
    """UserError where data.separator, data.split or data.format cannot be, or does not go with
    data.source."""
    if data_config.format not in files.FORMATS:
        raise UserError(f"data.format is {data_config.format!r}; allowed: {', '.join(files.FORMATS)}")
    for key in ("separator", "split"):
        if data_config[key] and data_config.source != "files":
            raise UserError(
                f"data.{key} cuts files: it goes with data.source=files, not {data_config.source}"
            )
    typed = data_config.separator
    if typed and not typed.replace("\\n", "").replace("\\r", ""):
        raise UserError(
            f"data.separator is {typed}, with backslashes; newlines are written as a JSON string:"
            f" --set 'data.separator=\"{typed}\"'"
        )
    if data_config.split:
        positions(data_config.split)
    if data_config.min_bytes > data_config.longest:
        raise UserError(
            f"data.min_bytes is {data_config.min_bytes:,} and data.longest {data_config.longest:,}: no"
            " document is as long as the one and no longer than the other"
        )


def check_read(data_config, keys) -> None:
    """UserError where one of the keys was set by hand, and the source does not read it: text that was named
    would be left where it is, and another trained on. An experiment's file may hold what is not read."""
    source = data_config.source.partition(":")[0]
    for key in READ_BY.keys() & keys:
        if data_config.get(key) and source not in READ_BY[key]:
            raise UserError(
                f"data.{key} means nothing to data.source={data_config.source}; it goes with"
                f" data.source={' or '.join(READ_BY[key])}"
            )


def positions(split: str) -> tuple[fractions.Fraction, fractions.Fraction, fractions.Fraction]:
    """The shares of training, validation and test text that "90/5/5" means. UserError where it is not three
    numbers above 0 that sum to 100."""
    try:
        percents = [decimal.Decimal(part) for part in split.split("/")]
    except decimal.InvalidOperation:
        percents = []
    if (
        len(percents) != 3
        or not all(percent.is_finite() and percent > 0 for percent in percents)
        or sum(percents) != 100
    ):
        raise UserError(
            f"data.split is {split!r}; it must be percentages of training, validation and test text, each"
            " above 0 and 100 together, such as 90/5/5"
        )
    return tuple(fractions.Fraction(percent) / 100 for percent in percents)


def allowed(prepared: bool = True) -> str:
    return ", ".join(
        [*(f"{kind}:NAME" if kind in NAMED else kind for kind in SOURCES), *[PREPARED] * prepared]
    )


def known(source: str) -> bool:
    """Whether data.source names a kind of source in the right form."""
    kind, _, name = source.partition(":")
    return source == PREPARED or kind in SOURCES and (kind in NAMED) == bool(name)


def _stdlib(data_config, _) -> list[Unit]:
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in STDLIB_LEFT_OUT]
        paths += [
            Path(folder, name)
            for name in names
            if name.endswith(".py") and not name.startswith("_sysconfigdata")
        ]
    if not paths:
        raise UserError(f"no source files of Python's standard library under {root}; use data.source=files")
    ordered = sorted(paths, key=lambda path: path.relative_to(root).as_posix())
    return _units_of_files(data_config, [files.local(str(path)) for path in ordered])


def _files(data_config, _) -> list[Unit]:
    matched = files.found(data_config.globs)
    is_plain = lambda file: _told(data_config, file) == file_signs.PLAIN
    for key in ("separator", "split"):
        if data_config[key] and not any(map(is_plain, matched)):
            raise UserError(
                f"data.{key} cuts plain files, and {matched[0].path} holds documents already (a line, row or"
                " record each)"
            )
    if data_config.split:
        if len(matched) > 1:
            raise UserError(
                f"data.split={data_config.split} cuts one file by position, and data.globs match"
                f" {len(matched)}; leave it out, or name one file"
            )
        return _units_by_position(data_config, matched[0])
    if not data_config.separator:
        for file in matched:
            large = file.here and file.size > data_config.longest
            if large and not files.is_compressed(file) and is_plain(file):
                raise files.too_long(file.path, data_config.longest)
    return _units_of_files(data_config, matched)


def _told(data_config, file) -> str:
    return files.told(file, data_config.text_field, data_config.longest, data_config.format == "bytes")


def _units_by_position(data_config, file) -> list[Unit]:
    """The training, validation and test text of one file, in this order."""
    found = []
    for number, split in enumerate(("train", "validation", "test")):
        read = functools.partial(
            files.part,
            file,
            positions(data_config.split),
            number,
            data_config.separator,
            data_config.longest,
            data_config.format == "bytes",
        )
        name = f"{file.path} ({split})"
        found.append(Unit(name, file.stamp, file.size // 3, read, split, digest=_digest(file)))
    return found


def _array_records(data_config, _) -> list[Unit]:
    matched = files.found(data_config.globs)
    for file in matched:
        if (kind := _told(data_config, file)) != file_signs.ARRAY_RECORD:
            raise UserError(f"data.source=arrayrecord reads ArrayRecord files, and {file.path} is {kind}")
    return _units_of_files(data_config, matched)


def _units_of_files(data_config, matched) -> list[Unit]:
    read = lambda file: functools.partial(
        files.documents,
        file,
        data_config.text_field,
        data_config.longest,
        data_config.group_field,
        data_config.separator,
        data_config.format == "bytes",
    )
    check = lambda file: functools.partial(_told, data_config, file)
    return [
        Unit(file.path, file.stamp, file.size, read(file), check=check(file), digest=_digest(file))
        for file in matched
    ]


def _digest(file):
    return functools.partial(files.digest, file) if file.here else None


def _tfds(data_config, name) -> list[Unit]:
    """A data set of tensorflow-datasets that lies as ArrayRecord, which is read without TensorFlow."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_config.folder or None)
        records = builder.as_data_source(split=data_config.subset)
    except Exception as error:  # the library's own errors, and those of whatever it loads
        raise UserError(
            f"data.source=tfds:{name}, data.subset={data_config.subset}: {_short(error)}"
        ) from None
    return _units_of_records(
        data_config,
        f"tfds:{builder.info.full_name}",
        data_config.subset,
        len(records),
        lambda a, b: map(records.__getitem__, range(a, b)),
    )


def _huggingface(data_config, name) -> list[Unit]:
    """A data set of the Hugging Face Hub (or a folder of one), streamed: what is not read is not
    downloaded."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            "data.source=hf:NAME needs the extra `hf` (package datasets): make setup EXTRAS=hf"
        ) from None
    try:
        address, _, version = name.partition("@")  # NAME or NAME@CONFIGURATION
        records = datasets.load_dataset(address, version or None, split=data_config.subset, streaming=True)
        stamp = str(getattr(records.info, "version", "")) + str(
            getattr(records.info, "download_checksums", "")
        )
        parts = max(1, getattr(records, "num_shards", 1) or 1)
    except Exception as error:
        raise UserError(f"data.source=hf:{name}, data.subset={data_config.subset}: {_short(error)}") from None

    def read(part):
        numbered = enumerate(records.shard(parts, part) if parts > 1 else records)
        return (
            (_field_of(data_config, record, f"hf:{name} shard {part} record {i}")) for i, record in numbered
        )

    return [
        Unit(f"hf:{name} shard {part} of {parts}", stamp, 0, functools.partial(read, part))
        for part in range(parts)
    ]


def _units_of_records(data_config, name, subset, count, between) -> list[Unit]:
    def read(first, last):
        for i, record in enumerate(between(first, last), first):
            yield _field_of(data_config, record, f"{name} {subset} record {i}")

    firsts = range(0, count, RANGE)
    return [
        Unit(
            f"{name} {subset} records {a} to {min(a + RANGE, count)}",
            str(count),
            0,
            functools.partial(read, a, min(a + RANGE, count)),
        )
        for a in firsts
    ]


def _field_of(data_config, record, where) -> tuple[bytes, str]:
    """(text, group) of a record that is a dict of columns."""
    for wanted in filter(None, (data_config.text_field, data_config.group_field)):
        if wanted not in record:
            raise UserError(
                f"{where}: no field {wanted!r} (data.text_field); it has {', '.join(sorted(record))}"
            )
    text = record[data_config.text_field]
    text = text.encode() if isinstance(text, str) else b"" if text is None else text
    if not isinstance(text, bytes):
        raise UserError(
            f"{where}: field {data_config.text_field!r} is a {type(text).__name__}, not text or bytes"
        )
    group = record[data_config.group_field] if data_config.group_field else ""
    return within(text, data_config.longest, where), (
        group.decode(errors="replace") if isinstance(group, bytes) else str(group)
    )


def _short(error) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


SOURCES = {
    "stdlib": _stdlib,
    "files": _files,
    "arrayrecord": _array_records,
    "tfds": _tfds,
    "hf": _huggingface,
}
NAMED = ("tfds", "hf")
PREPARED = "prepared"  # for runs: what `bltjax data prepare` made, which is no list of units any more
READ_BY = {  # keys that say which text is read -> the sources that read them
    "globs": ("files", "arrayrecord"),
    "folder": ("tfds", PREPARED),
    "mix": (PREPARED,),
    "subset": NAMED,
}
