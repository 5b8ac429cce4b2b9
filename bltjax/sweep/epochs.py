"""Epochs of planned runs: how often they will read their training text, as far as that is known before they
begin, and what is to be said of it."""

import json
import math
import pathlib

from bltjax import config as cfg
from bltjax.data import corpus, file_signs, files, sources, splits
from bltjax.errors import UserError

MANY = 4  # beyond, repeated text is worth less than new text (Muennighoff et al. 2023)
APART = 1.2  # times as many
LOOKED_INTO = 1000  # files at most, for what they hold


def of(data_config, train_bytes: float, texts: dict | None = None) -> float | None:
    """How often a run of so many bytes reads its text; of a mixture, the source it reads most often. None
    where nothing is known of how much there is. Exact for prepared data; of plain files here it is the least:
    what nearly repeats other splits' text is left out when they are prepared.

    texts: keeps what was found of each text, for runs that are planned together and share theirs."""
    texts = {} if texts is None else texts
    key = json.dumps([data_config[name] for name in (*cfg.TEXT_KEYS, "longest")])
    if key not in texts:
        texts[key] = sources_of(data_config)
    sizes = texts[key] or [(1.0, math.inf)]
    most = data_config.max_train_bytes or math.inf
    found = max(share * train_bytes / min(size, share * most) for share, size in sizes)
    return found or None


def sources_of(data_config) -> list[tuple[float, float]]:
    """[(share of what is read, bytes of training text)] of each source; [] where that is not known."""
    try:
        if data_config.source == sources.PREPARED:
            weights = splits.weights(data_config)
            total = sum(weights.values())
            sizes = {folder: prepared_bytes(folder) for folder in weights}
            return [(weight / total, sizes[folder]) for folder, weight in weights.items() if sizes[folder]]
        if data_config.source in ("stdlib", "files") and not any("://" in glob for glob in data_config.globs):
            size = plain_bytes(data_config)
            return [(1.0, size)] if size else []
    except (UserError, OSError):
        pass  # the run says what is wrong with it
    return []


def prepared_bytes(folder: str) -> int:
    return sum(m["splits"]["train"]["bytes"] for m in corpus.manifests(pathlib.Path(folder)))


def plain_bytes(data_config) -> float:
    """Bytes of training text at most, of plain files; 0 where some of them are anything else."""
    units = sources.units(data_config)
    if data_config.source == "files":
        found = files.found(data_config.globs)
        if len(found) > LOOKED_INTO or not all(_is_plain(file, data_config) for file in found):
            return 0
    share = 1 - data_config.validation - data_config.test
    if data_config.split:
        share = float(sources.positions(data_config.split)[0])
    return share * sum(unit.size for unit in units)


def _is_plain(file: files.File, data_config) -> bool:
    as_bytes = data_config.format == "bytes"
    kind = files.told(file, data_config.text_field, data_config.longest, as_bytes)
    return kind == file_signs.PLAIN and not files.is_compressed(file)


def said(plans: list[dict]) -> list[str]:
    """Lines on runs that read their text often, on families that do not read it as often at one budget, and
    on runs of which it is not known. plans: of plan.plan."""
    lines = []
    known = [p for p in plans if p.get("epochs")]
    if many := [f"{p['name']} ({p['epochs']:.1f})" for p in known if p["epochs"] > MANY]:
        lines.append(
            f"More than {MANY} epochs over the training text: {', '.join(many)}. Repeated text teaches less"
            " than new text."
        )
    models = {p["name"]: p["entropy_model"].get("epochs") or 0 for p in plans}
    if many := [f"{name} ({epochs:.1f})" for name, epochs in models.items() if epochs > MANY]:
        lines.append(f"Their entropy models read it more than {MANY} times: {', '.join(many)}.")
    for budget in sorted({p["budget_flops"] for p in known if p["budget_flops"]}):
        here = sorted((p for p in known if p["budget_flops"] == budget), key=lambda p: p["epochs"])
        least, most = here[0], here[-1]
        if most["epochs"] > max(1.0, APART * least["epochs"]):
            lines.append(
                f"Epochs at {budget:.3g} FLOPs differ by more than a fifth: {least['epochs']:.2f}"
                f" ({least['name']}) to {most['epochs']:.2f} ({most['name']})."
            )
    if len(known) < len(plans):
        lines.append(
            "epochs -: how much training text there is shows when it is prepared; reports have the epochs."
        )
    return lines
