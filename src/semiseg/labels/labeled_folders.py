"""Pictures with label maps to write into label files: of predictions, of a labeled folder or of a dataset."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from semiseg.apply.label_folder import MASKS
from semiseg.apply.label_folder import RECORD as LABEL_RECORD
from semiseg.apply.predict_folder import LABELS
from semiseg.apply.predict_folder import RECORD as PREDICT_RECORD
from semiseg.contracts.dataset import IGNORE_INDEX, Array, DatasetInfo, Part, SegDataset
from semiseg.data.file_inspection import FileBacked
from semiseg.data.image_files import image_files
from semiseg.data.mask_pixels import read_pixels
from semiseg.data.picture_files import UPRIGHT, Exif, size_and_orientation
from semiseg.errors import UserError
from semiseg.files import read_json
from semiseg.labels.mask_shapes import MaskedPicture

PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class LabeledFolder:
    """Pictures and their label maps.

    Args:
        info: classes and colors.
        files: image file of each picture, by its path below the folder of all, with extension.
        read: function that returns the label map of each.
        reviewed: whether the labels are those of a person, and not of a network.
        exif: "ignore" where the label maps are those of the pictures as they are stored.
    """

    info: DatasetInfo
    files: Mapping[str, Path]
    read: Mapping[str, Callable[[], Array]]
    reviewed: bool
    exif: Exif = "apply"

    def pictures(self, tick: Callable[[], None]) -> Iterator[MaskedPicture]:
        """Yield the pictures, each read when it is its turn; raises ``BadFileError``.

        Label maps are turned as a viewer turns the pictures, since labeling tools show them so.
        """
        for key, file in self.files.items():
            label_map = self.read[key]()
            if self.exif == "ignore":
                _, orientation = size_and_orientation(file)
                if turn := UPRIGHT.get(orientation):
                    label_map = np.asarray(Image.fromarray(label_map).transpose(turn))
            yield MaskedPicture(key, file, label_map)
            tick()


def labeled_folder(folder: Path) -> LabeledFolder:
    """Return what ``semiseg predict`` or ``semiseg label`` has written.

    Raises:
        UserError: the folder is of neither, or a picture is not where it was.
    """
    if (folder / PREDICT_RECORD).is_file():
        return _predictions(folder, read_json(folder / PREDICT_RECORD))
    if (folder / LABEL_RECORD).is_file():
        return _labels(folder, read_json(folder / LABEL_RECORD))
    fault = "holds neither" if folder.is_dir() else "does not exist; expected a folder with"
    raise UserError(
        f"{folder} {fault} {PREDICT_RECORD} nor {LABEL_RECORD}; expected the folder that `semiseg predict` or `semiseg "
        "label` has written, or dataset=NAME for the masks of a dataset"
    )


def of_dataset(dataset: SegDataset) -> LabeledFolder:
    """Return all images of a dataset that have a mask.

    Raises:
        UserError: its images are not files.
    """
    if not isinstance(dataset, FileBacked):
        raise UserError(f"dataset={dataset.info.name} draws its images; expected one of files")
    ids = [image_id for part in PARTS for image_id in dataset.ids(part)]
    files = {
        _key(image_id, file): (file, image_id) for image_id in ids if (file := dataset.files(image_id)[0])
    }
    return LabeledFolder(
        dataset.info,
        {key: file for key, (file, _) in files.items()},
        {key: partial(_mask_of, dataset, image_id) for key, (_, image_id) in files.items()},
        reviewed=True,
        exif=getattr(dataset, "exif", "apply"),
    )


def _mask_of(dataset: SegDataset, image_id: str) -> Array:
    mask = dataset.mask(image_id)
    if mask is None:
        raise UserError(f"image {image_id} of dataset {dataset.info.name} has no mask")
    return mask


def _predictions(folder: Path, record: Mapping[str, Any]) -> LabeledFolder:
    files: dict[str, Path] = {}
    read: dict[str, Callable[[], Array]] = {}
    gone = []
    for name, entry in record["images"].items():
        file, mask = Path(entry["file"]), folder / LABELS / f"{name}.png"
        mask = mask if mask.is_file() else mask.with_name(f"{mask.stem}.tif")  # as those of a GeoTIFF are
        if not file.is_file() or not mask.is_file():
            gone.append(str(mask if file.is_file() else file.absolute()))
        key = _key(name, file)
        files[key], read[key] = file, partial(_indices, mask, {})
    if gone:
        raise UserError(
            f"{len(gone)} files that {folder / PREDICT_RECORD} names are not there: {', '.join(gone[:5])}. Run this "
            "where `semiseg predict` was run, or predict again"
        )
    return LabeledFolder(_info(folder, record), files, read, False, record.get("exif", "apply"))


def _labels(folder: Path, record: Mapping[str, Any]) -> LabeledFolder:
    values = record["mask_values"]
    labels = {int(value): label for label, value in enumerate(values.values())}
    masks = {
        path.relative_to(folder / MASKS).with_suffix("").as_posix(): path
        for path in image_files(folder / MASKS)
    }
    images = folder / "images"
    files: dict[str, Path] = {}
    read: dict[str, Callable[[], Array]] = {}
    for file in image_files(images):
        name = file.relative_to(images).with_suffix("").as_posix()
        if name in masks:
            key = _key(name, file)
            files[key], read[key] = file, partial(_indices, masks[name], labels)
    info = _info(folder, {**record, "classes": list(values)})
    return LabeledFolder(info, files, read, False, record.get("exif", "apply"))


def _key(name: str, file: Path) -> str:
    return (PurePosixPath(name).parent / file.name).as_posix()


def _info(folder: Path, record: Mapping[str, Any]) -> DatasetInfo:
    colors = tuple((int(red), int(green), int(blue)) for red, green, blue in record["palette"])
    return DatasetInfo(folder.name, tuple(record["classes"]), colors)


def _indices(path: Path, labels: Mapping[int, int]) -> Array:
    """Label map of a mask by its numbers; without ``labels`` the numbers are labels."""
    codes = read_pixels(path).codes
    if not labels:
        return codes.astype(np.uint8)
    table = np.full(1 << 16, IGNORE_INDEX, np.uint8)
    table[list(labels)] = list(labels.values())
    return table[codes]
