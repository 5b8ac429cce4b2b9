"""The command line. Exit status 0 is done, 2 a mistake of the user's, anything else a reported failure."""

import argparse
import errno
import os
import sys
import traceback

from bltjax.cli import data, experiment, model
from bltjax.errors import Interrupted, RunFailed, UserError


class Parser(argparse.ArgumentParser):
    def error(self, message):
        if "--byte-lm" in message:
            message = "--byte-lm is now called --entropy-model"
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="bltjax", description="FLOP-controlled scaling experiments: patches of bytes against BPE tokens."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    experiment.add(verbs)
    model.add(verbs)
    data.add(
        verbs.add_parser(
            "data",
            help="prepare, annotate, calibrate, inspect",
            description="Work on data ahead of training.",
        )
    )
    return top


def main(argv=None) -> int:
    from bltjax.parallel import distributed, host

    host.keep_memory()  # before any thread
    code, wait = 1, True
    try:
        args = parser().parse_args(argv)
        code = args.call(args)
    except UserError as error:
        print(f"bltjax: {' '.join(str(error).split())}", file=sys.stderr)
        code = 130 if isinstance(error, Interrupted) else 1 if isinstance(error, RunFailed) else 2
    except KeyboardInterrupt:
        print("bltjax: stopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = error.filename or "no file named"
        full = f"the disk is full ({where}); free some space and run the same command again"
        print(
            f"bltjax: {full if error.errno == errno.ENOSPC else f'{where}: {error.strerror or error}'}",
            file=sys.stderr,
        )
    except Exception as error:
        if not distributed.joined():
            raise
        if type(error).__name__ != "JaxRuntimeError":
            traceback.print_exc()
        print(f"bltjax: {distributed.lost(error)}", file=sys.stderr)
        wait = False
    distributed.leave(code, wait)
    return code


if __name__ == "__main__":
    sys.exit(main())
