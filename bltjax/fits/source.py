"""What a fit is made of, taken from a table: which columns are which variables, in which units, which rows
count, and what was left out and why."""

import collections
import dataclasses
import operator
import re

import numpy as np

from bltjax.counts import counted
from bltjax.errors import UserError
from bltjax.fits.table import Table
from bltjax.science import fit_runs
from bltjax.science.fit_runs import Runs

LOSS, FLOPS = "L", "C"
FIRST = ("N", "D", "T")  # the order of the terms of a law in N and D, whatever that of --columns
MOST = 4  # variables of a law
SMALLEST = 1e5  # the largest size or data below it are not counted in ones
DENSE = 6.0  # FLOPs per parameter and token of a dense Transformer, Hoffmann et al. 2022
COMPARE = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
BITS = {"true": "1", "false": "0", "yes": "1", "no": "0"}


@dataclasses.dataclass(frozen=True)
class Source:
    """runs: of the law's variables. flops, budgets, groups: of every row of the table (runs.rows_N says which
    row a run is), None where the table has none. families: the same, of which each has a joint law over its
    groups' patch sizes. chosen_by: by which number of every row the best of a budget is chosen, None: by the
    loss. names: of every row's run, for sentences about one. flops_from: in words. notes: what
    was done to the table, in sentences; warnings: what its reader should mend."""

    name: str
    runs: Runs
    flops: np.ndarray | None = None
    flops_from: str = ""
    budgets: np.ndarray | None = None
    groups: np.ndarray | None = None
    families: np.ndarray | None = None
    chosen_by: np.ndarray | None = None
    names: np.ndarray | None = None
    notes: tuple = ()
    warnings: tuple = ()

    def of(self, values, runs: Runs = None):
        """[N] of the runs, of values of all rows."""
        return values[(self.runs if runs is None else runs).rows_N]


def parse_columns(text: str) -> dict:
    """{variable: column} of N=params,D=tokens,L=loss. Names of columns may hold spaces and commas."""
    found = {}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        variable, equals, column = (piece.strip() for piece in part.partition("="))
        column = column.strip("'\"")
        if not equals or not column or not variable.isidentifier():
            raise UserError(f"--columns: {part.strip()!r} is not VARIABLE=COLUMN, such as N=params")
        if variable in found:
            raise UserError(f"--columns names {variable} twice")
        found[variable] = column
    for variable, column in found.items():
        other = next(name for name in found if found[name] == column)
        if other != variable:
            raise UserError(f"--columns: {other} and {variable} are the same column, {column!r}")
    if LOSS not in found:
        raise UserError(f"--columns names no loss: L=COLUMN (it has {', '.join(found)})")
    variables = [name for name in found if name != LOSS]
    if not variables:
        raise UserError("--columns names a loss and nothing that it depends on, such as N=params,D=tokens")
    if len([name for name in variables if name != FLOPS]) > MOST:
        raise UserError(f"--columns names {len(variables)} variables; a law takes {MOST} at most")
    return found


def parse_units(text: str, columns: dict) -> dict:
    """{variable: unit} of N=parameters,D=tokens; what is not named has its column's name for a unit."""
    named = {}
    for part in filter(None, re.split(r",(?=\s*\w+\s*=)", text)):
        variable, equals, unit = (piece.strip() for piece in part.partition("="))
        if not equals or not unit or variable not in columns:
            raise UserError(f"--units: {part.strip()!r} is not VARIABLE=UNIT of {', '.join(columns)}")
        named[variable] = unit
    return {variable: named.get(variable) or repr(column) for variable, column in columns.items()}


