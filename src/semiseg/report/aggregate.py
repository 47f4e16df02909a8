"""From run records to a ``Study``: cells with their averages and what is published for them."""

from collections.abc import Mapping, Sequence

from semiseg.errors import UserError
from semiseg.report.averaging import Averaged, choose_runs, strange_splits
from semiseg.report.baseline import compared, study_notes
from semiseg.report.comparable import METHOD, cell_key, checked_keys, did_you_mean, grouped, sort_rank
from semiseg.report.records import ACCURACY, STORED, RunRecord, logged
from semiseg.report.scores import BY_CLASS, BY_CLASS_TEST, COSTS, PRIMARY, SCORES, Average, average
from semiseg.report.study import Cell, Flagged, Published, Study

RUN_COSTS = ("iterations", *COSTS)
USUAL_BASELINE = "supervised"
PSEUDO = (STORED, ACCURACY)


def study(
    records: Sequence[RunRecord],
    by: Sequence[str] = ("method", "split"),
    metric: str = PRIMARY.key,
    baseline: str | None = None,
    mix: Sequence[str] = (),
) -> Study:
    """Put runs into cells and compare these.

    Args:
        records: Runs in any state.
        by: Keys whose values make a cell; see ``comparable.checked_keys``.
        metric: One of ``SCORES``, or "iou/CLASS" or "iou_test/CLASS".
        baseline: Method that the others are compared with; ``None`` takes "supervised" where it is among the runs.
        mix: Kinds of differences to average over, of ``comparable.MIXABLE``.

    Raises:
        UserError: a key, metric or baseline that no run has.
    """
    by = checked_keys(by, records)
    _require_metric(metric, records)
    baseline = _baseline(baseline, by, records)
    strange = strange_splits(records)
    cells: list[Cell] = []
    flagged: list[Flagged] = []
    groups = grouped(records, lambda record: tuple(cell_key(record, by).items()))
    for items in sorted(groups, key=lambda items: [sort_rank(key, value, baseline) for key, value in items]):
        key = dict(items)
        found = choose_runs(groups[items], key, strange, mix)
        flagged += found.flagged
        if key:
            cells.append(_cell(key, found, metric))
    cells = compared(cells, baseline, metric)
    notes = study_notes(cells, flagged)
    return Study(by, metric, baseline, tuple(cells), tuple(flagged), _classes(records), notes)


def published(runs: Sequence[RunRecord]) -> tuple[Published, ...]:
    """Return what the presets of runs name as published for their settings, each number once.

    A row of the list ``published`` of a config says under ``for`` which options of config groups it holds for,
    under ``source`` where it stands, under the key of the primary score the percent by split. What does not fit
    a run is left out.
    """
    found: dict[Published, None] = {}
    for run in runs:
        for row in (row for row in run.config.get("published") or () if isinstance(row, Mapping)):
            by_split = {str(split): percent for split, percent in (row.get(PRIMARY.key) or {}).items()}
            percent = by_split.get(str(run.config.get("split")))
            fits = all(name == run.option(group) for group, name in (row.get("for") or {}).items())
            if percent is not None and fits:
                found[Published(float(percent) / 100, str(row.get("source", "")), _preset(run))] = None
    return tuple(found)


def _cell(key: Mapping[str, str], found: Averaged, metric: str) -> Cell:
    runs = found.runs
    journals = [logged(run) for run in runs]
    fractions = {run.results.get("split_fraction") for run in runs}
    starts = {run.config.get("init_sha256") for run in runs}
    # Which network a run fine-tunes may belong to its seed, so that a note says it and nothing is left out.
    other_starts = f"its runs start from {len(starts)} different networks (init_from)"

    def averages(names: Sequence[str], prefix: str = "") -> dict[str, Average]:
        return {name: average([run.value(prefix + name) for run in runs]) for name in names}

    def costs(name: str) -> Average:
        return average([each.get(name, run.value(name)) for run, each in zip(runs, journals, strict=True)])

    return Cell(
        key,
        runs,
        averages([metric, *SCORES]),
        iou=averages(_classes(runs), f"{BY_CLASS}/"),
        iou_test=_known(averages(_classes(runs), f"{BY_CLASS_TEST}/")),
        costs={name: costs(name) for name in RUN_COSTS},
        pseudo=_known({name: average([journal.get(name) for journal in journals]) for name in PSEUDO}),
        fraction=fractions.pop() if len(fractions) == 1 else None,
        published=published(runs) if metric == PRIMARY.key else (),
        notes=(*found.notes, other_starts) if len(starts) > 1 else found.notes,
    )


def _known(averages: Mapping[str, Average]) -> dict[str, Average]:
    return {name: each for name, each in averages.items() if each.n}


def _classes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for record in records for name in record.results.get(BY_CLASS) or ()))


def _require_metric(metric: str, records: Sequence[RunRecord]) -> None:
    known = dict.fromkeys(name for record in records for name in _metrics(record))
    if metric in known or (not known and metric in SCORES):
        return
    if not known:
        raise UserError(f"--metric={metric}: no run has finished, so that there are no results yet.")
    raise UserError(
        f"--metric={metric}: no run has it.{did_you_mean(metric, known)} "
        f"There are: {', '.join(name for name in known if '/' not in name)}, and iou/CLASS and iou_test/CLASS."
    )


def _metrics(record: RunRecord) -> list[str]:
    names = [
        f"{group}/{name}" for group in (BY_CLASS, BY_CLASS_TEST) for name in record.results.get(group) or ()
    ]
    return [name for name in (*SCORES, *names) if record.value(name) is not None]


def _baseline(given: str | None, by: Sequence[str], records: Sequence[RunRecord]) -> str | None:
    methods = dict.fromkeys(name for record in records for name in cell_key(record, [METHOD]).values())
    if given is None:
        return USUAL_BASELINE if METHOD in by and USUAL_BASELINE in methods else None
    if METHOD not in by:
        raise UserError(f"--baseline={given}: methods are compared, so that --by needs the key method.")
    if given not in methods:
        raise UserError(
            f"--baseline={given}: no run is of this method.{did_you_mean(given, methods)} "
            f"There are: {', '.join(methods)}."
        )
    return given


def _preset(run: RunRecord) -> str:
    """The preset as it was typed; empty for a run that was made from the config of another one."""
    typed = [text.partition("=")[2] for text in run.overrides if text.lstrip("+").startswith("experiments=")]
    return typed[-1] if typed else ""
