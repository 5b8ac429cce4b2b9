"""Keys of another project's config: there, and of the kind that they must be."""

from bltjax.errors import UserError

MOST = {"layers": 10_000}  # more is a mistake, and would be listed tensor by tensor before it is found out


def whole(config: dict, *keys: str, least: int = 1, what: str = "") -> None:
    """UserError for a key that is there and is no whole number of at least `least`."""
    for key in keys:
        value, most = config.get(key), MOST["layers"] if "layers" in key else 2**40
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most
        ):
            raise UserError(f"{what}{key} is {value!r}; it must be a whole number from {least} to {most}")


def checked(config: dict, *keys: str) -> dict:
    missing = [key for key in keys if key not in config]
    if missing:
        raise UserError(f"config has no {', '.join(missing)}")
    return config
