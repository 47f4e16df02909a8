"""Errors that are written for the person who runs semiseg."""


class UserError(Exception):
    """What was given, what was expected and how to go on; shown without a traceback, exit code 2."""


class Interrupted(Exception):  # noqa: N818 - a request to stop, not a fault
    """The run was asked to stop; what it had trained by then is saved.

    Args:
        reason: what asked for it, for the message and the status file.
        exit_code: the process exit code (143 SIGTERM, 130 SIGINT, 75 time limit).
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


class RunFailed(Exception):  # noqa: N818 - the message is for people
    """A run cannot go on for a reason that the message explains; shown without a traceback, exit code 1."""
