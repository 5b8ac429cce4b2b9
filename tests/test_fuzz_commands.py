"""Configs with absurd values and command lines in every order: done, or one clear line and status 2."""

import contextlib
import functools
import io
import pathlib
import re
import shlex
import signal
import traceback

import numpy as np
import pytest

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.experiments import registry
from bltjax.sweep import speed

pytestmark = pytest.mark.slow
SEED, SECONDS = 13, 60
TINY = str(pathlib.Path(__file__).parent / "tiny_experiment.py")
ONE_LINE = re.compile(r"bltjax[^\n]*: [^\n]+\n")


class Hang(BaseException):
    """A command that ran for longer than SECONDS."""


def called(arguments, seconds=SECONDS) -> tuple:
    """(status, stdout, stderr) of a command in this process; a traceback is a status of its own."""

    def stop(*_):
        raise Hang

    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of this process: a busy machine may take longer
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main.main(list(map(str, arguments)))
    except SystemExit as end:
        status = end.code
    except (Exception, Hang):
        status = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode("utf-8", "replace"))
    return status, *said


def wrong(status, out, err) -> str:
    """What is wrong with how a command ended; "": nothing."""
    if status not in (0, 2) or "Traceback" in err:
        return f"status {status}: {err}"
    if status == 2 and (not ONE_LINE.fullmatch(err) or out):
        return f"not one line: {out}{err}"
    return ""


# Configs.

ABSURD = (
    *(
        "",
        "-1",
        "0",
        "1",
        "0.5",
        "1e6",
        "-0.0",
        "1e30",
        "1e308",
        "-1e308",
        "1e-308",
        "1e999",
        str(2**31),
        str(2**63),
    ),
    *("NaN", "Infinity", "-Infinity", "null", "true", "9" * 5000, "0x10", "1_000"),
    *(
        '""',
        '"x"',
        "x",
        "[]",
        "{}",
        "[1, 2]",
        '["a"]',
        "[[]]",
        "[null]",
        '{"a": 1}',
        "[NaN]",
        "[-1]",
        "[1e308]",
    ),
    *(
        "'a\"b'",
        '"a\\"b',
        "line\nbreak",
        "é中\u202e",
        "\udcff",
        '"\\ud800"',
        "a=b",
        " ",
        "/",
        "..",
        "~",
        "*",
        "%s{0}",
    ),
    *("x" * 100_000, "[" * 100_000, "*" * 300, "no/such/file", "hf:", "tfds:x/../y", "\0"),
)
RUNS = ("bpe-S", "blt-entropy-S", "blt-space-S", "blt-strided-S")


def keys_of(name):
    (run,) = (run for run in registry.load("quickstart").runs if run.name == name)
    return list(cfg.flat(run))


def planned(name, key, value):
    return called(["plan", "quickstart", "--only", name, "--json", "--set", f"{key}={value}"])


def config_case(number):
    """(run's name, key, value) of a case."""
    rng = np.random.default_rng([SEED, number])
    name = str(rng.choice(RUNS))
    return name, str(rng.choice(keys_of(name))), ABSURD[rng.integers(len(ABSURD))]


@pytest.mark.parametrize("number", range(100), ids=lambda number: f"config-{number}")
def test_absurd_values_are_planned_or_refused(monkeypatch, number):
    monkeypatch.setattr(speed, "measuring", lambda: contextlib.nullcontext(lambda: 1e9))
    name, key, value = config_case(number)
    said = wrong(*planned(name, key, value))
    assert not said, f"seed {SEED}, case {number}: plan {name} --set {key}={value[:99]!r}: {said}"


# Command lines.

# verb: (its words, its other arguments in their order, options with their values). {folder} is the module's.
RIGHT = {
    "patch": ("patch", ["def f(x): return x"], ["--scheme random", "--mean 4", "--seed 7", "--json"]),
    "patch by a model": ("patch", ["some text"], ["--run {folder}/tiny_experiment/space", "--color never"]),
    "plan": (
        "plan",
        [TINY],
        ["--only space", "--set train.lr=1e-3", "--set data.rows=1", "--seeds 2", "--json"],
    ),
    "status": ("status", [TINY], ["--root {folder}", "--only space", "--json"]),
    "report": (
        "report",
        [TINY],
        ["--root {folder}", "--out {folder}/report", "--export {folder}/runs.csv", "--json"],
    ),
    "generate": (
        "generate",
        ["{folder}/tiny_experiment/space", "a prompt"],
        ["--max-new-bytes 3", "--temperature 0.7", "--seed 1", "--top-k 9"],
    ),
    "prepare": (
        "data prepare",
        ["files", "{folder}/texts/1*.txt", "{folder}/texts/*.txt"],
        ["--out {folder}/prepared", "--shards 2", "--set min_bytes=40", "--set test=0.2", "--json"],
    ),
    "inspect": ("data inspect", ["{folder}/prepared"], ["--verify", "--json"]),
}
COUNTS = {"report": 3, "generate": 8, "patch by a model": 4}  # of those that take their time; others: 12
SHORTER = {"--max-new-bytes": "--max-new", "--temperature": "--temp", "--scheme": "--sch", "--only": "--on"}
FOREIGN = ("", " ", "--", "-", "x" * 20_000, "\udcff", "a\nb", "--set", "é", "-1", "[", "{folder}", "=")


