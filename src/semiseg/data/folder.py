"""Own images in a folder, with masks for some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semiseg.data.dataset import DatasetInfo, Part
from semiseg.data.files import FileDataset, find_root, images_by_stem
from semiseg.data.lists import read_ids, repeated, shown, spread
from semiseg.data.palette import bit_color
from semiseg.errors import UserError

MAX_CLASSES = 255
TREE = """\
  ROOT/
    images/  a.jpg  b.png ...            (subfolders allowed)
    masks/   a.png ...                   (same names; PNG with class indices; none for unlabeled images)
    val.txt                              (names of the validation images; or images/val/ and masks/val/)"""


class Folder(FileDataset):
    """Own images: labeled where a mask of the same name exists, else unlabeled.

    Ids are the images' paths below ``images`` without extension. Those with a mask that are neither in val nor
    in test are the part "train", in the order of ``train.txt`` if there is one (then those that it names), else
    sorted. Images without a mask and those of ``unlabeled`` are the part "unlabeled". An image that a list
    names, or that lies in a val or test folder, has to have a mask.

    Args:
        root: folder of the dataset; None: see ``find_root``.
        classes: names; the position is the value in the masks.
        palette: one RGB color a class; None gives distinct ones.
        images: subfolder of the images, or a folder elsewhere.
        masks: subfolder of the masks, or a folder elsewhere.
        mask_suffix: what a mask's name has more than its image's, for example "_mask".
        val: "val" takes ``ROOT/val.txt`` or the subfolder ``val`` of the images; another name ending in
            ".txt" is a list, else a subfolder; a number in (0, 1) holds out that share of the labeled
            images, spread evenly over the sorted ids.
        test: the same for test images; by default they may be absent.
        unlabeled: folder with more images without masks, inside the root or elsewhere.
        void: mask values beside 255 that mean "not labeled".
        skip_bad, cache, cache_dir: see ``FileDataset``.
        name: name of the dataset.

    Raises:
        UserError: folders or lists missing, no labeled or no validation image, faulty classes or palette.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        images: str = "images",
        masks: str = "masks",
        mask_suffix: str = "",
        val: str | float = "val",
        test: str | float = "test",
        unlabeled: str | None = None,
        void: Sequence[int] = (),
        skip_bad: bool = False,
        cache: bool = True,
        cache_dir: str | None = None,
        name: str = "folder",
    ) -> None:
        info = folder_info(name, classes, palette)
        base = find_root(root, name, TREE)
        found = _Found.below(base / images, base / masks, mask_suffix)
        held = _held_out(base, found, {"val": val, "test": test})
        if not held["val"]:
            raise UserError(
                f"{base} has no validation images: there is neither {base / f'{val}.txt'} nor a folder "
                f"{base / images / str(val)}. Write their names into {base / 'val.txt'}, or hold out a share of "
                "the labeled images, for example dataset.val=0.2"
            )
        train = _training_ids(base, found, {*held["val"], *held["test"]})
        labeled = {*train, *held["val"], *held["test"]}
        outside = (
            {} if unlabeled is None else _images_elsewhere(base / Path(unlabeled).expanduser(), found.images)
        )
        rest = tuple(image_id for image_id in found.ids if image_id not in labeled)
        super().__init__(
            info,
            parts={"train": train, "val": held["val"], "test": held["test"], "unlabeled": (*rest, *outside)},
            images={image_id: found.image(image_id) for image_id in found.ids} | outside,
            masks={i: found.mask(i) for i in found.ids if i in found.masks or i in labeled},
            void=tuple(void),
            skip_bad=skip_bad,
            cache=cache,
            cache_dir=cache_dir,
        )


def folder_info(name: str, classes: Sequence[str], palette: Sequence[Sequence[int]] | None) -> DatasetInfo:
    """Check class names and colors that a person wrote.

    Raises:
        UserError: fewer than two classes or more than 255, names that are no text or occur twice, or a palette
            that is not one RGB color a class.
    """
    names = list(classes)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(
            f"dataset {name}: dataset.classes has {len(names)} names; expected 2 to {MAX_CLASSES}"
        )
    if wrong := [value for value in names if not isinstance(value, str)]:
        raise UserError(f"dataset {name}: class name {wrong[0]!r} is no text in YAML; put quotes around it")
    if twice := repeated(names):
        raise UserError(f"dataset {name}: class names occur twice: {shown(twice)}")
    if palette is None:
        return DatasetInfo(name, tuple(names), tuple(bit_color(index) for index in range(len(names))))
    colors = [tuple(int(value) for value in color) for color in palette]
    if len(colors) != len(names):
        raise UserError(f"dataset {name}: dataset.palette has {len(colors)} colors for {len(names)} classes")
    if faulty := [
        color for color in colors if len(color) != 3 or not all(0 <= value <= 255 for value in color)
    ]:
        raise UserError(
            f"dataset {name}: palette color {list(faulty[0])}; expected [red, green, blue], 0-255"
        )
    return DatasetInfo(name, tuple(names), tuple((color[0], color[1], color[2]) for color in colors))


