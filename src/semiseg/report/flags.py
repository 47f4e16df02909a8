"""Which runs of a cell are averaged, and what a reader has to know about the others."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.errors import shown
from semiseg.report.collect import DONE, RunRecord
from semiseg.report.facts import KINDS, Facts, differences, facts, level, short, signature
from semiseg.report.keys import sort_rank
from semiseg.report.model import Flag, Flagged

MIXABLE = ("code", "settings", "iterations")
"""Kinds of differences that a person may choose to average over."""

SHOWN_KEYS = 4


@dataclass(frozen=True)
class Sorted:
    """The runs of one cell.

    Args:
        averaged: those that count, ordered by seed and partition.
        flagged: those that do not, and those that count in spite of a difference.
        notes: why none is averaged, where that is so.
    """

    averaged: tuple[RunRecord, ...]
    flagged: tuple[Flagged, ...]
    notes: tuple[str, ...] = ()


def sort_out(
    runs: Sequence[RunRecord],
    key: Mapping[str, str],
    strange: Mapping[Path, Flag],
    mix: Sequence[str] = (),
) -> Sorted:
    """Find the runs of a cell that may be averaged.

    Finished runs that agree in all facts make a group. The group with most seeds and partitions is averaged;
    of two that are equally large none is, since nothing says which of them is meant.

    Args:
        runs: the runs of the cell.
        key: of the cell, for the flags.
        strange: runs whose partition is not what its name says, by path; see ``strange_splits``.
        mix: kinds of facts in which averaged runs may differ, of ``MIXABLE``.
    """
    flagged = [Flagged(run, key, (_state(run),)) for run in runs if run.state != DONE]
    flagged += [Flagged(run, key, (strange[run.path],)) for run in runs if run.path in strange]
    usable = [run for run in runs if run.state == DONE and run.path not in strange]
    found = {run.path: facts(run) for run in usable}
    level(found.values())
    kinds = tuple(kind for kind in KINDS if kind not in mix)
    groups = _grouped(usable, found, kinds)
    chosen = groups[0] if groups and (len(groups) == 1 or _size(groups[0]) > _size(groups[1])) else []
    for group in groups:
        if group is not chosen:
            other = chosen or next(each for each in groups if each is not group)
            flags = _unlike(
                found[group[0].path], found[other[0].path], kinds, "averaged:" if chosen else "others:"
            )
            flagged += [Flagged(run, key, flags) for run in group]
    averaged, repeats = _newest(chosen)
    flagged += [Flagged(run, key, (flag,)) for run, flag in repeats]
    flagged += _mixed(averaged, key, found, mix)
    return Sorted(tuple(averaged), tuple(flagged), _undecided(usable, chosen, found, kinds))


def strange_splits(runs: Iterable[RunRecord]) -> dict[Path, Flag]:
    """Find runs whose labeled or unlabeled images are not those of other runs with the same partition.

    Of the hashes that a partition has, that of most runs counts; where two are as frequent, none does.
    """
    partitions: dict[tuple[Any, ...], dict[tuple[str, ...], list[RunRecord]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        if run.state == DONE:
            partitions[partition(run)][_split_hash(run)].append(run)
    flags: dict[Path, Flag] = {}
    for hashes in partitions.values():
        ranked = sorted(hashes.items(), key=lambda item: -len(item[1]))
        counts = [len(members) for _, members in ranked]
        usual = ranked[0][0] if len(counts) == 1 or counts[0] > counts[1] else None
        for own, members in ranked:
            if own != usual:
                other = usual or next(each for each, _ in ranked if each != own)
                text = (
                    f"its labeled and unlabeled images have the hashes {_short(own)}, those of other runs with the "
                    f"same partition {_short(other)}"
                    + ("" if usual else "; no more runs have one than the other")
                )
                flags |= {run.path: Flag("split", text) for run in members}
    return flags


def partition(run: RunRecord) -> tuple[Any, ...]:
    """What names the labeled and the unlabeled images of a run."""
    config = run.config
    keys = ("split", "split_family", "split_id", "split_lists", "unlabeled", "val_subset")
    dataset = config.get("dataset") or {}
    return (dataset.get("name"), *(str(config.get(key)) for key in keys))


def pair_key(run: RunRecord) -> tuple[Any, ...]:
    """What two runs have in common that are compared as a pair: seed and labeled images."""
    return (run.config.get("seed"), _split_hash(run)[0])


def _split_hash(run: RunRecord) -> tuple[str, ...]:
    hashes = (run.summary or {}).get("split_sha256") or {}
    return str(hashes.get("labeled")), str(hashes.get("unlabeled"))


def _short(hashes: tuple[str, ...]) -> str:
    return " and ".join(str(short(each)) for each in hashes)


def _state(run: RunRecord) -> Flag:
    # The last line of a log may have colors of a terminal in it.
    reason = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", str(run.status.get("error") or ""))
    reason = "".join(letter if letter.isprintable() else " " for letter in reason).strip()
    return Flag("state", f"{run.state}: {reason}" if reason else run.state)


def _grouped(
    runs: Sequence[RunRecord], found: Mapping[Path, Facts], kinds: tuple[str, ...]
) -> list[list[RunRecord]]:
    """Runs with the same facts together, the largest group first."""
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        groups[signature(found[run.path], kinds)].append(run)
    return sorted(groups.values(), key=lambda group: -_size(group))


def _size(group: Sequence[RunRecord]) -> int:
    """Seeds and partitions; a run that was repeated counts once."""
    return len(set(map(_once, group)))


def _once(run: RunRecord) -> tuple[Any, ...]:
    """What two runs of a group share where one repeats the other: partitions of other names may be the same."""
    return (
        run.config.get("seed"),
        _split_hash(run) if (run.summary or {}).get("split_sha256") else partition(run),
    )


def _undecided(
    usable: Sequence[RunRecord],
    chosen: Sequence[RunRecord],
    found: Mapping[Path, Facts],
    kinds: Sequence[str],
) -> tuple[str, ...]:
    if chosen or not usable:
        return ()
    unlike = [kind for kind in kinds if len(_grouped(usable, found, (kind,))) > 1]
    return (
        f"none is averaged: its runs differ in {' and '.join(unlike)}, and no more of them agree than differ",
    )


def _unlike(own: Facts, other: Facts, kinds: Sequence[str], whose: str) -> tuple[Flag, ...]:
    return tuple(
        Flag(kind, _told(unlike, whose)) for kind in kinds if (unlike := differences(own[kind], other[kind]))
    )


def _told(unlike: Sequence[tuple[str, Any, Any]], whose: str) -> str:
    parts = [f"{key}={shown(mine)} ({whose} {shown(theirs)})" for key, mine, theirs in unlike[:SHOWN_KEYS]]
    more = len(unlike) - SHOWN_KEYS
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _newest(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[tuple[RunRecord, Flag]]]:
    """Keep the last finished one of runs with the same seed and images; ordered by seed and partition."""
    kept: dict[tuple[Any, ...], RunRecord] = {}
    repeats = []
    for run in sorted(runs, key=_finished):
        former = kept.get(key := _once(run))
        if former is not None:
            repeats.append((former, Flag("repeat", f"{run.path} repeats it and finished later")))
        kept[key] = run
    return sorted(kept.values(), key=_order), repeats


def _order(run: RunRecord) -> tuple[Any, ...]:
    return sort_rank("seed", str(run.config.get("seed")), None), str(partition(run))


def _finished(run: RunRecord) -> tuple[float, str]:
    return (run.path / "summary.json").stat().st_mtime, str(run.path)


def _mixed(
    averaged: Sequence[RunRecord],
    key: Mapping[str, str],
    found: Mapping[Path, Facts],
    mix: Sequence[str],
) -> list[Flagged]:
    """Flag averaged runs that differ from most of them in what was asked to be mixed."""
    flags: dict[Path, list[Flag]] = defaultdict(list)
    for kind in mix:
        first, *others = _grouped(averaged, found, (kind,)) or [[]]
        for run in (run for group in others for run in group):
            unlike = differences(found[run.path][kind], found[first[0].path][kind])
            flags[run.path].append(Flag(kind, _told(unlike, "most:"), averaged=True))
    return [Flagged(run, key, tuple(flags[run.path])) for run in averaged if run.path in flags]
