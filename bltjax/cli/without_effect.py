"""Options that would do nothing are refused: whoever gives one believes that it does something."""

from bltjax.errors import UserError


def refuse(args, why: str, **unset) -> None:
    """UserError for the first option that was given. unset: {its name: its value where it was not}; why: the
    rest of the sentence that begins with it."""
    for name, default in unset.items():
        if getattr(args, name) != default:
            raise UserError(f"--{name.replace('_', '-')} {why}")