def condition(table: Table, text: str) -> np.ndarray:
    """The rows [rows] for which KEY=VALUE (or !=, <, >, <=, >=) holds. 0 and 1 are false and true."""
    found = re.fullmatch(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
    if not found:
        raise UserError(f"--where: {text!r} is not COLUMN=VALUE (or !=, <, >, <=, >=)")
    name, sign, wanted = found.groups()
    plain = lambda value: BITS.get(str(value).strip().lower(), str(value).strip().lower())
    compare, wanted = COMPARE[sign], plain(wanted)
    if sign not in ("=", "!="):
        try:
            float(wanted)
        except ValueError:
            raise UserError(f"--where: {text!r} compares with {wanted!r}, which is no number") from None

    def holds(value):
        value = "" if value is None else plain(value)
        try:
            return bool(compare(float(value), float(wanted)))
        except ValueError:
            if sign in ("=", "!="):
                return compare(value, wanted)
            return False

    return np.array([holds(value) for value in table.column(name)], bool)


def of_table(
    table: Table,
    columns: dict,
    units: dict,
    budget: str = "",
    group: str = "",
    where=(),
    drop_highest: int = 0,
    keep_flops: bool = False,
    choose_by: str = "",
) -> Source:
    """The runs of a table. columns: {variable: column}, L among them; N or D may be left out where C is there
    (D = C/(6N)), and C may be "6ND". keep_flops: C is a variable of the runs beside others. Rows that lack a
    number, hold something that is none or stand in the table twice are left out and counted. choose_by: a
    column of scores (validation text's) by which the best run of a budget is chosen; "": by the loss."""
    notes, warnings, text = [], [], {}
    values = {}
    for variable, column in columns.items():
        if variable == FLOPS and column.replace("*", "").upper() == "6ND" and column not in table.columns:
            continue
        column, scale = _scaled(table, column)
        values[variable], strange = table.numbers(column)
        with np.errstate(over="ignore"):  # what is no number then is left out below
            values[variable] = values[variable] * scale
        text.update({row: f"{variable} is {said[:40]!r}" for row, said in strange.items()})
    loss = values.pop(LOSS)
    flops, flops_from = values.pop(FLOPS, None), f"column {columns.get(FLOPS)!r}"
    derived = [name for name in ("N", "D") if name not in values]
    if FLOPS in columns and flops is None:
        if derived:
            raise UserError("--columns: C=6ND takes N and D")
        flops, flops_from = DENSE * values["N"] * values["D"], "taken for 6·N·D, since no column has them"
        notes.append(f"C is {flops_from}")
    elif flops is not None and len(derived) == 1 and set(values) & {"N", "D"}:
        other = "D" if derived == ["N"] else "N"
        with np.errstate(divide="ignore", invalid="ignore"):
            values[derived[0]] = flops / DENSE / values[other]
        units = dict(units, **{derived[0]: "tokens" if derived == ["D"] else "parameters"})
        notes.append(f"{derived[0]} = C/(6{other}): no column was named for it")
    if not values or keep_flops:
        values[FLOPS] = flops
    order = list(values)
    if {"N", "D"} <= set(values):
        order = [name for name in FIRST if name in values] + [name for name in values if name not in FIRST]
    units = {name: units[name] for name in order} | {"loss": units[LOSS]}
    found = fit_runs.of({name: values[name] for name in order}, loss, units)
    found, said = _left_out(found, text)
    warnings += said
    for one in where:
        found = found.only(condition(table, one)[found.rows_N], f"{one} does not hold")
        if not len(found):
            raise UserError(f"--where {one}: no row is left of {table.name}")
    found, said = _once(table, found)
    warnings += said
    if drop_highest:
        if not 0 < drop_highest < len(found):
            raise UserError(f"--drop-highest {drop_highest}: the table has {counted(len(found), 'run')}")
        found = found.without_highest(drop_highest)
    if not len(found):
        reasons = collections.Counter(reason for _, reason in found.dropped)
        rows = counted(table.rows, "row")
        said = "; ".join(f"{count} of {rows}: {reason}" for reason, count in reasons.items())
        raise UserError(f"{table.name}: no row can be fitted ({said})")
    asked = collections.Counter(why for _, why in found.dropped if why.endswith(("hold", "losses")))
    notes += [f"{counted(count, 'row')} left out: {why}" for why, count in asked.items()]
    warnings += [] if keep_flops else _small(found, columns)  # an experiment's units are known
    budgets = table.numbers(budget)[0] if budget else None
    if flops is None and budgets is not None:
        flops, flops_from = budgets, f"column {budget!r}"
    groups = None
    if group:
        groups = np.array(["" if value is None else str(value) for value in table.column(group)])
    chosen_by = table.numbers(choose_by)[0] if choose_by else None
    if chosen_by is not None and not np.isfinite(chosen_by[found.rows_N]).all():
        raise UserError(f"--choose-by: column {choose_by!r} has not a number in every row that is fitted")
    told = dict(notes=tuple(notes), warnings=tuple(warnings), chosen_by=chosen_by)
    return Source(table.name, found, flops, flops_from, budgets, groups, **told)


def _scaled(table: Table, column: str) -> tuple[str, float]:
    """(column, factor) of COLUMN*1e6 where the table has a COLUMN and none of the longer name."""
    name, star, factor = (part.strip() for part in column.rpartition("*"))
    if star and column not in table.columns and table.heading(name) in table.columns:
        try:
            return name, float(factor)
        except ValueError:
            raise UserError(f"--columns: {factor!r} in {column!r} is no number to multiply by") from None
    return column, 1.0


def _small(found: Runs, columns: dict) -> list:
    """Sizes and data whose numbers look like millions or billions, and do not say so."""
    if not {"N", "D"} <= set(found.values):
        return []
    undo = "if these are logarithms, undo them in the table, since a law is of the numbers themselves; "
    return [
        f"units: {name} ({columns[name]!r}) is at most {found.values[name].max():.4g}:"
        f" {undo * ('log' in columns[name].lower())}if these are millions or billions, scale them"
        f" ({name}={columns[name]}*1e6), since coefficients and best sizes count ones"
        for name in ("N", "D")
        if name in columns and found.values[name].max() < SMALLEST
    ]


def _left_out(found: Runs, text: dict) -> tuple[Runs, list]:
    """The runs, with what stood where numbers should among the reasons; and the sentences that count rows."""
    reasons = collections.Counter()
    for row, why in found.dropped:
        reasons["holds text where a number belongs" if row in text else why] += 1
    example = next((f" (row {row}: {said})" for row, said in text.items()), "")
    return found, [
        f"{count} {'rows' if count > 1 else 'row'} left out: {why}"
        + (example if why.startswith("holds") else "")
        for why, count in reasons.items()
    ]


def _once(table: Table, found: Runs) -> tuple[Runs, list]:
    """Without rows that are copies of others in every column: one run, not several that agree."""
    seen, keep = set(), []
    for row in found.rows_N:
        key = tuple(str(values[row]) for values in table.columns.values())
        keep.append(key not in seen)
        seen.add(key)
    copies = keep.count(False)
    if not copies:
        return found, []
    rows = counted(copies, "duplicate row")
    return found.only(keep, "a copy of another row"), [
        f"{rows} left out: copies of others in every column, which would count one run several times"
    ]
