"""The one exception that means "the user's input was wrong": the command line prints its line and exits with
2."""


class UserError(Exception):
    """One clear line: what is wrong and what is allowed."""
