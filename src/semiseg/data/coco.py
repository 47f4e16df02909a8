"""COCO 2017 with masks of its things, or of COCO-Stuff."""

from pathlib import Path
from typing import Literal, NamedTuple

from semiseg.contracts.dataset import DatasetInfo, Part
from semiseg.data.coco_classes import STUFF, STUFF_VALUES, THINGS, VOID
from semiseg.data.image_files import Cache, CacheDir, FileDataset, Root, find_root, images_by_stem
from semiseg.data.label_encoding import values_in
from semiseg.data.mask_format import PUBLISHED
from semiseg.data.palette import bit_color
from semiseg.declare import checked
from semiseg.errors import UserError

Labels = Literal["things", "stuff", "stuff_train_ids"]
FOLDERS: dict[Part, str] = {"train": "train2017", "val": "val2017"}
EXTRA = "unlabeled2017"
MASKS = ("masks", "stuffthingmaps", "annotations/stuffthingmaps")
TREE = """\
  ROOT/                       (train2017 and val2017 may also lie in ROOT/images)
    train2017/  val2017/      000000000009.jpg ...
    masks/                    000000000009.png ... of both, or in masks/train2017 and masks/val2017
    stuffthingmaps/           train2017/ and val2017/, as COCO-Stuff is downloaded (dataset.labels=stuff)
    unlabeled2017/            further images without masks (dataset.unlabeled2017=true)"""


class _Encoding(NamedTuple):
    classes: tuple[str, ...]
    values: tuple[int, ...]


ENCODINGS: dict[Labels, _Encoding] = {
    "things": _Encoding((VOID, *THINGS), tuple(range(1 + len(THINGS)))),
    "stuff": _Encoding((*THINGS, *STUFF), STUFF_VALUES),
    "stuff_train_ids": _Encoding((*THINGS, *STUFF), tuple(range(len(STUFF_VALUES)))),
}


class Coco(FileDataset):
    """COCO 2017. Ids are file names without extension; "train" has 118,287 and "val" 5,000, sorted.

    Value 255 means not labeled. Images of COCO-Stuff and of the things are the same, so that lists of one serve both.

    Args:
        root: folder of the images and masks; ``None`` takes the folder ``coco`` in $SEMISEG_DATA.
        labels: values of the masks: "things", the 81 classes of UniMatch, of which 0 ("void", everything else) counts
            as a class; "stuff", the 171 classes of COCO-Stuff as downloaded, with values to 181; "stuff_train_ids", the
            same classes numbered from 0 to 170.
        masks: folder of the masks in ``root`` or elsewhere; ``None`` takes the first of masks and stuffthingmaps.
        unlabeled2017: whether the images of the folder unlabeled2017 are added to the unlabeled ones.
        skip_bad, cache, cache_dir: see ``FileDataset``.
        name: name of the dataset.

    Raises:
        UserError: folders missing, no training images, or masks with values that this kind does not have.
    """

    @checked
    def __init__(
        self,
        root: Root = None,
        *,
        labels: Labels = "things",
        masks: str | None = None,
        unlabeled2017: bool = False,
        skip_bad: bool = False,
        cache: Cache = True,
        cache_dir: CacheDir = None,
        name: str = "coco",
    ) -> None:
        folder = find_root(root, name, TREE)
        pictures = folder if (folder / FOLDERS["train"]).is_dir() else folder / "images"
        images = {part: images_by_stem(pictures / below) for part, below in FOLDERS.items()}
        if not images["train"]:
            raise UserError(
                f"dataset {name} has no training images in {pictures / FOLDERS['train']}. Expected:\n{TREE}"
            )
        if unlabeled2017:
            images["unlabeled"] = images_by_stem(pictures / EXTRA)
            if not images["unlabeled"]:
                raise UserError(
                    f"there are no images in {pictures / EXTRA}", key="dataset.unlabeled2017", value=True
                )
        base = _mask_folder(folder, masks)
        drawn = {
            image_id: place / f"{image_id}.png"
            for part in FOLDERS
            if (place := _below(base, part))
            for image_id in images[part]
        }
        encoding = ENCODINGS[labels]
        _require_values(drawn, labels)
        super().__init__(
            DatasetInfo(name, encoding.classes, tuple(map(bit_color, range(len(encoding.classes))))),
            parts={part: tuple(found) for part, found in images.items()},
            images={image_id: path for found in images.values() for image_id, path in found.items()},
            masks=drawn,
            values={value: label for label, value in enumerate(encoding.values)},
            mask_format=PUBLISHED,
            skip_bad=skip_bad,
            cache=cache,
            cache_dir=cache_dir,
        )


def _mask_folder(folder: Path, given: str | None) -> Path:
    places = [folder / each for each in (MASKS if given is None else (Path(given).expanduser(),))]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        tried = ", ".join(map(str, places))
        raise UserError(f"there is no folder of masks: none of {tried}. Expected:\n{TREE}")
    return found


def _below(masks: Path, part: Part) -> Path:
    """The folder of the masks of a part: one of its own, or the one of all."""
    return own if (own := masks / FOLDERS[part]).is_dir() else masks


def _require_values(masks: dict[str, Path], labels: Labels) -> None:
    """Refuse a kind of labels that lacks values which some masks hold; names the kinds that have them."""
    found = values_in(masks)
    wrong = next((value for value in sorted(found) if value not in (*ENCODINGS[labels].values, 255)), None)
    if wrong is None:
        return
    fitting = [kind for kind, each in ENCODINGS.items() if {*found} <= {*each.values, 255}]
    hint = f"; its values are those of dataset.labels={fitting[0]}" if fitting else ""
    raise UserError(
        f"{found[wrong]} holds the value {wrong}, which such masks do not have{hint}",
        key="dataset.labels",
        value=labels,
    )