def split(right, folder):
    """(the verb's words, other arguments, options as lists of words)."""
    verb, others, options = right
    put = lambda text: text.replace("{folder}", str(folder))
    return verb.split(), [put(other) for other in others], [put(option).split() for option in options]


def shuffled(rng, others, options):
    """Others in their order, options anywhere among them."""
    places = rng.permutation([True] * len(options) + [False] * len(others))
    options, others = iter(rng.permutation(np.array(options, object)).tolist()), iter(others)
    return [word for is_option in places for word in (next(options) if is_option else [next(others)])]


def same(rng, others, options):
    """The same command in other words."""
    how = rng.integers(4)
    if how == 0:  # --option=value
        options = [["=".join(option)] for option in options]
    elif how == 1:  # shorter names
        options = [[SHORTER.get(option[0], option[0]), *option[1:]] for option in options]
    elif how == 2:  # said twice
        options = [*options, options[rng.integers(len(options))]]
    elif how == 3:  # no options from -- on
        at = rng.integers(len(others) + 1)
        return [*shuffled(rng, others[:at], options), "--", *others[at:]]
    return shuffled(rng, others, options)


def no_command(rng, others, options):
    """What is no command of any verb."""
    words = shuffled(rng, others, options)
    wrong = (["--frobnicate"], ["--seed"], ["--seed", "1.5"])
    how = int(rng.integers(4))
    return [*words, *wrong[how]] if how < 3 else shuffled(rng, [], options)  # none of what is not an option


def foreign(rng, words, folder):
    """A command with something else in it, or in place of something, which may be one or none."""
    at, what = int(rng.integers(len(words) + 1)), FOREIGN[rng.integers(len(FOREIGN))]
    words[at : at + int(rng.integers(2))] = [what.replace("{folder}", str(folder))]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts, a run that hardly trained on them, and what the right commands print."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "texts").mkdir()
    rng = np.random.default_rng(SEED)
    for i in range(30):
        text = " ".join("".join(rng.choice(list("abcdefg"), rng.integers(1, 9))) for _ in range(60))
        (folder / "texts" / f"{i}.txt").write_text(text)
    assert trained(folder, "space") == (0, "")
    return folder


def of_tiny(verb, folder, *more):
    """The words of a command on three steps of a tiny run."""
    few = ["train.steps=3", "budget_flops=0", f'data.globs=["{folder}/texts/*.txt"]', *more]
    return [*verb, *(word for item in few for word in ("--set", item))]


def trained(folder, name, *more):
    """(status, what stderr has where that is not 0)."""
    verb = ["train", "--config", TINY, "--run", "space", "--run-dir", folder / "tiny_experiment" / name]
    status, out, err = called(of_tiny(verb, folder, *more), 10 * SECONDS)
    return status, "" if status == 0 else err


@pytest.mark.parametrize("number", range(5))
def test_what_is_planned_is_run(folder, monkeypatch, number):
    monkeypatch.setattr(speed, "measuring", lambda: contextlib.nullcontext(lambda: 1e9))
    rng, status = np.random.default_rng([SEED, number]), 2
    keys = [
        key for key in keys_of("blt-space-S") if key.startswith(("data.", "train.", "patching.", "eval."))
    ]
    few = [
        value for value in ABSURD if not re.fullmatch(r"\d{4,}|[\d.]+e[1-9]\d*", value)
    ]  # steps take no time
    while status:
        change = f"{rng.choice(keys)}={few[rng.integers(len(few))]}"
        status, _, _ = called(of_tiny(["plan", TINY, "--only", "space"], folder, change))
    status, said = trained(folder, f"space-{number}", change)
    # a loss that is no number is none of a config's mistakes
    assert status == 0 or status == 1 and ONE_LINE.search(said), f"{change!r}: {status} {said}"


@functools.cache
def printed(name, folder):
    """What the right command prints."""
    verb, others, options = split(RIGHT[name], folder)
    status, out, err = called([*verb, *others, *sum(options, [])])
    assert status == 0 and out, err
    return out


CASES = [name for name in RIGHT for _ in range(COUNTS.get(name, 12))]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{CASES[number]}-{number}")
def test_command_lines_in_any_order(folder, tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "measuring", lambda: contextlib.nullcontext(lambda: 1e9))
    expected = printed(CASES[number], folder)
    verb, others, options = split(RIGHT[CASES[number]], folder)
    rng = np.random.default_rng([SEED, number])
    what = (same, same, no_command, foreign)[number % 4]
    if what is foreign:
        words = foreign(rng, [*verb, *shuffled(rng, others, options)], folder)
    else:
        words = [*verb, *what(rng, others, options)]
    status, out, err = called(words)
    said = wrong(status, out, err)
    if what is same and (status or out != expected):
        said = said or f"status {status}, {out[:999]!r} in place of {expected[:999]!r}: {err}"
    if what is no_command and not status:
        said = "was taken"
    line = " ".join(shlex.quote(word)[:99] for word in words)
    assert not said, f"seed {SEED}, case {number} ({what.__name__}): bltjax {line}: {said}"
