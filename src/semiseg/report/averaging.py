"""Choice of the runs of a cell that are averaged, and flags that say why the others are not."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.report.comparable import (
    KINDS,
    Facts,
    differences,
    facts_of,
    grouped,
    partition,
    short,
    sort_rank,
    spelled,
)
from semiseg.report.records import DONE, RunRecord
from semiseg.report.study import Flag, Flagged


@dataclass(frozen=True)
class Averaged:
    """The runs of one cell.

    Args:
        runs: Runs that are averaged, ordered by seed and partition.
        flagged: Runs that are not averaged, and those that are in spite of a difference.
        notes: Reason why none is averaged; empty where some are.
    """

    runs: tuple[RunRecord, ...]
    flagged: tuple[Flagged, ...]
    notes: tuple[str, ...] = ()


def choose_runs(
    runs: Sequence[RunRecord], key: Mapping[str, str], strange: Mapping[Path, Flag], mix: Sequence[str] = ()
) -> Averaged:
    """Find the runs of a cell that may be averaged.

    Finished runs that agree in all facts make a group. The group with most seeds and partitions is averaged;
    of two equally large groups none is, since it is not known which of them is meant.

    Args:
        runs: Runs of the cell.
        key: Key of the cell, for the flags.
        strange: Flags, by path, of runs whose images are not those of their partition; see ``strange_splits``.
        mix: Kinds of facts in which averaged runs may differ, of ``comparable.MIXABLE``.
    """
    flags: dict[Path, list[Flag]] = {run.path: [_state(run)] for run in runs if run.state != DONE}
    flags |= {run.path: [strange[run.path]] for run in runs if run.path in strange}
    usable = [run for run in runs if run.path not in flags]
    found = facts_of(usable)
    kinds = [kind for kind in KINDS if kind not in mix]
    groups = _alike(usable, found, kinds)
    decided = bool(groups) and (len(groups) == 1 or _size(groups[0]) > _size(groups[1]))
    for group in groups[decided:]:
        other = groups[0] if decided or group is not groups[0] else groups[1]
        whose = "averaged: " if decided else "others: "
        differing = _differing(found[group[0].path], found[other[0].path], kinds, whose)
        flags |= {run.path: differing for run in group}
    averaged = _newest(groups[0] if decided else [], flags)
    for kind in mix:
        most, *others = _alike(averaged, found, [kind]) or [[]]
        for run in (run for group in others for run in group):
            unlike = differences(found[run.path][kind], found[most[0].path][kind])
            flags.setdefault(run.path, []).append(Flag(kind, spelled(unlike, "most: "), averaged=True))
    notes: tuple[str, ...] = ()
    if usable and not decided:
        kinds = [kind for kind in kinds if len(_alike(usable, found, [kind])) > 1]
        differ = f"its runs differ in {' and '.join(kinds)}, and no more of them agree than differ"
        notes = (f"none is averaged: {differ}",)
    by_path = {run.path: run for run in runs}
    flagged = [Flagged(by_path[path], key, tuple(each)) for path, each in flags.items()]
    return Averaged(tuple(averaged), tuple(flagged), notes)


def strange_splits(runs: Iterable[RunRecord]) -> dict[Path, Flag]:
    """Find runs whose labeled or unlabeled images are not those of other runs with the same partition.

    The hash that most runs of a partition have is taken for the right one; where two are as frequent, none is.
    """
    flags: dict[Path, Flag] = {}
    for members in grouped((run for run in runs if run.state == DONE), partition).values():
        ranked = sorted(grouped(members, lambda run: run.split_hash).items(), key=lambda item: -len(item[1]))
        counts = [len(same) for _, same in ranked]
        usual = ranked[0][0] if len(counts) == 1 or counts[0] > counts[1] else None
        for own, same in ranked:
            if own != usual:
                other = usual or next(each for each, _ in ranked if each != own)
                text = f"its labeled and unlabeled images have the hashes {_short(own)}, those of other runs with "
                text += f"the same partition {_short(other)}"
                text += "" if usual else "; no more runs have one than the other"
                flags |= {run.path: Flag("split", text) for run in same}
    return flags


def _short(hashes: tuple[str, ...]) -> str:
    return " and ".join(str(short(each)) for each in hashes)


def _state(run: RunRecord) -> Flag:
    # The last line of a log may contain color codes of a terminal.
    reason = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", str(run.status.get("error") or ""))
    reason = "".join(letter if letter.isprintable() else " " for letter in reason).strip()
    return Flag("state", f"{run.state}: {reason}" if reason else run.state)


def _alike(
    runs: Iterable[RunRecord], found: Mapping[Path, Facts], kinds: Sequence[str]
) -> list[list[RunRecord]]:
    """Return groups of runs with the same facts, the largest group first."""

    def signature(run: RunRecord) -> str:
        return json.dumps([found[run.path][kind] for kind in kinds], sort_keys=True, default=str)

    return sorted(grouped(runs, signature).values(), key=lambda group: -_size(group))


def _size(group: Sequence[RunRecord]) -> int:
    """Return the number of seeds and partitions; a repeated run counts once."""
    return len(set(map(_once, group)))


def _once(run: RunRecord) -> tuple[Any, ...]:
    """Return a key that is equal for runs that repeat each other; partitions of two names may be the same images."""
    return run.seed, run.split_hash if run.results.get("split_sha256") else partition(run)


def _differing(own: Facts, other: Facts, kinds: Sequence[str], whose: str) -> list[Flag]:
    unlike = {kind: differences(own[kind], other[kind]) for kind in kinds}
    return [Flag(kind, spelled(found, whose)) for kind, found in unlike.items() if found]


def _newest(runs: Sequence[RunRecord], flags: dict[Path, list[Flag]]) -> list[RunRecord]:
    """Return runs by seed and partition; of those with the same seed and images keep the newest and flag the others."""
    kept: dict[tuple[Any, ...], RunRecord] = {}
    # By the time of the summary, since names of runs need not hold one.
    for run in sorted(runs, key=lambda run: ((run.path / "summary.json").stat().st_mtime, str(run.path))):
        earlier = kept.get(key := _once(run))
        if earlier is not None:
            flags[earlier.path] = [Flag("repeat", f"{run.path} repeats it and finished later")]
        kept[key] = run
    return sorted(kept.values(), key=lambda run: (sort_rank("seed", str(run.seed)), str(partition(run))))
