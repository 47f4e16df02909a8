"""Search for the images of an own dataset and for their masks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semiseg.data.image_files import image_files, images_by_stem
from semiseg.errors import UserError
from semiseg.splits.lists import IMAGE_SUFFIXES, read_ids, shown

TREE = """\
  ROOT/
    images/  a.jpg  b.png ...            (subfolders allowed)
    masks/   a.png ...                   (same names; PNG with class indices; none for unlabeled images)
    val.txt                              (names of the validation images; or images/val/ and masks/val/)
`semiseg init ROOT` finds other layouts and color-coded masks, and writes the settings for them."""


@dataclass(frozen=True)
class FolderFiles:
    """Images and masks by id, and the places of missing ones.

    Args:
        image_folder: folder of the images; may contain ``*``.
        mask_folder: folder of the masks; may contain ``*``.
        mask_suffix: ending of a mask's name after its id.
        images: image file of each id.
        masks: mask file of each id.
        tiles: ids of the tiles of each picture that is cut, by the picture's id.
    """

    image_folder: Path
    mask_folder: Path
    mask_suffix: str
    images: dict[str, Path]
    masks: dict[str, Path]
    tiles: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """Sorted ids of everything that has an image or a mask."""
        return sorted(self.images.keys() | self.masks.keys())

    def listed(self, path: Path) -> tuple[str, ...]:
        """Read an id list, see ``read_ids``; a picture that is cut stands for all its tiles."""
        named = read_ids(path, [*self.ids, *self.tiles])
        return tuple(tile for image_id in named for tile in self.tiles.get(image_id, (image_id,)))

    def image(self, image_id: str) -> Path:
        """Image file of an id, existing or not."""
        return self.images.get(image_id, self.image_folder / f"{image_id}.*")

    def mask(self, image_id: str) -> Path:
        """Mask file of an id, existing or not."""
        return self.masks.get(image_id, self.mask_folder / f"{image_id}{self.mask_suffix}.png")


def find_files(
    base: Path,
    images: str,
    masks: str,
    image_suffix: str = "",
    mask_suffix: str = "",
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
) -> FolderFiles:
    """Search images and masks.

    A ``*`` in a folder matches any folder name, with which the ids then begin: ``*/images`` and ``*/masks``
    give "train/a" for train/images/a.jpg and train/masks/a.png. A file that is a mask is no image, so both
    may lie in one folder; there only PNGs are masks.

    Args:
        base: folder of the dataset.
        images: folder of the images below it, or elsewhere.
        masks: folder of the masks below it, or elsewhere.
        image_suffix: ending of an image's name after its id; names without it are ids as they are.
        mask_suffix: ending of a mask's name after its id; files without it are no masks.
        suffixes: extensions of images.

    Raises:
        UserError: no image, no image with a mask, or two files of one id.
    """
    inside = set(folders(base, images).values()) & set(folders(base, masks).values())
    by_stem = _files(base, masks, (".png",) if inside else IMAGE_SUFFIXES)
    masked = {
        stem.removesuffix(mask_suffix): path for stem, path in by_stem.items() if stem.endswith(mask_suffix)
    }
    found = _files(base, images, suffixes, frozenset(masked.values()))
    by_id: dict[str, Path] = {}
    for stem, path in found.items():
        other = by_id.setdefault(stem.removesuffix(image_suffix), path)
        if other != path:
            raise UserError(f"{other} and {path} have the same id: rename or remove one")
    if not found:
        raise UserError(f"no images in {base / images}. Expected:\n{TREE}")
    if not by_id.keys() & masked.keys():
        first = next(iter(by_id))
        held = (
            f"it holds for example {next(iter(by_stem.values())).name}" if by_stem else "it holds no images"
        )
        raise UserError(
            f"no image in {base / images} has a mask in {base / masks}: {by_id[first].name} needs "
            f"{first}{mask_suffix}.png there, but {held}. If all masks' names end alike, set dataset.mask_suffix; "
            f"`semiseg init {base}` finds the settings of other layouts"
        )
    return FolderFiles(base / images, base / masks, mask_suffix, by_id, masked)


def folders(base: Path, pattern: str) -> dict[str, Path]:
    """Folders that match a pattern, by the text that its ``*`` matches and ``/``; by "" for a pattern without ``*``."""
    whole = base / Path(pattern).expanduser()
    fixed = next((place for place, part in enumerate(whole.parts) if "*" in part), None)
    if fixed is None:
        return {"": whole}
    top = Path(*whole.parts[:fixed])
    below = "/".join(whole.parts[fixed:])
    expression = re.compile("([^/.][^/]*)".join(map(re.escape, below.split("*"))))
    found = {}
    for path in sorted(top.glob(below)):
        match = expression.fullmatch(path.relative_to(top).as_posix())
        if match and path.is_dir():
            found["/".join(match.groups()) + "/"] = path
    return found


def _files(
    base: Path, pattern: str, suffixes: tuple[str, ...], leave_out: frozenset[Path] = frozenset()
) -> dict[str, Path]:
    """Files by their names without extension, after the text that the pattern's ``*`` matches."""
    found: dict[str, Path] = {}
    for lead, folder in folders(base, pattern).items():
        kept = [path for path in image_files(folder, suffixes) if path not in leave_out]
        found |= {f"{lead}{stem}": path for stem, path in images_by_stem(folder, kept).items()}
    return found


def images_elsewhere(
    folder: Path, images: Mapping[str, Path], suffixes: tuple[str, ...] = IMAGE_SUFFIXES
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