@dataclass(frozen=True)
class _Found:
    """Images and masks by id, and where missing ones would be."""

    image_folder: Path
    mask_folder: Path
    mask_suffix: str
    images: dict[str, Path]
    masks: dict[str, Path]

    @classmethod
    def below(cls, image_folder: Path, mask_folder: Path, suffix: str) -> "_Found":
        images, by_stem = images_by_stem(image_folder), images_by_stem(mask_folder)
        masks = {stem.removesuffix(suffix): path for stem, path in by_stem.items() if stem.endswith(suffix)}
        if not images:
            raise UserError(f"no images in {image_folder}. Expected:\n{TREE}")
        if not images.keys() & masks.keys():
            first = next(iter(images))
            seen = (
                f"it holds for example {next(iter(by_stem.values())).name}"
                if by_stem
                else "it holds no images"
            )
            raise UserError(
                f"no image in {image_folder} has a mask in {mask_folder}: {images[first].name} needs "
                f"{first}{suffix}.png there, but {seen}. If all masks' names end alike, set dataset.mask_suffix"
            )
        return cls(image_folder, mask_folder, suffix, images, masks)

    @property
    def ids(self) -> list[str]:
        return sorted(self.images.keys() | self.masks.keys())

    def image(self, image_id: str) -> Path:
        return self.images.get(image_id, self.image_folder / f"{image_id}.*")

    def mask(self, image_id: str) -> Path:
        return self.masks.get(image_id, self.mask_folder / f"{image_id}{self.mask_suffix}.png")


def _held_out(base: Path, found: _Found, choices: dict[Part, str | float]) -> dict[Part, tuple[str, ...]]:
    """Ids of val and test: first those that lists and folders name, then shares of what is left."""
    held: dict[Part, tuple[str, ...]] = {
        part: _named_ids(base, found, choice) for part, choice in choices.items() if isinstance(choice, str)
    }
    for part, share in choices.items():
        if isinstance(share, str):
            continue
        if not 0 < share < 1:
            raise UserError(
                f"dataset.{part}={share}: expected a share between 0 and 1, a list file or a subfolder"
            )
        taken = {image_id for ids in held.values() for image_id in ids}
        labeled = [image_id for image_id in sorted(found.masks) if image_id not in taken]
        held[part] = spread(labeled, max(1, round(len(labeled) * share)))
    return held


def _named_ids(base: Path, found: _Found, choice: str) -> tuple[str, ...]:
    listed = base / (choice if choice.endswith(".txt") else f"{choice}.txt")
    if choice.endswith(".txt") or listed.is_file():
        return read_ids(listed, found.ids)
    return tuple(image_id for image_id in found.ids if image_id.startswith(f"{choice.strip('/')}/"))


def _training_ids(base: Path, found: _Found, held: set[str]) -> tuple[str, ...]:
    """Ids that may be labeled: those of train.txt, or all with a mask that are not held out."""
    listed = base / "train.txt"
    if listed.is_file():
        return read_ids(listed, found.ids)
    train = tuple(image_id for image_id in sorted(found.masks) if image_id not in held)
    if not train:
        raise UserError(f"{base} has no labeled image left for training: all {len(held)} are in val or test")
    return train


def _images_elsewhere(folder: Path, images: dict[str, Path]) -> dict[str, Path]:
    """Ids of the images in a further folder, its name before them; those listed already are left out."""
    if not folder.is_dir():
        raise UserError(f"dataset.unlabeled is no folder: {folder}")
    known = {path.resolve() for path in images.values()}
    further = {
        f"{folder.name}/{stem}": path
        for stem, path in images_by_stem(folder).items()
        if path.resolve() not in known
    }
    if both := sorted(further.keys() & images.keys()):
        raise UserError(
            f"{folder} and the folder of images give the same ids: {shown(both)}; rename one folder"
        )
    return further
