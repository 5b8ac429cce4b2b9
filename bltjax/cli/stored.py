"""--root at a URL: which verbs take one, and what they pull of it."""

import argparse
import pathlib

from bltjax.errors import UserError

VERBS = ("status", "report", "launch", "retry", "stop")


class Root(argparse.Action):
    """--root FOLDER or URL: `root` is the folder, or the one here that stands for the URL; `store` its
    mirror.Root, None for a folder."""

    def __call__(self, parser, namespace, value, option=None):
        from bltjax.storage import mirror, store

        if not value:
            parser.error(f"argument {option}: it is empty, and a path belongs here")
        namespace.store = mirror.Root.at(value) if store.is_url(value) else None
        namespace.root = namespace.store.local if namespace.store else pathlib.Path(value)


def check(args) -> None:
    """UserError for what works on folders of this machine alone."""
    if getattr(args, "store", None) is None:
        return
    if args.verb not in VERBS or getattr(args, "on", "") == "local" or getattr(args, "compare", None):
        raise UserError(
            f"--root {args.store.store.url}: this works on a folder of this machine; of a URL there are"
            f" {', '.join(VERBS)} (not --on local, not --compare)"
        )


def check_runs(args, runs) -> None:
    """UserError for runs that name a directory of this machine."""
    from bltjax import config as cfg

    for config in runs if args.store else ():
        if cfg.sibling(config):
            why = "starts from another run, which a root at a URL cannot say yet"
            raise UserError(f"run {config.name} {why}")


def pull(args, experiment: str) -> None:
    """What says how the jobs of an experiment stand."""
    from bltjax.storage import rundir

    if getattr(args, "store", None) is None:
        return
    for folder in (experiment, rundir.SHARED):
        for directory in args.store.jobs(folder):
            directory.pull_small()


def offer(args, jobs) -> None:
    """Publishes what was changed here of jobs that nobody holds: configs, say."""
    for job in jobs if args.store else ():
        args.store.directory(job.directory).offer()


def held(args, folder, jobs=()):
    """The launch's folder, to be held while it is worked on (launch/stored.py); None: it is here."""
    if not args.store:
        return None
    from bltjax.launch import stored

    return stored.Launch(args.store, folder, jobs, wait=900.0)
