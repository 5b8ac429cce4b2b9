"""Any source, shuffled and cut into shards of ArrayRecord, in memory that does not grow with it
(data/corpus.py says what comes out).

Two stages. *Scatter* reads units of the source and throws each document into a bucket that a hash of its
bytes picks; that hash says, too, which split it is in. *Gather* sorts each bucket by that hash, which is the
shuffle, and writes it as a shard; equal documents meet there, and are kept once, and what nearly repeats test
or validation text leaves.

Killed at any moment, the same command goes on: after the last units that were scattered, then after the last
shard that was written."""

import hashlib
import itertools
import json
import math
import pathlib
import shutil

from bltjax.config import ranges
from bltjax.counts import counted
from bltjax.data import corpus, file_kinds, provenance, shuffle, shuffle_buckets, sources, write_shards
from bltjax.errors import UserError
from bltjax.storage import atomic, locks, rundir

# of what comes out: data of another version is other data. 2: near-copies leave by split; 3: content says
# what a file is
PREPARE_VERSION = 3
# what is read of a source before it is prepared: of its first files, the first documents
LOOKED_INTO_FILES, LOOKED_INTO_BYTES, ENOUGH = 100, 32 << 20, 3
SHARD_BYTES = 64 << 20  # of text in a shard, about, where the source's size is known
MOST_SHARDS = 65_536
KEYS = (
    "source",
    "globs",
    "folder",
    "subset",
    "format",
    "text_field",
    "group_field",
    "separator",
    "split",
    "longest",
    "min_bytes",
    "validation",
    "test",
    "seed",
)


def prepare(
    data_config, directory, *, shard_count: int = 0, part: int = 0, parts: int = 1, say=lambda text: None
) -> dict:
    """Writes part `part` of `parts` of a prepared data set into a directory, and returns its manifest; done
    already: only returns it.

    data_config: config.data, of which KEYS decide. shard_count: shards of training text that this part
    writes; 0: by the source's size. UserError for bad settings, a part that another process is making, and
    whatever sources.units and their reading raise: what was done until then stays done."""
    directory = pathlib.Path(directory)
    if not 0 <= part < parts:
        raise UserError(f"--shard {part}/{parts}: shards count from 0 to {parts - 1}")
    ranges.check({f"data.{key}": value for key, value in data_config.items()})
    if not data_config.validation + data_config.test < 1:
        raise UserError(
            f"data.validation={data_config.validation:g} and data.test={data_config.test:g} must be 0 or more"
            " and together below 1"
        )
    sources.check(data_config)
    if data_config.split and parts > 1:
        raise UserError(f"--shard {part}/{parts}: one job prepares the file that data.split cuts")
    if shard_count > MOST_SHARDS:
        raise UserError(
            f"--shards {shard_count:,}: {MOST_SHARDS:,} at most for one job; more jobs make more (--shard"
            " I/N)"
        )
    try:
        units, gone = sources.units(data_config), None
    except UserError as error:  # what is done already stays good without its source
        units, gone = [], error
    source = provenance.layout(units)
    settings = {key: list(v) if isinstance(v := data_config[key], tuple) else v for key in KEYS}
    settings["version"] = PREPARE_VERSION
    name = corpus.part_name(part, parts)
    work = directory / f".{name.removesuffix('.json')}"
    try:
        with locks.held(directory / f"{work.name}.lock", wait=False):
            others = {path.name: rundir.read_json(path) or {} for path in directory.glob("part-*-of-*.json")}
            if any(
                one and (one.get("settings") != settings or one.get("parts") != parts)
                for one in others.values()
            ):
                raise UserError(
                    f"{directory} holds data prepared with other settings, or by another number of jobs;"
                    " choose another --out, or remove it"
                )
            if not gone and not _same_source(directory, others.values(), source, units):
                raise UserError(
                    f"{directory} was made of other source files than are there now (some changed, came or"
                    " went); put those back, choose another --out, or remove it"
                )
            done = others.get(name)
            if done and _there(directory, done):
                if shard_count and done["shard_count"] != shard_count:
                    raise UserError(
                        f"{directory} holds data prepared in another number of shards; choose another --out,"
                        " or remove it"
                    )
                _tidy(directory, work, done)
                _say_empty(done, say)
                say(
                    f"{directory / name} was there already"
                    + (f", and its source is not ({gone})" if gone else "")
                )
                return done
            if gone:
                raise gone
            manifest = {
                **_prepare(units, data_config, settings, directory, work, shard_count, part, parts, say),
                "source": source,
            }
            rundir.write_json(directory / name, manifest)
            _tidy(directory, work, manifest)
            _say_empty(manifest, say)
            return manifest
    except locks.Busy:
        raise UserError(f"another process is preparing part {part} of {parts} of {directory}") from None
    except OSError as error:
        raise UserError(f"cannot write prepared data to {directory}: {error.strerror or error}") from None


