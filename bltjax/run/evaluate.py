"""eval.json: bits per byte of whole validation and test documents; and while a run trains, of a sample of its
validation text."""

import dataclasses
import hashlib
import math

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import models
from bltjax.data import splits
from bltjax.data.corpus import Selection
from bltjax.evaluation import groups, scoring
from bltjax.run.inputs import Inputs

TIMES, MOST = 10, 0.02  # eval.every=-1: so often in a run, and at most for this share of its training FLOPs
FORWARD = 1 / 3  # of a step's FLOPs


def evaluate(config: ConfigDict, inputs: Inputs, params, longest, mesh=None) -> dict:
    """What eval.json holds: {"test": scored, "validation": scored, "upper_bound"} (bpb.summary and groups.of
    each).

    longest: of the segments that the run trained on (batches.Rows.longest): no position beyond is scored."""
    limits = {"test": config.eval.test_bytes, "validation": config.eval.validation_bytes}
    scored = {
        split: score(config, inputs, params, splits.first(getattr(inputs.text, split), limit), longest, mesh)
        for split, limit in limits.items()
    }
    upper_bound = models.kind(config.model).UNIT == "token"
    return {"schema_version": cfg.SCHEMA_VERSION, "upper_bound": upper_bound, **scored}


def score(config: ConfigDict, inputs: Inputs, params, chosen, longest, mesh=None) -> dict:
    """Bits per byte of whole documents, each byte once, with the same left context in bytes for every
    family."""
    documents = list(chosen)
    found, *_ = scoring.score(
        config,
        params,
        documents,
        longest,
        entropies=inputs.entropies(chosen),
        tokenizer=inputs.tokenizer,
        mesh=mesh,
    )
    by_group = groups.of(chosen, found["documents"])
    return {**found, **by_group, "documents_digest": digest(documents)}


def digest(documents: list[bytes]) -> str:
    """12 hex digits that tell one set of documents from another: only runs scored on the same are
    compared."""
    whole = hashlib.sha256()
    for document in documents:
        whole.update(hashlib.sha256(document).digest())
    return whole.hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample of validation text that is scored after every `every` steps: the first documents of what is
    scored at the end, and so for runs of all families the same."""

    every: int
    chosen: Selection
    text: scoring.Text
    mesh: object = None

    def score(self, params) -> dict:
        """{"bpb": over all bytes, "bpb_of_groups": the mean over groups, "groups": {group: bits per byte}},
        what metrics.jsonl has under `validation`; None for what is no finite number, and without groups."""
        found, _ = self.text.score(params, self.mesh)
        by_group = groups.of(self.chosen, found["documents"])
        own = {one["group"]: _finite(one["bpb"]) for one in by_group["groups"] or ()}
        means = {"bpb": found["bpb"], "bpb_of_groups": by_group["bpb_of_groups"]}
        return {**{key: _finite(value) for key, value in means.items()}, "groups": own or None}

    def facts(self) -> dict:
        """What planned.json says of it."""
        return {
            "every": self.every,
            "documents": len(self.chosen),
            "bytes": sum(self.text.sizes),
            "documents_digest": digest(list(self.chosen)),
            "share_of_training": FORWARD * self.text.windows.batches / self.every,
        }


def sample(config: ConfigDict, inputs: Inputs, steps: int, longest, mesh=None) -> Sample | None:
    """What a run of so many steps scores while it trains; None: nothing. longest: as in `evaluate`."""
    if not config.eval.every:
        return None
    most = min(config.eval.sample_bytes, config.eval.validation_bytes or config.eval.sample_bytes)
    chosen = splits.first(inputs.text.validation, most)
    entropies, tokenizer = inputs.entropies(chosen), inputs.tokenizer
    text = scoring.cut(config, list(chosen), longest, entropies=entropies, tokenizer=tokenizer)
    every = config.eval.every
    if every < 0:
        every = max(math.ceil(steps / TIMES), math.ceil(FORWARD * text.windows.batches / MOST))
    return Sample(every, chosen, text, mesh) if every <= steps else None


def _finite(value):
    return value if value is not None and math.isfinite(value) else None
