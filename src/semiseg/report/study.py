"""Study: content of a report as plain values; ``aggregate`` makes it, the other modules of this package show it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from semiseg.class_rows import ClassRows, class_rows
from semiseg.contracts.score_names import ScoreNames
from semiseg.report.comparable import METHOD, grouped, of_method, trains
from semiseg.report.records import RunRecord
from semiseg.report.scores import Average, GapClosed, Paired, Score, metric_name, scores_of

SPLIT_KEY = "split"
DATASET_KEY = "dataset"
ALL = "all runs"


@dataclass(frozen=True)
class Flag:
    """Reason why a run is left out, or averaged only on request.

    Args:
        kind: Kind: "state", "repeat", or a kind of facts such as "split"; see ``comparable.KINDS``.
        text: Text with the found and the expected value.
        averaged: Whether the run is averaged in spite of it, because the command asks for that.
    """

    kind: str
    text: str
    averaged: bool = False


@dataclass(frozen=True)
class Flagged:
    """A run with its flags.

    Args:
        run: Flagged run.
        key: Key of the cell that it belongs to; empty where it left no config.
        flags: Flags, at least one.
    """

    run: RunRecord
    key: Mapping[str, str]
    flags: tuple[Flag, ...]

    @property
    def averaged(self) -> bool:
        """Whether it is averaged in its cell."""
        return all(flag.averaged for flag in self.flags)


@dataclass(frozen=True)
class Published:
    """A published number that the preset of the runs gives.

    Args:
        value: Number as a share, 0-1.
        source: Place in the publication.
        preset: Name of the preset.
    """

    value: float
    source: str
    preset: str


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but seed and partition, and their averages.

    Args:
        key: Value of each key of ``Study.by``, in that order.
        runs: Runs that are averaged, ordered by seed and split_id; may be empty.
        scores: Averages by key: the metric of the study and all of ``Study.scores``.
        by_class: Averages by class, of the reported network on the validation images.
        by_class_test: Averages by class on the test images; empty where there are none.
        more_by_class: Averages by key of the other scores of a class, then by class, on the validation images.
        costs: Averages of "iterations", "train_images_per_s", "wall_s" (seconds), "memory_gib" (peak).
        pseudo: Averages of the last "pseudo/coverage" and "pseudo/accuracy" of the runs, as ``curves`` reads them, as
            far as they are known.
        fraction: Share of labeled images; ``None`` where runs differ in it or there are none.
        difference: Difference to the baseline with the same other keys; ``None`` for the baseline itself, or
            without pairs.
        gap_closed: Share of the gap that is closed; ``None`` without the baseline at this ratio and with all labels,
            or where all labels do not help.
        floor: Difference to the floor with the same other keys; ``None`` for the floor itself, or without pairs.
        published: Published numbers for these settings.
        notes: Limits of the comparison of this cell with others.
        limits: Sentences about what makes its scores mean less than their numbers say, see ``limits.warnings``.
    """

    key: Mapping[str, str]
    runs: tuple[RunRecord, ...]
    scores: Mapping[str, Average]
    by_class: Mapping[str, Average] = field(default_factory=dict)
    by_class_test: Mapping[str, Average] = field(default_factory=dict)
    more_by_class: Mapping[str, Mapping[str, Average]] = field(default_factory=dict)
    costs: Mapping[str, Average] = field(default_factory=dict)
    pseudo: Mapping[str, Average] = field(default_factory=dict)
    fraction: float | None = None
    difference: Paired | None = None
    gap_closed: GapClosed | None = None
    floor: Paired | None = None
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def below_floor(self) -> bool:
        """Whether its mean difference to the floor is negative."""
        return self.floor is not None and self.floor.mean < 0

    @property
    def label(self) -> str:
        """Name for people, made of the values of the key."""
        return " ".join(self.key.values())

    @property
    def line(self) -> str:
        """Name of the line that it is a point of: all values of its key but the split."""
        return self._named(lambda name: name != SPLIT_KEY)

    @property
    def panel(self) -> str:
        """Name of the panel that it is a line of: all values of its key but the method and its settings."""
        return self._named(lambda name: not of_method(name))

    @property
    def dataset(self) -> str:
        """Name of the part of a report that shows it: its dataset, if that is in its key."""
        return self.key.get(DATASET_KEY, ALL)

    @property
    def within_dataset(self) -> str:
        """Name within the part of its dataset."""
        return self._named(lambda name: name != DATASET_KEY)

    @property
    def look(self) -> str:
        """Name by which its color and marker are chosen: those of a method are the same for all datasets."""
        return self._named(lambda name: name not in (SPLIT_KEY, DATASET_KEY))

    @property
    def column(self) -> str:
        """Name within its panel."""
        return self._named(of_method)

    def _named(self, chosen: Callable[[str], bool]) -> str:
        return " ".join(value for name, value in self.key.items() if chosen(name)) or ALL


