"""What a run directory is called and the small JSON files in it. Every file appears whole or not at all."""

import json
import math
import os
import pathlib
import platform
import sys
import time
from importlib import metadata

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.storage import json_lines, json_object, locks
from bltjax.storage.atomic import write_json

# Prepared data, tokenizers, entropy models: one directory for all experiments under one root.
SHARED = "_shared"
LAUNCH = "launch"  # in the directory of an experiment's runs: what machines were given of it
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "bltjax")
REDONE = {
    "done.json": ("realized_flops",),
    "planned.json": ("train_flops", "steps", "patch_size"),
    "eval.json": ("test.bpb", "validation.bpb"),
}  # what `bltjax run` can write anew, and the numbers that others read there
# what is read of a run to say where it stands
READ = (".lock", "attempts", "config.json", "failed.json", "metrics.jsonl", *REDONE)


def read_json(path: pathlib.Path) -> dict | None:
    """The object in a file, or None where there is none. Damaged: None too, since a run writes it anew; but
    config.json: UserError."""
    value, why = json_object.read(path)
    if path.name != "config.json" or why == json_object.MISSING:
        return value
    if value is None or not isinstance(value.get("config"), dict):  # nothing else says what the run is
        raise UserError(
            f"{path} {why or 'lacks config'}; restore it, or remove {path.parent} to start this run over"
        )
    if value.get("schema_version") != cfg.SCHEMA_VERSION:
        raise UserError(
            f"{path} is of format {value.get('schema_version')}, and this version of bltjax reads"
            f" {cfg.SCHEMA_VERSION}; remove {path.parent} to run it anew, or use the version that wrote it"
        )
    return value


def number(value, dotted: str) -> float | None:
    """The finite number at "a.b" in nested dicts, else None."""
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def damage(run_dir: pathlib.Path) -> str:
    """Which of REDONE is not whole, in a line; "" where all are. Until done.json is there, files may be
    missing."""
    ended = (run_dir / "done.json").exists()
    for name, keys in REDONE.items():
        value, why = json_object.read(run_dir / name)
        lacking = [] if value is None else [key for key in keys if number(value, key) is None]
        if value is not None and name == "eval.json" and not _has_documents(value.get("test")):
            lacking.append("test.documents")
        if lacking:
            return f"{name} lacks {', '.join(lacking)}"
        if why and (ended or why != json_object.MISSING):
            return f"{name} {why}"
    return ""


def _has_documents(scored) -> bool:
    """Whether a text's part of eval.json has its documents, each with its bytes and nats."""
    documents = scored.get("documents") if isinstance(scored, dict) else None
    return isinstance(documents, list) and all(
        number(document, key) is not None for document in documents for key in ("bytes", "nats")
    )


def versions() -> dict:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def shared(run_dir: pathlib.Path) -> pathlib.Path:
    """Where a run in ROOT/EXPERIMENT/RUN finds what it shares with others."""
    return pathlib.Path(run_dir).absolute().parent.parent / SHARED


def from_run(path: pathlib.Path) -> str:
    """A shared file or folder as a run directory names it, so that ROOT can be moved."""
    return f"../../{SHARED}/{path.name}"


