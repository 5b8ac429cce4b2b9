"""The kinds of jobs. A job is a directory: `config.json` says what is to be made and of what, `.lock` is held
by the process that makes it, and `done.json` is written last of all. Made again, it is the same.

    prepare      a source as prepared data, in this directory                              data/prepare.py
    tokenizer    a vocabulary: trained, or another project's, as tokenizer.json            tokenizers/
    annotate     entropies of as much of prepared data as some runs read, beside it        entropy/store.py
    run          a training run, an entropy model's too                                    run/execute.py
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable

import jax

from bltjax import config as cfg
from bltjax.data import corpus, prepare, sources, splits
from bltjax.entropy import store
from bltjax.errors import UserError
from bltjax.parallel import distributed
from bltjax.run import execute, inputs
from bltjax.storage import attempts, locks, mirror, rundir
from bltjax.tokenizers import bpe

# A change of what a job of a kind makes is another version, and with it another directory.
VERSIONS = {"prepare": prepare.PREPARE_VERSION, "tokenizer": 1, "annotate": 1, "run": 1}
SAMPLE = 1 << 24  # bytes of training text that stand for all, where a tokenizer is trained
SMALL = 1 << 26  # bytes of a source that is cut into shards of PIECE, so that a part of it can be annotated
PIECE = 1 << 20


def create(directory: pathlib.Path, kind: str, config: dict) -> None:
    """Writes the config.json of a job that is no run (rundir.create has those)."""
    if rundir.read_json(directory / "config.json") is None:
        record = {
            "schema_version": cfg.SCHEMA_VERSION,
            "kind": kind,
            "config": config,
            "versions": rundir.versions(),
        }
        rundir.write_json(directory / "config.json", record)


def kind_of(directory: pathlib.Path) -> str:
    record = rundir.read_json(directory / "config.json")
    if record is None:
        raise UserError(f"{directory} is no job: it has no config.json")
    return record.get("kind", "run")


def state(directory: pathlib.Path, kind: str) -> str:
    """done, failed, started or new."""
    if kind == "run":
        return rundir.state(directory)
    if (directory / "done.json").exists():
        if mirror.partial(directory):  # what it made is not here, and was whole when it was published
            return "done"
        try:
            return "done" if KINDS[kind].whole(directory) else "started"
        except UserError:
            return "started"
    return "failed" if (directory / "failed.json").exists() else "new"


def do(
    directory: pathlib.Path,
    *,
    wait: bool | float = True,
    say=lambda text: None,
    chips: int | None = None,
    on: str = "",
    mesh=None,
    before=lambda: None,
    within=None,
    **options,
) -> None:
    """Brings a job to its end, unless it is there. wait: for another process that is at it (locks.held); else
    locks.Busy. chips, on: of this attempt (storage/attempts.py); None: what JAX sees here, for a run.

    mesh: what a run is spread over, and its processes, each of which makes this call; the first holds the
    lock, and does what comes before the run. within: a context that the first one enters once it holds the
    lock, before it looks at what is there (storage/work.py). options: of execute.execute, for a run.
    UserError for what the job cannot be made of."""
    kind, held = kind_of(directory), contextlib.ExitStack()

    def begin():
        held.enter_context(locks.held(directory / ".lock", wait=wait))
        held.enter_context(within or contextlib.nullcontext())
        if state(directory, kind) == "done":
            return True
        step = (rundir.last_metrics(directory) or {}).get("step", 0)
        holds = chips if chips is not None else _chips(mesh) if kind == "run" else 0
        held.enter_context(attempts.recorded(directory, holds, on, step))
        before()
        return False

    with held:
        if distributed.once(mesh, begin):
            return
        if kind == "run":
            execute.execute(directory, mesh=mesh, **options)
            return
        facts = KINDS[kind].make(directory, rundir.read_json(directory / "config.json")["config"], say)
        rundir.write_json(directory / "done.json", {**facts, "finished": time.time()})
        (directory / "failed.json").unlink(missing_ok=True)


def _chips(mesh) -> int:
    """Chips that a run here holds; 0: a CPU alone."""
    if jax.default_backend() == "cpu":
        return 0
    return mesh.size if mesh is not None else 1


def _prepare(directory: pathlib.Path, config: dict, say) -> dict:
    data_config = cfg.from_dict(config)
    size = sum(unit.size for unit in sources.units(data_config))
    pieces = min(64, max(1, round(size / PIECE))) if size < SMALL else 0
    manifest = prepare.prepare(data_config, directory, shard_count=pieces, say=say)
    return {"fingerprint": manifest["fingerprint"], "splits": manifest["splits"]}


def _prepared(directory: pathlib.Path) -> bool:
    return bool(corpus.shards(directory))


def _tokenizer(directory: pathlib.Path, config: dict, say) -> dict:
    if config["kind"] == "trained":
        text = splits.opened(_folders(directory, config))
        most = min(config["max_train_bytes"] or SAMPLE, SAMPLE)
        found = bpe.train_bpe(list(splits.training(text.train, most)), config["vocab"], say)
    else:
        found = inputs.read_tokenizer(config["kind"], config["path"])
    found.save(directory / "tokenizer.json")
    return {"fingerprint": found.fingerprint, "vocab": found.vocab, **found.state.get("trained", {})}


def _annotate(directory: pathlib.Path, config: dict, say) -> dict:
    lm = cfg.completed(cfg.from_dict(config["config"]))
    model = inputs.entropy_model(lm, directory / config["entropy_model"])
    wanted = _wanted(directory, config)
    for folder in dict.fromkeys(shard.path.parent for shard in wanted):
        own = [shard for shard in wanted if shard.path.parent == folder]
        made = store.make(
            folder, model.model, model.params, shards=own, source=str(model.folder), wait=True, say=say
        )
    return {"fingerprint": made["fingerprint"], "shards": len(wanted)}


def beside(directory: pathlib.Path) -> list[pathlib.Path]:
    """Folders outside of a job's directory that hold what it made."""
    if kind_of(directory) != "annotate" or not (done := rundir.read_json(directory / "done.json")):
        return []
    folders = _folders(directory, rundir.read_json(directory / "config.json")["config"])
    return [pathlib.Path(folder) / f"entropies-{done['fingerprint']}" for folder in folders]


