"""Pictures among the images that are none: masks of another kind, previews and the like, which are left out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from semiseg.onboard.candidates import Candidate
from semiseg.onboard.folder_words import made_of_others, said_to_be_made
from semiseg.onboard.layout import Layout
from semiseg.onboard.looks import looks_drawn, size_of, some_of

SHOWN_FOLDERS = 4


def not_images(free: frozenset[Path], found: Sequence[Candidate]) -> tuple[str, ...]:
    """Patterns of the files among a layout's images that are made of the images, as ``leave_out`` of ``find_files``.

    Files are made of images where they pair with them by name, and look like masks, are of another size, or are
    called so.

    Args:
        free: images of the chosen layout that have no mask.
        found: all layouts that pair names.
    """
    patterns: list[str] = []
    covered: set[Path] = set()
    for each in found:
        made = {image: file for image, file in each.pairs.items() if file in free}
        new = set(made.values()) - covered
        if new and 2 * len(made) > len(each.pairs) and _derived(each, made):
            patterns += _patterns(each.layout)
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
    other_size = sum(size_of(image) != size_of(file) for image, file in zip(images, files, strict=True))
    return made_of_others(candidate.layout) or looks_drawn(files) or 2 * other_size > len(files)


def _patterns(layout: Layout) -> Iterator[str]:
    """Paths of a layout's masks, with ``*`` for their ids."""
    folder = "" if layout.masks == "." else f"{layout.masks}/"
    yield f"{folder}{layout.mask_prefix}*{layout.mask_suffix}"
    if layout.mask_prefix:
        yield f"{folder}*/{layout.mask_prefix}*{layout.mask_suffix}"
