"""Finds an experiment, by its name here or by the path of a user's own file, and checks what it declares.

An experiment is a Python file with `get_config(arg=None)`, which returns a locked ConfigDict:

    claim    one sentence: what the runs are there to show
    figure   the figure or table of the paper that it redraws, or ""
    runs     a tuple of run configs (`bltjax.config.run`), with different names
    swept    optional: keys such as "train.lr" over which a report takes the best on validation text; whatever
             else differs between runs of a family at one budget makes another curve (default: `config.SWEPT`)
    seeds    optional: how many seeds every run has unless --seeds says otherwise (default: 1); or a tuple of
             such numbers, one for each run
    law      optional: the law that its fit is to give, such as "L(N, D)"; a test holds that such runs do not
             all lie on one line of size and data

The file's name is the experiment's, and with it the directory of its runs. `NAME:arg` passes arg on, and is a
directory of its own, `NAME-arg`; every file answers to `runlocal`, its small version for a laptop."""

import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback
from collections.abc import Sequence

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.data import sources
from bltjax.errors import UserError
from bltjax.run import validate

FOLDER = pathlib.Path(__file__).parent
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
LONGEST_NAME = 150  # characters: a directory's name has 255, and files beside it are named after it
RESERVED = ("report", "compiled", "launch")  # what stands beside an experiment's runs
MOST_SEEDS = 100  # of one run
# Keys that move no document to another split; but where a run and its entropy model differ in them, their
# text is prepared twice.
ALSO_PREPARED = ("group_field", "longest")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a file declares. name: of the directory of its runs; path: the file; law: that its fit gives."""

    name: str
    claim: str
    figure: str
    runs: tuple[ConfigDict, ...]
    path: pathlib.Path
    law: str = ""


def names() -> list[str]:
    """The experiments that come with the package."""
    return sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "registry"))


def load(
    name_or_path: str,
    overrides=(),
    *,
    runlocal: bool = False,
    only: str | Sequence[str] = "",
    seeds: int | None = None,
    refused: list | None = None,
) -> Experiment:
    """The experiment `NAME`, `NAME:arg`, `path/to/file.py` or `path/to/file.py:arg`; runlocal: the same as
    the arg "runlocal".

    only: keep the runs whose names contain this text, or one of these texts. overrides: `key=value` texts
    (bltjax.config.parse_set), applied to every run that is kept. seeds: every run so many times
    (`with_seeds`); None: as often as the experiment says. refused: a list that takes {"name", "why"} of runs
    whose config is not valid, which are then left out; None: they are an error. Anything wrong: UserError,
    one line."""
    target, arg = _parse(str(name_or_path))
    if runlocal:
        if arg not in (None, "runlocal"):
            raise UserError(f"{name_or_path}: give either {arg!r} or runlocal")
        arg = "runlocal"
    path, module = _module(target)
    declared = _call(path, module, arg)
    name = path.stem if arg is None else f"{path.stem}-{re.sub('[^A-Za-z0-9._+-]+', '-', arg)}"
    once = _labelled(path, declared)
    known = {key for run in once for key in cfg.flat(run)}.union(cfg.SWEPT)
    declared_runs = with_seeds(once, _seeds(path, declared, seeds, len(once)))
    texts = [only] if isinstance(only, str) else list(only) or [""]
    for text in texts:
        if not any(text in run.name for run in declared_runs):
            raise UserError(
                f"no run of {name} has {text!r} in its name; there are"
                f" {', '.join(run.name for run in declared_runs)}"
            )
    kept = tuple(run for run in declared_runs if any(text in run.name for text in texts))
    runs = []
    for run in kept:
        try:
            run = validate.check(_overridden(run, overrides)) if overrides else _checked(path, run)
            _check_swept(run, known)
            runs.append(run)
        except UserError as error:
            if refused is None:
                raise
            refused.append({"name": run.name, "why": str(error)})
    runs = tuple(runs)
    words = {key: str(declared.get(key, "")) for key in ("claim", "figure", "law")}
    return Experiment(name=name, runs=runs, path=path, **words)


def with_seeds(runs, seeds: int | Sequence[int]) -> tuple[ConfigDict, ...]:
    """Every run `seeds` times, or each as often as its own number says: as it is, and with the seeds after
    its own, named NAME-seedS. So more seeds of an experiment are more runs beside those that it has.

    `seed` draws the weights and nothing else, so that the copies share documents and their order (data.seed),
    tokenizer and entropy model, whose config stays what it is."""
    return tuple(
        cfg.replace(run, name=f"{run.name}-seed{seed}", seed=seed) if seed > run.seed else run
        for run, times in zip(runs, [seeds] * len(runs) if isinstance(seeds, int) else seeds, strict=True)
        for seed in range(run.seed, run.seed + times)
    )


def _seeds(path: pathlib.Path, declared: ConfigDict, asked: int | None, runs: int) -> int | tuple[int, ...]:
    where, seeds = ("--seeds", asked) if asked is not None else (f"{path}: seeds", declared.get("seeds", 1))
    if isinstance(seeds, tuple) and len(seeds) != runs:
        raise UserError(f"{where} has {len(seeds)} numbers for {runs} runs")
    for number in seeds if isinstance(seeds, tuple) else (seeds,):
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_SEEDS:
            raise UserError(f"{where} is {seeds!r}; it must be a whole number, 1 to {MOST_SEEDS}")
    return seeds


def _labelled(path: pathlib.Path, declared: ConfigDict) -> tuple[ConfigDict, ...]:
    """The runs, with what the experiment says is swept."""
    runs = _runs(path, declared)
    swept = declared.get("swept")
    if swept is None:
        return runs
    known = {key for run in runs for key in cfg.flat(run)}
    for key in swept if isinstance(swept, (tuple, list)) else [swept]:
        if not isinstance(swept, (tuple, list)) or key not in known:
            raise UserError(
                f'{path}: swept is {swept!r}; it must be a tuple of keys of the runs, as ("train.lr",)'
            )
    swept = tuple(swept)
    return tuple(run if run.swept == swept else cfg.replace(run, swept=swept) for run in runs)


def _check_swept(run: ConfigDict, known: set) -> None:
    """UserError where a run says of what is no key of any that it is swept."""
    for key in run.swept:
        if key not in known:
            close = difflib.get_close_matches(key, sorted(known), 3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise UserError(f"run {run.name}: swept has {key!r}, which is no key of a run{hint}")


def _parse(text: str) -> tuple[str, str | None]:
    if pathlib.Path(text).is_file():
        return text, None
    target, sign, arg = text.partition(":") if ".py:" not in text else text.rpartition(":")
    if sign and not arg:
        raise UserError(f"{text!r}: nothing stands after the colon; write {target} or {target}:ARG")
    return target, arg or None


def _module(target: str):
    """The file and its imported module."""
    if target in names():
        path = FOLDER / f"{target}.py"
        return path, _imported(path, lambda: importlib.import_module(f"bltjax.experiments.{target}"))
    path = pathlib.Path(target)
    if path.suffix == ".py" or len(path.parts) > 1:
        if not path.is_file():
            raise UserError(f"no experiment file {target}")
        return path, _imported(path, lambda: _from_file(path))
    close = difflib.get_close_matches(target, names(), 3, 0.4)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise UserError(
        f"unknown experiment {target!r}; {hint}known: {', '.join(names())}; or give the path of your own .py"
        " file"
    )


def _from_file(path: pathlib.Path):
    name = f"bltjax_experiment_{re.sub('[^A-Za-z0-9]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look their own module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(path: pathlib.Path, load_module):
    try:
        # what a file prints must not stand in the middle of --json
        with contextlib.redirect_stdout(sys.stderr):
            return load_module()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} fails to import: {_why(path, error)}") from error


def _call(path: pathlib.Path, module, arg: str | None) -> ConfigDict:
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(
            f"{path} has no get_config(arg=None); an experiment file must have one (see"
            f" {FOLDER / 'registry.py'})"
        )
    if arg is not None and not inspect.signature(get_config).parameters:
        raise UserError(
            f"{path}: get_config takes no argument, so {arg!r} cannot be passed on; write"
            " get_config(arg=None)"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            declared = get_config() if arg is None else get_config(arg)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}: get_config fails: {_why(path, error)}") from error
    if not isinstance(declared, ConfigDict) or "runs" not in declared:
        raise UserError(
            f"{path}: get_config must return a ConfigDict with claim, figure and runs, not"
            f" {type(declared).__name__}"
        )
    return declared


def _runs(path: pathlib.Path, declared: ConfigDict) -> tuple[ConfigDict, ...]:
    runs = declared.runs
    if not isinstance(runs, (tuple, list)) or not runs:
        raise UserError(f"{path}: runs must be a tuple of run configs, at least one")
    seen = set()
    for i, run in enumerate(runs):
        if not isinstance(run, ConfigDict) or not {"name", "family", "model", "data", "train"} <= set(run):
            raise UserError(f"{path}: run {i} is no run config; make it with bltjax.config.run(...)")
        if not NAME.fullmatch(run.name):
            raise UserError(
                f"{path}: a run is named {run.name!r}; a name is a directory: letters, digits and . _ + -"
                " only"
            )
        if len(run.name) > LONGEST_NAME or run.name.lower() in RESERVED:
            long = len(run.name) > LONGEST_NAME
            what = "it is too long" if long else f"{', '.join(RESERVED)} stand beside the runs"
            raise UserError(
                f"{path}: a run is named {run.name[:99]!r}; {what} (a name has {LONGEST_NAME} characters at"
                " most)"
            )
        if run.name in seen:
            raise UserError(f"{path}: two runs are named {run.name!r}")
        seen.add(run.name)
    return tuple(run.copy_and_resolve_references().lock() for run in runs)


def _checked(path: pathlib.Path, run: ConfigDict) -> ConfigDict:
    """As the file has it: a mistake is the file's."""
    try:
        return validate.check(run)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _overridden(run: ConfigDict, overrides) -> ConfigDict:
    assignments = list(overrides)
    # an entropy model must never read what its run holds out: an override of the run's documents is its too
    if len(run.entropy_model):
        shared = tuple(f"data.{key}=" for key in (*cfg.TEXT_KEYS, *ALSO_PREPARED))
        assignments = [f"entropy_model.{a}" for a in assignments if a.startswith(shared)] + assignments
    if any(a.partition("=")[0].strip() == "name" for a in overrides):
        raise UserError("--set name: a run's name is its directory and comes from the experiment file")
    try:
        changed = cfg.parse_set(run, assignments)
        keys = {item.partition("=")[0].strip() for item in overrides}
        sources.check_read(
            changed.data, {key.removeprefix("data.") for key in keys if key.startswith("data.")}
        )
        return changed
    except UserError as error:
        raise UserError(f"--set, run {run.name}: {error}") from None


def _why(path: pathlib.Path, error: BaseException) -> str:
    """An error of the file's as one line, with the last line number inside the file."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if pathlib.Path(frame.filename) == path
    ]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text} (line {lines[-1]})" if lines else text
