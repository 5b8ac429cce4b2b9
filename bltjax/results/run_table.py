"""The table of runs: one row of numbers per run, from its directory."""

from bltjax.config import families
from bltjax.results.run_directories import Run, finite, lookup
from bltjax.science import bootstrap
from bltjax.storage.contradictions import scored_documents

REFERENCE, family_order = families.REFERENCE, families.order
LATENT = ("latent", "total")  # every other component of a BLT's count is a local module or the output head
NO_DIGEST = "no documents_digest in eval.json shows that both were scored on the same text"
DIFFER = "test documents differ"
COMPONENTS = ("flops_per_byte_exact", "flops_components", "flops_by_component", "components", "flops.exact")


def number(*values):
    """The first finite number among values, else None."""
    return next((value for value in values if finite(value)), None)


def local_share(planned: dict):
    """Share of exact forward FLOPs per byte in the local modules (encoder, cross-attention, decoder, head);
    None: not recorded."""
    for key in COMPONENTS:
        parts = lookup(planned, key)
        if isinstance(parts, dict) and finite(parts.get("latent")):
            total = sum(value for name, value in parts.items() if name != "total" and finite(value))
            return 1 - parts["latent"] / total if total else None
    return None


def why_apart(rows: list) -> str:
    """Why rows cannot be resampled together, "" if they can: their documents must be the same text."""
    seen = {row["test_text"] for row in rows}
    return DIFFER if len(seen - {None}) > 1 else NO_DIGEST if None in seen else ""


def documents(run: Run) -> list:
    """[{"bytes", "nats"}, ...] of the test documents that hold bytes."""
    return scored_documents(lookup(run.evaluation, "test", {}))


def row(run: Run, samples=None, text=None) -> dict:
    """All numbers of a run, flat and JSON-ready (None where a file does not say; of one that is not done,
    what was planned and reached). FLOPs are exact useful training FLOPs.

    samples: its bits per byte under resampled test documents, for the interval. text: what tells its test
    text from others' (`texts`; its digest alone where no other run is at hand).
    """
    planned, last = run.planned, run.metrics[-1] if run.metrics else {}
    token = run.setting("model.kind") == "token"
    budget = number(planned.get("budget_flops"), run.setting("budget_flops")) or 0.0
    realized = number(run.done.get("realized_flops"), last.get("useful_flops"), planned.get("train_flops"))
    train_bytes = number(last.get("bytes"), planned.get("train_bytes"))
    entropy = planned.get("entropy_model") or {}
    per_byte = number(entropy.get("forward_flops_per_byte"))
    forward = per_byte * train_bytes if per_byte is not None and train_bytes is not None else 0.0
    total, hashed = number(lookup(planned, "params.total")), number(lookup(planned, "params.hash"), 0)
    lexicon = lexicon_of(planned, token)
    executed = number(last.get("executed_flops"), planned.get("executed_flops"))
    sizes = [document["bytes"] for document in documents(run)]
    low, high = None, None
    if samples is not None:
        stated = float(lookup(run.evaluation, "test.bpb"))
        one = bootstrap.score([stated], [samples], len(sizes), bootstrap.worth(sizes))
        low, high = bootstrap.score_interval(one)
    flat = {
        f"flops_per_byte_{kind}": number(
            planned.get(f"flops_per_byte_{kind}"), lookup(planned, f"flops_per_byte_{kind}.total")
        )
        for kind in ("exact", "paper")
    }
    target = run.setting("tokenizer.bytes_per_token") if token else run.setting("patching.size")
    return dict(
        name=run.name,
        family=str(run.setting("family", run.name)),
        size=run.setting("size", ""),
        seed=run.setting("seed"),
        paper_figure=str(run.setting("paper.figure", "")),
        paper_row=str(run.setting("paper.row", "")),
        budget_flops=budget,
        realized_flops=realized,
        deviation_percent=100 * (realized / budget - 1) if budget and realized else None,
        executed_flops=executed,
        executed_over_useful=executed / realized if executed and realized else None,
        entropy_forward_flops=forward,
        flops_with_entropy_model=realized + forward if realized is not None else None,
        patch_target=number(target),
        patch_size=number(planned.get("patch_size"), last.get("patch_size")),
        patch_test=number(lookup(run.evaluation, "test.patch_size")),
        steps=number(last.get("step"), planned.get("steps")),
        train_bytes=train_bytes,
        epochs=epochs(planned),
        bytes_per_batch=number(planned.get("bytes_per_batch")),
        packing_bytes=number(lookup(planned, "packing_efficiency.bytes"), last.get("packing_bytes")),
        packing_patches=number(lookup(planned, "packing_efficiency.patches"), last.get("packing_patches")),
        params_total=total,
        params_latent=number(lookup(planned, "params.latent_12lh2")),
        params_hash=None if total is None else hashed,
        params_without_hash=None if total is None else total - hashed,
        params_lexicon=lexicon,
        params_without_lexicon=None if total is None or lexicon is None else total - lexicon,
        **flat,
        local_share=local_share(planned),
        threshold=number(planned.get("threshold")),
        delta=number(planned.get("delta")),
        lr=number(run.setting("train.lr")),
        hash_rows=number(run.setting("model.ngrams.rows")),
        vocab=number(run.setting("tokenizer.vocab")) if token else number(run.setting("model.vocab")),
        bpb=number(lookup(run.evaluation, "test.bpb")),
        bpb_low=low,
        bpb_high=high,
        upper_bound=upper_bound(run),
        eos_nats=number(lookup(run.evaluation, "test.eos_nats")),
        test_bytes=number(lookup(run.evaluation, "test.bytes")),
        mean_context_bytes=number(lookup(run.evaluation, "test.mean_context_bytes")),
        **positions(run),
        overlap=number(lookup(planned, "data.test_overlap.all")),
        overlap_without_boilerplate=number(lookup(planned, "data.test_overlap.without_boilerplate")),
        test_documents=len(lookup(run.evaluation, "test.documents", [])),
        test_documents_worth=bootstrap.worth(sizes),
        test_text=text or scored_text(run, "test"),
        validation_text=scored_text(run, "validation"),
        data_fingerprint=run.record.get("data_fingerprint"),
        validation_bpb=number(lookup(run.evaluation, "validation.bpb")),
        wall_s=number(run.done.get("wall_s"), last.get("wall_s")),
        run_dir=str(run.path),
    )


