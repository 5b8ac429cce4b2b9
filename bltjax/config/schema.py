"""The config of one run: its sections with their defaults and sources, and how it is changed.

A config is a locked `ml_collections.ConfigDict`: an unknown key is an error. Sources in the comments:
`paper` is arXiv 2412.09871, `released` is what the released checkpoints compute.
"""

import contextlib
import difflib
import json
import math

from ml_collections import ConfigDict

from bltjax.config import ranges
from bltjax.errors import UserError

SCHEMA_VERSION = 2  # 1: before text was called training, validation and test text

# Keys by their former names, for a line that says the new one.
RENAMED = {
    "tuning": "validation",
    "held_out": "test",
    "tuning_bytes": "validation_bytes",
    "held_out_bytes": "test_bytes",
    "byte_lm": "entropy_model",
    "together": "packing_buffer",
}

# What a family is tuned in unless an experiment says otherwise: of runs at one budget that differ in these
# alone, a report shows the best on validation text. What else differs is another curve (report/series.py).
SWEPT = ("train.lr", "tokenizer.vocab", "model.ngrams.rows")
# Keys of a run that change what is said of it, not what it computes. paper: the figure or table of the paper
# that the run is for ("Table 7"), and the key of the row, cell or point of it that the run answers.
LABELS = {"series": "", "swept": SWEPT, "paper": {"figure": "", "row": ""}}

SIBLING = "run:"  # in train.init_from
SCHEMES = ranges.WORDS["patching.scheme"]


def training() -> ConfigDict:
    """Optimizer and schedule; the numbers are the paper's (section 4.8) unless a comment says otherwise."""
    return ConfigDict(
        dict(
            steps=0,  # 0: as many as the budget pays for
            lr=4e-4,
            beta1=0.9,
            beta2=0.95,
            eps=1e-8,
            weight_decay=0.1,
            clip=1.0,
            warmup=-1,  # steps; -1: min(2000, 10% of the steps), the rule for runs below 20,000 steps
            schedule="cosine",  # cosine to final_lr, or wsd, or constant
            final_lr=0.0,  # fraction of lr
            decay=0.2,  # wsd: the last fraction of the steps decays linearly to final_lr
            # "encoder/embed=0.1": another learning rate for parameters below this path (Llama's layers in a
            # BLT: paper section 6.2)
            lr_scale=(),
            accumulate=1,  # microbatches per step
            checkpoint_every=0,  # steps; 0: by time
            checkpoint_minutes=30.0,  # between two checkpoints; the newest `keep` of them stay
            keep=2,
            log_every=1,
            # an update whose loss or gradient norm is not finite or far above the recent ones is not made
            # (training/outliers.py). Off: runs that are compared must not leave out different text
            skip_outliers=False,
            # a step that takes so many times the median ends the process, to be started again
            # (training/watchdog.py); 0: never
            watchdog=10.0,
            # a run, an imported checkpoint or a Hugging Face directory whose parameters this run starts from
            # (run/warm_start.py); "run:NAME": another run of its experiment
            init_from="",
            branch_from="",  # wsd: a run directory whose stable phase this run continues
        )
    ).lock()


def lr_scales(train) -> dict[str, float]:
    """{path: factor} of train.lr_scale. UserError for anything that is not PATH=FACTOR."""
    found = {}
    for item in train.lr_scale:
        path, sign, factor = str(item).partition("=")
        try:
            found[path.strip("/ ")] = float(factor)
        except ValueError:
            sign = ""
        if not sign or not path.strip("/ ") or not 0 <= found[path.strip("/ ")] < float("inf"):
            raise UserError(f"train.lr_scale: {item!r} must be PATH=FACTOR, such as latent/blocks=0.1")
    return found


def sibling(run: ConfigDict) -> str:
    """The run of the same experiment that a run starts from (train.init_from is "run:NAME"); "": none."""
    return run.train.init_from.removeprefix(SIBLING) if run.train.init_from.startswith(SIBLING) else ""


# The keys of `data` that decide which text is in which split: runs that share them hold out the same
# documents.
TEXT_KEYS = (
    "source",
    "globs",
    "folder",
    "mix",
    "subset",
    "format",
    "text_field",
    "separator",
    "split",
    "min_bytes",
    "validation",
    "test",
)


