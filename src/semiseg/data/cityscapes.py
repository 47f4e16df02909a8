"""Cityscapes with fine annotations."""

from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.data.image_files import (
    Cache,
    CacheDir,
    FileDataset,
    Root,
    find_root,
    images_by_stem,
)
from semiseg.data.mask_format import PUBLISHED
from semiseg.data.picture_files import BadFileError
from semiseg.declare import checked
from semiseg.errors import UserError

Labels = Literal["labelTrainIds", "labelIds"]
CLASSES: dict[str, tuple[int, int, int]] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic_light": (250, 170, 30),
    "traffic_sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Value of each class in the files labelIds; the others of 0 to 33 are not evaluated."""

PARTS: tuple[Part, ...] = ("train", "val", "test")
EXTRA = "train_extra"
IMAGE_END = "_leftImg8bit"
TREE = """\
  ROOT/
    leftImg8bit/{train,val,test}/CITY/  aachen_000000_000019_leftImg8bit.png ...
    leftImg8bit/train_extra/CITY/       further images (dataset.train_extra=true)
    gtFine/{train,val}/CITY/            aachen_000000_000019_gtFine_labelIds.png ...
                                        or ..._gtFine_labelTrainIds.png (values 0-18 and 255)"""


class Cityscapes(FileDataset):
    """Cityscapes with 19 classes. Ids are ``CITY/NAME``, for example "aachen/aachen_000000_000019".

    The ids of a part are those of its images, sorted by city and name (2,975, 500 and 1,525). Masks of the
    part "test" are not public, so it has none. Value 255 and the classes that are not evaluated become 255.

    Args:
        root: folder with leftImg8bit and gtFine; ``None`` takes the folder ``cityscapes`` in $SEMISEG_DATA.
        labels: kind of the masks, "labelIds" (as downloaded) or "labelTrainIds" (made by the authors' tools); ``None``
            takes labelTrainIds where the training and validation images have them, else labelIds.
        half_size: whether height and width are halved, to 512x1024 pixels (DMT): images by the mean of 2x2 pixels,
            rounded to whole numbers, masks by every second row and column from the first on.
        train_extra: whether the 19,998 images of train_extra are added to the unlabeled ones; their coarse labels are
            never read.
        skip_bad, cache, cache_dir: see ``FileDataset``.
        name: name of the dataset.

    Raises:
        UserError: folders missing, no training images, or none of their masks of this kind.
    """

    @checked
    def __init__(
        self,
        root: Root = None,
        *,
        labels: Labels | None = None,
        half_size: bool = False,
        train_extra: bool = False,
        skip_bad: bool = False,
        cache: Cache = True,
        cache_dir: CacheDir = None,
        name: str = "cityscapes",
    ) -> None:
        folder = find_root(root, name, TREE)
        images = {part: _images(folder / "leftImg8bit" / part) for part in PARTS}
        if not images["train"]:
            raise UserError(
                f"dataset {name} has no training images in {folder / 'leftImg8bit' / 'train'}. Expected:\n"
                f"{TREE}"
            )
        if train_extra:
            images["unlabeled"] = _images(folder / "leftImg8bit" / EXTRA)
            if not images["unlabeled"]:
                raise UserError(
                    f"there are no images in {folder / 'leftImg8bit' / EXTRA}",
                    key="dataset.train_extra",
                    value=True,
                )
        masks = folder / "gtFine"
        part_of = {image_id: part for part in PARTS[:2] for image_id in images[part]}
        chosen = _kind(part_of, masks, labels)
        by_id = chosen == "labelIds"
        super().__init__(
            DatasetInfo(name, tuple(CLASSES), tuple(CLASSES.values())),
            parts={part: tuple(found) for part, found in images.items()},
            images={image_id: path for found in images.values() for image_id, path in found.items()},
            masks={i: masks / part / f"{i}_gtFine_{chosen}.png" for i, part in part_of.items()},
            values={value: label for label, value in enumerate(LABEL_IDS)} if by_id else None,
            void=tuple(value for value in range(34) if value not in LABEL_IDS) if by_id else (),
            mask_format=PUBLISHED,
            skip_bad=skip_bad,
            cache=cache,
            cache_dir=cache_dir,
        )
        self.half_size = half_size

    def pixel_options(self) -> dict[str, Any]:
        """See ``FileDataset``."""
        return {**super().pixel_options(), "half_size": self.half_size}

    def image(self, image_id: str) -> Array:
        """Return the image, ``(H, W, 3) uint8`` RGB; raises ``BadFileError``."""
        image = super().image(image_id)
        if not self.half_size:
            return image
        height, width = self._halved(image, image_id)
        # Exactly by two, this is the mean of 2x2 pixels, as bilinear interpolation without antialiasing is.
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def mask(self, image_id: str) -> Array | None:
        """Return the label map, ``(H, W) uint8`` with 255 ignored; ``None`` without mask file; see ``FileDataset``."""
        mask = super().mask(image_id)
        return mask if mask is None or not self.half_size else np.ascontiguousarray(mask[::2, ::2])

    def _halved(self, image: Array, image_id: str) -> tuple[int, int]:
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            raise BadFileError(
                self.files(image_id)[0],
                f"{width}x{height} pixels; dataset.half_size=true expects even numbers",
            )
        return height // 2, width // 2


def _images(folder: Path) -> dict[str, Path]:
    found = images_by_stem(folder).items()
    return {stem.removesuffix(IMAGE_END): path for stem, path in found if stem.endswith(IMAGE_END)}


def _kind(part_of: dict[str, Part], masks: Path, wanted: Labels | None) -> Labels:
    """Choose the wanted kind of masks, or the one that more images have; labelTrainIds where both are as many."""
    there = {part: images_by_stem(masks / part) for part in set(part_of.values())}
    counts = {
        labels: sum(f"{image_id}_gtFine_{labels}" in there[part] for image_id, part in part_of.items())
        for labels in get_args(Labels)
    }
    if not any(counts.values()):
        raise UserError(f"no training or validation image has a mask in {masks}. Expected:\n{TREE}")
    most: Labels = "labelTrainIds" if counts["labelTrainIds"] >= counts["labelIds"] else "labelIds"
    if wanted is not None and not counts[wanted]:
        raise UserError(
            f"no image has such a mask in {masks}; {counts[most]:,} have one of dataset.labels={most}",
            key="dataset.labels",
            value=wanted,
        )
    return wanted or most
