"""Prints where an experiment stands, once or as it changes."""

import json
import os
import sys
import time

SECONDS_ON_TERMINAL, SECONDS = 5.0, 30.0  # between two looks of --watch
CLEAR = "\x1b[H\x1b[2J"


def show(found: dict, as_json: bool = False) -> None:
    """Prints it once. found: as launch/overview.py has it, here and below."""
    from bltjax.sweep import status_table

    width, _ = status_table.terminal() if on_terminal() else (None, None)
    print(json.dumps(found, allow_nan=False) if as_json else status_table.text(found, width))


def on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def watch(look, as_json: bool = False) -> int:
    """Prints what look() finds whenever it has changed: on a terminal the whole table anew, elsewhere the
    lines that changed. Returns when nothing is left to wait for (launch/overview.py's over), or 130 at
    Ctrl-C."""
    from bltjax.launch import overview

    anew = on_terminal() and not as_json
    before, ended = None, None
    try:
        while True:
            found = look()
            (redraw if anew else lines_as_json if as_json else changed_lines)(found, before)
            sys.stdout.flush()
            code = overview.over(found)
            # a failure has to be there twice: a file system that is away for a moment is none
            if code == 0 or code is not None and code == ended:
                return code
            before, ended = found, code
            time.sleep(SECONDS_ON_TERMINAL if anew else SECONDS)
    except KeyboardInterrupt:
        return 130


def redraw(found: dict, before: dict | None) -> None:
    """The whole table, on a terminal that is cleared."""
    from bltjax.sweep import status_table

    width, height = status_table.terminal()
    title = f"{found['experiment']}, {time.strftime('%H:%M:%S')}"
    print(f"{CLEAR}{title}\n{status_table.text(found, width, height - 2)}")


def lines_as_json(found: dict, before: dict | None) -> None:
    """Everything as a line of JSON, if anything changed."""
    if found != before:
        print(json.dumps(found, allow_nan=False))


def changed_lines(found: dict, before: dict | None) -> None:
    """The table, then the lines of it that changed, below one another."""
    from bltjax.sweep import status_table as tables

    if before is None:
        print(tables.text(found))
        return
    rows = [*found["runs"], *found["jobs"]]
    shown = lambda row: (tables.cells(row), tables.said(row))
    old = {row["run_dir"]: shown(row) for row in [*before["runs"], *before["jobs"]]}
    _, lines = tables.table(rows, found["totals"])
    print_of = [line for row, line in zip(rows, lines) if old.get(row["run_dir"]) != shown(row)]
    for line in sum(print_of, []):
        print(line)
    if print_of and tables.summary(found) != tables.summary(before):
        print("\n".join(tables.summary(found)))
