"""Which cells share a line, a panel or a gallery."""

from collections.abc import Callable, Mapping, Sequence

from semiseg.report.keys import METHOD, of_method
from semiseg.report.model import Cell, Study

SPLIT = "split"
ALL = "all runs"


def line_name(key: Mapping[str, str]) -> str:
    """Name of the line that a cell is a point of: all of its key but the split."""
    return _joined(key, lambda name: name != SPLIT)


def panel_name(key: Mapping[str, str]) -> str:
    """Name of the panel that a cell is a line of: all of its key but the method and its settings."""
    return _joined(key, lambda name: not of_method(name))


def column_name(key: Mapping[str, str]) -> str:
    """Name of a cell within its panel."""
    return _joined(key, of_method)


def grouped(cells: Sequence[Cell], name: Callable[[Mapping[str, str]], str]) -> dict[str, list[Cell]]:
    """Put cells of one name together, in the order of their first mention."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(name(cell.key), []).append(cell)
    return groups


def panels(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Put cells of one panel together, those of few labels first."""
    found = grouped(cells, panel_name)
    return dict(sorted(found.items(), key=lambda item: min(cell.fraction or 2.0 for cell in item[1])))


def is_baseline(study: Study, cell: Cell) -> bool:
    """Whether the other cells are compared with this one."""
    return study.baseline is not None and cell.key.get(METHOD) == study.baseline


def baseline_first(study: Study) -> list[Cell]:
    """Cells with runs, those of the baseline before the others."""
    return sorted((cell for cell in study.cells if cell.runs), key=lambda cell: not is_baseline(study, cell))


def _joined(key: Mapping[str, str], chosen: Callable[[str], bool]) -> str:
    return " ".join(value for name, value in key.items() if chosen(name)) or ALL
