"""Images and masks in files: reading with a reason for every refusal, and the base of file datasets."""

import os
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.data.file_tree import files_below
from semiseg.data.mask_labels import label_tables, ranges
from semiseg.declare import Mark
from semiseg.errors import UserError
from semiseg.splits.lists import IMAGE_SUFFIXES, require_disjoint

ROOT_VARIABLE = "SEMISEG_DATA"
Root = Annotated[str | None, Mark("machine", "place")]
Cache = Annotated[bool, Mark("nothing")]
CacheDir = Annotated[str | None, Mark("nothing")]
IMAGE_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
)
MASK_MODES = frozenset({"1", "L", "P"})


class NoFolderError(UserError):
    """The folder of a dataset is not known, or does not exist."""


class BadFileError(UserError):
    """A file that is unusable as image or mask.

    Args:
        file: path of the file.
        reason: description of the fault and of what was expected.
    """

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[Path, str]]:
        return type(self), (self.file, self.reason)


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


def image_files(folder: Path) -> list[Path]:
    """Return the images below a folder by their endings, as ``files_below`` finds them, sorted."""
    return [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


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
    for path in image_files(folder) if files is None else files:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"{found[stem]} and {path} have the same name: rename or remove one")
        found[stem] = path
    return found


def read_image(path: Path) -> Array:
    """Return an image file as ``(H, W, 3) uint8`` RGB, upright; see ``upright_rgb``.

    Raises:
        BadFileError: missing, empty, unreadable, cut off, or not 8 bits a channel.
    """
    with _opened(path) as image:
        try:
            return upright_rgb(image)
        except UserError as error:
            raise BadFileError(path, str(error)) from error


def upright_rgb(image: Image.Image) -> Array:
    """Return a picture as ``(H, W, 3) uint8`` RGB.

    Grey, palette, RGBA and CMYK are converted as PIL does, alpha is dropped, and a rotation in the EXIF
    data is applied, since labeling tools show pictures that way.

    Raises:
        UserError: not 8 bits a channel.
    """
    if image.mode not in IMAGE_MODES:
        raise UserError(f"mode {image.mode} (16 or 32 bits a pixel); expected 8 bits a channel")
    # Each step copies the picture even where it changes nothing, so it is left out there.
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def read_mask(path: Path) -> Array:
    """Return the values of a grey or palette PNG as ``(H, W) uint8``; of a palette the indices.

    Raises:
        BadFileError: missing, unreadable, color-coded, 16-bit, grey of 2 or 4 bits, or a lossy format.
    """
    with open_mask(path) as image:
        if image.mode not in MASK_MODES:
            raise BadFileError(path, _color_coded(image))
        return np.array(ImageOps.exif_transpose(image), dtype=np.uint8)


def open_mask(path: Path) -> Image.Image:
    """Open and decode a mask, color-coded or not.

    Raises:
        BadFileError: missing, unreadable, 16-bit, grey of 2 or 4 bits, or a lossy format.
    """
    if path.suffix.lower() != ".png":
        raise BadFileError(path, "not a PNG; a mask has to be stored without loss, as a grey or palette PNG")
    image = _opened(path, what="mask")
    if image.mode.startswith("I"):
        raise BadFileError(path, "16-bit mask; expected 8 bits with the class index as value")
    if image.mode == "L" and image.info.get("bits", 8) < 8:
        raise BadFileError(path, f"grey of {image.info['bits']} bits a pixel; expected 8 bits")
    return image


class FileDataset:
    """Images and masks in files; subclasses find the files.

    Args:
        info: classes and colors.
        parts: image ids of each part.
        images: image file of each id.
        masks: mask file of each id that should have one, whether it exists or not.
        void: values in masks other than 255 that mean "not labeled"; they become 255.
        values: label of each other value in masks; with ``None`` the values are the labels.
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
        self._values = dict(values or {label: label for label in range(info.num_classes)})
        self._labels, self._outside = label_tables(info, void, self._values)

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part; empty where there is no such part."""
        return self._parts.get(part, ())

    def files(self, image_id: str) -> tuple[Path, Path | None]:
        """Image file and mask file of an id, existing or not; ``None`` where no mask is expected."""
        return self._images[image_id], self._masks.get(image_id)

    def pixel_options(self) -> dict[str, Any]:
        """Settings that change the pixels of a given file, as plain values; decoded pixels are kept by them."""
        return {"labels": self._labels.tolist(), "outside": self._outside.tolist()}

    def image(self, image_id: str) -> Array:
        """Return the image, ``(H, W, 3) uint8`` RGB; raises ``BadFileError``."""
        return read_image(self._images[image_id])

    def mask(self, image_id: str) -> Array | None:
        """Return the label map, ``(H, W) uint8`` with 255 ignored; ``None`` without mask file.

        Raises:
            BadFileError: the file cannot be read, or holds values that are no class.
        """
        path = self._masks.get(image_id)
        return None if path is None or not path.exists() else self.label_map(path)

    def label_map(self, path: Path) -> Array:
        """Return the label map of a mask file, ``(H, W) uint8`` with 255 ignored; raises ``BadFileError``."""
        values = read_mask(path)
        if cv2.countNonZero(cv2.LUT(values, self._outside)):
            raise BadFileError(path, self._outside_reason(values))
        return np.asarray(cv2.LUT(values, self._labels), dtype=np.uint8)

    def _outside_reason(self, values: Array) -> str:
        counts = np.bincount(values.ravel(), minlength=256)
        found = [
            f"{value} ({counts[value]} pixels)"
            for value in range(256)
            if counts[value] and self._outside[value]
        ]
        void = [value for value in range(256) if not self._outside[value] and value not in self._values]
        return (
            f"label {', '.join(found[:5])}{' and others' if len(found) > 5 else ''} outside the classes; "
            f"expected {ranges(sorted(self._values))}"
            + (f", or {ranges(void)} where not labeled" if void else "")
        )


def _opened(path: Path, what: str = "image") -> Image.Image:
    """Open and decode a file with PIL, with a reason for each way this fails."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadFileError(path, f"{what} missing") from error
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    if not data:
        raise BadFileError(path, "empty file (0 bytes)")
    try:
        image = Image.open(BytesIO(data))
        if image.format == "PNG":
            # Decoding misses some flipped bits that the checksums of a PNG show.
            image.verify()
            image = Image.open(BytesIO(data))
        if image.mode == "L" and image.format == "PNG":
            # The raw mode shows 2- and 4-bit grey, whose values PIL spreads over 0 to 255.
            raw = str(image.tile[0].args)
            image.info["bits"] = int(raw[2:]) if raw.startswith("L;") and raw[2:].isdigit() else 8
        image.load()
    except UnidentifiedImageError as error:
        raise BadFileError(path, "not an image that PIL can read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFileError(path, f"cannot be decoded ({error}): damaged, cut off or not readable") from error
    return image


def _color_coded(image: Image.Image) -> str:
    advice = (
        "expected a grey or palette PNG with the class index as value, or the colors of the classes in "
        "dataset.values (of own images; `semiseg init FOLDER` writes them)"
    )
    pixels = np.asarray(image.convert("RGB"))
    if (pixels == pixels[..., :1]).all():
        return f"{image.mode} mask whose channels are equal: save it as grey; {advice}"
    colors = np.unique(pixels.reshape(-1, 3), axis=0)
    found = ", ".join(str(tuple(int(value) for value in color)) for color in colors[:4])
    return f"color-coded {image.mode} mask with {len(colors)} colors ({found}, ...); {advice}"
