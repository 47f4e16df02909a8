"""Search for the images of an own dataset and for their masks."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from semiseg.data.file_tree import count_endings, files_below, is_own
from semiseg.data.image_files import image_files, images_by_stem
from semiseg.data.pair_lists import read_pair_lists
from semiseg.errors import UserError, nearest
from semiseg.name_keys import pair_names
from semiseg.splits.lists import IMAGE_SUFFIXES, MASK_SUFFIXES, require_ids, shown, spread

TREE = """\
  ROOT/
    images/  a.jpg  b.png ...            (subfolders allowed)
    masks/   a.png ...                   (same names; PNG with class indices; none for unlabeled images)
    val.txt                              (names of the validation images; or images/val/ and masks/val/)
`semiseg init ROOT` finds other layouts and color-coded masks, and writes the settings for them."""
COMPARED_NAMES = 200
COMPARED_IMAGES = 50
ALIKE = 0.3
EXPLAINED = 20


@dataclass(frozen=True)
class NameEnds:
    """Beginning and ending of files' names around their ids.

    Args:
        prefix: what the last part of a name begins with.
        suffix: what a name ends in; "/image", or a whole name such as "image", is that of a file in a folder of
            the id.
    """

    prefix: str = ""
    suffix: str = ""

    def id_of(self, name: str) -> str | None:
        """Return the id in a name (a path without extension); ``None`` where its ends are others."""
        folder, _, last = name.rpartition("/")
        suffix = self.suffix.removeprefix("/")
        if not last.startswith(self.prefix) or not last.endswith(suffix):
            return None
        if len(self.prefix) + len(suffix) > len(last) or (self.suffix.startswith("/") and last != suffix):
            return None
        rest = last[len(self.prefix) : len(last) - len(suffix)]
        return "/".join(part for part in (folder, rest) if part) or None

    def name_of(self, image_id: str) -> str:
        """Return the name of an id."""
        if self.suffix.startswith("/"):
            return f"{image_id}{self.suffix}"
        folder, slash, last = image_id.rpartition("/")
        return f"{folder}{slash}{self.prefix}{last}{self.suffix}"


@dataclass(frozen=True)
class FolderFiles:
    """Images and masks by id, and the places of missing ones.

    Args:
        base: folder of the dataset.
        image_pattern: folder of the images; may contain ``*``.
        mask_pattern: folder of the masks; may contain ``*``.
        mask_ends: beginning and ending of a mask's name.
        images: image file of each id.
        masks: mask file of each id.
        other_names: mask files whose names differ from their images' in case or Unicode form, by id.
        tiles: ids of the tiles of each picture that is cut, by the picture's id.
    """

    base: Path
    image_pattern: str
    mask_pattern: str
    mask_ends: NameEnds
    images: dict[str, Path]
    masks: dict[str, Path]
    other_names: dict[str, Path] = field(default_factory=dict)
    tiles: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """Sorted ids of everything that has an image or a mask."""
        return sorted(self.images.keys() | self.masks.keys())

    def listed(self, path: Path) -> tuple[str, ...]:
        """Read an id list, see ``require_ids``; a picture that is cut stands for all its tiles."""
        named = require_ids(path, [*self.ids, *self.tiles])
        return tuple(tile for image_id in named for tile in self.tiles.get(image_id, (image_id,)))

    def image(self, image_id: str) -> Path:
        """Image file of an id, existing or not."""
        return self.images.get(image_id, self.base / self.image_pattern / f"{image_id}.*")

    def mask(self, image_id: str) -> Path:
        """Mask file of an id, existing or not."""
        missing = self.base / self.mask_pattern / f"{self.mask_ends.name_of(image_id)}.png"
        return self.masks.get(image_id, missing)

    def missing_images(self) -> dict[str, str]:
        """Reasons for the masks without image, by id: the image's ending is not read, or the nearest name."""
        missing = [image_id for image_id in self.masks if image_id not in self.images]
        if not missing:
            return {}
        unread = {
            f"{lead}{path.relative_to(folder).with_suffix('').as_posix()}": path
            for lead, folder in folders(self.base, self.image_pattern).items()
            for path in files_below(folder)
            if path.suffix.lower() not in IMAGE_SUFFIXES
        }
        waiting = [image_id for image_id in self.images if image_id not in self.masks][:COMPARED_NAMES]
        reasons = {}
        for place, image_id in enumerate(missing):
            near = nearest(image_id, waiting) if place < EXPLAINED else None
            if image_id in unread:
                file = unread[image_id]
                reasons[image_id] = (
                    f"image missing: {file.name} is there, but {file.suffix or 'a name without ending'} is not "
                    f"among {' '.join(IMAGE_SUFFIXES)}"
                )
            elif near is not None:
                reasons[image_id] = (
                    f"image missing: none is named as {self.masks[image_id].name}; nearest is {self.images[near].name}"
                )
        return reasons


