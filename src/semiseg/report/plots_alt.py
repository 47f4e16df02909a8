"""Text alternatives of figures: what they show, in words and numbers."""

from collections.abc import Mapping, Sequence

from semiseg.report.curves import Curve, mean_curve
from semiseg.report.gallery import Gallery
from semiseg.report.model import Cell, Study
from semiseg.report.wording import COSTS, difference, mean_std, metric_name, percent, quantity


def scores(study: Study) -> str:
    """Each cell with its mean and spread."""
    parts = [f"{cell.label}: {mean_std(cell.scores[study.metric])}" for cell in study.cells if cell.runs]
    return f"{metric_name(study.metric)} in percent. {'; '.join(parts)}."


def differences(study: Study, cells: Sequence[Cell]) -> str:
    """Each cell with its difference and interval."""
    parts = [f"{cell.label}: {difference(cell.difference)}" for cell in cells]
    return (
        f"Difference to {study.baseline} in percentage points, 95 % interval in brackets. {'; '.join(parts)}."
    )


def classes(cells: Sequence[Cell], names: Sequence[str]) -> str:
    """The best and the worst class of each cell."""
    parts = []
    for cell in cells:
        known = {
            name: score.mean for name in names if (score := cell.iou.get(name)) and score.mean is not None
        }
        if known:
            best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
            parts.append(
                f"{cell.label}: highest {best} {percent(known[best])}, lowest {worst} {percent(known[worst])}"
            )
    return f"Heat map of the IoU of {len(names)} classes in percent. {'; '.join(parts)}."


def curves(what: str, lines: Mapping[str, Sequence[Curve]]) -> str:
    """First and last mean of each line, with the iterations."""
    parts = []
    for name, members in lines.items():
        mean = mean_curve(members)
        if mean:
            parts.append(
                f"{name}: {percent(mean.values[0])} at iteration {mean.iterations[0]}, "
                f"{percent(mean.values[-1])} at {mean.iterations[-1]}"
            )
    return f"{what} in percent over the iterations. {'; '.join(parts)}." if parts else ""


def costs(cells: Sequence[Cell]) -> str:
    """Each cell with its costs."""
    parts = [
        f"{cell.label}: "
        + ", ".join(
            f"{quantity(cell.costs.get(name), factor)} {label}" for name, (label, factor) in COSTS.items()
        )
        for cell in cells
    ]
    return f"Costs of training. {'; '.join(parts)}."


def gallery(found: Gallery) -> str:
    """What the rows and columns are."""
    return (
        f"Validation images {', '.join(row.name for row in found.rows)}, one a row, "
        f"with the columns {', '.join(found.columns)}."
    )
