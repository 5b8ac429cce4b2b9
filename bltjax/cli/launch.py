"""The verbs that put an experiment's jobs on machines: launch, retry, stop. Parses, calls, prints."""

import contextlib
import dataclasses
import json
import shlex
import time

from bltjax.cli import stored
from bltjax.counts import counted
from bltjax.errors import UserError

EVERY_SECONDS = 60.0


def add(verbs, arguments) -> None:
    """The verbs and their options, to argparse's subparsers. arguments(parser): adds those that all verbs of
    an experiment have."""
    sub = verbs.add_parser(
        "launch",
        help="put an experiment's jobs on Slurm, GKE, TPU VMs or SkyPilot",
        description="Gives every job of an experiment that is neither done nor on its way to a scheduler:"
        " shared jobs first, runs behind them. Asked again, it adds what is missing and nothing else.",
    )
    arguments(sub)
    sub.add_argument("--on", required=True, metavar="WHERE", help="local, slurm, gke, tpu-vm or sky")
    sub.add_argument(
        "--topology", default=None, help="of every run: v5p:4x4x4, 2*v6e:8x8, h100:16 (default: a CPU)"
    )
    sub.add_argument(
        "--mesh", default=None, metavar="SHAPE", help="of every run: DATA, DATAxMODEL or REPLICAxDATAxMODEL"
    )
    sub.add_argument(
        "--with",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the scheduler: partition=gpu, project=..., zone=... (docs/launching.md)",
    )
    sub.add_argument("--limit", type=int, default=0, metavar="N", help="so many jobs at once (0: all)")
    sub.add_argument(
        "--chip-hours",
        type=float,
        metavar="HOURS",
        help="once so many are spent, nothing more is begun; what runs goes on",
    )
    sub.add_argument(
        "--watch", action="store_true", help="stay, and launch again what a lost machine leaves undone"
    )
    sub.add_argument(
        "--every",
        type=float,
        default=EVERY_SECONDS,
        metavar="SECONDS",
        help=f"between two looks of --watch (default: {EVERY_SECONDS:g})",
    )
    sub.add_argument("--workers", type=int, default=0, help="local: processes at once")
    sub.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    sub.add_argument("--json", action="store_true", help="with --dry-run: the same as JSON")
    sub.set_defaults(call=launch)
    sub = verbs.add_parser(
        "retry",
        help="let failed jobs be tried again",
        description="Forgets why jobs failed, so that the next `bltjax launch` tries them again.",
    )
    arguments(sub)
    sub.set_defaults(call=retry)
    sub = verbs.add_parser(
        "stop",
        help="end what was launched",
        description="Ends an experiment's jobs where they were launched; each saves first.",
    )
    arguments(sub)
    sub.set_defaults(call=stop)


def launch(args) -> int:
    from bltjax.cli import experiment
    from bltjax.compile import chips
    from bltjax.launch import job as launched
    from bltjax.launch import submit, targets
    from bltjax.storage import locks

    check(args)
    if args.on == "local":
        return local(args)
    target = targets.target(args.on)
    settings = targets.settings(args.on, args.settings)
    topology = chips.topology(args.topology) if args.topology else None
    declared, runs = experiment.chosen(args)
    stored.check_runs(args, runs)
    folder = (args.root / declared.name / launched.FOLDER).absolute()
    mesh = args.mesh or ""
    jobs = launched.of_experiment(args.root, declared.name, runs, topology, mesh, make=not args.dry_run)
    if args.dry_run:
        standing = submit.forward(folder, jobs, args.on, target, settings, args.limit, dry=True)
        print(json.dumps(as_json(jobs, standing)) if args.json else as_text(jobs, standing))
        return 0
    facts = dict(on=args.on, chip_hours=args.chip_hours, settings=settings_of(settings))
    stored.offer(args, jobs)
    with locks.held(folder / ".lock"), stored.held(args, folder) or contextlib.nullcontext():
        launched.write(folder, declared.name, jobs, **facts)
    said = None
    while True:
        work = stored.held(args, folder, jobs)
        standing = submit.forward(folder, jobs, args.on, target, settings, args.limit, work=work)
        line = summary(standing)
        if line != said:
            print(line, flush=True)
        said = line
        if not args.watch or standing.over:
            return 1 if standing.failed or standing.unreachable else 0
        time.sleep(args.every)


def check(args) -> None:
    """UserError for options that cannot be."""
    from bltjax.parallel import sharding

    for option, value in (("--topology", args.topology), ("--mesh", args.mesh)):
        if value is not None and not value.strip():
            raise UserError(f"{option} is empty; leave it out for the default")
    if args.workers < 0:
        raise UserError(f"--workers is {args.workers}; it must be 0 (one per core or chip) or more")
    if args.limit < 0:
        raise UserError(f"--limit is {args.limit}; it must be 0 (no limit) or more")
    if args.chip_hours is not None and not 0 < args.chip_hours < float("inf"):
        raise UserError(f"--chip-hours is {args.chip_hours:g}; it must be more than 0")
    if args.json and not args.dry_run:
        raise UserError("--json is what --dry-run prints; `bltjax status --json` says how a launch stands")
    if not 0 < args.every < float("inf"):
        raise UserError(f"--every is {args.every:g}; it must be more than 0")
    if args.every != EVERY_SECONDS and not args.watch:
        raise UserError("--every is of --watch")
    if args.watch and args.dry_run:
        raise UserError("--watch and --dry-run: one stays to launch, the other launches nothing")
    if args.workers and args.on != "local":
        raise UserError("--workers is of --on local; elsewhere --limit says how many jobs run at once")
    if args.mesh:
        sharding.parse_mesh(args.mesh)


