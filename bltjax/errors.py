"""What ends a command in one clear line: the command line prints it, and the kind decides the exit status."""


class UserError(Exception):
    """One clear line: what is wrong and what is allowed."""


class RunFailed(UserError):
    """The run cannot go on. The line says why and which checkpoint is whole; running again resumes from that
    one."""


class Interrupted(RunFailed):
    """A signal asked the run to stop; its state was saved first."""