def data() -> ConfigDict:
    """Which text, how it is split and how it is packed. Sizes in bytes."""
    return ConfigDict(
        dict(
            # stdlib | files | arrayrecord | tfds:NAME | hf:NAME (data/sources.py) | prepared
            source="stdlib",
            # files, arrayrecord: patterns of paths or URLs (what is in which kind of file: data/files.py)
            globs=(),
            # prepared: several directories with the share of bytes that is read of each, such as
            # "prepared/web=0.7"; no folder then
            mix=(),
            # prepared: its directory; tfds: where its data sets lie ("": where it looks by itself)
            folder="",
            subset="train",  # tfds, hf: which of its own splits
            # files: auto, their content says what they are (data/file_kinds.py); bytes, each is its bytes,
            # decompressed, whatever they say
            format="auto",
            text_field="text",  # the field of a JSON line or record, the column of a Parquet file
            # a field by which text is told apart in reports (a language, say); "": the file name's ending
            group_field="",
            # files: what stands between the documents of a plain file, such as "<|endoftext|>" or a blank
            # line, "\n\n"; "": a plain file is one document
            separator="",
            # files: one plain file is cut by position, "90/5/5" percent of its bytes for training, validation
            # and test text; "": the digests of documents decide
            split="",
            longest=1 << 24,  # bytes; a longer document is an error
            min_bytes=32,  # shorter documents are left out
            validation=0.03,
            test=0.03,  # fractions of documents
            # 0: all; else the first of the shuffled training documents, repeated by epochs
            max_train_bytes=0,
            context=512,  # bytes of context: T slots a row for bytes, context / bytes per token for tokens
            rows=8,  # rows in a batch
            # P is at least slack · context / patch size, and more where rows would lose bytes (run/rows.py)
            patch_slack=1.02,
            # rows that are packed together, to be full of bytes and of patches (data/balanced_packing.py),
            # and come in random order; 0: in order
            packing_buffer=256,
            seed=0,  # order of documents
        )
    ).lock()


def evaluation() -> ConfigDict:
    """How much of the test and validation texts is scored; whole documents, in hash order, up to so many
    bytes (0: all)."""
    return ConfigDict(
        dict(
            test_bytes=0,
            validation_bytes=0,
            # steps between two scores of a sample of validation text, as it trains; 0: none; -1: ten in a
            # run, or fewer, so that they cost 2% of it at most
            every=-1,
            sample_bytes=1 << 15,  # the sample: the first so many bytes of what is scored at the end
        )
    ).lock()


def patching(scheme: str = "none", size: float = 1.0, **changes) -> ConfigDict:
    """How bytes become patches. size: the target (entropy, monotonic, both, random), exact (strided) or
    expected (space, bpe) mean."""
    return ConfigDict(
        {
            **dict(
                scheme=scheme,
                size=float(size),
                # nats; nan: calibrated on the rows the run will read (delta too, for monotonic)
                threshold=float("nan"),
                delta=float("nan"),  # nats; monotonic and both
                max_length=0,  # 0: no limit
                # nats: entropies are rounded to multiples of it first (2**-13 where they are read from data
                # beside prepared data); 0: not
                resolution=0.0,
                seed=0,  # random
            ),
            **changes,
        }
    ).lock()


def tokenizer(
    kind: str = "none", vocab: int = 0, bytes_per_token: float = 0.0, ends=(), path: str = ""
) -> ConfigDict:
    """BPE: `trained` here on training text with `vocab` entries, `llama3` (128,256, extra `llama`), `file`
    (of `path`: a tokenizer.json, Llama 3's ranks or a SentencePiece file), or `given`: that of
    train.init_from. bytes_per_token: expected. ends: ids at which a generated text ends, beside the
    tokenizer's EOS (Llama's turns)."""
    return ConfigDict(
        dict(kind=kind, vocab=vocab, bytes_per_token=bytes_per_token, ends=tuple(ends), path=path)
    ).lock()


