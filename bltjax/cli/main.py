"""The command line; what its exit status promises stands in bltjax/exit_codes.py."""

import argparse
import contextlib
import errno
import os
import pathlib
import sys
import traceback

from bltjax import exit_codes
from bltjax.cli import data, evaluate, experiment, fit, launch, model
from bltjax.errors import UserError
from bltjax.parallel import distributed, environment, host, stopping


def whole(text: str) -> int:
    """A whole number in any of its forms: 1000000, 1_000_000 or 1e6. ValueError for none."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise
        return int(value)


def path(text: str) -> pathlib.Path:
    """What an option names; an empty word (of a variable that is not set, say) is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty, and a path belongs here")
    return pathlib.Path(text)


class Parser(argparse.ArgumentParser):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.register("type", int, whole)
        self.register("type", pathlib.Path, path)

    def error(self, message):
        if "--byte-lm" in message:
            message = "--byte-lm is now called --entropy-model"
        self.exit(exit_codes.WRONG, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")

    def parse_known_args(self, args=None, namespace=None):
        """Options and other arguments in any order: `generate MODEL --seed 1 "a text"`. argparse alone takes
        all positional arguments at the first of them; its parse_intermixed_args knows no verbs."""
        every, usage = self._actions, self.usage
        if any(action.nargs == argparse.PARSER for action in every):  # what follows is the verb's
            return super().parse_known_args(args, namespace)
        args = list(sys.argv[1:] if args is None else args)
        end = args.index("--") if "--" in args else len(args)  # no options from there on
        try:
            self.usage = self.format_usage().removeprefix("usage: ")
            self._actions = [action for action in every if action.option_strings]
            namespace, others = super().parse_known_args(args[:end], namespace)
            self._actions = [action for action in every if not action.option_strings]
            return super().parse_known_args(others + args[end:], namespace)
        finally:
            self._actions, self.usage = every, usage


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="bltjax", description="FLOP-controlled scaling experiments: patches of bytes against BPE tokens."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    experiment.add(verbs)
    launch.add(verbs, experiment.arguments)
    fit.add(verbs)
    model.add(verbs)
    evaluate.add(verbs)
    data.add(
        verbs.add_parser(
            "data",
            help="prepare, annotate, calibrate, inspect, tasks",
            description="Work on data ahead of training.",
        )
    )
    return top


def main(argv=None) -> int:
    """Does what the words say and returns the exit status."""
    host.keep_memory()  # before any thread
    with stopping.listening():
        return command(argv)


def command(argv=None) -> int:
    host.collect_cycles_rarely()
    environment.pin()
    host.write_any_text()
    if said := environment.ignoring():
        print(f"bltjax: {said}", file=sys.stderr)
    code, wait = exit_codes.FAILED, True
    try:
        args = parser().parse_args(argv)
        code = args.call(args)
        if sys.stdout:
            sys.stdout.flush()  # here, where what is wrong with it can be said
    except UserError as error:
        print(f"bltjax: {' '.join(str(error).split())}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt as stopped:
        by = f" by {stopped.args[0]}" if stopped.args else ""
        print(f"bltjax: stopped{by}; the same command goes on", file=sys.stderr)
        code = exit_codes.STOPPED
    except BrokenPipeError:  # whoever read has seen enough (| head)
        code = exit_codes.DONE
    except OSError as error:
        where = error.filename or "no file named"
        full = f"the disk is full ({where}); free some space and run the same command again"
        print(
            f"bltjax: {full if error.errno == errno.ENOSPC else f'{where}: {error.strerror or error}'}",
            file=sys.stderr,
        )
    except Exception as error:
        if not distributed.joined():
            if not (said := environment.no_device(error)):
                raise
            print(f"bltjax: {said}", file=sys.stderr)
            return exit_codes.WRONG
        if type(error).__name__ != "JaxRuntimeError":
            traceback.print_exc()
        print(f"bltjax: {distributed.lost(error)}", file=sys.stderr)
        code, wait = exit_codes.STOPPED, False  # the last checkpoint stands
    finally:
        end_output()
    distributed.leave(code, wait)
    return code


def process() -> None:
    """The command `bltjax`: main as a whole process."""
    stopping.leave(main())


def end_output() -> None:
    """Writes out what waits to be printed. Where it cannot be, it goes nowhere: the interpreter, at its end,
    would try again and complain."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    process()
