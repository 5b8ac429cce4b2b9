"""The verbs of one model: train, generate, import, export, patch. Parses, calls, prints."""

import json
import os
import pathlib
import sys

from bltjax.cli import without_effect
from bltjax.counts import counted
from bltjax.errors import UserError


def add(verbs) -> None:
    """The verbs and their options, to argparse's subparsers."""

    def verb(name, does, call, help):
        sub = verbs.add_parser(name, help=help, description=does)
        sub.set_defaults(call=call)
        return sub

    sub = verb("train", "A single run in this process.", train, "a single run")
    sub.add_argument("--config", required=True, help="an experiment file or name, or a run's config.json")
    sub.add_argument(
        "--from",
        type=pathlib.Path,
        dest="source",
        metavar="DIR",
        help=(
            "start from this model's parameters: a run, an imported checkpoint, "
            "a Hugging Face Blt, or a Llama (the global model of a BLT)"
        ),
    )
    sub.add_argument("--run", default="", help="which run of an experiment that has several")
    sub.add_argument(
        "--run-dir",
        type=pathlib.Path,
        help=(
            "where to put it, as ROOT/EXPERIMENT/RUN, with what runs share in ROOT/_shared (default:"
            " runs/EXPERIMENT/RUN)"
        ),
    )
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    sub.add_argument("--runlocal", action="store_true")
    sub.add_argument("--profile", action="store_true", help="trace a few steps into RUN_DIR/profile")
    sub.add_argument("--tensorboard", action="store_true", help="mirror the metrics (extra `tensorboard`)")
    sub.add_argument(
        "--wandb",
        default="",
        metavar="PROJECT",
        help="mirror the metrics and the config to Weights & Biases (extra `wandb`; WANDB_MODE is followed)",
    )
    sub.add_argument(
        "--mesh",
        default="",
        metavar="SHAPE",
        help=(
            "devices as DATA, DATAxMODEL or REPLICAxDATAxMODEL, such as 8, 4x2 or "
            "2x2x2 (default: all on DATA); the numbers do not depend on it"
        ),
    )
    sub.add_argument(
        "--devices", type=int, default=0, metavar="N", help="CPUs: make this process have N devices"
    )
    sub.add_argument(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help=(
            "of process 0, where processes meet (default: what Slurm, GKE "
            "or a TPU VM says, or no other processes)"
        ),
    )
    sub.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="how many processes the run has; 1 alone: never ask the cluster",
    )
    sub.add_argument("--process", type=int, default=-1, metavar="I", help="which one this is, from 0")
    sub.add_argument(
        "--heartbeat",
        type=int,
        default=30,
        metavar="SECONDS",
        help="a process silent for so long is gone, and all end",
    )
    sub.add_argument(
        "--start-timeout",
        type=int,
        default=300,
        metavar="SECONDS",
        help="how long processes may take to meet",
    )

    sub = verb("generate", "Goes on with a text, byte by byte.", generate, "go on with a text")
    sub.add_argument(
        "model",
        type=pathlib.Path,
        help="a run directory, an imported checkpoint, or a Hugging Face directory",
    )
    sub.add_argument("prompt", nargs="*", help="texts to go on with, all in one batch")
    sub.add_argument("--file", type=pathlib.Path, help="a file whose bytes are the prompt")
    sub.add_argument("--unconditional", action="store_true", help="no prompt: begin at BOS")
    sub.add_argument("--max-new-bytes", type=int, default=256, metavar="N")
    sub.add_argument(
        "--temperature", type=float, default=0.0, help="0 (the default): always the likeliest byte"
    )
    sub.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest bytes (default: all)")
    sub.add_argument(
        "--top-p", type=float, metavar="P", help="draw from the likeliest bytes of so much probability"
    )
    sub.add_argument("--seed", type=int, help="of what is drawn (default: 0)")
    sub.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text (may be repeated)"
    )
    sub.add_argument(
        "--draft",
        type=int,
        default=0,
        metavar="K",
        help="BLT-S: draft K bytes with the local modules, check them in one pass; the same bytes",
    )
    sub.add_argument("--entropy-model", type=pathlib.Path, metavar="DIR", help="another model for entropies")
    sub.add_argument("--raw", action="store_true", help="write the bytes as they are, broken characters too")
    sub.add_argument("--json", action="store_true")

    sub = verb(
        "import",
        "Another project's checkpoint as a directory of this one's.",
        import_,
        "a released checkpoint, in",
    )
    sub.add_argument(
        "source",
        type=pathlib.Path,
        help="a Hugging Face Blt or Llama directory, or a released one (params.json)",
    )
    sub.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    sub.add_argument(
        "--entropy-model",
        type=pathlib.Path,
        metavar="DIR",
        help="the released entropy model, where it is not in or beside the directory",
    )
    sub.add_argument("--json", action="store_true")
    sub = verb("export", "A model as a Hugging Face Blt directory.", export, "a model, out to Hugging Face")
    sub.add_argument("source", type=pathlib.Path, help="a run directory, or an imported checkpoint")
    sub.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    sub.add_argument("--entropy-model", type=pathlib.Path, metavar="DIR", help="another model for entropies")
    sub.add_argument(
        "--loosely", action="store_true", help="write what that format computes otherwise, too: other logits"
    )

    sub = verb("patch", "The patches of a text.", patch, "the patches of a text")
    sub.add_argument("text", help="a text, or the path of a file")
    sub.add_argument(
        "--run", type=pathlib.Path, metavar="DIR", help="a model: its scheme, entropy model and threshold"
    )
    sub.add_argument("--entropy-model", type=pathlib.Path, metavar="DIR", help="another model for entropies")
    sub.add_argument(
        "--page", type=pathlib.Path, metavar="FILE", help="write an HTML page with bars of entropy, too"
    )
    sub.add_argument("--color", choices=["auto", "always", "never"], default="auto")
    sub.add_argument(
        "--scheme",
        default="",
        help="strided, space, entropy, monotonic, both or random (default: the run's, else space)",
    )
    for name, kind in dict(
        threshold=float, delta=float, stride=int, mean=float, seed=int, max_length=int
    ).items():
        sub.add_argument("--" + name.replace("_", "-"), type=kind)
    sub.add_argument("--json", action="store_true")


