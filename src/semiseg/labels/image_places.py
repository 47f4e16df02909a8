"""The image files that label files name: their places, sizes and orientations."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonpath
from pathlib import Path, PurePosixPath

from semiseg.data.image_files import image_files
from semiseg.data.picture_files import BadFileError, open_picture, size_and_orientation
from semiseg.errors import UserError
from semiseg.labels.label_record import Findings, Frame, LabeledPicture
from semiseg.name_keys import name_key
from semiseg.splits.lists import shown

ANY = ".*"
"""Ending of a name whose extension the label file does not say."""
BESIDE = (
    *("images", "image", "imgs", "img", "photos", "JPEGImages", "leftImg8bit"),
    *("train", "val", "train2017", "val2017"),
)
"""Folders of images next to folders of label files."""
NO_IMAGES = ("SegmentationClass", "SegmentationObject")
QUARTER_TURNS = range(5, 9)


@dataclass(frozen=True)
class PlacedPicture:
    """A picture with its image file.

    Args:
        picture: its labels.
        image: the file.
        size: height and width of what its labels are drawn on.
        orientation: orientation by EXIF, 1 to 8.
        stored: whether the labels are drawn on the picture as it is stored, not as a viewer shows it.
    """

    picture: LabeledPicture
    image: Path
    size: tuple[int, int]
    orientation: int
    stored: bool


class ImagePlaces:
    """A search for images by the names that label files give them.

    Args:
        sources: files and folders of labels.
        images: folder of the images, kept as ``given``; ``None`` searches next to the labels.
        archive: folder into which sources were unpacked for the moment; images in it are refused.
    """

    def __init__(self, sources: Sequence[Path], images: Path | None, archive: Path | None = None) -> None:
        self.given = None if images is None else images.resolve()
        self._archive = archive
        self._sources = sources

    def find(self, picture: LabeledPicture) -> Path:
        """Return the image file of a picture.

        A name matches the file whose path ends like it in the most parts, in any case and Unicode form.

        Raises:
            UserError: there is none, or several match equally well; or it lies in an archive.
        """
        for name in (picture.file, *picture.also):
            path = PurePosixPath(name.replace("\\", "/"))
            direct = picture.source.parent / path
            if self.given is None and direct.is_file():
                return self._kept(direct)
            if found := self._best(path):
                if len(found) > 1:
                    raise UserError(
                        f"{name} may be {shown(map(str, found), 3)}; name the folder by --images DIR"
                    )
                return self._kept(found[0])
        if picture.uploaded and (found := self._by_uploaded_name[name_key(picture.uploaded)]):
            if len(found) > 1:
                raise UserError(
                    f"{picture.uploaded} may be {shown(map(str, found), 3)}; name the folder by --images DIR"
                )
            return self._kept(found[0])
        where = f"below {shown(map(str, self._folders), 4)}"
        raise UserError(
            f"image {picture.file.removesuffix(ANY)} is not there, {where}"
            + ("" if self.given else "; --images DIR names another folder")
        )

    def _kept(self, path: Path) -> Path:
        if self._archive is not None and path.is_relative_to(self._archive):
            raise UserError(f"image {path.name} is in the archive; unpack that, and name the folder instead")
        return path

    def _best(self, name: PurePosixPath) -> list[Path]:
        key, parts = _last_key(name), [name_key(part) for part in name.parts[:-1]]
        ranked = defaultdict(list)
        for path in self._by_name.get(key, ()):
            ranked[_shared_end([name_key(part) for part in path.parts[:-1]], parts)].append(path)
        return ranked[max(ranked)] if ranked else []

    @cached_property
    def _folders(self) -> list[Path]:
        if self.given is not None:
            return [self.given]
        folders = [source if source.is_dir() else source.parent for source in self._sources]
        beside = [folder.parent / name for folder in folders for name in BESIDE]
        return list(dict.fromkeys([*folders, *(folder for folder in beside if folder.is_dir())]))

    @cached_property
    def _by_uploaded_name(self) -> dict[str, list[Path]]:
        """Images by the keys of the names that a server makes of theirs."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in dict.fromkeys(path for paths in self._by_name.values() for path in paths):
            found[name_key(re.sub(r"[^-\w.]", "", path.name.strip().replace(" ", "_")))].append(path)
        return found

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Images by the keys of their names, with and without extension."""
        found: dict[str, dict[Path, None]] = defaultdict(dict)
        for path in (path for folder in self._folders for path in image_files(folder)):
            if not any(part in NO_IMAGES for part in path.parts):
                for key in (name_key(path.name), name_key(path.stem) + ANY):
                    found[key][path] = None
        return {key: list(paths) for key, paths in found.items()}


def _last_key(name: PurePosixPath) -> str:
    return name_key(name.name)


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def placed(
    pictures: Iterable[LabeledPicture], places: ImagePlaces, frame: Frame | None, found: Findings
) -> Iterator[PlacedPicture]:
    """Yield the pictures with their images; faults are recorded.

    Args:
        pictures: the pictures.
        places: search for images.
        frame: whether labels are drawn on the pictures as a viewer shows them, or as they are stored; ``None`` takes
            what their sizes prove, else as shown.
        found: gets faults.
    """
    seen: dict[Path, LabeledPicture] = {}
    for picture in pictures:
        try:
            image = places.find(picture)
            open_picture(image)[0].close()  # names what is wrong with a file that cannot be read
            stored_size, orientation = size_and_orientation(image, "ignore")
            yield_size, stored = _frame(picture, stored_size, orientation, frame)
        except BadFileError as error:
            found.fault(picture.file, error.file, error.reason)
            continue
        except UserError as error:
            found.fault(picture.file, picture.source, str(error))
            continue
        if (other := seen.setdefault(image.resolve(), picture)) is not picture:
            found.fault(
                picture.file, picture.source, f"{image} has labels in {other.source} too; remove one of them"
            )
            continue
        yield PlacedPicture(picture, image, yield_size, orientation, stored)


def _frame(
    picture: LabeledPicture, stored: tuple[int, int], orientation: int, frame: Frame | None
) -> tuple[tuple[int, int], bool]:
    """Size of what labels are drawn on, and whether that is the picture as stored.

    Raises:
        UserError: the label file gives another size.
    """
    turned = stored[::-1] if orientation in QUARTER_TURNS else stored
    as_stored = frame == "stored" and orientation != 1
    if picture.size is None:
        return (stored if as_stored else turned), as_stored
    if frame is None and turned != stored and picture.size == stored:
        return stored, True
    expected = stored if as_stored else turned
    if picture.size != expected:
        raise UserError(
            f"labels for {picture.size[1]}x{picture.size[0]} pixels, but the image has {expected[1]}x{expected[0]} "
            "(width x height)"
        )
    return expected, as_stored


def common_folder(images: Iterable[Path]) -> Path:
    """Return the deepest folder that all images lie in; the working directory without any."""
    folders = [image.resolve().parent for image in images]
    return Path(commonpath(folders)) if folders else Path.cwd()
