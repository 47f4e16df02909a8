"""From run records to a ``Study``: cells with their averages and the published numbers for them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semiseg.config.other_networks import other_parts
from semiseg.contracts.score_names import MEAN_IOU, ScoreNames
from semiseg.errors import UserError
from semiseg.report.averaging import Averaged, choose_runs, strange_splits
from semiseg.report.baseline import compared, study_notes
from semiseg.report.comparable import (
    METHOD,
    cell_key,
    checked_keys,
    did_you_mean,
    first_few,
    grouped,
    sort_rank,
    usual_keys,
)
from semiseg.report.floor import held_to_floor
from semiseg.report.limits import warnings
from semiseg.report.records import ACCURACY, STORED, RunRecord, logged
from semiseg.report.scores import COSTS, Average, average, scores_of, tables_of
from semiseg.report.study import Cell, Flagged, Published, Study

RUN_COSTS = ("iterations", *COSTS)
USUAL_BASELINE = "supervised"
USUAL_FLOOR = "probe"
NO_FLOOR = "none"
PSEUDO = (STORED, ACCURACY)


def study(
    records: Sequence[RunRecord],
    by: Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    mix: Sequence[str] = (),
    floor: str | None = None,
) -> Study:
    """Group runs into cells and compare these.

    Args:
        records: Runs in any state.
        by: Keys by whose values runs are grouped, see ``comparable.checked_keys``; ``None`` takes ``usual_keys``.
        metric: Key of a score such as "miou_test" or "iou/road"; ``None`` takes the primary score.
        baseline: Method that the others are compared with; ``None`` takes "supervised" where it is among the runs,
            or "supervised_DATASET".
        mix: Kinds of differences to average over, of ``comparable.MIXABLE``.
        floor: Method without training that the others should exceed; ``None`` takes "probe" where it is among the
            runs and not the baseline, "none" no method.

    Raises:
        UserError: a key, metric, baseline or floor that no run has.
    """
    by = checked_keys(usual_keys(records) if by is None else by, records)
    names = _names(records, metric)
    metric = names.primary.key if metric is None else metric
    _require_metric(metric, records, names)
    baseline = _method("--baseline", baseline, USUAL_BASELINE, by, records)
    floor = _floor(floor, baseline, by, records)
    strange = strange_splits(records)
    cells: list[Cell] = []
    flagged: list[Flagged] = []
    groups = grouped(records, lambda record: tuple(cell_key(record, by).items()))
    first = (baseline, floor)
    for items in sorted(groups, key=lambda items: [sort_rank(key, value, first) for key, value in items]):
        key = dict(items)
        found = choose_runs(groups[items], key, strange, mix)
        flagged += found.flagged
        if key:
            cells.append(_cell(key, found, names, metric))
    cells = held_to_floor(compared(cells, baseline, metric), floor, metric)
    notes = (*study_notes(cells, flagged), *_other_scores(records, names), *_other_masks(records))
    return Study(by, names, metric, baseline, tuple(cells), tuple(flagged), _classes(records), notes, floor)


def published(runs: Sequence[RunRecord]) -> tuple[Published, ...]:
    """Return the published numbers that the presets of runs give for their settings, each number once.

    A row of the list ``published`` of a config gives the options of config groups and the settings (dotted keys) that
    it holds for (``for``), its place in the publication (``source``), and percentages by split under the key of the
    primary score. Rows that do not fit a run are left out.
    """
    found: dict[Published, None] = {}
    for run in runs:
        primary = run.names.primary.key
        for row in (row for row in run.config.get("published") or () if isinstance(row, Mapping)):
            by_split = {str(split): percent for split, percent in (row.get(primary) or {}).items()}
            percent = by_split.get(str(run.config.get("split")))
            wanted = row.get("for") or {}
            # A second network of another kind is not what was published, unless the row names it.
            others = {key: node.get("name") for key, node in other_parts(run.config).items()}
            fits = all(name == others.get(key, _setting(run.config, key)) for key, name in wanted.items())
            if percent is not None and fits and others.keys() <= wanted.keys():
                found[Published(float(percent) / 100, str(row.get("source", "")), _preset(run))] = None
    return tuple(found)


def _setting(config: Mapping[str, Any], key: str) -> Any:
    """Return the option of a config group, or the value of another key; ``None`` where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("name") if isinstance(value, Mapping) else value


def _cell(key: Mapping[str, str], found: Averaged, names: ScoreNames, metric: str) -> Cell:
    runs, classes = found.runs, _classes(found.runs)
    journals = [logged(run) for run in runs]
    fractions = {run.results.get("split_fraction") for run in runs}
    starts = {run.config.get("init_sha256") for run in runs}
    # Each seed may fine-tune a network of its own, so a note says it and no run is left out.
    other_starts = f"its runs start from {len(starts)} different networks (init_from)"

    def averages(names: Sequence[str], prefix: str = "") -> dict[str, Average]:
        return {name: average([run.value(prefix + name) for run in runs]) for name in names}

    def costs(name: str) -> Average:
        return average([each.get(name, run.value(name)) for run, each in zip(runs, journals, strict=True)])

    return Cell(
        key,
        runs,
        averages([metric, *scores_of(names)]),
        by_class=averages(classes, f"{names.by_class.key}/"),
        by_class_test=_known(averages(classes, f"{names.by_class.test}/")),
        more_by_class={
            each.key: known
            for each in names.secondary_by_class
            if (known := _known(averages(classes, f"{each.key}/")))
        },
        costs={name: costs(name) for name in RUN_COSTS},
        pseudo=_known({name: average([journal.get(name) for journal in journals]) for name in PSEUDO}),
        fraction=fractions.pop() if len(fractions) == 1 else None,
        # Papers give the primary score alone, so there is nothing to compare another one with.
        published=published(runs) if metric == names.primary.key else (),
        notes=(*found.notes, *([other_starts] if len(starts) > 1 else [])),
        limits=tuple(dict.fromkeys(text for run in runs for text in warnings(run))),
    )


