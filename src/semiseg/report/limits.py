"""What limits the numbers of a study: the findings of each run's check before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semiseg.contracts.score_names import absent_remark
from semiseg.report.records import RunRecord

KINDS = {"labeled": "labeled", "unlabeled": "unlabeled", "val": "validation", "test": "test"}
"""Names of kinds of images."""


@dataclass(frozen=True)
class LimitedRun:
    """Findings of the check before training of one run.

    Args:
        run: the run.
        labeled_share: share of labeled pixels in the labeled images; ``None`` where it is not known.
        missing: classes without a pixel in the masks, by kind of images.
        copies: images that show the same as others, in words.
        groups: groups on several sides, in words.
        skipped: number of bad files that were left out.
    """

    run: RunRecord
    labeled_share: float | None
    missing: Mapping[str, Sequence[str]]
    copies: tuple[str, ...]
    groups: tuple[str, ...]
    skipped: int


@dataclass(frozen=True)
class Limit:
    """A sentence about what limits the numbers of runs.

    Args:
        text: the sentence, without full stop.
        warning: whether it is a warning, and no note.
        runs: runs that it is about.
    """

    text: str
    warning: bool
    runs: tuple[RunRecord, ...]


def limited_runs(runs: Sequence[RunRecord]) -> list[LimitedRun]:
    """Return the findings of the runs that stored some; runs of earlier versions did not."""
    return [_limited(run, run.trust) for run in runs if run.trust]


def limits(runs: Sequence[RunRecord]) -> list[Limit]:
    """Return each sentence about runs once, warnings first."""
    found: dict[tuple[bool, str], list[RunRecord]] = {}
    for run in runs:
        for text in warnings(run):
            found.setdefault((True, text), []).append(run)
        for text in run.trust.get("notes") or ():
            found.setdefault((False, text), []).append(run)
    sentences = [Limit(text, warning, tuple(own)) for (warning, text), own in found.items()]
    return sorted(sentences, key=lambda each: not each.warning)


def warnings(run: RunRecord) -> list[str]:
    """Return what makes the score of a run mean less than its number says.

    Classes that no mask held are named as the result counts them, else as the check before training foresaw it.
    """
    parts = (("validation", ""), ("test", "_test"))
    remarks = [absent_remark(run.results, run.names, *part) for part in parts] if run.results else []
    unmeasured = [remark for remark in remarks if remark] or run.trust.get("unmeasured") or ()
    return list(dict.fromkeys((*unmeasured, *(run.trust.get("warnings") or ()))))


def _limited(run: RunRecord, trust: Mapping[str, Any]) -> LimitedRun:
    copies = (
        f"{each['equal'] + each['near']:,} {KINDS[each['second']]} like {KINDS[each['first']]}"
        for each in trust.get("copies") or ()
    )
    groups = (
        f"{group}: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items())}"
        for group, kinds in (trust.get("shared_groups") or {}).items()
    )
    missing = {kind: names for kind, names in (trust.get("missing_classes") or {}).items() if names}
    share = trust.get("labeled_share")
    return LimitedRun(run, share, missing, tuple(copies), tuple(groups), trust.get("skipped_files") or 0)