def made_of(directory: pathlib.Path, units) -> bool:
    """Whether a directory holds prepared data, all of it, that was made of these units as they are now."""
    found = [rundir.read_json(path) for path in directory.glob("part-*-of-*.json")]
    return bool(found) and all(found) and _same_source(directory, found, provenance.layout(units), units)


def _same_source(directory, manifests, source: str, units) -> bool:
    """Whether the parts that are there were made of these units. What no part was made of yet may change."""
    return all(
        one.get("source") == source
        and not provenance.changed(
            provenance.path_of(directory, one.get("part", 0), one.get("parts", 1)), units, renew=True
        )
        for one in manifests
        if one
    )


def _there(directory, manifest: dict) -> bool:
    """Whether all files of a part are there, of the size that they had."""
    try:
        return corpus.consistent(manifest) and all(
            write_shards.written(directory, shard) for shard in manifest["shards"]
        )
    except (KeyError, TypeError):
        return False


def first_look(data_config) -> None:
    """UserError where `prepare` would refuse the text for what its first files hold: of a kind that is not
    read, damaged at its beginning, with too long a document, or with too few documents altogether. Reads
    three documents of a file at most, and no more files than take a moment."""
    units = sources.units(data_config)
    if data_config.split:  # the later parts of a file are reached by reading it
        return
    read, size, different, whole = 0, 0, set(), len(units) <= LOOKED_INTO_FILES
    for unit in units[:LOOKED_INTO_FILES]:
        unit.check()
        first = [document for document, _ in itertools.islice(unit.read(), ENOUGH)]
        read, size, whole = read + len(first), size + sum(map(len, first)), whole and len(first) < ENOUGH
        long_enough = (document for document in first if len(document) >= max(1, data_config.min_bytes))
        different.update(hashlib.sha256(document).digest() for document in long_enough)
        if size > LOOKED_INTO_BYTES:
            return
    if whole and not different:
        raise _all_too_short(data_config, read)
    if whole and len(different) < len(shuffle.asked_for(data_config)):
        raise shuffle.too_few(data_config, len(different))


def _all_too_short(data_config, read: int) -> UserError:
    return UserError(
        f"no document of {data_config.source} has data.min_bytes={data_config.min_bytes} bytes or more"
        f" ({read:,} were read)"
    )


def _tidy(directory, work, manifest: dict) -> None:
    """Removes what earlier tries at this part left: its work, what was being written, and shards that the
    manifest does not name."""
    shutil.rmtree(work, ignore_errors=True)
    names = {shard["name"] for shard in manifest["shards"]}
    for leftover in directory.glob(f"{corpus.part_name(manifest['part'], manifest['parts'])}.*.part"):
        leftover.unlink(missing_ok=True)
    for split in corpus.SPLITS:
        of_part = f"{split}-{manifest['part']:05}-[0-9][0-9][0-9][0-9][0-9]"
        for path in [
            *directory.glob(f".{of_part}.*.partial"),
            *(
                path
                for path in directory.glob(f"{of_part}.*")
                if path.name.split(".")[0] + ".arrayrecord" not in names
            ),
        ]:
            path.unlink(missing_ok=True)


