"""ADE20K in the layout of the scene parsing benchmark (ADEChallengeData2016)."""

from pathlib import Path
from typing import Literal

from semiseg.contracts.dataset import IGNORE_INDEX, DatasetInfo, Part
from semiseg.data.ade20k_classes import CLASSES, PALETTE
from semiseg.data.image_files import Cache, CacheDir, FileDataset, Root, find_root, images_by_stem
from semiseg.data.label_encoding import values_in
from semiseg.data.mask_format import PUBLISHED
from semiseg.declare import checked
from semiseg.errors import UserError

Labels = Literal["official", "train_ids"]
FOLDERS: dict[Part, str] = {"train": "training", "val": "validation"}
TREE = """\
  ROOT/ADEChallengeData2016/             (ROOT may be either folder)
    images/{training,validation}/        ADE_train_00000001.jpg ... ADE_val_00000001.jpg ...
    annotations/{training,validation}/   ADE_train_00000001.png ... (values 0-150, 0 = not labeled; or 0-149 and 255)"""


class Ade20k(FileDataset):
    """ADE20K with the 150 classes of the scene parsing benchmark. Ids are file names without extension.

    The ids of "train" (20,210) and "val" (2,000) are those of their images, sorted. There is no part "test": its masks
    are not public.

    Args:
        root: folder ADEChallengeData2016, or the one that holds it; ``None`` takes it from $SEMISEG_DATA.
        labels: values of the masks: "official", as downloaded, where 0 means not labeled and class k has k + 1;
            "train_ids", as UniMatch V2 has them, where class k has k and 255 means not labeled; ``None`` looks at some
            masks, since only the second kind holds 255.
        skip_bad, cache, cache_dir: see ``FileDataset``.
        name: name of the dataset.

    Raises:
        UserError: folders missing, no training images, or masks whose values are of the other kind.
    """

    folder_names = ("ADEChallengeData2016", "ADE20K")
    """Other names that its folder may have in the folder that SEMISEG_DATA names."""

    @checked
    def __init__(
        self,
        root: Root = None,
        *,
        labels: Labels | None = None,
        skip_bad: bool = False,
        cache: Cache = True,
        cache_dir: CacheDir = None,
        name: str = "ade20k",
    ) -> None:
        folder = _benchmark(find_root(root, name, TREE, also=self.folder_names))
        images = {part: images_by_stem(folder / "images" / below) for part, below in FOLDERS.items()}
        if not images["train"]:
            raise UserError(
                f"dataset {name} has no training images in {folder / 'images' / 'training'}. Expected:\n{TREE}"
            )
        masks = {
            image_id: folder / "annotations" / FOLDERS[part] / f"{image_id}.png"
            for part, found in images.items()
            for image_id in found
        }
        chosen = _kind(masks, labels)
        official = chosen == "official"
        super().__init__(
            DatasetInfo(name, CLASSES, PALETTE),
            parts={part: tuple(found) for part, found in images.items()},
            images={image_id: path for found in images.values() for image_id, path in found.items()},
            masks=masks,
            values={label + 1: label for label in range(len(CLASSES))} if official else None,
            void=(0,) if official else (),
            refused=(IGNORE_INDEX,) if official else (),
            mask_format=PUBLISHED,
            skip_bad=skip_bad,
            cache=cache,
            cache_dir=cache_dir,
        )


def _benchmark(root: Path) -> Path:
    """Return the folder ADEChallengeData2016 at or below a given one."""
    places = [root, *(root / name for name in Ade20k.folder_names)]
    found = next((place for place in places if (place / "images" / "training").is_dir()), None)
    if found is None:
        tried = ", ".join(str(place / "images" / "training") for place in places)
        raise UserError(f"no ADE20K in {root}: there is none of {tried}. Expected:\n{TREE}")
    return found


def _kind(masks: dict[str, Path], wanted: Labels | None) -> Labels:
    """Choose the wanted kind of masks, or the one that the values of some masks show; refuse the other one."""
    found = values_in(masks)
    shown: dict[Labels, int | None] = {
        "train_ids": IGNORE_INDEX if IGNORE_INDEX in found else None,
        "official": len(CLASSES) if len(CLASSES) in found else None,
    }
    proof = next(((kind, value) for kind, value in shown.items() if value is not None), None)
    if wanted is None:
        return "official" if proof is None else proof[0]
    if proof is not None and proof[0] != wanted:
        raise UserError(
            f"{found[proof[1]]} holds the value {proof[1]}, which only masks of dataset.labels={proof[0]} have",
            key="dataset.labels",
            value=wanted,
        )
    return wanted
