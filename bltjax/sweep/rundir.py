"""What a run directory is called and the small JSON files in it. Every file appears whole or not at all."""

import json
import os
import pathlib
import platform
import time
from importlib import metadata

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError

SHARED = "_shared"  # byte LMs, tokenizers and entropies, one directory for all experiments under one root
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "bltjax")


def write_json(path: pathlib.Path, value) -> None:
    """Atomic: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_json(path: pathlib.Path):
    """The file's value, or None where there is no file. A damaged file: UserError."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it to start this part over") from None


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
    """Writes config.json, or checks that the one there is of the same run. Another config there: UserError naming the keys."""
    record, new = read_json(run_dir / "config.json"), cfg.to_dict(config)
    if record is None:
        write_json(run_dir / "config.json", {"schema_version": cfg.SCHEMA_VERSION, "experiment": experiment, "config": new,
                                             "versions": versions(), "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        return
    old_flat, new_flat = (cfg.flat(cfg.from_dict(c)) for c in (record["config"], new))
    differing = [k for k in {**old_flat, **new_flat} if json.dumps(old_flat.get(k)) != json.dumps(new_flat.get(k))]
    if differing:
        shown = ", ".join(f"{k} ({old_flat.get(k)!r} there, {new_flat.get(k)!r} now)" for k in differing[:4])
        raise UserError(f"{run_dir} holds a run with another config: {shown}; rename the experiment (or --root) or remove the directory")


def load_config(run_dir: pathlib.Path) -> ConfigDict:
    record = read_json(run_dir / "config.json")
    if record is None:
        raise UserError(f"{run_dir} is no run directory: it has no config.json")
    return cfg.from_dict(record["config"])


def amend(run_dir: pathlib.Path, **facts) -> None:
    """Adds facts (cores, data fingerprint) to config.json once they are known."""
    record = read_json(run_dir / "config.json")
    if record is not None and any(record.get(k) != v for k, v in facts.items()):
        write_json(run_dir / "config.json", {**record, **facts})


def last_metrics(run_dir: pathlib.Path) -> dict | None:
    """The newest whole line of metrics.jsonl."""
    path = run_dir / "metrics.jsonl"
    try:
        with path.open("rb") as lines:
            lines.seek(max(0, path.stat().st_size - 4096))
            tail = lines.read().split(b"\n")[:-1]
        return json.loads(tail[-1]) if tail else None
    except (OSError, ValueError):
        return None


def notes(run_dir: pathlib.Path) -> list[str]:
    """What a run had to say on its way, a line each."""
    path = run_dir / "notes.txt"
    return path.read_text().splitlines() if path.exists() else []


def state(run_dir: pathlib.Path) -> str:
    """done, failed, started or new; whether a started one is running, its lock tells (locks.is_held)."""
    if (run_dir / "done.json").exists():
        return "done"
    if (run_dir / "failed.json").exists():
        return "failed"
    return "started" if (run_dir / "metrics.jsonl").exists() else "new"