def find_files(
    base: Path,
    images: str,
    masks: str,
    image_ends: NameEnds = NameEnds(),
    mask_ends: NameEnds = NameEnds(),
    pairs: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
) -> FolderFiles:
    """Search images and masks.

    A ``*`` in a folder matches any folder name, with which the ids then begin: ``*/images`` and ``*/masks``
    give "train/a" for train/images/a.jpg and train/masks/a.png. A file that is a mask is no image, so both
    may lie in one folder; of two files of one name there, the mask is the PNG, or else the one without loss. Names
    of images and masks match as ``NameIndex`` says, and a mask may repeat its image's extension (a.jpg.png).

    Args:
        base: folder of the dataset.
        images: folder of the images below it, or elsewhere.
        masks: folder of the masks below it, or elsewhere.
        image_ends: what names of images begin and end with; those of others are ids as they are.
        mask_ends: what names of masks begin and end with; files of other names are no masks.
        pairs: lists of images and their masks, below the folder or elsewhere, in place of ``masks``.
        leave_out: paths without extension, relative to the folder, of files that are no images; ``*`` stands for any
            text.
        suffixes: endings of images.

    Raises:
        UserError: no image, no image with a mask, two files of one id, or a list with files that are not there.
    """
    lists = [base / Path(each).expanduser() for each in pairs]
    listed = read_pair_lists(base, lists, image_files(base, suffixes)) if lists else {}
    by_name = {} if pairs else _mask_names(base, images, masks, mask_ends)
    masked = {i: path for name, path in by_name.items() if (i := mask_ends.id_of(name)) is not None}
    aside = matching(base, leave_out)
    taken = frozenset((*masked.values(), *listed.values()))
    found = _files(base, images, lambda path: path not in taken and not aside(path), suffixes)
    if not found:
        raise UserError(f"{_no_images(base / images)}. Expected:\n{TREE}")
    by_id = _image_ids(found, image_ends)
    if pairs:
        return FolderFiles(base, images, ".", NameEnds(), by_id, _masks_listed(listed, by_id, base / images))
    meant = {
        name: image_id for image_id, path in by_id.items() for name in (image_id + path.suffix, image_id)
    }
    matched = pair_names(masked, meant, "mask", "image")
    if not matched:
        raise UserError(_no_pair(base, (images, masks), by_id, by_name, mask_ends))
    ids = {name: matched.get(name, name) for name in masked}
    other = {ids[name]: masked[name] for name in masked if ids[name] != name}
    return FolderFiles(
        base, images, masks, mask_ends, by_id, {ids[name]: masked[name] for name in masked}, other
    )


def _mask_names(base: Path, images: str, masks: str, ends: NameEnds) -> dict[str, Path]:
    """Files that may be masks, by their names without extension."""
    if not set(folders(base, images).values()) & set(folders(base, masks).values()):
        return _files(base, masks)
    if ends != NameEnds():
        return _files(
            base,
            masks,
            lambda path: _is_lossless(path) and ends.id_of(path.with_suffix("").as_posix()) is not None,
        )
    found = pictures_in(base, masks)
    return {name: mask for name, paths in found.items() if (mask := mask_among(paths))}


def pictures_in(base: Path, pattern: str) -> dict[str, list[Path]]:
    """Return all pictures of a pattern of folders by name, several where they differ in the extension alone."""
    found: dict[str, list[Path]] = defaultdict(list)
    for lead, folder in folders(base, pattern).items():
        for path in image_files(folder):
            found[f"{lead}{path.relative_to(folder).with_suffix('').as_posix()}"].append(path)
    return dict(found)


def mask_among(paths: Sequence[Path]) -> Path | None:
    """Of pictures of one name in one folder the mask: the PNG, else the only one without loss beside others."""
    lossless = [path for path in paths if _is_lossless(path)]
    png = [path for path in lossless if path.suffix.lower() == ".png"]
    return next(iter(png or (lossless if len(lossless) == 1 < len(paths) else [])), None)


def _is_lossless(path: Path) -> bool:
    return path.suffix.lower() in MASK_SUFFIXES


