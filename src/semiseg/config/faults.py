"""Faults of a config, collected and shown together on one screen."""

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from semiseg.errors import NOT_GIVEN, UserError, shown

WIDTH = 100


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Args:
        key: dotted key, or the override as typed where it has none.
        expected: allowed values, and how to go on.
        value: value that was found.
        near: nearest valid key or value; ``None`` where none is near.
        source: file that the value comes from, or "command line"; ``None`` where that is not known.
    """

    key: str
    expected: str
    value: Any = NOT_GIVEN
    near: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        head = self.key if self.value is NOT_GIVEN else f"{self.key}={shown(self.value)}"
        origin = f"   (from {self.source})" if self.source else ""
        first, *rest = self.expected.splitlines()
        hint = f" Did you mean {self.near}?" if self.near else ""
        lines = [part for line in (first + hint, *rest) for part in wrap(line, WIDTH, break_long_words=False)]
        return "\n".join([f"  {head}{origin}", *(f"      {line}" for line in lines)])


def faults_of_error(error: UserError, key: str) -> list[Fault]:
    """Turn an error into faults: of the keys that it carries, else of ``key``."""
    return [Fault(each.key or key, each.expected, each.value) for each in error.errors]


class ConfigFaults(UserError):  # noqa: N818 - a collection of faults
    """All faults of a config.

    Args:
        faults: faults, at least one; equal ones are shown once.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list({str(fault): fault for fault in faults}.values())
        count = len(self.faults)
        lines = "\n".join(map(str, self.faults))
        super().__init__(
            f"{count} {'fault' if count == 1 else 'faults'} in the config; nothing was run.\n{lines}"
        )
