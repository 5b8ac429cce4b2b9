"""What a run's config must satisfy, said before anything is read or trained: one line that names the key, the
value and what is allowed. What only one kind of model must satisfy stands with the model (models.kind)."""

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import models
from bltjax.config import families, ranges
from bltjax.data import sources
from bltjax.errors import UserError
from bltjax.run import budget
from bltjax.tokenizers import bpe


def check(run: ConfigDict) -> ConfigDict:
    """The run itself, or UserError."""
    try:
        families.family(run.family)
        _values(run)
        _shapes(run)
        models.kind(run.model).check(run)
        _family(run)
        if len(run.entropy_model):
            if run.entropy_model.family != families.ENTROPY_MODEL:
                raise UserError(
                    f"entropy_model.family is {run.entropy_model.family!r}; it must be"
                    f" {families.ENTROPY_MODEL}"
                )
            check(run.entropy_model)
            _same_text(run)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith("run ") else f"run {run.name}: {text}") from None
    return run


def _values(run: ConfigDict) -> None:
    ranges.check({key: value for key, value in cfg.flat(run).items() if not key.startswith("entropy_model")})
    if run.schema_version != cfg.SCHEMA_VERSION:
        raise UserError(
            f"schema_version is {run.schema_version}; this version of bltjax has {cfg.SCHEMA_VERSION},"
            " which is nothing to choose"
        )
    cfg.lr_scales(run.train)
    if not sources.known(run.data.source):
        raise UserError(f"data.source is {run.data.source!r}; allowed: {sources.allowed()}")
    sources.check(run.data)
    for key in ("globs", "mix"):
        if any(not isinstance(item, str) for item in run.data[key]):
            raise UserError(f'data.{key} must be a list of texts, such as ["texts/*.txt"]')
    if not (run.data.validation > 0 and run.data.test > 0 and run.data.validation + run.data.test < 1):
        raise UserError(
            f"data.validation={run.data.validation:g} and data.test={run.data.test:g} must be above 0 and"
            " together below 1"
        )


def _shapes(run: ConfigDict) -> None:
    for stack in models.kind(run.model).stacks(run.model):
        if stack.width % stack.heads or stack.width // stack.heads % 2:
            raise UserError(
                f"{stack.key}.heads is {stack.heads}; heads must cut {stack.key}.width ({stack.width}) into"
                " equal even parts"
            )
    if run.data.rows % run.train.accumulate:
        raise UserError(
            f"train.accumulate is {run.train.accumulate}; it must divide data.rows ({run.data.rows})"
        )
    if run.train.steps:
        budget.check_schedule(run, run.train.steps)
    if (
        not run.budget_flops
        and not run.train.steps
        and not (run.family == families.ENTROPY_MODEL and run.train.init_from)
    ):
        raise UserError(
            "neither budget_flops nor train.steps says how long the run is; set one of them above 0"
        )
    if (run.tokenizer.kind == "file") != bool(run.tokenizer.path):
        raise UserError(
            f"tokenizer.kind is {run.tokenizer.kind!r} and tokenizer.path {run.tokenizer.path!r}; a path goes"
            " with kind 'file', and that with a path"
        )
    if run.tokenizer.kind == "trained" and run.tokenizer.vocab < bpe.SMALLEST:
        raise UserError(
            f"tokenizer.vocab is {run.tokenizer.vocab}; a byte-level vocabulary has at least {bpe.SMALLEST}"
            " entries (256 bytes, BOS, EOS)"
        )
    if models.kind(run.model).PATCHES and run.patching.size > run.data.context:
        raise UserError(
            f"patching.size is {run.patching.size:g}; a row has no more than data.context"
            f" ({run.data.context}) bytes"
        )
    if models.kind(run.model).PATCHES and 0 < run.patching.max_length < run.patching.size:
        raise UserError(
            f"patching.max_length is {run.patching.max_length}; no patch is longer, and they are to have"
            f" patching.size ({run.patching.size:g}) bytes on average"
        )
    if run.train.branch_from and run.train.schedule != "wsd":
        raise UserError(
            "train.branch_from continues a stable phase, so it needs train.schedule wsd, not"
            f" {run.train.schedule!r}"
        )
    if run.tokenizer.kind == "given" and not run.train.init_from:
        raise UserError(
            "tokenizer.kind is 'given': it comes with the model that train.init_from (--from) names, and"
            " there is none"
        )


def _same_text(run: ConfigDict) -> None:
    """That the entropy model holds out what its run does."""
    for key in cfg.TEXT_KEYS:
        if run.entropy_model.data[key] != run.data[key]:
            raise UserError(
                f"its entropy model would split other text (data.{key}: {run.entropy_model.data[key]!r}"
                f" against {run.data[key]!r}), and might see test text"
            )


def _family(run: ConfigDict) -> None:
    """That the run is of the family that it says (config/families.py)."""
    family, model = families.family(run.family), cfg.flat(run.model)
    if run.model.kind != family.kind:
        raise UserError(f"model.kind is {run.model.kind!r}; family {run.family} has {family.kind!r}")
    if run.patching.scheme not in family.schemes:
        raise UserError(
            f"patching.scheme is {run.patching.scheme!r}; family {run.family} has {', '.join(family.schemes)}"
        )
    for key, value in family.changes.items():
        if model[key] != value:
            raise UserError(f"model.{key} is {model[key]!r}; family {run.family} has {value!r}")
