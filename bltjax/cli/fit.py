"""The verb `fit`: scaling laws of an experiment's runs, or of anyone's table. Parses, calls, prints."""

import json
import math
import pathlib

from bltjax.cli import without_effect
from bltjax.errors import UserError

OBJECTIVES = ("huber", "lad", "squares")
MOST_DRAWS, LARGEST_DELTA = 100_000, 1e6


def add(verbs) -> None:
    """The verb and its options, to argparse's subparsers."""
    sub = verbs.add_parser(
        "fit",
        help="scaling laws of an experiment, or of anyone's table of runs",
        description=(
            "Scaling laws of the finished runs of an experiment, or of a table (CSV, JSON lines, Parquet),"
            " by up to three approaches, with intervals; what the runs do not tell is refused, and why. Exit"
            " status 2 where they tell nothing."
        ),
    )
    sub.add_argument("what", metavar="EXPERIMENT|TABLE", help="a registered experiment, or a file of runs")
    sub.add_argument(
        "--columns",
        default="",
        metavar="N=COLUMN,D=COLUMN,L=COLUMN",
        help=(
            "which column is what: N size, D data, L loss; C FLOPs of a run (6ND: taken for that; with C and"
            " no D, D = C/(6N)), T mean patch size; any other name is a variable too, four at most;"
            " COLUMN*1e6 scales one"
        ),
    )
    sub.add_argument(
        "--units", default="", metavar="N=UNIT,...", help="units of the columns, kept with the fit"
    )
    sub.add_argument(
        "--budget", default="", metavar="COLUMN", help="of each run's budget: approach 2 (IsoFLOP)"
    )
    sub.add_argument(
        "--choose-by",
        default="",
        metavar="COLUMN",
        help="of scores by which the best run of a budget is chosen: validation text's (default: the loss)",
    )
    sub.add_argument(
        "--group", default="", metavar="COLUMN", help="a law for each value, and gain and crossing"
    )
    sub.add_argument("--reference", default="", help="the group that others are compared with (default: bpe)")
    sub.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only rows for which it holds; also !=, <, >, <=, >= (given twice: both)",
    )
    sub.add_argument(
        "--drop-highest", type=int, default=0, metavar="K", help="leave out the K highest losses"
    )
    sub.add_argument(
        "--objective",
        choices=OBJECTIVES,
        default="huber",
        help=(
            "huber: sum of Huber losses of log loss; lad: least absolute deviations of log loss; squares:"
            " half the sum of squares of loss"
        ),
    )
    sub.add_argument("--delta", type=float, help="where the Huber loss turns linear (1e-3)")
    sub.add_argument(
        "--at",
        action="append",
        type=float,
        default=[],
        metavar="FLOPS",
        help="best size and data at a budget",
    )
    sub.add_argument("--draws", type=int, default=1000, help="of every interval (1000)")
    sub.add_argument(
        "--params",
        default="",
        help="an experiment's sizes: latent (default), without_lexicon or total parameters",
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as of the experiment's run"
    )
    sub.add_argument("--runlocal", action="store_true", help="the experiment's small version")
    sub.add_argument(
        "--root",
        type=pathlib.Path,
        help="where run directories live (default: runs)",
    )
    sub.add_argument("--out", type=pathlib.Path, help="a folder for plots, tables and findings")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(call=fit)


def fit(args) -> int:
    from bltjax.fits import analysis, text
    from bltjax.fits.approaches import Settings

    if args.objective != "huber":
        without_effect.refuse(args, f"is of --objective huber, not of {args.objective}", delta=None)
    args.delta = 1e-3 if args.delta is None else args.delta
    if not 0 < args.delta <= LARGEST_DELTA:
        raise UserError(f"--delta is {args.delta}; it must be above 0 and at most {LARGEST_DELTA:g}")
    if not 20 <= args.draws <= MOST_DRAWS:
        raise UserError(f"--draws is {args.draws}; an interval takes 20 and more, up to {MOST_DRAWS:,}")
    for flops in args.at:
        if not 0 < flops < math.inf:
            raise UserError(f"--at is {flops:g}; a budget is a number of FLOPs above 0, such as 1e21")
    source, attempts = from_table(args) if is_table(args) else from_experiment(args)
    if args.out:  # before anything is computed that could not be kept
        from bltjax.parallel import host

        host.import_matplotlib()
        from bltjax.fits import figures

        figures.folder(args.out)
    settings = Settings(args.objective, args.delta, args.draws)
    result = analysis.analyse(source, settings, args.at, args.reference, attempts)
    if args.out:
        result["files"] = figures.write(result, source, args.out)
    result.pop("found")
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        from bltjax.cli.experiment import say

        say(text.terminal(result))
    if not analysis.identified(result):
        raise UserError(f"{source.name}: these runs tell no law: {'; '.join(result['warnings'])}")
    return 0


def is_table(args) -> bool:
    """Whether a file of runs was named, there or not, and no experiment."""
    path = pathlib.Path(args.what)
    named = path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".json", ".parquet")
    return bool(args.columns) or named or path.is_file() and path.suffix != ".py"


def from_table(args):
    from bltjax.experiments import registry
    from bltjax.fits.source import of_table, parse_columns, parse_units
    from bltjax.fits.table import read

    if args.what in registry.names() and not pathlib.Path(args.what).exists():
        raise UserError(f"--columns is of a table, and {args.what} is an experiment: leave it out")
    table = read(args.what)
    if not args.columns:
        raise UserError(
            f"--columns says which column is what, such as N=params,D=tokens,L=loss; {args.what} has"
            f" {', '.join(table.columns)}"
        )
    why = f"is of an experiment, and {args.what} is taken for a table, whose columns say all"
    without_effect.refuse(args, why, params="", set=[], runlocal=False, root=None)
    if args.reference and not args.group:
        raise UserError("--reference takes --group, the column whose values are compared")
    columns = {variable: table.heading(name) for variable, name in parse_columns(args.columns).items()}
    units = parse_units(args.units, columns)
    if args.choose_by and not args.budget:
        raise UserError("--choose-by takes --budget, the column of budgets whose best runs are chosen")
    source = of_table(
        table,
        columns,
        units,
        args.budget,
        args.group,
        args.where,
        args.drop_highest,
        choose_by=table.heading(args.choose_by) if args.choose_by else "",
    )
    return source, ()


def from_experiment(args):
    from bltjax.experiments import registry
    from bltjax.fits.experiment import ATTEMPTS, of_directory

    why = f"is of a table, and {args.what} is an experiment, whose runs say it"
    without_effect.refuse(args, why, units="", budget="", choose_by="")
    experiment = registry.load(args.what, args.set, runlocal=args.runlocal)
    folder, params = (args.root or pathlib.Path("runs")) / experiment.name, args.params or "latent"
    source = of_directory(folder, params, args.group, args.where, args.drop_highest)
    return source, ATTEMPTS
