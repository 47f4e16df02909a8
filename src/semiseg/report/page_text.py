"""The sentences of the page: what it is about, what stands out, how the numbers are made."""

from collections.abc import Sequence
from typing import Any

from semiseg.report.collect import RunRecord
from semiseg.report.facts import measured_otherwise
from semiseg.report.groups import ALL, column_name, is_baseline, panels
from semiseg.report.model import Cell, Study
from semiseg.report.page_elements import Html, element, joined
from semiseg.report.wording import interval, mean_std, metric_name, points

OPTIONS = ("dataset", "backbone", "model")


def title(study: Study) -> str:
    """Heading of the page."""
    names = _names(study.runs, "dataset")
    return f"Segmentation with few labels: {', '.join(names)}" if names else "Segmentation with few labels"


def head_line(study: Study) -> str:
    """What was run, in a line."""
    runs = len(study.runs)
    parts = [f"{runs} run{'' if runs == 1 else 's'} in {sum(bool(cell.runs) for cell in study.cells)} cells"]
    left_out = sum(not each.averaged for each in study.flagged)
    if left_out:
        parts.append(f"{left_out} left out")
    for option in OPTIONS[1:]:
        if names := _names(study.runs, option):
            parts.append(", ".join(names))
    return " · ".join([*parts, f"{metric_name(study.metric)} in percent"])


def glance(study: Study) -> Html:
    """The highest mean of each panel, with what limits it."""
    lines = [
        line for name, cells in panels(study.cells).items() if (line := _best(study, name, cells)) is not None
    ]
    about: dict[str, list[str]] = {}
    for cell in study.cells:
        for note in cell.notes:
            about.setdefault(note, []).append(cell.label)
    notes = [*study.notes, *(f"{', '.join(labels)}: {note}." for note, labels in about.items())]
    found = element("ul", lines, class_="glance") if lines else element("p", "No run has been averaged yet.")
    return joined(
        found, element("ul", (element("li", note) for note in notes), class_="notes") if notes else ""
    )


def explained(study: Study) -> Html:
    """How means, differences and intervals come about."""
    terms = {
        "Cell": f"Runs with the same {', '.join(study.by)}, which differ in seed and partition alone.",
        "Mean ± spread": "Over the runs of a cell; the spread is the sample standard deviation (n − 1).",
        "Best, last, test": "mIoU on the validation images of the best and of the last checkpoint, and on the test "
        "images, which no run saw before its end. Choosing the best checkpoint on the validation images "
        "favors it there; the test images tell without that.",
    }
    if study.baseline:
        terms |= {
            "Difference": f"To {study.baseline} of the same seed and the same labeled images, run by run. In brackets "
            "the 95 % confidence interval of the mean difference d: d ± t(0.975, n − 1) · s / √n. Each interval is "
            "for one comparison; among many, some leave out 0 by chance.",
            "Gap closed": f"The difference as a share of what {study.baseline} gains at this ratio from all labels.",
        }
    items = [joined(element("dt", term), element("dd", text)) for term, text in terms.items()]
    return element("dl", items)


def _best(study: Study, name: str, cells: Sequence[Cell]) -> Html | None:
    scored = [(score.mean, cell) for cell in cells if (score := cell.scores[study.metric]).mean is not None]
    if not scored:
        return None
    if unlike := measured_otherwise([cell.runs[0] for _, cell in scored]):
        return element("li", f"{name}: no highest mean, since the cells differ in {', '.join(unlike)}.")
    cell = max(scored, key=lambda item: item[0])[1]
    score = cell.scores[study.metric]
    lead = "" if name == ALL else f"{name}: "
    what = f"{mean_std(score)} (n = {score.n})"
    if len(scored) == 1:
        return element("li", lead, element("b", f"{column_name(cell.key)} {what}"), ".")
    return element(
        "li",
        f"{lead}highest mean {metric_name(study.metric)} ",
        element("b", f"{column_name(cell.key)} {what}"),
        _against(study, cell),
    )


def _against(study: Study, cell: Cell) -> str:
    found = cell.difference
    if is_baseline(study, cell):
        return ", the baseline itself."
    if found is None:
        return "."
    text = f", {points(found.mean)} to {study.baseline}"
    if found.low is None or found.high is None:
        return f"{text} in a single pair, which tells nothing about the spread."
    ends = interval(found.low, found.high)
    if found.low <= 0 <= found.high:
        return f"{text}; the interval {ends} includes 0, so that {found.pairs} pairs do not tell them apart."
    return f"{text}, interval {ends} over {found.pairs} pairs."


def _names(runs: Sequence[RunRecord], option: str) -> list[str]:
    found: dict[Any, None] = dict.fromkeys((run.config.get(option) or {}).get("name") for run in runs)
    return [str(name) for name in found if name]
