"""One part in a process of its own: `python -m benchmarks.gpu.part NAME FILE SECONDS [--small]`. This is what
the command, `python -m benchmarks.gpu`, starts."""

import argparse
import importlib
import pathlib
import sys
import traceback

from benchmarks.gpu import settings
from benchmarks.gpu.record import Record, first_line
from bltjax.errors import UserError


def main(argv=None) -> int:
    """0: done; 1: failed, the record says how; 2: there is nothing to measure on, as the record says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[part.name for part in settings.PARTS])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("seconds", type=float, help="after which this process is ended")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(argv)
    part = next(part for part in settings.PARTS if part.name == args.name)
    record = Record(args.file, args.seconds, part=part.name)
    with record.kept():
        try:
            from benchmarks.gpu import machine  # JAX starts here

            machine.check(args.small)
            module = importlib.import_module(f"benchmarks.gpu.{part.module}")
            module.run(settings.SMALL if args.small else settings.FULL, record, part.argument)
        except UserError as error:
            record["error"], record["unusable"] = str(error), True
            return 2
        except Exception as error:
            traceback.print_exc()  # into the log
            record["error"] = first_line(error)
            return 1
    return 1 if "error" in record else 0


if __name__ == "__main__":
    sys.exit(main())