def matching(base: Path, patterns: Sequence[str]) -> Callable[[Path], bool]:
    """Return a test of whether a path without its extension, relative to a folder, is as one of some patterns says."""
    if not patterns:
        return lambda path: False
    joined = "|".join(".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    expression = re.compile(joined, re.DOTALL)
    return lambda path: bool(
        expression.fullmatch(Path(os.path.relpath(path, base)).with_suffix("").as_posix())
    )


def _image_ids(found: Mapping[str, Path], ends: NameEnds) -> dict[str, Path]:
    by_id: dict[str, Path] = {}
    for name, path in found.items():
        other = by_id.setdefault(ends.id_of(name) or name, path)
        if other != path:
            raise UserError(f"{other} and {path} have the same id: rename or remove one")
    return by_id


def _masks_listed(listed: Mapping[Path, Path], by_id: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Masks that lists name, by the ids of their images."""
    ids = {path.resolve(): image_id for image_id, path in by_id.items()}
    if outside := [path for path in listed if path.resolve() not in ids]:
        raise UserError(
            f"{len(outside)} images of dataset.pairs do not lie in {folder}, such as {outside[0]}; set dataset.images "
            "to a folder that holds all of them"
        )
    return {ids[image.resolve()]: mask for image, mask in listed.items()}


def folders(base: Path, pattern: str) -> dict[str, Path]:
    """Folders that match a pattern, by the text that its ``*`` matches and ``/``; by "" for a pattern without ``*``.

    Only a ``*`` of the pattern is one: the base is taken as it is.
    """
    given = Path(pattern).expanduser()
    start = Path(given.anchor) if given.is_absolute() else base
    found: dict[tuple[str, ...], Path] = {(): start}
    for part in given.relative_to(given.anchor).parts:
        if "*" not in part:
            found = {lead: folder / part for lead, folder in found.items()}
            continue
        expression = re.compile("([^/.][^/]*)".join(map(re.escape, part.split("*"))))
        found = {
            (*lead, *match.groups()): folder / name
            for lead, folder in found.items()
            for name in _subfolders(folder)
            if (match := expression.fullmatch(name))
        }
    if "*" not in given.relative_to(given.anchor).as_posix():
        return {"": found[()]}
    return {f"{'/'.join(lead)}/": folder for lead, folder in sorted(found.items()) if folder.is_dir()}


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if is_own(each.name) and each.is_dir())


def _files(
    base: Path,
    pattern: str,
    keep: Callable[[Path], bool] = lambda path: True,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
) -> dict[str, Path]:
    """Pictures by their names without extension, after the text that the pattern's ``*`` matches."""
    found: dict[str, Path] = {}
    for lead, folder in folders(base, pattern).items():
        kept = [path for path in image_files(folder, suffixes) if keep(path)]
        found |= {f"{lead}{stem}": path for stem, path in images_by_stem(folder, kept).items()}
    return found


def _no_images(folder: Path) -> str:
    """What a folder holds that has no images."""
    if "*" in str(folder) or folder.is_dir():
        held = count_endings(files_below(folder))
        return f"no images in {folder}" + (f": it holds {', '.join(held[:5])}" if held else "")
    return f"no images in {folder}: there is no such folder"


def _no_pair(
    base: Path,
    patterns: tuple[str, str],
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    ends: NameEnds,
) -> str:
    """Message for images none of which has a mask: counts by ending, and the nearest names."""
    image_id = next(iter(images))
    held = "no pictures"
    if masks:
        held = f"{', '.join(count_endings(masks.values()))}, for example {next(iter(masks.values())).name}"
    near = nearest_pair(images, masks)
    closest = f"; {near[0].name} and {near[1].name} are nearest" if near else ""
    return (
        f"no image in {base / patterns[0]} has a mask in {base / patterns[1]}: {images[image_id].name} needs "
        f"{ends.name_of(image_id)}.png there, but it holds {held}. The images are "
        f"{', '.join(count_endings(images.values()))}{closest}. If all masks' names end alike, set "
        f"dataset.mask_suffix; `semiseg init {base}` finds the settings of other layouts"
    )


def nearest_pair(images: Mapping[str, Path], masks: Mapping[str, Path]) -> tuple[Path, Path] | None:
    """Return the image and the mask whose names are most alike, of a bounded number; ``None`` without any alike."""
    some = spread(sorted(images), min(COMPARED_IMAGES, len(images)))
    others = spread(sorted(masks), min(COMPARED_NAMES, len(masks)))
    best: tuple[float, str, str] | None = None
    for name in some:
        matcher = SequenceMatcher(b=_compared(name), autojunk=False)
        for other in others:
            matcher.set_seq1(_compared(other))
            least = best[0] if best else ALIKE
            if (
                matcher.real_quick_ratio() > least
                and matcher.quick_ratio() > least
                and matcher.ratio() > least
            ):
                best = matcher.ratio(), name, other
    return (images[best[1]], masks[best[2]]) if best else None


def _compared(name: str) -> str:
    """A name without case and without the zeros before numbers."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold())


def images_elsewhere(
    folder: Path, images: Mapping[str, Path], suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> dict[str, Path]:
    """Images of a further folder by their ids, which begin with its name; images listed already are left out.

    Raises:
        UserError: no such folder, or an id that another image has.
    """
    if not folder.is_dir():
        raise UserError(f"dataset.unlabeled is no folder: {folder}")
    known = {path.resolve() for path in images.values()}
    further = {
        f"{folder.name}/{stem}": path
        for stem, path in images_by_stem(folder, image_files(folder, suffixes)).items()
        if path.resolve() not in known
    }
    if both := sorted(further.keys() & images.keys()):
        raise UserError(
            f"{folder} and the folder of images give the same ids: {shown(both)}; rename one folder"
        )
    return further