def train(args) -> int:
    from bltjax import config as cfg
    from bltjax import models
    from bltjax.parallel import distributed, host, sharding
    from bltjax.run import jobs
    from bltjax.storage import rundir
    from bltjax.sweep import graph

    if args.processes == 1:
        without_effect.refuse(args, "is of several processes", heartbeat=30, start_timeout=300)
    distributed.check(args.coordinator, args.processes, args.process, args.heartbeat, args.start_timeout)
    shape = sharding.parse_mesh(args.mesh) if args.mesh else None
    config, name, default = chosen(args)
    run_dir = args.run_dir or default or pathlib.Path("runs") / name / config.name
    distributed.use_cpu_devices(args.devices)
    joined = distributed.start(
        args.coordinator, args.processes, args.process, heartbeat=args.heartbeat, timeout=args.start_timeout
    )
    host.ready()
    mesh = distributed.mesh(shape, args.devices)
    started = {
        "--mesh": str(mesh and dict(mesh.shape)),
        "--processes": args.processes,
        "--run-dir": str(run_dir.absolute()),
        "jax": rundir.versions()["jax"],
    }
    distributed.agree(mesh, {**started, **cfg.flat(config)})
    if mesh is not None:
        models.check_mesh(config, tuple(mesh.shape.values()))
    if joined:
        sizes = "x".join(map(str, mesh.shape.values()))
        print(f"{joined}: {counted(mesh.size, 'device')}, {sizes} (replica x data x model)", file=sys.stderr)
    needed = []

    def declare():
        """The run's directory, and the jobs whose outputs it reads: in the first process alone."""
        needed.extend(graph.of_run(run_dir, config, name)[:-1])

    def make_inputs():
        for job in needed:
            jobs.do(job.directory, **({"progress": False} if job.kind == "run" else {}))

    distributed.once(mesh, declare)
    watched = dict(progress=True, profile=args.profile, tensorboard=args.tensorboard, wandb=args.wandb)
    jobs.do(run_dir, wait=False, mesh=mesh, before=make_inputs, **watched)
    if distributed.first(mesh):
        scored = rundir.read_json(run_dir / "eval.json")
        print(f"{run_dir}: {scored['test']['bpb']:.4f} bits per byte on test text")
    return 0