def _annotated(directory: pathlib.Path) -> bool:
    config, done = rundir.read_json(directory / "config.json")["config"], rundir.read_json(
        directory / "done.json"
    )
    mark = (done or {}).get("fingerprint", "")
    return all(store.whole(store.folder_of(shard, mark), shard) for shard in _wanted(directory, config))


def _wanted(directory: pathlib.Path, config: dict) -> list[corpus.Shard]:
    """The shards that hold what the runs read: of training text the first so many bytes, of others what is
    scored."""
    text = splits.opened(_folders(directory, config))
    found = {}
    for split, most in config["bytes"].items():
        documents = getattr(text, split)
        some = splits.training(documents, most) if split == "train" else splits.first(documents, most)
        found |= {shard.path: shard for shard in some.documents.shards_of(some.numbers)}
    return list(found.values())


def _folders(directory: pathlib.Path, config: dict) -> dict[str, float]:
    return {str((directory / path).resolve()): weight for path, weight in config["data"].items()}


@dataclasses.dataclass(frozen=True)
class Kind:
    """make(directory, config, say) -> facts for done.json; whole(directory): whether what it made is all
    there."""

    make: Callable
    whole: Callable


KINDS = {
    "prepare": Kind(_prepare, _prepared),
    "tokenizer": Kind(_tokenizer, lambda directory: bool(bpe.load(directory / "tokenizer.json"))),
    "annotate": Kind(_annotate, _annotated),
}
