"""Faults of a config, collected and shown together on one screen."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from textwrap import wrap
from typing import Any

from semiseg.errors import UserError

_ABSENT = object()
SHOWN_CHOICES = 30
WIDTH = 100


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Args:
        key: dotted key, or the override as typed where it has none.
        expected: what is allowed there, and how to go on.
        value: what was found.
        near: the nearest valid key or value.
        source: the file that the value comes from, or "command line".
    """

    key: str
    expected: str
    value: Any = _ABSENT
    near: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        head = self.key if self.value is _ABSENT else f"{self.key}={shown(self.value)}"
        origin = f"   (from {self.source})" if self.source else ""
        first, *rest = self.expected.splitlines()
        hint = f" Did you mean {self.near}?" if self.near else ""
        lines = [part for line in (first + hint, *rest) for part in wrap(line, WIDTH, break_long_words=False)]
        return "\n".join([f"  {head}{origin}", *(f"      {line}" for line in lines)])


def fault_of(error: UserError, key: str) -> Fault:
    """Turn an error into a fault of the key that its text begins with ("split=1/3: ..."), else of ``key``."""
    named = re.match(r"([a-z_]+(?:\.[a-z_0-9]+)*)=(\S*?): (.*)", str(error), re.DOTALL)
    return Fault(named[1], named[3], named[2]) if named else Fault(key, str(error))


class ConfigFaults(UserError):  # noqa: N818 - a collection of faults
    """All faults of a config.

    Args:
        faults: at least one; equal ones are shown once.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list({str(fault): fault for fault in faults}.values())
        count = len(self.faults)
        lines = "\n".join(map(str, self.faults))
        super().__init__(
            f"{count} {'fault' if count == 1 else 'faults'} in the config; nothing was run.\n{lines}"
        )


def shown(value: Any) -> str:
    """Write a value as one would on the command line, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``name``, or None when none is."""
    lower = {each.lower(): each for each in known}
    found = get_close_matches(name.lower(), list(lower), n=1, cutoff=0.45)
    return lower[found[0]] if found else None


def listed(names: Sequence[str]) -> str:
    """Join names for a message; a long list is cut."""
    more = len(names) - SHOWN_CHOICES
    return ", ".join(names[:SHOWN_CHOICES]) + (f" and {more} more" if more > 0 else "")
