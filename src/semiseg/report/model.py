"""What a report says, as plain values: made by ``aggregate``, shown by the other modules of this package.

Scores are shares between 0 and 1 as in ``summary.json``; only what is shown to people is in percent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from semiseg.report.collect import RunRecord


@dataclass(frozen=True)
class Score:
    """A quantity over the runs of a cell.

    Args:
        values: by run, in the order of ``Cell.runs``; None where a run has none.
        mean: of those that there are; None where there is none.
        std: sample standard deviation (n - 1); None for fewer than two.
        n: how many there are.
    """

    values: tuple[float | None, ...]
    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """Mean difference to the baseline over runs with the same seed and the same labeled images.

    Args:
        mean: of the differences, a share.
        low: lower end of the 95 % confidence interval; None for one pair.
        high: upper end.
        pairs: number of pairs.
        std: sample standard deviation of the differences; None for one pair.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    std: float | None = None


@dataclass(frozen=True)
class GapClosed:
    """Share of the way from the baseline at this ratio to the baseline with all labels.

    Args:
        mean: 0 is the baseline at this ratio, 1 all labels.
        low: lower end of the interval of the paired difference, on this scale; None for one pair.
        high: upper end.
        baseline: mean of the baseline at this ratio over the pairs, a share.
        full: mean of the baseline with all labels, a share.
    """

    mean: float
    low: float | None
    high: float | None
    baseline: float
    full: float


@dataclass(frozen=True)
class Flag:
    """Something about a run that a reader has to know.

    Args:
        kind: "state", "dataset", "evaluator", "split", "iterations", "code", "settings" or "repeat".
        text: what is found and what was expected.
        averaged: whether the run counts in the mean in spite of it, because the command asked for that.
    """

    kind: str
    text: str
    averaged: bool = False


@dataclass(frozen=True)
class Flagged:
    """A run with what is to be known about it.

    Args:
        run: the run.
        key: the cell that it belongs to; empty where it left no config.
        flags: at least one.
    """

    run: RunRecord
    key: Mapping[str, str]
    flags: tuple[Flag, ...]

    @property
    def averaged(self) -> bool:
        """Whether it counts in the mean of its cell."""
        return all(flag.averaged for flag in self.flags)


@dataclass(frozen=True)
class Published:
    """A number that the preset of the runs names.

    Args:
        value: a share, as ours.
        source: where it stands.
        preset: name of the preset.
    """

    value: float
    source: str
    preset: str


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but seed and partition, and what they come to.

    Args:
        key: the value of each key of ``Study.by``, in that order.
        runs: those that are averaged, ordered by seed and split_id; may be empty.
        scores: by name: the metric of the study, "miou", "miou_best", "miou_last", "miou_test", "accuracy".
        iou: by class, of the reported network on the validation images.
        iou_test: by class on the test images; empty where there are none.
        costs: "iterations", "train_images_per_s", "wall_s" (seconds), "memory_gib" (peak).
        pseudo: the last "pseudo/coverage" and "pseudo/accuracy" of each run, as ``curves`` reads them; only those
            that there are.
        fraction: share of labeled images; None where runs differ in it or there are none.
        difference: to the baseline at the same other keys; None for the baseline itself, or without pairs.
        gap_closed: None without the baseline at this ratio and with all labels, or where all labels do not help.
        published: what is published for these settings.
        notes: what limits the comparison of this cell with others.
    """

    key: Mapping[str, str]
    runs: tuple[RunRecord, ...]
    scores: Mapping[str, Score]
    iou: Mapping[str, Score] = field(default_factory=dict)
    iou_test: Mapping[str, Score] = field(default_factory=dict)
    costs: Mapping[str, Score] = field(default_factory=dict)
    pseudo: Mapping[str, Score] = field(default_factory=dict)
    fraction: float | None = None
    difference: Paired | None = None
    gap_closed: GapClosed | None = None
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name for people: the values of the key."""
        return " ".join(self.key.values())


@dataclass(frozen=True)
class Study:
    """All that a report shows.

    Args:
        by: keys whose values make a cell.
        metric: name of the score that is compared.
        baseline: method that the others are compared with; None for no comparison.
        cells: ordered by key, ratios by their size.
        flagged: runs that are left out, or averaged on request in spite of a difference.
        classes: names of the classes, in the dataset's order; of all datasets one after the other.
        notes: what concerns the whole study.
    """

    by: tuple[str, ...]
    metric: str
    baseline: str | None
    cells: tuple[Cell, ...]
    flagged: tuple[Flagged, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All runs that are averaged, cell by cell."""
        return tuple(run for cell in self.cells for run in cell.runs)


@dataclass(frozen=True)
class Figure:
    """A figure as files, PNG or for a contact sheet JPEG.

    Args:
        name: its topic and what it is of, for example "ratio", "learning-1of64" or "gallery-1of64".
        path: for light pages.
        title: one line.
        alt: what is to be seen, with its numbers where they are few.
        dark: for dark pages; the same file where there is no other.
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
