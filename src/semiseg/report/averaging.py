"""Which runs of a cell are averaged, and what a reader has to know about the others."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.report.comparable import (
    KINDS,
    Facts,
    differences,
    facts,
    grouped,
    level,
    partition,
    short,
    sort_rank,
    spelled,
    split_hash,
)
from semiseg.report.records import DONE, RunRecord
from semiseg.report.study import Flag, Flagged


@dataclass(frozen=True)
class Averaged:
    """The runs of one cell.

    Args:
        runs: Runs that count, ordered by seed and partition.
        flagged: Runs that do not, and those that count in spite of a difference.
        notes: Why none is averaged, where that is so.
    """

    runs: tuple[RunRecord, ...]
    flagged: tuple[Flagged, ...]
    notes: tuple[str, ...] = ()


def choose_runs(
    runs: Sequence[RunRecord],
    key: Mapping[str, str],
    strange: Mapping[Path, Flag],
    mix: Sequence[str] = (),
) -> Averaged:
    """Find the runs of a cell that may be averaged.

    Finished runs that agree in all facts make a group. The group with most seeds and partitions is averaged;
    of two that are equally large none is, since nothing says which of them is meant.

    Args:
        runs: Runs of the cell.
        key: Key of the cell, for the flags.
        strange: Flags of runs whose partition is not what its name says, by path; see ``strange_splits``.
        mix: Kinds of facts in which averaged runs may differ, of ``comparable.MIXABLE``.
    """
    flagged = [Flagged(run, key, (_state(run),)) for run in runs if run.state != DONE]
    flagged += [Flagged(run, key, (strange[run.path],)) for run in runs if run.path in strange]
    usable = [run for run in runs if run.state == DONE and run.path not in strange]
    found = {run.path: facts(run) for run in usable}
    level(found.values())
    kinds = [kind for kind in KINDS if kind not in mix]
    groups = _alike(usable, found, kinds)
    decided = bool(groups) and (len(groups) == 1 or _size(groups[0]) > _size(groups[1]))
    chosen = groups[0] if decided else []
    for group in groups:
        if group is not chosen:
            other = chosen or next(each for each in groups if each is not group)
            whose = "averaged: " if chosen else "others: "
            flags = _flags(found[group[0].path], found[other[0].path], kinds, whose)
            flagged += [Flagged(run, key, flags) for run in group]
    averaged, repeats = _newest(chosen)
    flagged += [Flagged(run, key, (flag,)) for run, flag in repeats]
    flagged += _mixed(averaged, key, found, mix)
    notes: tuple[str, ...] = ()
    if usable and not chosen:
        unlike = " and ".join(kind for kind in kinds if len(_alike(usable, found, [kind])) > 1)
        notes = (f"none is averaged: its runs differ in {unlike}, and no more of them agree than differ",)
    return Averaged(tuple(averaged), tuple(flagged), notes)


def strange_splits(runs: Iterable[RunRecord]) -> dict[Path, Flag]:
    """Find runs whose labeled or unlabeled images are not those of other runs with the same partition.

    Of the hashes that a partition has, that of most runs counts; where two are as frequent, none does.
    """
    flags: dict[Path, Flag] = {}
    for members in grouped((run for run in runs if run.state == DONE), partition).values():
        ranked = sorted(grouped(members, split_hash).items(), key=lambda item: -len(item[1]))
        counts = [len(same) for _, same in ranked]
        usual = ranked[0][0] if len(counts) == 1 or counts[0] > counts[1] else None
        for own, same in ranked:
            if own != usual:
                other = usual or next(each for each, _ in ranked if each != own)
                text = (
                    f"its labeled and unlabeled images have the hashes {_short(own)}, those of other runs with the "
                    f"same partition {_short(other)}"
                    + ("" if usual else "; no more runs have one than the other")
                )
                flags |= {run.path: Flag("split", text) for run in same}
    return flags


def _short(hashes: tuple[str, ...]) -> str:
    return " and ".join(str(short(each)) for each in hashes)


def _state(run: RunRecord) -> Flag:
    # The last line of a log may have colors of a terminal in it.
    reason = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", str(run.status.get("error") or ""))
    reason = "".join(letter if letter.isprintable() else " " for letter in reason).strip()
    return Flag("state", f"{run.state}: {reason}" if reason else run.state)


def _alike(
    runs: Iterable[RunRecord], found: Mapping[Path, Facts], kinds: Sequence[str]
) -> list[list[RunRecord]]:
    """Runs with the same facts together, the largest group first."""

    def signature(run: RunRecord) -> str:
        return json.dumps([found[run.path][kind] for kind in kinds], sort_keys=True, default=str)

    return sorted(grouped(runs, signature).values(), key=lambda group: -_size(group))


def _size(group: Sequence[RunRecord]) -> int:
    """Number of seeds and partitions; a run that was repeated counts once."""
    return len(set(map(_once, group)))


def _once(run: RunRecord) -> tuple[Any, ...]:
    """What two runs of a group share where one repeats the other: partitions of other names may be the same."""
    return run.seed, split_hash(run) if run.results.get("split_sha256") else partition(run)


def _flags(own: Facts, other: Facts, kinds: Sequence[str], whose: str) -> tuple[Flag, ...]:
    unlike = {kind: differences(own[kind], other[kind]) for kind in kinds}
    return tuple(Flag(kind, spelled(found, whose)) for kind, found in unlike.items() if found)


def _newest(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[tuple[RunRecord, Flag]]]:
    """Keep the last finished one of runs with the same seed and images; ordered by seed and partition."""
    kept: dict[tuple[Any, ...], RunRecord] = {}
    repeats = []
    for run in sorted(runs, key=lambda run: ((run.path / "summary.json").stat().st_mtime, str(run.path))):
        earlier = kept.get(key := _once(run))
        if earlier is not None:
            repeats.append((earlier, Flag("repeat", f"{run.path} repeats it and finished later")))
        kept[key] = run
    ordered = sorted(
        kept.values(), key=lambda run: (sort_rank("seed", str(run.seed), None), str(partition(run)))
    )
    return ordered, repeats


def _mixed(
    averaged: Sequence[RunRecord], key: Mapping[str, str], found: Mapping[Path, Facts], mix: Sequence[str]
) -> list[Flagged]:
    """Flag averaged runs that differ from most of them in what was asked to be mixed."""
    flags: dict[Path, list[Flag]] = defaultdict(list)
    for kind in mix:
        first, *others = _alike(averaged, found, [kind]) or [[]]
        for run in (run for group in others for run in group):
            unlike = differences(found[run.path][kind], found[first[0].path][kind])
            flags[run.path].append(Flag(kind, spelled(unlike, "most: "), averaged=True))
    return [Flagged(run, key, tuple(flags[run.path])) for run in averaged if run.path in flags]
