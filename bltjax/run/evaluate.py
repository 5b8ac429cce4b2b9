"""eval.json: bits per byte of whole validation and test documents."""

import hashlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import models
from bltjax.data import splits
from bltjax.evaluation import scoring
from bltjax.run.inputs import Inputs


def evaluate(config: ConfigDict, inputs: Inputs, params, longest, mesh=None) -> dict:
    """What eval.json holds: {"test": scored, "validation": scored, "upper_bound"} (bpb.summary of each).

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
    return {**found, "documents_digest": digest(documents)}


def digest(documents: list[bytes]) -> str:
    """12 hex digits that tell one set of documents from another: only runs scored on the same are
    compared."""
    whole = hashlib.sha256()
    for document in documents:
        whole.update(hashlib.sha256(document).digest())
    return whole.hexdigest()[:12]
