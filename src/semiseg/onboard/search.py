"""Search for the layout of a folder: its images, its masks, and what else there is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semiseg.data.file_tree import files_below
from semiseg.data.folder_files import TREE
from semiseg.errors import UserError
from semiseg.onboard.candidates import Candidate, candidates
from semiseg.onboard.layout import KnownLayout, Layout
from semiseg.onboard.listed_pairs import listed_candidates
from semiseg.onboard.looks import Likeness, drawn_images
from semiseg.onboard.no_pairs import no_pairs_text
from semiseg.onboard.not_images import more_images, not_images
from semiseg.onboard.picture_names import PictureNames
from semiseg.onboard.ranking import Choice, Ranked, choose, ranked
from semiseg.splits.lists import IMAGE_SUFFIXES

SHOWN_RIVALS = 8
SHOWN_OTHERS = 8


@dataclass(frozen=True)
class FoundLayout:
    """The layout of a folder.

    Args:
        layout: folders and names of images and masks.
        notes: other masks there, and doubts.
        files: all files below the folder.
    """

    layout: Layout
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def find_layout(base: Path, given: KnownLayout, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> FoundLayout:
    """Find the layout that is meant: by the look of the masks, then by names, then by number.

    Args:
        base: folder of the dataset.
        given: known settings of the layout.
        suffixes: endings of images.

    Raises:
        UserError: there is no image, none with a mask, or several layouts may be meant.
    """
    files = files_below(base)
    pictures = {path.relative_to(base).as_posix(): path for path in files if path.suffix.lower() in suffixes}
    if not pictures:
        raise UserError(f"no images in {base}: expected files such as a.jpg and b.png. Expected:\n{TREE}")
    given = given.below(base)
    names = PictureNames(base, pictures)
    paired = [] if given.pairs is not None else candidates(names, given)
    found = [ranked(each) for each in paired if _named(given) or not drawn_images(each.pairs)]
    found = _with_lists(base, files, given, found)
    if not found:
        raise UserError(no_pairs_text(base, files, given, plain=_best_named(paired)))
    choice = choose(found)
    if choice.rivals:
        raise UserError(_several(base, choice))
    best = choice.best
    if best.likeness < Likeness.CLEAR and best.mask_rank and given == KnownLayout():
        raise UserError(no_pairs_text(base, files, given, best.candidate.pairs))
    layout = best.candidate.layout
    layout = replace(layout, leave_out=not_images(base, best.candidate, paired))
    notes = [*_notes(choice), *more_images(base, pictures.values(), best.candidate, paired)]
    return FoundLayout(layout, tuple(notes), tuple(files))


def _with_lists(
    base: Path, files: Sequence[Path], given: KnownLayout, found: Sequence[Ranked]
) -> list[Ranked]:
    """Add the layouts that lists write down; one by names that makes their pairs takes their place."""
    if given.pairs is None and given != KnownLayout():
        return list(found)
    result = list(found)
    for each in listed_candidates(base, files, given.pairs):
        same = [other for other in result if each.pairs.items() <= other.candidate.pairs.items()]
        result = [replace(other, listed=True) if other in same else other for other in result]
        result += [] if same else [ranked(each, listed=True)]
    return result


def _best_named(paired: Sequence[Candidate]) -> Layout | None:
    """The layout whose folders are named best, where looks say nothing because images look like masks too."""
    both = sorted(map(ranked, paired), key=lambda each: (each.mask_rank, each.image_rank, each.order()))
    return both[0].candidate.layout if both else None


def _named(given: KnownLayout) -> bool:
    return given.images is not None or bool(given.image_suffix) or bool(given.image_prefix)


def _notes(choice: Choice) -> list[str]:
    best = choice.best
    notes = []
    if best.mask_rank > 1:
        notes.append(
            f"{best.candidate.layout.masks} is named like predictions or pictures made of masks: what is learned from "
            "it is what it says"
        )
    for each in choice.others[:SHOWN_OTHERS]:
        pairs, layout = each.candidate.pairs, each.candidate.layout
        kind = "other images with masks"
        if not best.candidate.pairs.keys().isdisjoint(pairs):
            same = set(pairs.values()) == set(best.candidate.pairs.values())
            kind = "other images of the same masks" if same else "other masks of the same images"
        notes.append(f"{kind}: {layout.words()} ({len(pairs):,} pairs)")
    if len(choice.others) > SHOWN_OTHERS:
        notes.append(f"and {len(choice.others) - SHOWN_OTHERS} other layouts with fewer pairs or worse names")
    return notes


def _several(base: Path, choice: Choice) -> str:
    """Message that lists layouts that may be meant, with the options that choose them."""
    best = choice.best.candidate
    meant = [choice.best, *choice.rivals]
    lines = []
    for each in meant[:SHOWN_RIVALS]:
        rival = choice.rivals[0].candidate if each is choice.best else best
        lines.append(
            f"  {len(each.candidate.pairs):,} pairs  semiseg init {base} "
            f"{each.candidate.layout.words(unlike=rival.layout)}"
        )
    if len(meant) > SHOWN_RIVALS:
        lines.append(f"  and {len(meant) - SHOWN_RIVALS} more")
    what = "images" if _same_masks(meant) else "masks"
    head = f"{len(meant)} kinds of {what} may be meant, and neither their look nor their names say which"
    return "\n".join([f"{head}. Choose:", *lines])


def _same_masks(meant: Sequence[Ranked]) -> bool:
    first = set(meant[0].candidate.pairs.values())
    return all(not first.isdisjoint(each.candidate.pairs.values()) for each in meant[1:])
