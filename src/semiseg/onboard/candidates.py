"""Layouts that pair pictures of a folder by their names, whatever the pictures show."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

from semiseg.data.folder_files import NameEnds, mask_among
from semiseg.name_keys import name_key
from semiseg.onboard.layout import KnownLayout, Layout
from semiseg.onboard.picture_names import JOINED_NAMES, PictureNames

MAX_FOLDERS = 40
MAX_SIBLINGS = 12
MAX_KINDS = 16
MAX_CANDIDATES = 60


@dataclass(frozen=True)
class Candidate:
    """A layout, and the pairs that it makes.

    Args:
        layout: the layout.
        pairs: mask file of each image file that has one.
        files: all image files.
    """

    layout: Layout
    pairs: Mapping[Path, Path]
    files: Sequence[Path]

    @property
    def images(self) -> int:
        """Number of all image files."""
        return len(self.files)


@dataclass(frozen=True)
class _Joined:
    """A layout with an estimate of its number of pairs, and one of them."""

    layout: Layout
    pairs: int
    first: tuple[Path, Path]


def candidates(names: PictureNames, given: KnownLayout) -> list[Candidate]:
    """Return the layouts that pair names, those with the most pairs first; of equal ones the simplest.

    Args:
        names: pictures of the dataset.
        given: known settings of the layout.
    """
    joined = [each for pair in _pattern_pairs(names.files, given) for each in _joined(names, *pair, given)]
    simplest: dict[object, _Joined] = {}
    for each in sorted(joined, key=lambda each: simplicity(each.layout)):
        simplest.setdefault((each.pairs, each.first, len(names.named(each.layout.images))), each)
    likely = sorted(simplest.values(), key=lambda each: (-each.pairs, simplicity(each.layout)))
    counted = [counted for each in likely[:MAX_CANDIDATES] if (counted := count_pairs(names, each.layout))]
    return _distinct(counted)


def simplicity(layout: Layout) -> tuple[object, ...]:
    """Key by which a simple layout comes before others of the same files."""
    ends = (layout.image_suffix, layout.mask_suffix, layout.image_prefix, layout.mask_prefix)
    patterns = (layout.images, layout.masks)
    stars = sum(each.count("*") for each in patterns)
    return sum(map(bool, ends)), stars, sum(map(len, (*ends, *patterns))), patterns, ends


def count_pairs(names: PictureNames, layout: Layout) -> Candidate | None:
    """Find all pairs of a layout as ``find_files`` does; ``None`` without any, or where that refuses."""
    same = layout.images == layout.masks
    masks: dict[str, Path] = {}
    for name, files in names.named(layout.masks).items():
        image_id = layout.mask_ends.id_of(name)
        mask = mask_among(files) if same and layout.mask_ends == NameEnds() else files[0]
        if image_id is not None and mask is not None:
            masks[name_key(image_id)] = mask
    taken = set(masks.values())
    pairs: dict[Path, Path] = {}
    images: list[Path] = []
    seen: set[str] = set()
    for name, files in names.named(layout.images).items():
        free = [file for file in files if file not in taken]
        if not free:
            continue
        images.append(free[0])
        image_id = layout.image_ends.id_of(name) or name
        if image_id in seen:
            return None  # two images of one id
        seen.add(image_id)
        mask = masks.get(name_key(image_id)) or masks.get(name_key(image_id + free[0].suffix))
        if mask is not None:
            pairs[free[0]] = mask
    return Candidate(layout, pairs, images) if pairs else None


def _distinct(found: Iterable[Candidate]) -> list[Candidate]:
    """Leave out layouts whose pairs another one has too; of equal ones the one with more images, then the simplest."""
    kept: list[Candidate] = []
    ordered = sorted(found, key=lambda each: (-len(each.pairs), -each.images, simplicity(each.layout)))
    for each in ordered:
        if not any(each.pairs.items() <= other.pairs.items() for other in kept):
            kept.append(each)
    return kept


def _joined(names: PictureNames, images: str, masks: str, given: KnownLayout) -> Iterator[_Joined]:
    """Layouts of two patterns of folders: beginnings and endings without which names are equal."""
    counts: Counter[tuple[NameEnds, NameEnds]] = Counter()
    firsts: dict[tuple[NameEnds, NameEnds], tuple[Path, Path]] = {}
    shown, masked = names.named(images), names.named(masks)
    small, large, turned = (masks, images, True) if len(masked) <= len(shown) else (images, masks, False)
    ids = names.ids(large)
    for key, ends, name in names.some_ids(small):
        for other_ends, other in ids.get(key, ()):
            both = ((other_ends, other), (ends, name)) if turned else ((ends, name), (other_ends, other))
            pair = _pair(shown, masked, both, images == masks)
            if pair is not None:
                kinds = both[0][0], both[1][0]
                counts[kinds] += 1
                firsts.setdefault(kinds, pair)
    total = len(names.named(small))
    share = total / max(min(total, JOINED_NAMES), 1)
    for (image_ends, mask_ends), count in counts.most_common(MAX_KINDS):
        layout = Layout(
            images, masks, image_ends.suffix, mask_ends.suffix, image_ends.prefix, mask_ends.prefix
        )
        if given.admits(layout):
            yield _Joined(layout, round(count * share), firsts[image_ends, mask_ends])


def _pair(
    shown: Mapping[str, Sequence[Path]],
    masked: Mapping[str, Sequence[Path]],
    both: tuple[tuple[NameEnds, str], tuple[NameEnds, str]],
    same_folder: bool,
) -> tuple[Path, Path] | None:
    """Image and mask of two names; ``None`` where these cannot be a pair, or differ more than they have to."""
    (image_ends, image), (mask_ends, mask) = both
    if (image_ends.prefix and image_ends.prefix == mask_ends.prefix) or (
        image_ends.suffix and image_ends.suffix == mask_ends.suffix
    ):
        return None
    mask_file = masked[mask][0]
    if same_folder and image == mask:
        found = mask_among(shown[image])
        if found is None or image_ends != mask_ends:
            return None
        mask_file = found
    image_file = next((file for file in shown[image] if file != mask_file), None)
    return None if image_file is None else (image_file, mask_file)


def _pattern_pairs(files: Mapping[str, Path], given: KnownLayout) -> Iterator[tuple[str, str]]:
    """Folders of images and of masks that may belong together."""
    folders = _folders(files)
    siblings = Counter(folder.parent for folder in folders if folder.parts)
    # Many neighbors, such as one folder a video, are all alike, and their patterns stand for them.
    few = [folder for folder in folders if not folder.parts or siblings[folder.parent] <= MAX_SIBLINGS]
    near = sorted(few, key=lambda folder: (len(folder.parts), folder))[:MAX_FOLDERS]
    plain = [str(folder) for folder in near]
    starred = _starred(folders)[:MAX_FOLDERS]
    pairs = [*product(plain, plain), *product(starred, starred), *_longer(near)]
    pairs += [*product(plain, starred), *product(starred, plain)]
    if given.images is not None or given.masks is not None:
        pairs += product([given.images or each for each in plain], [given.masks or each for each in plain])
    for first, second in dict.fromkeys(pairs):
        if given.images in (None, first) and given.masks in (None, second):
            yield first, second


def _folders(files: Iterable[str]) -> list[PurePosixPath]:
    """Folders with pictures in or below them, without those around the deepest that holds all of them."""
    holding = {PurePosixPath(folder) for folder in {file.rpartition("/")[0] for file in files}}
    top = PurePosixPath(os.path.commonpath(holding))
    return sorted(
        {folder for each in holding for folder in (each, *each.parents) if folder.is_relative_to(top)}
    )


def _starred(folders: Sequence[PurePosixPath]) -> list[str]:
    """Patterns with a ``*`` for the parts in which folders of one name and depth differ."""
    found: dict[str, None] = {}
    for key in _same_name, _same_but_one:
        groups: dict[object, list[PurePosixPath]] = defaultdict(list)
        for folder in folders:
            for each in key(folder):
                groups[each].append(folder)
        for group in groups.values():
            if len(group) > 1:
                parts = zip(*(folder.parts for folder in group), strict=True)
                found["/".join(each[0] if len(set(each)) == 1 else "*" for each in parts)] = None
    found |= dict.fromkeys(_like(found, folders))
    return sorted(found, key=lambda pattern: (pattern.count("*"), pattern))


def _like(patterns: Iterable[str], folders: Sequence[PurePosixPath]) -> list[str]:
    """Patterns for other folders with a ``*`` at the places where some patterns have it."""
    places = {
        (len(parts), tuple(place for place, part in enumerate(parts) if part == "*"))
        for parts in (pattern.split("/") for pattern in patterns)
    }
    return [
        "/".join("*" if place in stars else part for place, part in enumerate(folder.parts))
        for depth, stars in places
        for folder in folders
        if len(folder.parts) == depth and depth - 1 not in stars
    ]


def _same_name(folder: PurePosixPath) -> Iterator[object]:
    yield len(folder.parts), folder.name


def _same_but_one(folder: PurePosixPath) -> Iterator[object]:
    for place in range(len(folder.parts) - 1):
        yield place, folder.parts[:place], folder.parts[place + 1 :]


def _longer(folders: Sequence[PurePosixPath]) -> Iterator[tuple[str, str]]:
    """Patterns for neighbors such as train and trainannot, val and valannot."""
    for shorter, longer in product(folders, folders):
        ending = longer.name.removeprefix(shorter.name)
        if shorter.parent == longer.parent and shorter.name and ending not in ("", longer.name):
            yield str(shorter.parent / "*"), str(shorter.parent / f"*{ending}")
