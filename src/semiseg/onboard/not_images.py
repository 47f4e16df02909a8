"""Pictures among the images that are none: masks of another kind, previews and the like, which are left out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from semiseg.data.folder_files import matching
from semiseg.onboard.candidates import Candidate
from semiseg.onboard.folder_words import made_of_others, said_to_be_made
from semiseg.onboard.layout import Layout
from semiseg.onboard.looks import looks_drawn, size_of, some_of

SHOWN_FOLDERS = 4
SAME_SHAPE = 1.05
"""Largest factor between the shapes of a picture and of a smaller copy, whose sides are rounded."""


def not_images(base: Path, best: Candidate, found: Sequence[Candidate]) -> tuple[str, ...]:
    """Patterns of the files among a layout's images that are made of the images, as ``leave_out`` of ``find_files``.

    Files are made of images where they pair with them by name, and look like masks, are scaled copies, or are
    called so. A pattern that images with masks fit too says nothing: photos may be called 9_2_s and 9_21_s.

    Args:
        base: folder of the dataset.
        best: the chosen layout.
        found: all layouts that pair names.
    """
    free = frozenset(best.files) - best.pairs.keys()
    patterns: list[str] = []
    covered: set[Path] = set()
    for each in found:
        made = {image: file for image, file in each.pairs.items() if file in free}
        new = set(made.values()) - covered
        if new and 2 * len(made) > len(each.pairs) and _derived(each, made):
            own = tuple(_patterns(each.layout))
            if not any(map(matching(base, own), best.pairs)):
                patterns += own
                covered |= new
    return tuple(patterns)


def more_images(
    base: Path, pictures: Iterable[Path], best: Candidate, found: Sequence[Candidate]
) -> list[str]:
    """Notes about folders whose pictures may be unlabeled images: they look like no masks, and are not made of images.

    Args:
        base: folder of the dataset.
        pictures: all pictures below it.
        best: the chosen layout.
        found: all layouts that pair names.
    """
    made = {file for each in found if _derived(each, each.pairs) for file in each.pairs.values()}
    used = {*best.files, *best.pairs.values()}
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in pictures:
        folders[path.parent].append(path)
    return [
        f"{len(held):,} pictures in {folder.relative_to(base)} are not used; if they are unlabeled images, add "
        f"`unlabeled: {folder.relative_to(base)}` to the config"
        for folder, held in folders.items()
        if folder != base and made.isdisjoint(held) and used.isdisjoint(held)
        if not said_to_be_made(folder.relative_to(base)) and not looks_drawn(some_of(held))
    ][:SHOWN_FOLDERS]


def _derived(candidate: Candidate, made: Mapping[Path, Path]) -> bool:
    images = some_of(sorted(made))
    files = [made[image] for image in images]
    scaled = sum(_scaled(size_of(image), size_of(file)) for image, file in zip(images, files, strict=True))
    return made_of_others(candidate.layout) or looks_drawn(files) or 2 * scaled > len(files)


def _scaled(size: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether two sizes differ and have one shape; a photo that stands beside one that lies is none made of it."""
    if size is None or other is None:
        return size != other
    shapes = size[0] * other[1], size[1] * other[0]
    return size != other and max(shapes) <= SAME_SHAPE * min(shapes)


def _patterns(layout: Layout) -> Iterator[str]:
    """Paths of a layout's masks, with ``*`` for their ids."""
    folder = "" if layout.masks == "." else f"{layout.masks}/"
    yield f"{folder}{layout.mask_prefix}*{layout.mask_suffix}"
    if layout.mask_prefix:
        yield f"{folder}*/{layout.mask_prefix}*{layout.mask_suffix}"
