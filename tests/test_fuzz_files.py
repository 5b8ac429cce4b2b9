"""Files of every kind, cut, renamed, joined, with foreign bytes and flipped bits: `bltjax data prepare` takes
exactly the documents that an honest reader sees in them, or says one line and ends with status 2.

A case is a function of its number: `pytest tests/test_fuzz_files.py -m slow -k 'case-17'` repeats it."""

import contextlib
import io
import os
import signal
import traceback

import pytest
from fuzzed_files import CASES, SECONDS, SEED, SHORT, Hang, case

from bltjax.cli import main
from bltjax.data import corpus

pytestmark = pytest.mark.slow


def prepared(patterns, out):
    """(status, what stderr has) of the command."""

    def stop(*_):
        raise Hang

    said = io.StringIO()
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process: a busy machine may take longer
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            return (
                main.main(["data", "prepare", "--out", str(out), "files", "--", *patterns]),
                said.getvalue(),
            )
    except SystemExit as end:
        return end.code, said.getvalue()
    except (Exception, Hang):
        return "a traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def texts(out):
    return sorted(corpus.Documents(corpus.shards(out)))


def wrong(number, folder) -> str:
    """What is wrong with a case; "": nothing."""
    files = case(number)
    folder.joinpath("in").mkdir(parents=True)
    for name, (data, *_) in files.items():
        (folder / "in" / name).write_bytes(data)
    named = number % 2
    patterns = [f"{folder}/in/{name}" for name in files] if named else [f"{folder}/in/*"]
    status, said = prepared(patterns, folder / "out")
    all_must = all(must and found is not None for _, found, must, _ in files.values())
    if status not in (0, 2) or "Traceback" in said:
        return f"status {status}: {said}"
    if status == 2:
        ours = [line for line in said.splitlines() if line.startswith("bltjax: ")]
        if len(ours) != 1 or not said.endswith(ours[0] + "\n"):
            return f"not one line: {said}"
        return f"sound files are refused: {said}" if all_must else ""
    for name, (_, found, _, happened) in files.items():
        if found is None:
            return f"{name!r} ({', '.join(happened)}) was taken"
    asked = {text for _, found, _, _ in files.values() for text in found if len(text) >= SHORT}
    if set(got := texts(folder / "out")) != asked or len(got) != len(asked):
        lacking, more = asked - set(got), set(got) - asked
        return f"other documents: {len(got)} of {len(asked)}, lacking {lacking}, not asked for {more}"
    return ""


@pytest.mark.parametrize("number", range(CASES), ids=lambda number: f"case-{number}")
def test_the_right_documents_or_one_line(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a busy disk takes its time
    said = wrong(number, tmp_path)
    happened = {name: happened for name, (*_, happened) in case(number).items()}
    assert not said, f"seed {SEED}, case {number}, {happened}: {said}"
