"""Standings: how each method compares with the baseline and the floor over all settings of a study together.

A setting is what cells of several methods share: all keys of the study but the method and its settings, such as a
dataset and a split.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from semiseg.report.comparable import grouped
from semiseg.report.pairing import Pair, at, cells_of, pairs
from semiseg.report.scores import Paired, paired
from semiseg.report.study import Cell, Study


@dataclass(frozen=True)
class Standing:
    """Results of a method over all settings in which it is compared.

    Args:
        name: Method, with those of its settings that are keys of the study.
        differences: Difference to the baseline by setting; empty for the baseline itself.
        mean: Mean over the settings, which count alike. Its interval and number of pairs are those of the runs: the
            differences of one seed and partition are averaged over the settings first. No interval where settings
            have other seeds or partitions; ``None`` without differences.
        floors: Difference to the floor by setting; empty for the floor itself.
        time: Duration of its runs as a multiple of the baseline's, the geometric mean over the settings; ``None``
            where it is not known.
    """

    name: str
    differences: Mapping[str, Paired] = field(default_factory=dict)
    mean: Paired | None = None
    floors: Mapping[str, Paired] = field(default_factory=dict)
    time: float | None = None

    @property
    def above(self) -> int:
        """Number of settings with an interval above 0."""
        return sum(each.low is not None and each.low > 0 for each in self.differences.values())

    @property
    def below(self) -> int:
        """Number of settings with an interval below 0."""
        return sum(each.high is not None and each.high < 0 for each in self.differences.values())

    @property
    def neither(self) -> int:
        """Number of settings whose interval includes 0, or is not known."""
        return len(self.differences) - self.above - self.below

    @property
    def ends(self) -> tuple[float, float] | None:
        """Lowest and highest difference; ``None`` without differences."""
        means = [each.mean for each in self.differences.values()]
        return (min(means), max(means)) if means else None

    @property
    def below_floor(self) -> int:
        """Number of settings with a mean difference to the floor below 0."""
        return sum(each.mean < 0 for each in self.floors.values())


def standings(study: Study) -> list[Standing]:
    """Return the standing of each method, the baseline first and the others by their mean difference.

    Returns:
        Nothing if the study compares methods in one setting alone, of which its main table says all.
    """
    groups = grouped(study.filled, lambda cell: cell.column)
    found = [_standing(study, name, cells) for name, cells in groups.items()]
    found = [each for each in found if each.differences or each.floors]
    if len({name for each in found for name in (*each.differences, *each.floors)}) < 2:
        return []
    return sorted(found, key=lambda each: -(each.mean.mean if each.mean else math.inf))


def _standing(study: Study, name: str, cells: Sequence[Cell]) -> Standing:
    differences = {cell.panel: cell.difference for cell in cells if cell.difference is not None}
    floors = {cell.panel: cell.floor for cell in cells if cell.floor is not None}
    bases = cells_of(study.baseline, study.cells) if study.baseline is not None else []
    against = [(cell, at(bases, cell.key)[0]) for cell in cells if cell.difference is not None]
    settings = [pairs(cell, base, study.metric) for cell, base in against]
    times = [ratio for cell, base in against if (ratio := _time(cell, base)) is not None]
    time = math.exp(fmean(map(math.log, times))) if times else None
    return Standing(name, differences, _mean(settings), floors, time)


def _mean(settings: Sequence[Sequence[Pair]]) -> Paired | None:
    """Average over settings, with an interval over seeds and partitions where all settings have the same."""
    if not settings:
        return None
    tables = [{_draw(each): each.score - each.other for each in found} for found in settings]
    same = all(table.keys() == tables[0].keys() for table in tables)
    once = all(len(table) == len(found) for table, found in zip(tables, settings, strict=True))
    if same and once:
        # Averaged over settings first, since runs of one seed may share what is easy or hard in several settings.
        return paired([(fmean(table[draw] for table in tables), 0.0) for draw in tables[0]])
    means = [fmean(each.score - each.other for each in found) for found in settings]
    return Paired(fmean(means), None, None, min(map(len, settings)))


def _draw(pair: Pair) -> tuple[str, str]:
    """Return seed and name of the partition, which the runs of several datasets share."""
    return str(pair.run.seed), str(pair.run.config.get("split_id"))


def _time(cell: Cell, base: Cell) -> float | None:
    own, other = (each.costs["wall_s"].mean for each in (cell, base))
    return own / other if own and other else None