def _prepare(units, data_config, settings, directory, work, shard_count, part, parts, say) -> dict:
    if parts > len(units):
        raise UserError(
            f"--shard {part}/{parts}: {data_config.source} is read in {counted(len(units), 'unit')}, so that"
            " there can be no more jobs"
        )
    units = units[part::parts]
    shard_count = shard_count or min(1024, max(1, math.ceil(sum(map(_text_size, units)) / SHARD_BYTES)))
    facts = [shuffle_buckets.FORMAT, settings, shard_count, provenance.layout(units)]
    progress = shuffle.resumed(work, hashlib.sha256(json.dumps(facts).encode()).hexdigest(), units)
    if not progress.buckets:
        for unit in units:  # what will not be read is said before hours went into the rest
            unit.check()
    if progress.scattered < len(units):
        shuffle.scatter(units, data_config, shard_count, work, progress, parts == 1, say)
    if parts == 1 and progress.counts["read"] == progress.counts["short"]:
        shutil.rmtree(work)
        raise _all_too_short(data_config, progress.counts["read"])
    facts = write_shards.gather(directory, work, part, progress, shard_count, data_config, say)
    units_read = (work / provenance.WORK).read_text(encoding="utf-8") if units else ""
    atomic.write_text(provenance.path_of(directory, part, parts), units_read)
    kept = {split: [shard for shard in progress.shards if shard["split"] == split] for split in corpus.SPLITS}
    totals = {
        split: {key: sum(shard[key] for shard in found) for key in ("documents", "bytes")}
        for split, found in kept.items()
    }
    return {
        "schema_version": corpus.SCHEMA_VERSION,
        "part": part,
        "parts": parts,
        "settings": settings,
        "shard_count": shard_count,
        "fingerprint": fingerprint(progress.shards),
        "counts": progress.counts,
        "splits": totals,
        **facts,
        "moved": progress.moved,
        "groups": progress.groups,
        "shards": progress.shards,
    }


def text(manifest: dict) -> str:
    """What a part holds, in a few lines. (What it lacks `prepare` says.)"""
    lines = [f"part {manifest['part']} of {manifest['parts']}, fingerprint {manifest['fingerprint']}"]
    for split, total in manifest["splits"].items():
        documents, size = counted(total["documents"], "document"), counted(total["bytes"], "byte")
        lines.append(f"{split:<10} {documents:>22}  {size:>22}")
    return "\n".join(
        [
            *lines,
            *left_out_lines(manifest["counts"], manifest.get("near_copies", {})),
            overlap_line(manifest["test_overlap"]),
        ]
    )


def empty(split: str) -> str:
    return (
        f"no {split} text: nothing that was read is {split} text, or all of it was left out (runs need some)"
    )


def _say_empty(manifest: dict, say) -> None:
    for split, total in manifest["splits"].items():
        if not total["documents"]:
            say(empty(split))


def left_out_lines(counts: dict, near_copies: dict) -> list[str]:
    """What was left out, and why, in a line or two."""
    lines = [
        f"left out: {counts['short']:,} too short, {counts['duplicates']:,} copies, {counts['near_copies']:,}"
        " near-copies"
    ]
    said = [f"{count:,} {write_shards.REASONS[why]}" for why, count in near_copies.items() if count]
    return lines + [f"near-copies: {', '.join(said)}"] * bool(said)


def overlap_line(overlap: dict | None) -> str:
    """How much of test text is trained on, in a line."""
    if not overlap or overlap["all"] is None:
        return "test overlap: not measured (no test text, or prepared by an earlier version)"
    without = overlap["without_boilerplate"]
    return f"test overlap: {overlap['all']:.2%} of test text's 50-byte shingles occur in training text, " + (
        "all is boilerplate" if without is None else f"{without:.2%} without boilerplate"
    )


def fingerprint(shards: list[dict]) -> str:
    """12 hex digits over the documents of all shards, their splits and order."""
    return hashlib.sha256(
        json.dumps([(shard["name"], shard["content"]) for shard in shards]).encode()
    ).hexdigest()[:12]


def _text_size(unit) -> int:
    parts = unit.name.lower().split(".")
    compressed = parts[-1] in file_kinds.COMPRESSED or file_kinds.ending(unit.name) == "parquet"
    return unit.size * (3 if compressed else 1)