@dataclass(frozen=True)
class Study:
    """Content of a report.

    Args:
        by: Keys by whose values runs are grouped into cells.
        names: Names of the scores.
        metric: Key of the score that is compared.
        baseline: Method that the others are compared with; ``None`` for no comparison.
        cells: Cells ordered by key, ratios by their size.
        flagged: Runs that are left out, or averaged on request in spite of a difference.
        classes: Names of the classes, in the dataset's order; of all datasets one after the other.
        notes: Notes about the whole study.
        floor: Method that the others should exceed, usually one that trains no network; ``None`` for no such
            comparison.
    """

    by: tuple[str, ...]
    names: ScoreNames
    metric: str
    baseline: str | None
    cells: tuple[Cell, ...]
    flagged: tuple[Flagged, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    floor: str | None = None

    @cached_property
    def datasets(self) -> dict[str, list[Cell]]:
        """Cells by the dataset in their key; all cells together in a study that has no such key."""
        return grouped(self.cells, lambda cell: cell.dataset)

    def suffix(self, dataset: str) -> str:
        """Return what names a dataset in a title; empty for a study of one."""
        return f", {dataset}" if len(self.datasets) > 1 else ""

    def classes_of(self, cells: Sequence[Cell]) -> tuple[str, ...]:
        """Return the classes that some of the cells have, in the dataset's order."""
        return tuple(name for name in self.classes if any(name in cell.by_class for cell in cells))

    def class_rows(self, cells: Sequence[Cell]) -> ClassRows:
        """Choose the classes that tables and figures of cells show, by their scores on the validation images."""
        return class_rows(
            {
                name: [cell.by_class[name].mean for cell in cells if name in cell.by_class]
                for name in self.classes_of(cells)
            }
        )

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All runs that are averaged, cell by cell."""
        return tuple(run for cell in self.cells for run in cell.runs)

    @property
    def metric_name(self) -> str:
        """Name of the score that is compared."""
        return metric_name(self.metric, self.names)

    @property
    def scores(self) -> tuple[Score, ...]:
        """Scores of all classes together, the primary one first."""
        return tuple(scores_of(self.names).values())

    @property
    def extra_scores(self) -> tuple[Score, ...]:
        """Scores with a column of their own in addition to the score that is compared."""
        return tuple(score for score in self.scores if score.column)

    @property
    def other_scores(self) -> tuple[Score, ...]:
        """Scores of all classes together that are not the primary one."""
        return tuple(score for score in self.scores[1:] if not score.column)

    @property
    def filled(self) -> tuple[Cell, ...]:
        """Cells with runs."""
        return tuple(cell for cell in self.cells if cell.runs)

    @property
    def trains_floor(self) -> bool:
        """Whether the method that was chosen as the floor trains networks."""
        return any(
            trains(run) for cell in self.filled if cell.key.get(METHOD) == self.floor for run in cell.runs
        )

    @property
    def left_out(self) -> int:
        """Number of runs that are not averaged."""
        return sum(not each.averaged for each in self.flagged)

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """All finished runs, averaged ones first."""
        return tuple(run for _, run, _ in self.every_run() if run.results)

    def is_baseline(self, cell: Cell) -> bool:
        """Whether the other cells are compared with this one."""
        return self.baseline is not None and cell.key.get(METHOD) == self.baseline

    def every_run(self) -> list[tuple[Mapping[str, str], RunRecord, Flagged | None]]:
        """Return all runs with the key of their cell and their flags, averaged ones first."""
        flagged = {each.run.path: each for each in self.flagged}
        averaged = [(cell.key, run, flagged.get(run.path)) for cell in self.cells for run in cell.runs]
        return averaged + [(each.key, each.run, each) for each in self.flagged if not each.averaged]


@dataclass(frozen=True)
class StudyFigure:
    """A figure as files, PNG or for a contact sheet JPEG.

    Args:
        name: Topic and panel, for example "ratio", "learning-1of64" or "gallery-1of64".
        path: File for light pages.
        title: Title of one line.
        alt: Description in words, with numbers where they are few.
        dark: File for dark pages; may be the same as ``path``.
        caption: Meaning of its signs.
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


def panels(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Group cells by panel, those of a dataset together, of which those of few labels come first."""
    found = grouped(cells, lambda cell: cell.panel)
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))

    def rank(item: tuple[str, list[Cell]]) -> tuple[int, float]:
        return datasets.index(item[1][0].dataset), min(cell.fraction or 2.0 for cell in item[1])

    return dict(sorted(found.items(), key=rank))


def panel_starts(cells: Sequence[Cell]) -> list[int]:
    """Return where a panel begins in a list of cells, without the first; empty where no panel is in one piece."""
    changes = [index for index in range(1, len(cells)) if cells[index].panel != cells[index - 1].panel]
    names = {cell.panel for cell in cells}
    return changes if len(changes) < len(names) < len(cells) else []
