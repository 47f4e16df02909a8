"""Image files in folders, and the base of datasets of files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.data.file_tree import files_below, named_below
from semiseg.data.garbage import without_collection
from semiseg.data.mask_format import MaskFormat
from semiseg.data.mask_labels import MaskLabels
from semiseg.data.mask_reader import MaskReader
from semiseg.data.palette import Color
from semiseg.data.picture_files import Exif, read_image
from semiseg.declare import Mark
from semiseg.errors import UserError
from semiseg.splits.lists import IMAGE_SUFFIXES, require_disjoint

ROOT_VARIABLE = "SEMISEG_DATA"
Root = Annotated[str | None, Mark("machine", "place")]
Cache = Annotated[bool, Mark("nothing")]
CacheDir = Annotated[str | None, Mark("nothing")]


class NoFolderError(UserError):
    """The folder of a dataset is not known, or does not exist."""


def find_root(root: str | Path | None, name: str, tree: str, *, also: Sequence[str] = ()) -> Path:
    """Return the existing folder of a dataset.

    Args:
        root: value of ``dataset.root``; ``None`` takes the folder ``name`` in the folder that SEMISEG_DATA names.
        name: name of the dataset.
        tree: drawing of the expected files, for the message.
        also: other names that the folder in SEMISEG_DATA may have, as archives give them.

    Raises:
        NoFolderError: no such folder.
    """
    base = os.environ.get(ROOT_VARIABLE)
    expected = f"Expected there:\n{tree}\nGive the folder by dataset.root=PATH, or set {ROOT_VARIABLE} to its parent."
    if root is None and not base:
        raise NoFolderError(
            f"no folder given for dataset {name}: dataset.root and {ROOT_VARIABLE} are not set. {expected}"
        )
    places = [Path(str(base)) / folder for folder in (name, *also)] if root is None else [Path(root)]
    places = [place.expanduser() for place in places]
    path = next((place for place in places if place.is_dir()), places[0])
    if not path.is_dir():
        kind = "is not a folder" if path.exists() else "does not exist"
        source = "dataset.root" if root is not None else f"{ROOT_VARIABLE}={base}"
        raise NoFolderError(f"the folder of dataset {name} {kind}: {path} (from {source}). {expected}")
    return path


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the images below a folder by their endings, as ``files_below`` finds them, sorted."""
    return [path for path in files_below(folder) if path.suffix.lower() in suffixes]


@without_collection()
def images_by_stem(folder: Path, files: Iterable[Path] | None = None) -> dict[str, Path]:
    """Map the names without extension of all ``image_files`` of a folder to these files.

    Names are relative to the folder, with ``/`` between subfolders; empty where there is no such folder.

    Args:
        folder: folder that is searched, with all folders below it.
        files: files of the folder to map; ``None`` maps all of them.

    Raises:
        UserError: two images differ only in the extension.
    """
    found: dict[str, Path] = {}
    for name, path in _named_images(folder) if files is None else _named(folder, files):
        stem = name[: -len(path.suffix)] if path.suffix else name
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have the same name: rename or remove one")
        found[stem] = path
    return found


def _named_images(folder: Path) -> list[tuple[str, Path]]:
    return [(name, path) for name, path in named_below(folder) if name.lower().endswith(IMAGE_SUFFIXES)]


def _named(folder: Path, files: Iterable[Path]) -> list[tuple[str, Path]]:
    return [(path.relative_to(folder).as_posix(), path) for path in files]


class FileDataset:
    """Images and masks in files; subclasses find the files.

    Args:
        info: classes and colors.
        parts: image ids of each part.
        images: image file of each id.
        masks: mask file of each id that should have one, whether it exists or not.
        void: values in masks other than 255 that mean "not labeled"; they become 255.
        values: label of each other value in masks; with ``None`` the values are the labels.
        refused: values that no mask may hold, such as 255 where another value means "not labeled".
        colors: label of each color of color-coded masks, 255 for "not labeled"; empty for masks read by their values.
        transparent: label of fully transparent pixels; ``None`` counts them as not labeled, with a warning.
        mask_format: format that each mask has to have; ``None`` compares them with each other in the check of files.
        exif: whether images and masks are turned as their EXIF orientation says.
        skip_bad: whether bad files are left out and recorded instead of refused.
        cache: whether the decoded pixels are kept for all runs.
        cache_dir: folder that they are kept in; ``None`` takes $SEMISEG_CACHE, else the platform's folder for caches.

    Raises:
        UserError: an id is in two parts or twice in one; a void value is a class.
    """

    def __init__(
        self,
        info: DatasetInfo,
        *,
        parts: Mapping[Part, tuple[str, ...]],
        images: Mapping[str, Path],
        masks: Mapping[str, Path],
        void: tuple[int, ...] = (),
        values: Mapping[int, int] | None = None,
        refused: tuple[int, ...] = (),
        colors: Mapping[Color, int] | None = None,
        transparent: int | None = None,
        mask_format: MaskFormat | None = None,
        exif: Exif = "apply",
        skip_bad: bool = False,
        cache: Cache = True,
        cache_dir: CacheDir = None,
    ) -> None:
        require_disjoint({str(part): ids for part, ids in parts.items()}, f"dataset {info.name}")
        self.info = info
        self.skip_bad = skip_bad
        self.cache = cache
        self.cache_dir = cache_dir
        self._parts = {part: tuple(ids) for part, ids in parts.items()}
        self._images = dict(images)
        self._masks = dict(masks)
        if exif not in get_args(Exif):
            raise UserError(f"expected one of {', '.join(get_args(Exif))}", key="dataset.exif", value=exif)
        self.exif: Exif = exif
        labels = MaskLabels(
            None if values is None else dict(values), void, dict(colors or {}), transparent, refused
        )
        self.mask_reader = MaskReader(info, labels, mask_format, exif)

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part; empty where there is no such part."""
        return self._parts.get(part, ())

    def files(self, image_id: str) -> tuple[Path, Path | None]:
        """Image file and mask file of an id, existing or not; ``None`` where no mask is expected."""
        return self._images[image_id], self._masks.get(image_id)

    def pixel_options(self) -> dict[str, Any]:
        """Settings that change the pixels of a given file, as plain values; decoded pixels are kept by them."""
        return {**self.mask_reader.options(), **({} if self.exif == "apply" else {"exif": self.exif})}

    def image(self, image_id: str) -> Array:
        """Return the image, ``(H, W, 3) uint8`` RGB; raises ``BadFileError``."""
        return read_image(self._images[image_id], self.exif)

    def mask(self, image_id: str) -> Array | None:
        """Return the label map, ``(H, W) uint8`` with 255 ignored; ``None`` without mask file.

        Raises:
            BadFileError: the file cannot be read, or holds values that are no class.
        """
        path = self._masks.get(image_id)
        return None if path is None or not path.exists() else self.label_map(path)

    def label_map(self, path: Path) -> Array:
        """Return the label map of a mask file, ``(H, W) uint8`` with 255 ignored; raises ``BadFileError``."""
        return self.mask_reader.read(path)
