"""A figure that was written to a file."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """A figure as PNG files.

    Args:
        name: its topic and what it is of, for example "ratio", "learning-1of64" or "gallery-1of64".
        path: PNG for light pages.
        title: one line.
        alt: what is to be seen, with its numbers where they are few.
        dark: PNG for dark pages; the same file where there is no other.
        caption: what its signs mean.
    """

    name: str
    path: Path
    title: str
    alt: str
    dark: Path
    caption: str = ""

    @property
    def topic(self) -> str:
        """First part of the name: "ratio", "difference", "classes", "cost", "learning", "pseudo" or "gallery"."""
        return self.name.split("-", 1)[0]
