"""Results of an inspection: facts, and problems with their cures."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """Something to correct.

    Args:
        what: Description of the problem.
        cure: What to do about it.
        fatal: Whether nothing can be trained before it is corrected.
    """

    what: str
    cure: str
    fatal: bool = False


@dataclass
class Section:
    """Facts about one subject.

    Args:
        title: Subject of the section.
        facts: Plain values by name; a name that ends in ``_bytes`` holds a number of bytes.
        problems: Problems that were found.
    """

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, what: str, cure: str, *, fatal: bool = False) -> None:
        """Add a problem."""
        self.problems.append(Problem(what, cure, fatal))
