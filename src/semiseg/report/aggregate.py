"""From run records to a ``Study``: cells, means, differences to the baseline, the gap that is closed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from semiseg.errors import UserError, nearest
from semiseg.report.baseline import compared
from semiseg.report.collect import RunRecord, number
from semiseg.report.curves import curves
from semiseg.report.flags import Sorted, sort_out, strange_splits
from semiseg.report.keys import cell_key, checked_keys, sort_rank
from semiseg.report.model import Cell, Flagged, Score, Study
from semiseg.report.notes import notes
from semiseg.report.published import published
from semiseg.report.statistics import score

SCORES = ("miou", "miou_best", "miou_last", "miou_test", "accuracy")
COSTS = ("iterations", "train_images_per_s", "wall_s", "memory_gib")
USUAL_BASELINE = "supervised"
PSEUDO = ("pseudo/coverage", "pseudo/accuracy")


def study(
    records: Sequence[RunRecord],
    by: Sequence[str] = ("method", "split"),
    metric: str = "miou",
    baseline: str | None = None,
    mix: Sequence[str] = (),
) -> Study:
    """Put runs into cells and compare these.

    Args:
        records: runs in any state.
        by: keys whose values make a cell; see ``keys.checked_keys``.
        metric: one of ``SCORES``, or "iou/CLASS" or "iou_test/CLASS".
        baseline: method that the others are compared with; None takes "supervised" where it is among the runs.
        mix: kinds of differences to average over, of ``flags.MIXABLE``.

    Raises:
        UserError: a key, metric or baseline that no run has.
    """
    by = checked_keys(by, records)
    _require_metric(metric, records)
    baseline = _baseline(baseline, by, records)
    strange = strange_splits(records)
    cells: list[Cell] = []
    flagged: list[Flagged] = []
    for key, runs in _by_key(records, by, baseline):
        found = sort_out(runs, key, strange, mix)
        flagged += found.flagged
        if key:
            cells.append(_cell(key, found, metric))
    cells = compared(cells, baseline, metric)
    return Study(by, metric, baseline, tuple(cells), tuple(flagged), _classes(records), notes(cells, flagged))


def value(record: RunRecord, metric: str) -> float | None:
    """A score of a run; None where it has none."""
    summary = record.summary or {}
    group, slash, name = metric.partition("/")
    return number(summary.get(group) or {}, name) if slash else number(summary, metric)


def _by_key(
    records: Sequence[RunRecord], by: Sequence[str], baseline: str | None
) -> list[tuple[Mapping[str, str], list[RunRecord]]]:
    groups: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[tuple(cell_key(record, by).values())].append(record)
    ranked = sorted(
        groups, key=lambda key: [sort_rank(*item, baseline) for item in zip(by, key, strict=False)]
    )
    return [(dict(zip(by, key, strict=False)), groups[key]) for key in ranked]


def _cell(key: Mapping[str, str], found: Sorted, metric: str) -> Cell:
    runs = found.averaged
    journals = [logged(run) for run in runs]
    fractions = {(run.summary or {}).get("split_fraction") for run in runs}
    classes = _classes(runs)
    return Cell(
        key,
        runs,
        {name: score([value(run, name) for run in runs]) for name in dict.fromkeys([metric, *SCORES])},
        iou={name: score([value(run, f"iou/{name}") for run in runs]) for name in classes},
        iou_test=_known({name: score([value(run, f"iou_test/{name}") for run in runs]) for name in classes}),
        costs={
            name: score(
                [journal.get(name, value(run, name)) for run, journal in zip(runs, journals, strict=True)]
            )
            for name in COSTS
        },
        pseudo=_known({name: score([journal.get(name) for journal in journals]) for name in PSEUDO}),
        fraction=fractions.pop() if len(fractions) == 1 else None,
        published=published(runs) if metric == "miou" else (),
        notes=(*found.notes, *_starts(runs)),
    )


def _known(scores: Mapping[str, Score]) -> dict[str, Score]:
    return {name: each for name, each in scores.items() if each.n}


def logged(run: RunRecord) -> dict[str, float]:
    """Return from ``metrics.jsonl``, as far as it is there, the last "pseudo/..." and the peak "memory_gib"."""
    drawn = curves(run)
    last = {"pseudo/coverage": drawn.coverage.values[-1:], "pseudo/accuracy": drawn.accuracy.values[-1:]}
    found = {name: values[0] for name, values in last.items() if values}
    peaks = [peak for line in run.metrics() if (peak := number(line, "time/memory_gib"))]
    return found | ({"memory_gib": max(peaks)} if peaks else {})


def _classes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(name for record in records for name in (record.summary or {}).get("iou") or ())
    )


def _require_metric(metric: str, records: Sequence[RunRecord]) -> None:
    known = dict.fromkeys(name for record in records for name in _metrics(record))
    if metric in known or (not known and metric in SCORES):
        return
    if not known:
        raise UserError(f"--metric={metric}: no run has finished, so that there are no results yet.")
    near = nearest(metric, known)
    raise UserError(
        f"--metric={metric}: no run has it.{f' Did you mean {near}?' if near else ''} "
        f"There are: {', '.join(name for name in known if '/' not in name)}, and iou/CLASS and iou_test/CLASS."
    )


def _metrics(record: RunRecord) -> list[str]:
    names = [name for name in SCORES if value(record, name) is not None]
    for group in ("iou", "iou_test"):
        names += [
            f"{group}/{name}"
            for name, found in ((record.summary or {}).get(group) or {}).items()
            if found is not None
        ]
    return names


def _baseline(given: str | None, by: Sequence[str], records: Sequence[RunRecord]) -> str | None:
    methods = dict.fromkeys(name for record in records for name in cell_key(record, ["method"]).values())
    if given is None:
        return USUAL_BASELINE if "method" in by and USUAL_BASELINE in methods else None
    if "method" not in by:
        raise UserError(f"--baseline={given}: methods are compared, so that --by needs the key method.")
    if given not in methods:
        near = nearest(given, methods)
        raise UserError(
            f"--baseline={given}: no run is of this method.{f' Did you mean {near}?' if near else ''} "
            f"There are: {', '.join(methods)}."
        )
    return given


def _starts(runs: Sequence[RunRecord]) -> list[str]:
    """Which network a run fine-tunes may belong to its seed, so that it is told and leaves nothing out."""
    starts = {run.config.get("init_sha256") for run in runs}
    return [f"its runs start from {len(starts)} different networks (init_from)"] if len(starts) > 1 else []
