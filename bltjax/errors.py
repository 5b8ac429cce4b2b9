"""What ends a command in one clear line: the command line prints it, and the kind decides the exit status."""

from bltjax import exit_codes


class UserError(Exception):
    """One clear line: what is wrong and what is allowed."""

    exit_code = exit_codes.WRONG


class RunFailed(UserError):
    """The run cannot go on. The line says why and which checkpoint is whole; running again resumes from that
    one."""

    exit_code = exit_codes.FAILED


class Interrupted(RunFailed):
    """A signal asked the run to stop; its state was saved first."""

    exit_code = exit_codes.STOPPED
