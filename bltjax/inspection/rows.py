"""`bltjax data inspect`: what a prepared data set holds, or the rows that a run trains on, as text with its
patches marked."""

import pathlib

import numpy as np

from bltjax.counts import counted
from bltjax.data import corpus, prepare
from bltjax.entropy import curves, store
from bltjax.errors import UserError
from bltjax.inspection.patches import SPACE_MARKS
from bltjax.patching import vocab

SHOWN = 12  # groups
QUANTILES = (0, 0.1, 0.5, 0.9, 1)


def of(path: pathlib.Path, step: int | None = None, rows: int | None = None, verify: bool = False) -> dict:
    """Facts of a prepared data set, or of a run directory (then also the first `rows` rows of a
    step; None: 2 rows, and step 0).

    verify: checksums of all shards are compared. UserError where it is neither, or damaged.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no directory" if path.exists() else f"no directory {path}")
    if (path / "config.json").exists():
        if verify:
            raise UserError(f"--verify is for prepared data; {path} is a run")
        return of_run(path, step or 0, 2 if rows is None else rows)
    if (step, rows) != (None, None):
        raise UserError(f"--step and --rows are of a run; {path} has no config.json, as runs do")
    return of_data(path, verify)


def of_data(directory: pathlib.Path, verify: bool = False) -> dict:
    """{"splits": {name: {"documents", "bytes", "shards", "lengths", "groups"}}, "counts", "near_copies",
    "test_overlap", "fingerprints", "entropies": {whose: of how many shards}, "verified"}."""
    manifests, shards = corpus.manifests(directory), corpus.shards(directory)
    if verify:
        for shard in shards:
            corpus.verify(shard)
        for mark in curves.marks(directory):
            for shard in shards:
                store.verify(shard, mark)
    splits = {}
    for split in corpus.SPLITS:
        own = [shard for shard in shards if shard.split == split]
        documents = corpus.Documents(own)
        sizes = np.bincount(documents.groups, weights=documents.lengths, minlength=len(documents.group_names))
        groups = sorted(
            ((documents.group_names[i], int(size)) for i, size in enumerate(sizes)), key=lambda item: -item[1]
        )
        lengths = np.quantile(documents.lengths, QUANTILES).astype(int).tolist() if len(documents) else []
        splits[split] = {
            "documents": len(documents),
            "bytes": int(documents.lengths.sum()),
            "shards": len(own),
            "lengths": lengths,
            "groups": {name: size for name, size in groups if size},
        }
    counts = {key: sum(m["counts"][key] for m in manifests) for key in manifests[0]["counts"]}
    reasons = {
        why: sum(m.get("near_copies", {}).get(why, 0) for m in manifests)
        for why in manifests[0].get("near_copies", {})
    }
    return {
        "data": str(directory),
        "parts": len(manifests),
        "settings": manifests[0]["settings"],
        "fingerprints": [m["fingerprint"] for m in manifests],
        "splits": splits,
        "counts": counts,
        "near_copies": reasons,
        "test_overlap": corpus.test_overlap([directory]),
        "entropies": {
            mark: sum(store.whole(store.folder_of(shard, mark), shard) for shard in shards)
            for mark in curves.marks(directory)
        },
        "shards": len(shards),
        "verified": verify,
    }


def of_run(run_dir: pathlib.Path, step: int, rows: int) -> dict:
    """{"run", "step", "steps", "rows": [{"segments": [[patches as text]], "slots", "patches", "slots_used",
    "patches_used"}], and what was planned}."""
    from bltjax.run import execute

    if step < 0 or rows < 1:
        raise UserError(f"--step {step} --rows {rows}: a step is 0 or more, rows are 1 or more")
    run = execute.ready(run_dir)
    if step >= run.steps:
        raise UserError(f"--step {step}: the run has steps 0 to {run.steps - 1}")
    batch = run.rows.batch(step, np.arange(min(rows, run.rows.rows)))
    shown = [
        row({name: value[i] for name, value in batch.items()}, run.inputs.tokenizer)
        for i in range(len(batch["doc_ids"]))
    ]
    keep = (
        "steps",
        "train_bytes",
        "patch_size",
        "threshold",
        "delta",
        "packing_efficiency",
        "epochs",
        "row_slots",
        "row_patches",
        "rows",
    )
    return {
        "run": str(run_dir),
        "step": step,
        "planned": {key: run.planned[key] for key in keep},
        "rows": shown,
    }


def row(batch: dict, tokenizer=None) -> dict:
    """One row of a batch as text: segments of patches (of a token row, tokens; of an entropy model's, one
    piece)."""
    docs = batch["doc_ids"]
    tokens = "tokens" in batch
    ids = batch["tokens" if tokens else "bytes"]
    segments = []
    for number in range(1, int(docs.max()) + 1):
        at = np.flatnonzero(docs == number)
        if tokens:
            pieces = [tokenizer.token_bytes[i] for i in ids[at]]
        else:
            marks = batch["patch_ids"][at] if "patch_ids" in batch else np.minimum(np.arange(len(at)), 1)
            cuts = np.flatnonzero(np.diff(marks)) + 1
            pieces = [vocab.decode(part) for part in np.split(ids[at], cuts)]
        segments.append([piece.decode("utf-8", "backslashreplace") for piece in pieces])
    found = {"segments": segments, "slots": len(docs), "slots_used": int((docs > 0).sum())}
    if "patch_doc_ids" in batch:
        found |= {
            "patches": len(batch["patch_doc_ids"]),
            "patches_used": int((batch["patch_doc_ids"] > 0).sum()),
        }
    return found


def text(found: dict) -> str:
    return _run_text(found) if "run" in found else _data_text(found)


def _data_text(found: dict) -> str:
    counts = found["counts"]
    lines = [
        f"{found['data']}: {counted(found['parts'], 'part')} of {found['settings']['source']}, fingerprints"
        f" {', '.join(found['fingerprints'][:8])}"
    ]
    for split, facts in found["splits"].items():
        documents, size = counted(facts["documents"], "document"), counted(facts["bytes"], "byte")
        lines.append(
            f"{split:<9} {documents:>22} {size:>22} in {counted(facts['shards'], 'shard')}"
        )
        if facts["documents"]:
            lines.append(
                f"          lengths: least {facts['lengths'][0]:,}, 10% {facts['lengths'][1]:,}, half"
                f" {facts['lengths'][2]:,}, 90% {facts['lengths'][3]:,}, most {facts['lengths'][4]:,}"
            )
            shares = [
                f"{name or '-'} {size / facts['bytes']:.1%}"
                for name, size in list(facts["groups"].items())[:SHOWN]
            ]
            lines.append(
                f"          groups: {', '.join(shares)}{' and more' if len(facts['groups']) > SHOWN else ''}"
            )
    lines += [prepare.empty(split) for split, facts in found["splits"].items() if not facts["documents"]]
    lines += prepare.left_out_lines(counts, found["near_copies"])
    lines.append(prepare.overlap_line(found["test_overlap"]))
    marks = [
        mark if count == found["shards"] else f"{mark} (of {count} of {counted(found['shards'], 'shard')})"
        for mark, count in found["entropies"].items()
    ]
    lines.append(f"entropies: {', '.join(marks) or 'none yet'}")
    if found["verified"]:
        lines.append("checksums: all as they were written")
    return "\n".join(lines)


def _run_text(found: dict) -> str:
    planned, lines = found["planned"], []
    for number, one in enumerate(found["rows"]):
        patches = f", {one['patches_used']:,} of {one['patches']:,} patches" if "patches" in one else ""
        lines.append(
            f"--- step {found['step']} row {number}: {one['slots_used']:,} of {one['slots']:,}"
            f" slots{patches}, {counted(len(one['segments']), 'segment')}"
        )
        for segment in one["segments"]:
            lines.append("|".join(piece.translate(str.maketrans(SPACE_MARKS)) for piece in segment))
    used = planned["packing_efficiency"]
    lines.append(
        f"--- all of {counted(planned['steps'], 'step')}: {planned['train_bytes']:,} bytes,"
        f" {planned['epochs']:.2f} epochs, {planned['patch_size']:.3f} bytes a patch or token;"
        f" {used['bytes']:.1%} of slots"
        + (f" and {used['patches']:.1%} of patches" if used["patches"] else "")
        + " used"
    )
    return "\n".join(lines)
