"""The targets by name, and their settings from what a user wrote."""

import dataclasses
import difflib
import importlib

from bltjax.errors import UserError

MODULES = {"slurm": "slurm", "gke": "gke", "tpu-vm": "tpu_vm", "sky": "sky"}


def target(name: str):
    """The module of a target. UserError for a name that is none."""
    if name not in MODULES:
        raise UserError(f"--on is {name!r}; allowed: local, {', '.join(MODULES)}")
    return importlib.import_module(f"bltjax.launch.{MODULES[name]}")


def settings(name: str, given: list[str]):
    """A target's Settings from KEY=VALUE texts. UserError for a key that it has not, a value of another type,
    and whatever Settings itself refuses."""
    made_from = target(name).Settings
    fields = {field.name: field for field in dataclasses.fields(made_from)}
    found = {}
    for text in given:
        key, sign, value = text.partition("=")
        key = key.strip()
        if sign and not (key and value.strip()):
            raise UserError(f"--with {text}: key and value are not empty; leave it out for the default")
        if not sign:
            raise UserError(f"--with {text}: it wants KEY=VALUE")
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields)}"
            raise UserError(f"--with {key}: --on {name} has no such setting; {hint}")
        found[key] = _value(key, value, fields[key].default)
    return made_from(**found)


def _value(key: str, text: str, default):
    """A text as the type of a setting's default."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise UserError(f"--with {key}={text}: it is true or false")
        return text.lower() in ("true", "1", "yes")
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise UserError(f"--with {key}={text}: it is a number") from None
    if any(ord(sign) < 32 for sign in text):
        raise UserError(f"--with {key}: a value has no line breaks or control characters")
    return text
