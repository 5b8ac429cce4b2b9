"""Compiles every run of an experiment for a topology, keeps what was found in one file, and prints it as a
table.

The file grows run by run; a command that was stopped goes on where it was, and a program that is known is not
compiled again."""

import pathlib

from bltjax import config as cfg
from bltjax import models
from bltjax.compile import aot, chips, roofline
from bltjax.errors import UserError
from bltjax.parallel import sharding
from bltjax.storage import locks, rundir
from bltjax.sweep import plan

SCHEMA = 1
FULLEST = 0.8  # of a chip's HBM, predicted: what a layout that is chosen here may take


def compile_all(
    runs, topology: chips.Topology, out: pathlib.Path, mesh: str = "", fit: bool = False, say=print
) -> list[dict]:
    """One record per run (aot.compile_run), also in `out`. mesh: as sharding.parse_mesh reads it; default:
    sharding.usual_shape, and the fewest microbatches that are predicted to fit (the run's own where they do).
    fit: the layout that is predicted to be the fastest. UserError before anything compiles for a mesh that
    cannot be, and for an `out` that cannot be written."""
    shape = sharding.parse_mesh(mesh) if mesh else None
    if shape:
        aot.check_size(topology, shape)
    _read(out, topology)
    found = aot.devices(topology)  # before anything else of JAX: it says which platform to start
    if shape:
        for run in runs:
            _check(run, topology, shape)
    layouts = [(run, _layouts(run, topology, shape, fit)) for run in runs]
    _claim(out, topology)
    results = []
    for run, choices in layouts:
        record = None
        for choice in choices:
            laid_out = cfg.replace(
                run, **{"train.accumulate": choice["accumulate"], "model.remat": choice["remat"]}
            )
            known = _programs(_read(out, topology))
            record = aot.compile_run(laid_out, topology, choice["mesh"], found, known)
            say(line(record, record["program"] in known))
            _add(out, topology, record)
            if record["fits"]:
                break
        results.append(record)
    return results