def chosen(args):
    """(config, experiment's name, its own directory or None) of the one run that --config, --run and --from
    say."""
    from bltjax import config as cfg
    from bltjax.experiments import registry
    from bltjax.run import validate, warm_start
    from bltjax.storage import rundir

    path = pathlib.Path(args.config)
    if path.suffix == ".json":
        if not path.exists():
            raise UserError(f"no file {path}")
        if path.name != "config.json":
            raise UserError(f"--config {path}: of a run's files it takes config.json, not {path.name}")
        if args.run:
            raise UserError(f"--run {args.run}: {path} is one run's config, and there is none to choose")
        without_effect.refuse(args, f"is of an experiment, and {path} is one run's config", runlocal=False)
        config, name = validate.check(cfg.parse_set(rundir.load_config(path.parent), args.set)), "train"
        default = path.parent if not args.set else None
    else:
        experiment = registry.load(args.config, args.set, runlocal=args.runlocal, only=args.run)
        configs, name, default = (
            [c for c in experiment.runs if args.run in ("", c.name)],
            experiment.name,
            None,
        )
        if len(configs) != 1:
            raise UserError(f"--run NAME must choose one of {', '.join(c.name for c in experiment.runs)}")
        config = configs[0]
    if args.source:
        config, default = validate.check(warm_start.adopted(config, args.source)), None
    return config, name, default


def generate(args) -> int:
    from bltjax import api
    from bltjax.generation import Options, characters
    from bltjax.parallel import host

    if args.file and not args.file.is_file():
        raise UserError(f"no file {args.file}")
    prompts = [p.encode("utf-8", "surrogateescape") for p in args.prompt] + (
        [args.file.read_bytes()] if args.file else []
    )
    if args.unconditional and prompts:
        raise UserError("--unconditional begins at BOS: it goes with no prompt")
    if args.raw and (args.json or len(prompts) > 1):
        raise UserError("--raw goes with one prompt and without --json")
    if args.unconditional and not prompts:
        prompts = [b""]
    if not prompts or not all(prompts) and not args.unconditional:
        raise UserError("the prompt is empty; give a text, --file FILE, or --unconditional to begin at BOS")
    options = Options(
        args.max_new_bytes,
        args.temperature,
        args.top_k or 0,
        1.0 if args.top_p is None else args.top_p,
        args.seed or 0,
        tuple(s.encode("utf-8", "surrogateescape") for s in args.stop),
        args.draft,
    )
    options.check()
    if options.greedy:
        why = "means nothing without --temperature: the likeliest byte is always taken"
        without_effect.refuse(args, why, top_k=None, top_p=None, seed=None)
    host.keep_compiled_programs()
    model = api.load(args.model, entropy_model=args.entropy_model)
    without_effect.refuse_entropy_model(model, args.entropy_model)
    generator = model.generator
    if args.json or len(prompts) > 1:
        result = generator.generate(prompts, options)
        shown = [new.decode("utf-8", "backslashreplace") for new in result.new]
        if args.json:
            print(
                json.dumps(
                    {
                        "new": shown,
                        "new_hex": [new.hex() for new in result.new],
                        "finished": result.finished,
                        **result.facts(),
                    }
                )
            )
        else:
            print("\n".join(f"[{i}] {text}" for i, text in enumerate(shown)))
    else:
        pieces = generator.stream(prompts[0], options)
        if args.raw:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        else:
            for text in characters(pieces):
                print(text, end="", flush=True)
        result = generator.last
        if not args.raw:
            print()
    if not args.json:
        print(result.text(), file=sys.stderr)
    return 0


def import_(args) -> int:
    from bltjax import convert

    found = convert.bring_in(args.source, args.out, args.entropy_model)
    print(json.dumps(found) if args.json else convert.text(found))
    return 0


def export(args) -> int:
    from bltjax import api, convert

    if args.entropy_model:
        without_effect.refuse_entropy_model(api.load(args.source), args.entropy_model)
    note = convert.send_out(args.source, args.out, args.entropy_model, args.loosely)
    if note:
        print(f"bltjax: {note}", file=sys.stderr)
    print(f"{args.out}: a Hugging Face Blt directory")
    return 0


def patch(args) -> int:
    from bltjax.inspection import page as patch_page
    from bltjax.inspection import patches as inspect_patches
    from bltjax.parallel import host

    if args.json:
        without_effect.refuse(args, "colours text, and cannot stand beside --json", color="auto")
    host.keep_compiled_programs()
    result = inspect_patches.of_text(
        args.text,
        args.run,
        args.scheme,
        entropy_model=args.entropy_model,
        threshold=args.threshold,
        delta=args.delta,
        stride=args.stride,
        mean=args.mean,
        seed=args.seed,
        max_length=args.max_length,
    )
    if args.page:
        patch_page.write(args.page, result)
    color = (
        args.color == "always"
        or args.color == "auto"
        and sys.stdout.isatty()
        and "NO_COLOR" not in os.environ
    )
    print(json.dumps(result) if args.json else inspect_patches.text(result, color))
    return 0
