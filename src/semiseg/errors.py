"""Errors that are written for the person who runs semiseg, and the words that they share."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

SHOWN_CHOICES = 30
NOT_GIVEN = object()
"""Value of an error that concerns no single value."""


class UserError(Exception):
    """What was given, what was expected and how to go on; shown without a traceback, exit code 2.

    Args:
        expected: what is allowed, and how to go on; the whole message where there is no key.
        key: dotted key of the setting that is wrong.
        value: what was given there.
    """

    def __init__(self, expected: str, *, key: str | None = None, value: Any = NOT_GIVEN) -> None:
        self.expected, self.key, self.value = expected, key, value
        head = key if key is None or value is NOT_GIVEN else f"{key}={shown(value)}"
        super().__init__(expected if head is None else f"{head}: {expected}")

    @property
    def errors(self) -> "tuple[UserError, ...]":
        """All errors that were found together; this one alone, unless it is a ``UserErrors``."""
        return (self,)


class UserErrors(UserError):  # noqa: N818 - several errors
    """Several errors that were found together.

    Args:
        errors: at least one.
    """

    def __init__(self, errors: Iterable[UserError]) -> None:
        self._errors = tuple(errors)
        super().__init__("\n".join(map(str, self._errors)))

    @property
    def errors(self) -> tuple[UserError, ...]:
        """All of them."""
        return self._errors


def raise_all(errors: Iterable[UserError]) -> None:
    """Raise what is wrong, if anything is: one error as it is, more of them as ``UserErrors``."""
    found = list(errors)
    if found:
        raise found[0] if len(found) == 1 else UserErrors(found)


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


def shown(value: Any) -> str:
    """Write a value as on the command line, without the middle where it is long: paths differ at both ends."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 120 else f"{text[:57]}...{text[-60:]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``name``, or ``None`` when none is."""
    lower = {each.lower(): each for each in known}
    found = get_close_matches(name.lower(), list(lower), n=1, cutoff=0.45)
    return lower[found[0]] if found else None


def listed(names: Sequence[str]) -> str:
    """Join names for a message; a long list is cut."""
    more = len(names) - SHOWN_CHOICES
    return ", ".join(names[:SHOWN_CHOICES]) + (f" and {more} more" if more > 0 else "")
