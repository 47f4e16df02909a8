"""What a reader of a whole study has to know beside its numbers."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from semiseg.report.collect import RunRecord
from semiseg.report.facts import MEASURE, code_version, facts, measured_otherwise
from semiseg.report.model import Cell, Flagged


def notes(cells: Sequence[Cell], flagged: Sequence[Flagged]) -> tuple[str, ...]:
    """Say in sentences what limits a study.

    Args:
        cells: of the study, compared.
        flagged: of the study.
    """
    shown = [cell for cell in cells if cell.runs]
    return (*_left_out(flagged), *_unlike_measures(shown), *_unlike_machines(shown))


def _left_out(flagged: Sequence[Flagged]) -> Iterator[str]:
    """Runs that nothing speaks against but their code, which a person may know to compute the same."""
    count = sum(not each.averaged and {flag.kind for flag in each.flags} == {"code"} for each in flagged)
    if count:
        runs = "1 run is" if count == 1 else f"{count} runs are"
        yield f"{runs} left out for other code alone; --mix code averages over it."


def _unlike_measures(cells: Sequence[Cell]) -> Iterator[str]:
    """Cells of one dataset whose scores stand side by side and cannot be compared."""
    datasets: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        datasets[str((cell.runs[0].config.get("dataset") or {}).get("name"))].append(cell)
    for name, members in datasets.items():
        if keys := measured_otherwise([cell.runs[0] for cell in members]):
            groups: dict[str, list[str]] = defaultdict(list)
            for cell in members:
                found = facts(cell.runs[0])
                groups[str([found[kind].get(key) for kind in MEASURE for key in keys])].append(cell.label)
            parts = "; ".join(", ".join(labels) for labels in groups.values())
            unlike = ", ".join(keys)
            yield f"Scores on {name} cannot be compared across these groups, which differ in {unlike}: {parts}."


def _unlike_machines(cells: Sequence[Cell]) -> Iterator[str]:
    """What averaged runs differ in that moves the last digits of scores, or times alone."""
    runs = [run for cell in cells for run in cell.runs]
    kinds = {
        "versions of semiseg": code_version,
        "versions of torch": lambda run: str((run.env.get("packages") or {}).get("torch")),
        "devices": _device,
    }
    for name, of in kinds.items():
        counts = Counter(map(of, runs))
        if len(counts) > 1:
            parts = "; ".join(f"{each} in {number}" for each, number in counts.most_common())
            yield f"The averaged runs are of different {name}: {parts}."


def _device(run: RunRecord) -> str:
    device = str((run.summary or {}).get("device"))
    names = run.env.get("gpus") or []
    return (
        f"{device}, {(run.summary or {}).get('threads')} threads"
        if "cuda" not in device
        else ", ".join(names)
    )