def _known(averages: Mapping[str, Average]) -> dict[str, Average]:
    return {name: each for name, each in averages.items() if each.n}


def _classes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    tables = (record.results.get(record.names.by_class.key) or () for record in records)
    return tuple(dict.fromkeys(name for table in tables for name in table))


def _names(records: Sequence[RunRecord], metric: str | None) -> ScoreNames:
    """Return the names of the scores of the first finished run, of one with the metric where that is given.

    Of runs with the same primary score the one that measured most counts, since earlier versions measured less.
    """
    finished = [record for record in records if record.results]
    having = [record for record in finished if metric is not None and record.value(metric) is not None]
    found = [record.names for record in having or finished]
    alike = [names for names in found if names.primary == found[0].primary]
    return max(alike, key=lambda names: len(names.totals), default=MEAN_IOU)


def _other_scores(records: Sequence[RunRecord], names: ScoreNames) -> Iterator[str]:
    """Say how many runs have other scores, being of another task."""
    others = [record for record in records if record.results and record.names.primary != names.primary]
    for primary in dict.fromkeys(record.names.primary.name for record in others):
        count = sum(record.names.primary.name == primary for record in others)
        yield f"{count} of the runs are measured by {primary} and have no {names.primary.name}."


def _other_masks(records: Sequence[RunRecord]) -> Iterator[str]:
    """Say which runs have seen an image with another mask than the first run that has seen it."""
    first: dict[str, tuple[Path, str]] = {}
    unlike: dict[tuple[Path, Path], list[str]] = {}
    for run in records:
        for image_id, mask in run.fingerprint.masks().items() if run.fingerprint else ():
            earlier, known = first.setdefault(f"{run.option('dataset')}/{image_id}", (run.path, mask))
            if known != mask:
                unlike.setdefault((earlier, run.path), []).append(image_id)
    for (earlier, later), ids in unlike.items():
        yield (
            f"{later} was trained or measured on other data than {earlier}: {len(ids)} images have another mask, "
            f"{first_few(ids)}."
        )


def _require_metric(metric: str, records: Sequence[RunRecord], names: ScoreNames) -> None:
    known = dict.fromkeys(name for record in records for name in _metrics(record))
    if metric in known or (not known and metric in scores_of(names)):
        return
    if not known:
        raise UserError(f"--metric={metric}: no run has finished, so that there are no results yet.")
    totals, by_class = (name for name in known if "/" not in name), tables_of(names)
    raise UserError(
        f"--metric={metric}: no run has it.{did_you_mean(metric, known)} There are: {', '.join(totals)}, and "
        f"{' and '.join(f'{key}/CLASS' for key in by_class)}."
    )


def _metrics(record: RunRecord) -> list[str]:
    tables = tables_of(record.names)
    names = [f"{group}/{name}" for group in tables for name in record.results.get(group) or ()]
    return [name for name in (*scores_of(record.names), *names) if record.value(name) is not None]


def _method(
    option: str, given: str | None, usual: str, by: Sequence[str], records: Sequence[RunRecord]
) -> str | None:
    """Return the method of an option; without one the usual method, if runs are told apart by it and have it.

    Where ``semiseg init`` has given it settings of its own, its name ends with that of the dataset.
    """
    methods = _methods(records)
    if given is None:
        datasets = {name for record in records for name in cell_key(record, ["dataset"]).values()}
        own = [name for name in methods if name in {f"{usual}_{dataset}" for dataset in datasets}]
        found = usual if usual in methods else own[0] if len(own) == 1 else None
        return found if METHOD in by else None
    if METHOD not in by:
        raise UserError(f"{option}={given}: methods are compared, so that --by needs the key method.")
    if given not in methods:
        raise UserError(
            f"{option}={given}: no run is of this method.{did_you_mean(given, methods)} "
            f"There are: {', '.join(methods)}."
        )
    return given


def _floor(
    given: str | None, baseline: str | None, by: Sequence[str], records: Sequence[RunRecord]
) -> str | None:
    if given is not None:
        return None if given == NO_FLOOR else _method("--floor", given, USUAL_FLOOR, by, records)
    found = _method("--floor", None, USUAL_FLOOR, by, records)
    # Of the baseline the differences are shown already, and alone it is the floor of nothing.
    return None if found == baseline or _methods(records) == [found] else found


def _methods(records: Sequence[RunRecord]) -> list[str]:
    """Return the methods of runs, each once."""
    return list(dict.fromkeys(name for record in records for name in cell_key(record, [METHOD]).values()))


def _preset(run: RunRecord) -> str:
    """Return the preset as typed; empty for a run that was made from the config of another one."""
    typed = [text.partition("=")[2] for text in run.overrides if text.lstrip("+").startswith("experiments=")]
    return typed[-1] if typed else ""