def _claim(out: pathlib.Path, topology) -> None:
    """UserError where the table cannot be written, or would be written over something else."""
    if out.suffix != ".json":
        raise UserError(
            f"--out is {out}; a table's file ends in .json (the same as a table to read is written beside it,"
            " ending in .md)"
        )
    beside = out.with_suffix(".md")
    if beside.exists() and not out.exists():
        raise UserError(
            f"{beside} is there and {out} is not: the table would be written over it; name another --out"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with locks.held(_lock(out)):
            _write(out, topology, *_read(out, topology))
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None


def _lock(out: pathlib.Path) -> pathlib.Path:
    return out.with_name(f".{out.name}.lock")


def _programs(table: tuple[list, list]) -> dict:
    """{program: what was measured} of all records, present and past."""
    return {r["program"]: {k: r[k] for k in r["measured"]} for records in table for r in records}


def _add(out: pathlib.Path, topology, record: dict) -> None:
    """A record into the table, where other commands may add theirs; one of the same run that was of another
    program moves to the past."""
    with locks.held(_lock(out)):
        runs, past = _read(out, topology)
        past += [r for r in runs if r["name"] == record["name"] and r["program"] != record["program"]]
        places = {r["name"]: i for i, r in enumerate(runs)}
        runs[places.get(record["name"], len(runs)) : places.get(record["name"], len(runs)) + 1] = [record]
        past = [r for r in past if r["program"] not in {r["program"] for r in runs}]
        _write(out, topology, runs, list({r["program"]: r for r in past}.values()))


def estimated(run, topology: chips.Topology, steps: int) -> dict:
    """What `plan --topology` says of a run, from its config alone: roofline.predict of the layout that
    `compile` would try first."""
    layout = _layouts(run, topology, None, False)[0]
    found = roofline.predict(
        run, topology, tuple(layout["mesh"]), layout["accumulate"], layout["remat"], steps=steps
    )
    return {"topology": topology.name, **{key: value for key, value in found.items() if key != "counts"}}


def estimates_table(plans) -> str:
    """The estimates of several plans, for a terminal."""
    rows = [["run", "mesh", "micro", "HBM GiB", "of", "s/step", "MFU", "bound by", "chip-hours"]]
    known = lambda value, text: "-" if value is None else text(value)
    for planned in plans:
        on = planned["on"]
        rows.append(
            [
                planned["name"],
                "x".join(map(str, on["mesh"])),
                str(on["accumulate"]),
                f"{on['hbm_peak_bytes'] / GIB:.1f}",
                f"{on['hbm_chip_bytes'] / GIB:.1f}" if on["hbm_chip_bytes"] else "-",
                known(on["step_seconds"], "{:.3g}".format),
                known(on["mfu"], "{:.0%}".format),
                on["bound"] or "-",
                known(on["chip_hours"], "{:,.0f}".format),
            ]
        )
    total = sum(planned["on"]["chip_hours"] or 0.0 for planned in plans)
    return "\n".join(
        [
            f"On {plans[0]['on']['topology']}, by a roofline at published peaks: a bound, no measurement"
            + (f"; {total:,.0f} chip-hours in all" if total else ""),
            *plan.aligned(rows),
        ]
    )


def _check(run, topology, shape) -> None:
    aot.check_size(topology, shape)
    models.check_mesh(run, shape)


def _layouts(run, topology, shape, fit) -> list[dict]:
    """Ways to lay a run out, the first to be tried first; the others are for when it does not fit."""
    if fit:
        allowed = lambda mesh, accumulate: (
            shape in (None, mesh) and not _whole_slice(mesh, topology) and _can(run, mesh, accumulate)
        )
        found = roofline.candidates(run, topology, allowed=allowed, copies=True)
        if not found:
            raise UserError(f"run {run.name}: no mesh of {topology.name} can hold it")
        return found[:6]
    shape = shape or sharding.usual_shape(topology.chip.platform, topology.devices, topology.slices)
    per_device = run.data.rows // (shape[0] * shape[1])
    counts = [
        run.train.accumulate * 2**i
        for i in range(12)
        if per_device and per_device % (run.train.accumulate * 2**i) == 0
    ]
    _check(run, topology, shape)
    choices = [roofline.predict(run, topology, shape, accumulate) for accumulate in counts]
    if topology.chip.hbm_bytes:
        choices = [p for p in choices if p["hbm_peak_bytes"] <= FULLEST * topology.chip.hbm_bytes] or choices[
            -1:
        ]
    return choices


def _whole_slice(mesh, topology) -> bool:
    """Whether weights would be cut over all of a large TPU slice: see sharding.usual_shape."""
    return topology.chip.platform == "tpu" and mesh[1] == topology.slice_devices > sharding.SMALL_SLICE


def _can(run, mesh, accumulate) -> bool:
    try:
        models.check_mesh(cfg.replace(run, **{"train.accumulate": accumulate}), mesh)
    except UserError:
        return False
    return True


def _write(out: pathlib.Path, topology, runs: list[dict], past: list[dict]) -> None:
    """The records, and beside them the table that people read, in the order of families and sizes."""
    order = lambda r: (
        list(cfg.SIZES).index(r["size"]) if r.get("size") in cfg.SIZES else -1,
        r["family"],
        r["patch_size"],
    )
    rundir.write_json(
        out, {"schema": SCHEMA, "topology": topology.name, "runs": sorted(runs, key=order), "past": past}
    )
    if runs:
        table = f"{topology.name}\n\n{markdown_table(sorted(runs, key=order))}\n"
        out.with_suffix(".md").write_text(table, encoding="utf-8")


def _read(out: pathlib.Path, topology) -> tuple[list[dict], list[dict]]:
    """(records, those of programs that a run no longer is) of earlier commands. UserError for a file that is
    something else: it would be written over."""
    if not out.exists():
        return [], []
    value = rundir.read_json(out) or {}
    runs, past = value.get("runs"), value.get("past", [])
    whole = (
        value.get("schema") == SCHEMA
        and value.get("topology") == topology.name
        and isinstance(runs, list)
        and isinstance(past, list)
    )
    if not whole or not all(map(_is_record, runs + past)):
        raise UserError(
            f"{out} is no whole table of programs compiled for {topology.name}; name another --out, or"
            " remove it"
        )
    return runs, past


def _is_record(value) -> bool:
    """Whether it has what the table and later commands read."""
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("measured"), list)
        or not set(value["measured"]) <= set(value)
    ):
        return False
    if not {
        "name",
        "family",
        "size",
        "patch_size",
        "program",
        "mesh",
        "accumulate",
        "remat",
        "fits",
        "error",
        "compile_s",
        "hbm_peak_bytes",
        "hbm_chip_bytes",
    } <= set(value):
        return False
    try:
        return bool([show(value) for _, show in COLUMNS])
    except (TypeError, KeyError, ValueError, AttributeError):
        return False


