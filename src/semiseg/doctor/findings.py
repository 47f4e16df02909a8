"""What an inspection of the machine found: facts, and problems with their cures."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """Something to correct.

    Args:
        what: what is wrong.
        cure: what to do about it.
        fatal: nothing can be trained before.
    """

    what: str
    cure: str
    fatal: bool = False


@dataclass
class Section:
    """Facts about one subject.

    Args:
        title: the subject.
        facts: plain values by name; a name that ends in ``_bytes`` holds a number of bytes.
        problems: what is wrong.
    """

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, what: str, cure: str, *, fatal: bool = False) -> None:
        """Add a problem."""
        self.problems.append(Problem(what, cure, fatal))
