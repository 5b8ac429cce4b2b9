"""A run's config as its directory keeps it: to JSON and back, completed with the keys of today."""

import hashlib
import json
import math

from ml_collections import ConfigDict

from bltjax.config.presets import blt_model, transformer
from bltjax.config.schema import LABELS, data, evaluation, patching, replace, tokenizer, training


def to_dict(config: ConfigDict) -> dict:
    """Plain dict, ready for JSON (nan as null)."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return plain(config.to_dict())


def identified(config: ConfigDict) -> dict:
    """to_dict as directories are named after it: without the label `paper`, and without keys that came later
    where they have their defaults, and so change no result."""
    values = {key: value for key, value in to_dict(config).items() if key != "paper"}
    later = {
        "eval": (evaluation(), ("every", "sample_bytes")),
        "train": (training(), ("skip_outliers", "watchdog")),
    }
    for section, (usual, keys) in later.items():
        if said := values.get(section):
            values[section] = {k: v for k, v in said.items() if k not in keys or v != usual[k]}
    return values


def from_dict(values: dict) -> ConfigDict:
    """Inverse of to_dict: lists become tuples, nulls nan."""

    def rich(value):
        if isinstance(value, dict):
            return {k: rich(v) for k, v in value.items()}
        if isinstance(value, list):
            return tuple(rich(v) for v in value)
        return float("nan") if value is None else value

    return ConfigDict(rich(values)).lock()


def _defaults(model: dict) -> dict:
    """{section of a run: its defaults}, for a run with this model."""
    # whose shape is not taken: what every model has is there already
    smallest = dict(width=2, layers=1, heads=1)
    blt = lambda: blt_model(
        model.get("preset", "paper"),
        local_width=2,
        encoder_layers=1,
        decoder_layers=1,
        local_heads=1,
        global_width=2,
        global_layers=1,
        global_heads=1,
        k=1,
    )
    # a run from before the key compensated nothing, whatever its preset does today
    models = {"blt": lambda: replace(blt(), **{"ngrams.compensate": False})}
    return {
        "data": data(),
        "train": training(),
        "eval": evaluation(),
        "patching": patching(),
        "tokenizer": tokenizer(),
        "model": models.get(model.get("kind"), lambda: transformer("byte", vocab=1, **smallest))(),
    }


def completed(config: ConfigDict) -> ConfigDict:
    """A run's config with the keys that its sections have gained since it was written, at their defaults."""

    def filled(values, defaults):
        return {
            **values,
            **{
                key: filled(values[key], default) if key in values and isinstance(default, dict) else default
                for key, default in defaults.items()
                if key not in values or isinstance(default, dict) and isinstance(values[key], dict)
            },
        }

    values = config.to_dict()
    if "model" not in values:
        return config
    sections = _defaults(values["model"])
    values = filled(
        values,
        {name: section.to_dict() for name, section in sections.items() if isinstance(values.get(name), dict)},
    )
    values = {**LABELS, **values}
    if isinstance(values["paper"], dict):
        values["paper"] = {**LABELS["paper"], **values["paper"]}
    if values.get("entropy_model"):
        values["entropy_model"] = completed(config.entropy_model).to_dict()
    return ConfigDict(values).lock()


def recorded(values: dict) -> ConfigDict:
    """The run's config that `to_dict` gave these values of, `completed`. ValueError, which says what is off,
    where a value is of another kind than the key's: a file that was damaged."""
    for key in ("name", "family"):
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{key} is {values.get(key)!r}")
    model = values.get("model")
    for section, defaults in _defaults(model if isinstance(model, dict) else {}).items():
        if section in values:
            _fits(defaults.to_dict(), values.get(section), section)
    if values.get("entropy_model") is not None:
        _fits({}, values["entropy_model"], "entropy_model")
        recorded(values["entropy_model"])
    return completed(from_dict(values))


def _fits(default, value, key: str) -> None:
    """ValueError where a value is of another kind than the key's default. Keys may be missing."""
    kinds = ((dict, "a section"), (bool, "true or false"), ((int, float), "a number"), (str, "a word"))
    sort, words = next(((k, w) for k, w in kinds if isinstance(default, k)), ((list, tuple), "a list"))
    nothing = value is None and isinstance(default, float)  # nan, as to_dict has it
    if not nothing and (not isinstance(value, sort) or isinstance(value, bool) and sort is not bool):
        raise ValueError(f"{key} is {repr(value)[:60]}, not {words}")
    for name, own in default.items() if isinstance(default, dict) else ():
        if name in value:
            _fits(own, value[name], f"{key}.{name}")


def fingerprint(values) -> str:
    """12 hex digits over canonical JSON: what makes two shared artifacts the same."""
    values = to_dict(values) if isinstance(values, ConfigDict) else values
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]