def create(run_dir: pathlib.Path, config: ConfigDict, experiment: str) -> None:
    """Writes config.json, or checks that the one there is of the same run. Another config there: UserError
    naming the keys, if that run has begun."""
    record, new = read_json(run_dir / "config.json"), cfg.to_dict(config)
    if record is None:
        write_json(
            run_dir / "config.json",
            {
                "schema_version": cfg.SCHEMA_VERSION,
                "experiment": experiment,
                "config": new,
                "versions": versions(),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
        return
    differing = differences(run_dir, record, config)
    # the same run, with other words for reports
    if differing and {k.split(".")[0] for k in differing} <= set(cfg.LABELS):
        labels = {k: new[k] for k in cfg.LABELS}
        write_json(run_dir / "config.json", {**record, "config": {**record["config"], **labels}})
        return
    # refused before its first step: nothing of it is lost
    if differing and not begun(run_dir) and not locks.is_held(run_dir / ".lock"):
        write_json(
            run_dir / "config.json",
            {**record, "experiment": experiment, "config": new, "versions": versions()},
        )
        for name in ("planned.json", "failed.json", "notes.txt"):
            (run_dir / name).unlink(missing_ok=True)
        return
    if differing:
        raise UserError(
            f"{run_dir} holds a run with another config: {', '.join(list(differing.values())[:4])}; rename"
            " the experiment (or --root) or remove the directory"
        )


def differences(run_dir: pathlib.Path, record: dict, config: ConfigDict) -> dict[str, str]:
    """{key: its value in a run's config.json (its content: record) and in a config, in words} where the two
    differ."""
    there, now = cfg.flat(_recorded(run_dir, record)), cfg.from_dict(cfg.to_dict(config))
    now = cfg.flat(cfg.completed(now))
    return {
        key: f"{key} ({there.get(key)!r} there, {now.get(key)!r} now)"
        for key in {**there, **now}
        if json.dumps(there.get(key)) != json.dumps(now.get(key))
    }


def config_fingerprint(record: dict) -> str:
    """Of the config in a run's config.json (its content: record), without what changes only its words."""
    config = record.get("config")
    config = config if isinstance(config, dict) else {}
    return cfg.fingerprint({key: value for key, value in config.items() if key not in cfg.LABELS})


def begun(run_dir: pathlib.Path) -> bool:
    """Whether a run has computed anything that another one in its directory would be mixed up with."""
    return any(
        (run_dir / name).exists() for name in ("metrics.jsonl", "eval.json", "done.json", "checkpoints")
    )


def load_config(run_dir: pathlib.Path) -> ConfigDict:
    record = read_json(run_dir / "config.json")
    if record is None:
        raise UserError(f"{run_dir} is no run directory: it has no config.json")
    return _recorded(run_dir, record)


def _recorded(run_dir: pathlib.Path, record: dict) -> ConfigDict:
    try:
        return cfg.recorded(record["config"])
    except ValueError as error:
        raise UserError(
            f"{run_dir / 'config.json'} is damaged ({error}); restore it, or remove {run_dir} to start this"
            " run over"
        ) from error


def amend(run_dir: pathlib.Path, **facts) -> None:
    """Adds facts (cores, data fingerprint) to config.json once they are known."""
    record = read_json(run_dir / "config.json")
    if record is not None and any(record.get(k) != v for k, v in facts.items()):
        write_json(run_dir / "config.json", {**record, **facts})


def last_metrics(run_dir: pathlib.Path) -> dict | None:
    """The newest whole line of metrics.jsonl; None where there is none, or it is damaged."""
    try:
        tail = json_lines.tail(run_dir / "metrics.jsonl", 1)
        line = json.loads(tail[-1]) if tail else None
    except (OSError, ValueError):
        return None
    return line if number(line, "step") is not None and number(line, "useful_flops") is not None else None


def note(run_dir: pathlib.Path, line: str, said: bool = False) -> None:
    """Says a line on standard error, and where those look who watch several runs."""
    if not said:
        print(f"bltjax: {run_dir.name}: {line}", file=sys.stderr)
    with (run_dir / "notes.txt").open("a", encoding="utf-8", errors="backslashreplace") as kept:
        kept.write(f"{line}\n")


def notes(run_dir: pathlib.Path) -> list[str]:
    """What a run had to say on its way, a line each."""
    try:
        return (run_dir / "notes.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def unreadable(run_dir: pathlib.Path) -> list[str]:
    """What of a run (a colleague's, say) this user may not read: names of files, or the directory's path."""
    try:
        os.listdir(run_dir)
        os.stat(os.path.join(run_dir, "."))  # looking into it is a right of its own
    except PermissionError:
        return [str(run_dir)]
    except OSError:  # none there
        return []
    denied = []
    for name in READ:
        try:
            (run_dir / name).open("rb").close()
        except PermissionError:
            denied.append(name)
        except OSError:  # none there, or damaged in another way
            pass
    return denied


def state(run_dir: pathlib.Path) -> str:
    """done, failed, started or new; whether a started one is running, its lock tells (locks.is_held).

    A done run whose files were damaged has started: `bltjax run` goes on from its last checkpoint and writes
    them again."""
    ended = (run_dir / "done.json").exists()
    if ended and not damage(run_dir):
        return "done"
    if (run_dir / "failed.json").exists():
        return "failed"
    return "started" if ended or (run_dir / "metrics.jsonl").exists() else "new"
