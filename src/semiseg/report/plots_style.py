"""How figures look: two themes, and colors, markers and lines that stay apart for color-blind people."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
FONT_SIZE = 10.5


@dataclass(frozen=True)
class Theme:
    """Colors of a figure.

    Args:
        name: "light" or "dark", as a browser calls its preference.
        page: background, that of the page.
        text: titles, axes and the first line.
        faint: grid and hints.
        colors: one for each further line; Okabe and Ito's, brightened on dark.
        deep: the strongest color of a heat map, which begins at ``page``.
    """

    name: str
    page: str
    text: str
    faint: str
    colors: tuple[str, ...]
    deep: str

    def settings(self) -> Any:
        """Return matplotlib's rcParams."""
        return {
            "font.family": "DejaVu Sans",
            "font.size": FONT_SIZE,
            "axes.titlesize": FONT_SIZE + 0.5,
            "axes.titlelocation": "left",
            "axes.labelsize": FONT_SIZE,
            "legend.fontsize": FONT_SIZE - 1,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.faint,
            "grid.linewidth": 0.6,
            "grid.alpha": 0.5,
            "figure.facecolor": self.page,
            "axes.facecolor": self.page,
            "savefig.facecolor": self.page,
            "text.color": self.text,
            "axes.labelcolor": self.text,
            "axes.edgecolor": self.faint,
            "xtick.color": self.text,
            "ytick.color": self.text,
            "lines.linewidth": 1.8,
            "lines.markersize": 6,
            "axes.unicode_minus": True,
            # Names of classes and methods are text, whatever signs are in them.
            "text.parse_math": False,
        }


LIGHT = Theme(
    "light",
    "#ffffff",
    "#1f2328",
    "#b3bac2",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b57a00", "#56b4e9"),
    "#0072b2",
)
DARK = Theme(
    "dark",
    "#15191e",
    "#e4e8ec",
    "#5b6570",
    ("#58a9e0", "#f0874a", "#2fc79b", "#e39ac4", "#e6b450", "#a5d8f5"),
    "#3f95d0",
)


@dataclass(frozen=True)
class Look:
    """What tells a line from the others, without its color too.

    Args:
        index: 0 is drawn in the color of the text.
    """

    index: int

    def color(self, theme: Theme) -> str:
        """Return the color as #rrggbb."""
        return theme.text if self.index == 0 else theme.colors[(self.index - 1) % len(theme.colors)]

    @property
    def marker(self) -> str:
        """Shape of a point."""
        return MARKERS[self.index % len(MARKERS)]

    @property
    def dash(self) -> Any:
        """Line style of matplotlib."""
        return DASHES[self.index % len(DASHES)]


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Give each name its look, in the order of their first mention."""
    return {name: Look(index) for index, name in enumerate(dict.fromkeys(names))}