def lexicon_of(planned: dict, token: bool):
    """Parameters that cost almost no FLOPs and grow with a table: the hash tables of a BLT, the embeddings
    and the output head of a BPE vocabulary. None: not recorded."""
    parts = [
        number(lookup(planned, f"params.{key}")) for key in (("embeddings", "head") if token else ("hash",))
    ]
    return None if any(part is None for part in parts) else sum(parts)


def epochs(planned: dict):
    """How often the run has read its training text, with what the model that it starts from has; None: not
    recorded."""
    own = number(planned.get("epochs"))
    return None if own is None else own + number(planned.get("epochs_before"), 0.0)


def scored_text(run: Run, split: str):
    """What tells a run's test or validation text from others': the digest of its documents; None where none
    was written."""
    digest = lookup(run.evaluation, f"{split}.documents_digest")
    return digest if isinstance(digest, str) and digest else None


def texts(runs: list) -> dict:
    """{run_dir: what tells its test text from others'}: the digest, and beside it the sizes of the documents
    where runs of one digest have several, since then they are not the text that the digest is of."""
    sizes = {}
    for run in runs:
        found = tuple(document["bytes"] for document in documents(run))
        sizes.setdefault(scored_text(run, "test"), {}).setdefault(found, []).append(str(run.path))
    out = {}
    for digest, groups in sizes.items():
        for number_, members in enumerate(sorted(groups.values(), key=len, reverse=True)):
            text = f"{digest}, other sizes {number_}" if digest and number_ else digest
            out.update(dict.fromkeys(members, text))
    return out


def positions(run: Run) -> dict:
    """How many positions of the attention that a run's family has fewest of (patches of a BLT, else tokens or
    bytes) its longest training segment has, and its longest test window: none is to be scored that was not
    trained."""
    unit = "slots" if lookup(run.planned, "positions.patches") in (None, 0) else "patches"
    largest = number(lookup(run.evaluation, f"test.largest_position.{unit}"))
    return {
        "positions_trained": number(lookup(run.planned, f"positions.{unit}")),
        "positions_scored": None if largest is None else largest + 1,
    }


def upper_bound(run: Run) -> bool:
    """Whether the figure is of one tokenization out of many, and so bounds the model's bits per byte from
    above."""
    return bool(lookup(run.evaluation, "upper_bound", run.setting("model.kind") == "token"))


def budget_key(entry: dict) -> float:
    value = entry["budget_flops"] or entry["realized_flops"] or 0.0
    digits = 9 if entry["budget_flops"] else 2  # without a budget, equal steps make FLOPs nearly equal
    return float(f"{value:.{digits}g}") if value else 0.0