def run(
    name: str,
    family: str,
    model: ConfigDict,
    *,
    patching_: ConfigDict | None = None,
    tokenizer_: ConfigDict | None = None,
    data_: ConfigDict | None = None,
    training_: ConfigDict | None = None,
    evaluation_: ConfigDict | None = None,
    entropy_model: ConfigDict | None = None,
    budget_flops: float = 0.0,
    size: str = "",
    seed: int = 0,
    series: str = "",
    swept: tuple = SWEPT,
    figure: str = "",
    row: str = "",
) -> ConfigDict:
    """One whole run. entropy_model: the run that trains the entropy model (family `entropy-model`), for
    schemes that need entropies. seed: draws the weights. series: the curve of a report that the run belongs
    to, within its family; "": a report finds out. swept: keys over which a report takes the best on
    validation text. figure, row: `paper` of LABELS."""
    config = ConfigDict(
        dict(
            schema_version=SCHEMA_VERSION,
            name=name,
            family=family,
            size=size,
            seed=seed,
            series=series,
            swept=tuple(swept),
            paper=dict(figure=figure, row=row),
            # `exact` useful training FLOPs, entropy model left out; 0: train.steps decides
            budget_flops=float(budget_flops),
            model=model,
            patching=patching_ or patching(),
            tokenizer=tokenizer_ or tokenizer(),
            data=data_ or data(),
            train=training_ or training(),
            eval=evaluation_ or evaluation(),
            entropy_model=entropy_model or ConfigDict(),
        )
    )
    return config.lock()


def _near(key: str, known: list[str]) -> str:
    """Which keys may have been meant, in words; a former name by what it is called now."""
    former = {
        f"{name[: -len(new)]}{old}": name
        for old, new in RENAMED.items()
        for name in known
        if name.split(".")[-1] == new
    }
    found = difflib.get_close_matches(key, [*known, *former], 3, 0.6)
    meant = list(dict.fromkeys(former.get(name, name) for name in found))
    return f"; did you mean {', '.join(meant)}?" if meant else "; docs/run_directory.md has them all"


def replace(config: ConfigDict, **changes) -> ConfigDict:
    """A locked copy with dotted keys replaced: replace(c, **{"train.lr": 1e-3}). Unknown key: UserError."""
    config = config.copy_and_resolve_references()
    for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.get(part) if isinstance(node, ConfigDict) and part in node else None
        if not isinstance(node, ConfigDict) or last not in node:
            if (now := ".".join(RENAMED.get(part, part) for part in key.split("."))) != key:
                raise UserError(f"{key} is now called {now}")
            raise UserError(f"unknown key {key!r}{_near(key, list(flat(config)))}")
        if value is None and isinstance(node[last], float):
            value = math.nan  # what is open, as in to_dict
        try:
            if value is None and isinstance(node[last], (bool, int, str, tuple)):
                raise TypeError
            with node.ignore_type() if value is None else node.unlocked():
                node[last] = _like(node[last], value)
        except TypeError:
            like = 'list, such as ["a", "b"]' if isinstance(node[last], tuple) else type(node[last]).__name__
            raise UserError(f"{key}: {value!r} is not of type {like}") from None
    return config.lock()


def _number(text: str):
    """The number that a text says, whole ones exactly; TypeError for none."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    raise TypeError


def _like(old, value):
    """value as old's kind of number, where it is the same number: 1 for 1.0, and 1e6 for 1000000; also in a
    text that JSON does not read, such as 2_000_000. TypeError for a truth in place of a number, or the other
    way round, and for what no such number is."""
    if isinstance(value, str) and type(old) in (int, float):
        value = _number(value)
    if isinstance(old, (int, float)) and isinstance(value, bool) != isinstance(old, bool):
        raise TypeError  # to Python a truth is a whole number
    if isinstance(old, float) and isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            raise TypeError from None
    return int(value) if isinstance(old, int) and isinstance(value, float) and value.is_integer() else value


def parse_set(config: ConfigDict, assignments) -> ConfigDict:
    """`--set key=value` applied: values are read as JSON where they parse, else as text. Bad key, type or
    form: UserError."""
    changes = {}
    for item in assignments:
        key, sign, text = item.partition("=")
        if not sign:
            raise UserError(f"--set wants key=value, not {item!r}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        changes[key.strip()] = tuple(value) if isinstance(value, list) else value
    return replace(config, **changes)


def flat(config: ConfigDict, prefix: str = "") -> dict:
    """Dotted keys to values."""
    out = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out
