"""The table of `bltjax status` for people: a line a run, folded to a terminal's width."""

import collections
import shutil
import textwrap

from bltjax.sweep import status

LEFT = ("run", "state", "attempts")  # titles of words; numbers stand right
# What a narrow terminal lacks, the first first; run and state always stay.
DROPPED = ("train bpb", "bytes/s", "MFU", "hours", "chip-hours", "attempts", "test bpb", "step", "ETA")
GAP = "  "


def text(found: dict, width: int | None = None, height: int | None = None) -> str:
    """found: as launch/overview.py has it, or the runs and jobs of status.py; width: None: any, a line a run;
    height: lines that may be printed; None: any. Where there are more, runs that are done, then those that
    wait, are counted only."""
    rows, shared, total = found["runs"], found.get("jobs", []), found.get("totals")
    foot = ["", *summary(found, width)]
    for hidden in ((), ("done",), ("done", "waiting", "stopped")):
        some = [row for row in rows if row["state"] not in hidden]
        few = [row for row in shared if row["state"] not in hidden]
        head, lines = table([*some, *few], total, width)
        middle = ["shared by these runs", *sum(lines[len(some) :], [])] if few else []
        left_out = counted_states(row for row in [*rows, *shared] if row["state"] in hidden)
        more = [f"(not shown: {left_out})"] if left_out else []
        printed = [head, *sum(lines[: len(some)], []), *more, *foot[: 1 if middle else 0], *middle, *foot]
        if height is None or len(printed) <= height:
            break
    return "\n".join(printed)


def table(
    rows: list[dict], total: dict | None = None, width: int | None = None
) -> tuple[str, list[list[str]]]:
    """(the head, [lines of each row]). A column that no row has anything for is left out."""
    hours = "chip-hours" if any(row["chips"] for row in rows) or (total or {}).get("on_chips") else "hours"
    each = [cells(row, hours) for row in rows]
    titles = [title for title in cells(None, hours) if title in LEFT[:2] or any(one[title] for one in each)]
    wide = {title: max([len(title), *(len(one[title]) for one in each)]) for title in titles}
    for title in DROPPED:
        if width and sum(wide.values()) + len(GAP) * (len(wide) - 1) > width:
            wide.pop(title, None)
    at = lambda title, cell: cell.ljust(wide[title]) if title in LEFT else cell.rjust(wide[title])
    lined = lambda one: GAP.join(at(title, one[title] or "-") for title in wide)
    lines = []
    for row, one in zip(rows, each):
        line, why = lined(one), said(row)
        if not why or width is None or len(line) + len(GAP) + len(why) <= width:
            lines.append([f"{line}{GAP}{why}".rstrip()])
        else:
            lines.append([line.rstrip(), *folded(why, width, "    ")])
    return lined({title: title for title in wide}).rstrip(), lines


def cells(row: dict | None, hours: str = "hours") -> dict[str, str]:
    """{title: a row's text}, "" where it has none. hours: the title of the hours that attempts took: chips'
    or, where none had a chip, of processes on CPUs."""
    row = row or {}
    number = lambda key, form: "" if row.get(key) is None else form(row[key])
    scoring = row.get("state") == "running" and row.get("steps") and row["step"] >= row["steps"]
    word = row.get("last_ended") if row.get("state") != "done" else None
    cpu = " (CPU)" if hours == "chip-hours" and row.get("chips") == 0 else ""
    return {
        "run": row.get("name", ""),
        "state": row.get("state", ""),
        "step": f"{row['step']}/{row['steps']}" if row.get("steps") else "",
        "bytes/s": number("bytes_per_s", rounded),
        "MFU": number("mfu", lambda share: f"{share:.1%}"),
        "ETA": "scoring" if scoring else number("eta_s", duration),
        "attempts": (f"{row['attempts']}" + (f" ({word})" if word else "")) if row.get("attempts") else "",
        hours: number("chip_hours", lambda spent: f"{spent:,.2f}{cpu}") if row.get("attempts") else "",
        "train bpb": number("train_bpb", "{:.3f}".format),
        "test bpb": number("test_bpb", "{:.3f}".format),
    }


def said(row: dict) -> str:
    """Why a row stands as it does, or what it had to say on its way."""
    # what a run overcame on its way is no news once it is done
    news = [] if row["state"] == "done" else [*row["notes"][-3:]]
    if row.get("silent_s") is not None:
        news.insert(0, f"no step for {duration(row['silent_s'])}")
    if row["state"] not in ("done", "failed") and row["last_error"]:
        news.append(f"failed before: {row['last_error']}")
    if row["state"] in ("waiting", "stopped") and (given := row.get("launched")):
        news.insert(0, f"given to {given['on']}" + (f" as {given['id']}" if given["id"] else ""))
    return status.one_line("; ".join([row["why"]] if row["why"] else news))


def summary(found: dict, width: int | None = None) -> list[str]:
    """Lines under the table: how many stand how, what was spent, when all will be done."""
    parts = [counted_states(found["runs"])]
    if total := found.get("totals"):
        hours = "chip-hours" if total["on_chips"] else "hours"
        budget = total["budget_chip_hours"]
        if total["chip_hours"] or budget:
            parts.append(f"{total['chip_hours']:,.2f}{f' of {budget:,g}' if budget else ''} {hours} spent")
        if total["eta_s"] is not None:
            parts.append(f"all done in {duration(total['eta_s'])}, if as many go on")
    if (found.get("launch") or {}).get("why"):
        parts.append(found["launch"]["why"])
    return folded("; ".join(parts), width)


def counted_states(rows) -> str:
    """Such as "3 done, 1 failed"."""
    counts = collections.Counter(row["state"] for row in rows)
    return ", ".join(f"{n} {state}" for state, n in counts.items())


def folded(line: str, width: int | None, indent: str = "") -> list[str]:
    """A line as lines of a width."""
    if width is None or len(indent) + len(line) <= width:
        return [indent + line]
    return textwrap.wrap(line, max(width, 20), initial_indent=indent, subsequent_indent=indent)


def duration(seconds: float) -> str:
    """5 s, 12 min, 3 h 05 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1440:,} d {minutes % 1440 // 60} h"


def rounded(number: float) -> str:
    """Three digits and a power of a thousand: 950, 12.3k, 4.56M."""
    for sign in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5 or sign == "T":
            return f"{number:.3g}{sign}" if abs(number) < 999.5 else f"{number:,.0f}{sign}"
        number /= 1000


def terminal() -> tuple[int, int]:
    """(columns, lines) of the terminal."""
    size = shutil.get_terminal_size()
    return size.columns, size.lines
