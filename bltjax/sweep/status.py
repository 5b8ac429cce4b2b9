"""Where every run of an experiment stands: done, running, stopped, failed, damaged or waiting, and why."""

import pathlib
import socket

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.run import inputs, jobs
from bltjax.storage import attempts, contradictions, json_object, locks, rundir
from bltjax.sweep import progress

# what reading a file raises that holds something else than it should
DAMAGE = (UserError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
GIVEN_UP = (
    f"{attempts.MOST} attempts in a row were killed, or failed, and came no further; `bltjax retry` lets it"
    " be tried again"
)


def damaged(run_dir: pathlib.Path) -> str:
    """Which file of a run is not whole, or how those of a done one contradict one another, and what helps, in
    a line; "" where all is well."""
    try:
        record = rundir.read_json(run_dir / "config.json")
    except UserError as error:
        return str(error)
    if why := rundir.damage(run_dir):
        return f"{why}; `bltjax run` will redo it"
    if not (done := rundir.read_json(run_dir / "done.json")):
        return ""
    planned, last = rundir.read_json(run_dir / "planned.json"), rundir.last_metrics(run_dir)
    evaluation = rundir.read_json(run_dir / "eval.json")
    if why := contradictions.of_config(run_dir, record or {}, planned, evaluation, done):
        return why
    silent = not last and "metrics.jsonl" not in rundir.unreadable(run_dir)
    why = ["done.json, but metrics.jsonl has no step"] if silent else []
    why += contradictions.of(record or {}, planned, last or {}, evaluation, done)
    redo = "remove done.json, and `bltjax run` goes on from its last checkpoint"
    return f"{'; '.join(why)}; {redo}" if why else ""


def of_run(run_dir: pathlib.Path, config: ConfigDict | None = None, known: dict | None = None) -> dict:
    """One run, as docs/run_directory.md has it: its state (done | running | failed | given up | damaged |
    stopped | waiting | unreadable), how far it is and how fast, what it has cost, and why. config: what the
    run is to be; of one that is another, why says what differs. known: {directory: shared job}, as far as
    asked for; what this run asks for is added.

    Whatever lies in the directory, there is an answer: what is wrong with one run hides no other."""
    try:
        return _of_run(run_dir, config, {} if known is None else known)
    except (OSError, *DAMAGE) as error:
        return _unknown(run_dir, *_wrong(run_dir, error))


def _of_run(run_dir: pathlib.Path, config: ConfigDict | None, known: dict) -> dict:
    denied = rundir.unreadable(run_dir)
    why = f"no permission to read {', '.join(denied)}" if denied else None
    # without these it can be said, if less of it
    if set(denied) - {".lock", "metrics.jsonl", attempts.FOLDER}:
        return _unknown(run_dir, "unreadable", why)
    state, tried = rundir.state(run_dir), attempts.read(run_dir)
    if state != "done" and at_work(run_dir, tried, denied):
        state = "running"
    elif state == "failed":
        why = last_error(run_dir) or "failed.json does not say why"
    elif broken := damaged(run_dir):
        state, why = "damaged", broken
    elif state != "done" and attempts.stuck(run_dir):
        state, why = "given up", GIVEN_UP
    state = {"started": "stopped", "new": "waiting"}.get(state, state)
    why = why or (another(run_dir, config) if config is not None else None)
    waits_for = failed_before(run_dir, config, known) if state in ("waiting", "stopped") else None
    planned = rundir.read_json(run_dir / "planned.json") or {}
    metrics = rundir.last_metrics(run_dir) or {}
    scored = rundir.read_json(run_dir / "eval.json") if state == "done" else None
    record = json_object.read(run_dir / "config.json")[0] or {}
    budget = rundir.number(record, "config.budget_flops") if config is None else config.budget_flops
    going = progress.of_run(run_dir, record, planned, budget, tried[-1]["began"] if tried else 0.0)
    going |= {"flops_left": 0.0} if state == "done" else {}
    return {
        "state": state,
        "step": metrics.get("step", 0),
        "steps": rundir.number(planned, "steps"),
        "train_bpb": rundir.number(metrics, "bpb"),
        "test_bpb": rundir.number(scored, "test.bpb"),
        "why": why or waits_for,
        "notes": rundir.notes(run_dir),
        "run_dir": str(run_dir),
        "blocked": waits_for is not None,
        **{key: going[key] for key in ("bytes_per_s", "flops_per_s", "mfu", "flops_left")},
        "eta_s": going["seconds_left"] if state == "running" else None,
        "silent_s": going["silent_s"] if state == "running" else None,
        **tries(run_dir, tried, state),
    }


def _wrong(directory: pathlib.Path, error: Exception) -> tuple[str, str]:
    """(the state, why) of a directory that could not be read to the end."""
    if isinstance(error, OSError):
        return "unreadable", f"{error.filename or directory}: {error.strerror}"
    kind = "" if isinstance(error, UserError) else f"{directory}: {type(error).__name__}: "
    return "damaged", f"{kind}{error}"


def _unknown(run_dir: pathlib.Path, state: str, why: str | None) -> dict:
    """A run of which no more is known."""
    keys = ("steps", "train_bpb", "test_bpb", "bytes_per_s", "flops_per_s", "mfu", "flops_left", "eta_s")
    known = {"state": state, "step": 0, "why": why and one_line(why), "notes": [], "run_dir": str(run_dir)}
    spent = {"chip_hours": None} if state == "unreadable" else {}
    return dict.fromkeys((*keys, "silent_s")) | known | {"blocked": False} | tries(run_dir, [], state) | spent


def at_work(directory: pathlib.Path, tried: list[dict], denied=()) -> bool:
    """Whether a process is at a job. Its lock says so on the machine of the process; where the lock may not
    be read, and on other machines, whose locks not every file system shows, the newest attempt's signs of
    life do too. tried: the attempts; denied: names of files that may not be read."""
    try:
        if locks.is_held(directory / ".lock"):
            return True
    except OSError:  # no locks there
        denied = (*denied, ".lock")
    here = tried and tried[-1].get("host") == socket.gethostname() and ".lock" not in denied
    return bool(tried) and not here and attempts.lives(tried[-1])


def tries(directory: pathlib.Path, tried: list[dict], state: str) -> dict:
    """What attempts at a job say: how many, how the newest ended, on how many chips (0: a CPU), chip-hours of
    all; and the error that the last one to fail has left."""
    running = state == "running"
    return {
        "attempts": len(tried),
        "last_ended": attempts.ending(tried[-1]) if tried and not running else None,
        "chips": tried[-1]["chips"] if tried else None,
        "chip_hours": attempts.hours_of(tried),
        "last_error": last_error(directory),
    }


def last_error(directory: pathlib.Path) -> str | None:
    """What failed.json says, in a line."""
    said = (rundir.read_json(directory / "failed.json") or {}).get("error")
    return one_line(str(said)) if said else None


def one_line(text: str) -> str:
    """Text of somebody's file as one line, without what would move a terminal's cursor."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def failed_before(run_dir: pathlib.Path, config: ConfigDict | None, known: dict) -> str | None:
    """Which job failed that the run waits for. config: names the run that it may start from."""
    found = [job_of(directory, known) for directory in needs(run_dir)]
    if config is not None and (sibling := cfg.sibling(config)) and sibling != run_dir.name:
        other = run_dir.parent / sibling
        if rundir.state(other) == "failed" and not at_work(other, attempts.read(other)):
            found.append({"name": sibling, "state": "failed", "why": last_error(other)})
    failed = [job for job in found if job["state"] in ("failed", "given up")]
    return f"{failed[0]['name']} {failed[0]['state']}: {failed[0]['why']}" if failed else None


def another(run_dir: pathlib.Path, config: ConfigDict) -> str | None:
    """What a run that has begun differs in from a config, in a line; None where it is the same."""
    try:
        record = rundir.read_json(run_dir / "config.json")
        if record is None or not rundir.begun(run_dir):
            return None
        differing = rundir.differences(run_dir, record, config)
    except UserError as error:
        return str(error)
    found = [said for key, said in differing.items() if key.split(".")[0] not in cfg.LABELS]
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""
    return f"of another config: {', '.join(found[:2])}{more}" if found else None


def of_experiment(
    root: pathlib.Path,
    experiment: str,
    names: list[str],
    configs: dict | None = None,
    known: dict | None = None,
    before: dict | None = None,
) -> list[dict]:
    """Every run that the experiment declares, with its name. configs: {name: its config}, as far as there;
    known: as of_run has it; before: what earlier calls found, kept there."""
    configs, known, before = configs or {}, {} if known is None else known, {} if before is None else before
    found = []
    for name in names:
        run_dir = root / experiment / name
        stamps = [_stamp(run_dir / file) for file in rundir.READ]
        if before.get(run_dir, (None,))[0] != stamps:
            row = of_run(run_dir, configs.get(name), known)
            before[run_dir] = (stamps if row["state"] == "done" else None), row
        found.append({"name": name, **before[run_dir][1]})
    return found


def _stamp(path: pathlib.Path) -> tuple | None:
    """What changes when a file does. The scores of a done run are long, and are not read each time that one
    looks."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def of_shared(root: pathlib.Path, experiment: str, names: list[str], known: dict | None = None) -> list[dict]:
    """The jobs whose outputs these runs read, as far as their inputs.json name them: name, kind (?: it is not
    known), and what of_run has. known: as there."""
    known = {} if known is None else known
    wanted = dict.fromkeys(directory for name in names for directory in needs(root / experiment / name))
    return [job_of(directory, known) for directory in wanted]


def needs(run_dir: pathlib.Path, seen=()) -> list[pathlib.Path]:
    """Directories of the jobs that a run directory's inputs.json names, those of its entropy model first.
    seen: of runs that lead here."""
    try:
        said = inputs.read(run_dir) or {}
    except OSError:  # its own line says so
        return []
    paths = [*said.get("data", {}), said.get("entropy_model"), said.get("annotation")]
    if said.get("tokenizer"):
        paths.append(str(pathlib.Path(said["tokenizer"]).parent))
    found = []
    for path in filter(None, paths):
        try:
            directory = (run_dir / path).resolve()
        except (OSError, ValueError, RuntimeError):  # no path at all, or one that goes round in a circle
            continue
        if directory.parent.name != rundir.SHARED or directory in seen:
            continue
        if path == said.get("entropy_model"):
            found += needs(directory, (*seen, directory))
        found.append(directory)
    return list(dict.fromkeys(found))


def job_of(directory: pathlib.Path, known: dict) -> dict:
    """One shared job, asked for once."""
    if directory not in known:
        known[directory] = of_job(directory, known)
    return known[directory]


def of_job(directory: pathlib.Path, known: dict) -> dict:
    """One shared job."""
    try:
        run = (directory / "inputs.json").exists()
        kind, row = ("run", of_run(directory, known=known)) if run else _of_job(directory)
    except (OSError, *DAMAGE) as error:
        kind, row = "?", _unknown(directory, *_wrong(directory, error))
    return {"name": directory.name, "kind": kind, **row}


def _of_job(directory: pathlib.Path) -> tuple[str, dict]:
    """(its kind, what is known of it) of a job that is no run."""
    kind, tried = jobs.kind_of(directory), attempts.read(directory)
    state, why = jobs.state(directory, kind), None
    if state != "done" and at_work(directory, tried):
        state = "running"
    elif state == "failed":
        why = last_error(directory)
    elif state != "done":
        stuck = attempts.stuck(directory)
        state, why = ("given up", GIVEN_UP) if stuck else ("waiting", None)
    return kind, {**_unknown(directory, state, why), **tries(directory, tried, state)}