GIB = 2**30
COLUMNS = (
    ("run", lambda r: r["name"]),
    ("mesh", lambda r: "x".join(map(str, r["mesh"]))),
    ("micro", lambda r: str(r["accumulate"])),
    ("remat", lambda r: r["remat"]),
    ("HBM GiB", lambda r: "-" if r["hbm_peak_bytes"] is None else f"{r['hbm_peak_bytes'] / GIB:.1f}"),
    ("of", lambda r: "-" if r["hbm_chip_bytes"] is None else f"{r['hbm_chip_bytes'] / GIB:.1f}"),
    ("gathered GB", lambda r: _moved(r, "all-gather")),
    ("scattered", lambda r: _moved(r, "reduce-scatter")),
    ("reduced", lambda r: _moved(r, "all-reduce")),
    ("all-to-all", lambda r: _moved(r, "all-to-all")),
    ("tables", lambda r: "-" if r["error"] else f"{r['hash_table_collective_bytes'] / 1e9:.3g}"),
    ("s/step", lambda r: "-" if r.get("step_seconds") is None else f"{r['step_seconds']:.3g}"),
    ("MFU", lambda r: "-" if r.get("mfu") is None else f"{r['mfu']:.0%}"),
    ("chip-hours", lambda r: "-" if r.get("chip_hours") is None else f"{r['chip_hours']:,.0f}"),
    ("compiled in s", lambda r: f"{r['compile_s']:.0f}"),
)


def _moved(record, kind: str) -> str:
    return "-" if record["error"] else f"{record['collective_bytes'].get(kind, 0.0) / 1e9:.3g}"


def text_table(records) -> str:
    """For a terminal; programs that do not fit have their line below."""
    rows = [[title for title, _ in COLUMNS]] + [[cell(r) for _, cell in COLUMNS] for r in records]
    return "\n".join(
        [
            *plan.aligned(rows),
            "",
            (
                "GB per chip and step; tables: of collectives that carry a look-up table or its gradient."
                " s/step, MFU, chip-hours:"
            ),
            "the roofline estimate, at published peaks: a bound, not a measurement.",
            *(line(r) for r in records if r["error"]),
        ]
    )


def markdown_table(records) -> str:
    rows = [[cell(r) for _, cell in COLUMNS] for r in records]
    return "\n".join(
        [
            "| " + " | ".join(title for title, _ in COLUMNS) + " |",
            "|" + " --- |" * len(COLUMNS),
            *("| " + " | ".join(r) + " |" for r in rows),
        ]
    )


def line(record, known: bool = False) -> str:
    """One record, as it comes. known: its program was compiled before."""
    if record["error"]:
        return f"does not fit  {record['name']}: {record['error']}" + (" (known)" if known else "")
    capacity = f" of {record['hbm_chip_bytes'] / GIB:.1f}" if record["hbm_chip_bytes"] else ""
    return (
        f"{'known   ' if known else 'compiled'}  {record['name']}:"
        f" {record['hbm_peak_bytes'] / GIB:.1f}{capacity} GiB a chip, {record['accumulate']} microbatches,"
        f" {sum(record['collective_bytes'].values()) / 1e9:.1f} GB moved per chip and step,"
        f" {record['compile_s']:.0f} s"
    )
