"""Options that would do nothing are refused: whoever gives one believes that it does something."""

from bltjax.errors import UserError


def refuse(args, why: str, **unset) -> None:
    """UserError for the first option that was given. unset: {its name: its value where it was not}; why: the
    rest of the sentence that begins with it."""
    for name, default in unset.items():
        if getattr(args, name) != default:
            raise UserError(f"--{name.replace('_', '-')} {why}")


def refuse_entropy_model(model, given) -> None:
    """UserError where an entropy model was given to an api.Model whose patches need none."""
    from bltjax import patching  # after arguments are read: it imports numpy

    if given and model.config.patching.scheme not in patching.NEEDS_ENTROPIES:
        raise UserError(f"--entropy-model means nothing to {model.folder}, which needs no entropies")
