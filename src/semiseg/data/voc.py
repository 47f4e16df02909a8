"""PASCAL VOC 2012 in the layout of its development kit, with the masks of SBD."""

import logging
from pathlib import Path
from typing import Literal

from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.image_files import Cache, CacheDir, FileDataset, Root, find_root, images_by_stem
from semiseg.data.mask_format import PUBLISHED
from semiseg.data.palette import bit_color
from semiseg.declare import checked
from semiseg.errors import UserError
from semiseg.splits.lists import read_stems

TrainSet = Literal["trainaug", "train"]
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
LISTS: dict[TrainSet, tuple[str, ...]] = {
    "trainaug": ("trainaug.txt", "train_aug.txt"),
    "train": ("train.txt",),
}
VOC_MASKS = 2913
"""Number of masks in SegmentationClass as published; a folder joined with SBD has more."""

TREE = """\
  ROOT/VOCdevkit/VOC2012/     (ROOT may be any of the three)
    JPEGImages/               2007_000032.jpg ...
    SegmentationClassAug/     2007_000032.png ...   (values 0-20 and 255, grey or palette)
    SegmentationClass/        the same for the 2,913 images of VOC alone
    ImageSets/Segmentation/   train.txt  val.txt  trainaug.txt or train_aug.txt (optional)"""

logger = logging.getLogger(__name__)
_warned: set[Path] = set()


class Voc(FileDataset):
    """VOC 2012 with 21 classes, background included. Ids are file names without extension.

    The part "train" is sorted, since published partitions count on it (1,464 ids of "train", 10,582 of
    "trainaug"); "val" keeps the order of its list (1,449 ids). Without a list of "trainaug" the images that
    have a mask and are not in val.txt are taken, which are the same ids, and this is logged. There is no
    part "test": its masks are not public.

    Args:
        root: folder VOC2012, VOCdevkit, or the one that holds it; ``None`` takes it from $SEMISEG_DATA.
        train_set: training images, "trainaug" (10,582 of VOC and SBD) or "train" (1,464 of VOC alone).
        masks: folder of the masks, in VOC2012 or elsewhere.
        skip_bad, cache, cache_dir: see ``FileDataset``.
        name: name of the dataset.

    Raises:
        UserError: folders or lists missing, no training images, or an id in two parts.
    """

    folder_names = ("VOCdevkit", "VOC2012")
    """Other names that its folder may have in the folder that SEMISEG_DATA names."""

    @checked
    def __init__(
        self,
        root: Root = None,
        *,
        train_set: TrainSet = "trainaug",
        masks: str = "SegmentationClassAug",
        skip_bad: bool = False,
        cache: Cache = True,
        cache_dir: CacheDir = None,
        name: str = "voc",
    ) -> None:
        folder = _devkit(find_root(root, name, TREE, also=self.folder_names))
        mask_folder = folder / Path(masks).expanduser()
        if not mask_folder.is_dir():
            raise UserError(_no_masks(mask_folder, folder))
        lists = self._lists = folder / "ImageSets" / "Segmentation"
        if not (lists / "val.txt").is_file():
            raise UserError(f"{lists / 'val.txt'} is missing. Expected:\n{TREE}")
        val = read_stems(lists / "val.txt")
        train = _training_ids(lists, train_set, mask_folder, val)
        if not train:
            raise UserError(f"dataset {name} has no training images in {folder}. Expected:\n{TREE}")
        ids = (*train, *val)
        super().__init__(
            DatasetInfo(name, CLASSES, tuple(bit_color(label) for label in range(len(CLASSES)))),
            parts={"train": train, "val": val},
            images={image_id: folder / "JPEGImages" / f"{image_id}.jpg" for image_id in ids},
            masks={image_id: mask_folder / f"{image_id}.png" for image_id in ids},
            mask_format=PUBLISHED,
            skip_bad=skip_bad,
            cache=cache,
            cache_dir=cache_dir,
        )

    def listed(self, name: str) -> tuple[str, ...]:
        """Return the ids of ``ImageSets/Segmentation/NAME.txt``, in its order; raises ``UserError`` without one."""
        return read_stems(self._lists / f"{name}.txt")


def _devkit(root: Path) -> Path:
    """Return the folder VOC2012 at or below a given one."""
    places = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
    found = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if found is None:
        tried = ", ".join(str(place / "JPEGImages") for place in places)
        raise UserError(f"no VOC 2012 in {root}: there is none of {tried}. Expected:\n{TREE}")
    return found


def _training_ids(lists: Path, train_set: TrainSet, masks: Path, val: tuple[str, ...]) -> tuple[str, ...]:
    listed = next((lists / file for file in LISTS[train_set] if (lists / file).is_file()), None)
    if listed is None and train_set == "train":
        raise UserError(f"{lists / 'train.txt'} is missing. Expected:\n{TREE}")
    if listed is not None:
        return tuple(sorted(read_stems(listed)))
    held = frozenset(val)
    ids = tuple(sorted(stem for stem in images_by_stem(masks) if stem not in held))
    if lists not in _warned:
        _warned.add(lists)
        logger.warning(
            "%s has neither trainaug.txt nor train_aug.txt: the training images are the %s (10,582 as published) "
            "that have a mask in %s and are not in val.txt.",
            *(lists, f"{len(ids):,}", masks.name),
        )
    return ids


def _no_masks(masks: Path, folder: Path) -> str:
    text = f"there is no folder of masks {masks}."
    other = folder / "SegmentationClass"
    if other.is_dir() and other != masks:
        count = len(images_by_stem(other))
        text += f" SegmentationClass holds {count:,}: dataset.masks=SegmentationClass takes them."
        if count <= VOC_MASKS:
            text += " With these alone, without those of SBD, there are 1,464 training images: dataset.train_set=train."
    return f"{text} Expected:\n{TREE}"
