"""`python -m bltjax.evaluation.lm_eval ...`: lm-eval's command line, in which `--model bltjax` is known.

lm-eval has no way for a package to announce a model, so that a command that imports the adapter takes the
place of `lm_eval`: all its options are the same."""

import sys

from bltjax.errors import UserError


def main() -> int:
    """lm-eval's exit status; 2 for a mistake of the user's, in one line."""
    try:
        try:
            from lm_eval.__main__ import cli_evaluate

            from bltjax.evaluation import harness  # noqa: F401  (registers the model)
        except ImportError as error:
            if (error.name or "").split(".")[0] == "bltjax":
                raise
            raise UserError(
                f"lm-eval is not installed ({error}); install the extra: pip install 'bltjax[eval]' (or make"
                " setup EXTRAS=eval)"
            ) from None
        cli_evaluate()
    except UserError as error:
        print(f"bltjax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