def settings_of(settings) -> dict:
    """What was set, for jobs.json: no setting is a secret."""
    return {key: value for key, value in dataclasses.asdict(settings).items() if value not in ("", None)}


def local(args) -> int:
    """On this machine, as `bltjax run` does."""
    from bltjax.cli import experiment
    from bltjax.cli import without_effect
    from bltjax.launch import job as launched
    from bltjax.launch import local as machine

    why = "is of a scheduler, and --on local has none"
    without_effect.refuse(args, why, topology=None, mesh=None, settings=[], watch=False, every=EVERY_SECONDS)
    if not args.dry_run:
        args.workers = args.workers or args.limit
        return experiment.run(args, chip_hours=args.chip_hours)
    declared, runs = experiment.chosen(args)
    jobs = launched.of_experiment(args.root, declared.name, runs, make=False)
    commands = {job.name: machine.command(job.directory) for job in jobs}
    if args.json:
        rows = [dict(name=j.name, needs=list(j.needs), command=commands[j.name], manifest=None) for j in jobs]
        print(json.dumps({"jobs": rows}))
    else:
        print("\n".join(shlex.join(commands[job.name]) for job in jobs))
    return 0


def as_json(jobs, standing) -> dict:
    """ "jobs": what would be run of each that is not done: name, needs, command [argv], manifest (text or
    null), step (what a scheduler is given at once)."""
    steps = {name: step for step in standing.steps for name in step.jobs}
    rows = []
    for job in jobs:
        if step := steps.get(job.name):
            rows.append(
                {
                    "name": job.name,
                    "kind": job.kind,
                    "needs": list(job.needs),
                    "topology": job.topology or None,
                    "chips": job.chips,
                    "hosts": job.hosts,
                    "hours": job.hours,
                    "command": list(step.command),
                    "manifest": step.manifest,
                    "step": step.name,
                    "after": list(step.after),
                }
            )
    return {"jobs": rows, "done": standing.done, "failed": standing.failed}


def as_text(jobs, standing) -> str:
    """The same for people: every command, with the file that it names above it."""
    named = {job.name: job for job in jobs}
    lines = []
    for step in standing.steps:
        of = [named[name] for name in step.jobs]
        hours = [job.hours for job in of if job.hours is not None]
        cost = sum(job.chips * job.hours for job in of if job.hours is not None)
        least = f", at least {cost:,.3g} chip-hours (roofline)" if hours else ""
        where = of[0].topology or "a CPU"
        hosts = counted(of[0].hosts, "host")
        lines.append(f"# {step.name}: {counted(len(of), 'job')} on {where}, {hosts} each{least}")
        lines += [f"#   {job.name}" + (f"  after {', '.join(job.needs)}" if job.needs else "") for job in of]
        if step.manifest is not None:
            lines += [f"# {step.path}:", *(f"    {line}" for line in step.manifest.splitlines())]
        lines += [shlex.join(step.command), ""]
    return "\n".join([*lines, summary(standing, dry=True)])


def summary(standing, dry: bool = False) -> str:
    """How a launch stands, in a line."""
    given = sum(len(step.jobs) for step in standing.steps)
    parts = [
        f"{given} {'would be launched' if dry else 'launched'}" if given else "",
        f"{len(standing.alive)} on their way" if standing.alive else "",
        f"{len(standing.running)} running" if standing.running else "",
        f"{len(standing.held)} held (room, or what they need)" if standing.held else "",
        f"{len(standing.done)} done" if standing.done else "",
        f"{len(standing.failed)} failed: {', '.join(standing.failed)}" if standing.failed else "",
        f"{len(standing.unreachable)} wait for a failed one" if standing.unreachable else "",
    ]
    return "jobs: " + ("; ".join(filter(None, parts)) or "none")


def retry(args) -> int:
    from bltjax.cli import experiment
    from bltjax.launch import job as launched
    from bltjax.launch import submit

    declared, runs = experiment.chosen(args)
    jobs = launched.of_experiment(args.root, declared.name, runs, make=False)
    forgiven = submit.forgive(jobs)
    stored.offer(args, jobs)
    print(f"to be tried again: {', '.join(forgiven)}" if forgiven else "no job has failed")
    return 0


def stop(args) -> int:
    from bltjax.cli import experiment
    from bltjax.launch import job as launched
    from bltjax.launch import submit, targets

    declared, _ = experiment.chosen(args)
    folder = (args.root / declared.name / launched.FOLDER).absolute()
    if not (folder / launched.NAME).exists():
        raise UserError(
            f"{declared.name} was given to no scheduler ({folder / launched.NAME} is not there); what runs on"
            " this machine ends, and saves, by Ctrl-C or TERM"
        )
    _, facts = launched.read(folder)
    given = [f"{key}={value}" for key, value in facts.get("settings", {}).items()]
    target, settings = targets.target(facts["on"]), targets.settings(facts["on"], given)
    stopped = submit.stop(folder, target, settings, stored.held(args, folder))
    print(f"stopping: {', '.join(stopped)}" if stopped else "nothing that was launched is on its way")
    return 0
