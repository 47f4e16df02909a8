"""Choice of a layout among several that pair images with files: by look, then by name, then by number."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from semiseg.data.folder_files import NameEnds
from semiseg.onboard.candidates import Candidate, simplicity
from semiseg.onboard.folder_words import image_rank, mask_rank, nearness
from semiseg.onboard.looks import Likeness, colored, likeness, numbers_instances, same_labels

RECORD = "predict.json"
PREDICTED = 3
"""Rank of what ``semiseg predict`` wrote, whatever its name."""

FEW = 10
"""Of two kinds of masks of the same images the one with less than the tenth part of the pairs is no rival."""


@dataclass(frozen=True)
class Ranked:
    """A layout with what it is compared by.

    Args:
        candidate: the layout and its pairs.
        likeness: how much its masks look like masks of its images.
        mask_rank: how its masks are named, see ``folder_words``.
        image_rank: how its images are named.
        colored: whether its masks show colors instead of numbers.
        nearness: number of folders that hold both images and masks.
        ends: number of beginnings and endings that are left out of names.
        listed: whether a list names its pairs.
    """

    candidate: Candidate
    likeness: Likeness
    mask_rank: int
    image_rank: int
    colored: bool
    nearness: int
    ends: int
    listed: bool = False

    @property
    def pairs(self) -> int:
        """Number of images with a mask."""
        return len(self.candidate.pairs)

    def order(self) -> tuple[object, ...]:
        """Key by which the better of two comes first."""
        return (
            -self.likeness,
            not self.listed,
            self.mask_rank,
            self.image_rank,
            self.colored,
            -self.nearness,
            self.ends,
            -self.pairs,
            -self.candidate.images,
            simplicity(self.candidate.layout),
        )


@dataclass(frozen=True)
class Choice:
    """The best layout, and what else there is.

    Args:
        best: the best layout.
        rivals: layouts that may be meant as well.
        others: layouts that pair images with files that look like masks, and are not meant.
    """

    best: Ranked
    rivals: tuple[Ranked, ...]
    others: tuple[Ranked, ...]


def ranked(candidate: Candidate, listed: bool = False) -> Ranked:
    """Measure what a layout is compared by."""
    layout = candidate.layout
    images, masks = predicted(candidate.pairs.keys()), predicted(candidate.pairs.values())
    return Ranked(
        candidate,
        likeness(candidate.pairs),
        PREDICTED if masks else mask_rank(layout),
        PREDICTED if images else image_rank(layout),
        colored(candidate.pairs),
        nearness(layout),
        sum(ends != NameEnds() for ends in (layout.image_ends, layout.mask_ends)),
        listed,
    )


def predicted(files: Iterable[Path]) -> bool:
    """Whether ``semiseg predict`` wrote files."""
    first = min(files)
    return any((folder / RECORD).is_file() for folder in first.parents[1:3])


def choose(found: Iterable[Ranked]) -> Choice:
    """Choose among layouts; there has to be one.

    Args:
        found: all layouts that pair images with files.
    """
    ordered = _uncrossed(sorted(found, key=Ranked.order))
    best = ordered[0]
    for each in ordered[1:]:
        if (
            each.likeness == best.likeness
            and each.mask_rank <= max(best.mask_rank, 1)
            and _instances(best, each)
        ):
            best = each
    rest = [each for each in ordered if each is not best]
    rivals = [each for each in rest if not settled(best, each)]
    own = set(best.candidate.files)
    others = [
        each
        for each in rest
        if each not in rivals and each.likeness > Likeness.NONE and not _is_within(each, best, own)
    ]
    return Choice(best, tuple(rivals), tuple(others))


def _uncrossed(ordered: Sequence[Ranked]) -> list[Ranked]:
    """Leave out layouts that pair the images of a better one with the masks of a better one, each nearer to its own."""
    kept: list[Ranked] = []
    for each in ordered:
        pairs = each.candidate.pairs
        of_images = [other for other in kept if pairs.keys() <= other.candidate.pairs.keys()]
        of_masks = [other for other in kept if set(pairs.values()) <= set(other.candidate.pairs.values())]
        both_nearer = all(
            any(other.nearness > each.nearness for other in owners) for owners in (of_images, of_masks)
        )
        if not both_nearer and not any(other in of_masks for other in of_images):
            kept.append(each)
    return kept


def settled(best: Ranked, other: Ranked) -> bool:
    """Whether it is plain that the better of two layouts is meant."""
    if other.likeness < best.likeness or best.listed != other.listed:
        return True
    if best.mask_rank < other.mask_rank or best.image_rank < other.image_rank:
        return True
    if not set(best.candidate.pairs.values()).isdisjoint(other.candidate.pairs.values()):
        return best.nearness > other.nearness or best.ends < other.ends
    if best.candidate.pairs.keys().isdisjoint(other.candidate.pairs):
        return 2 * other.pairs < best.pairs
    if same_labels(best.candidate.pairs, other.candidate.pairs) or _instances(other, best):
        return True
    return FEW * other.pairs < best.pairs


def _is_within(other: Ranked, best: Ranked, images: Set[Path]) -> bool:
    """Whether a layout pairs images and masks of the best one in another way."""
    pairs = other.candidate.pairs
    return pairs.keys() <= images and set(pairs.values()) <= set(best.candidate.pairs.values())


def _instances(first: Ranked, second: Ranked) -> bool:
    return numbers_instances(first.candidate.pairs, second.candidate.pairs)
