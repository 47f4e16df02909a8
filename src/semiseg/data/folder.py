"""Own images in a folder, with masks for some of them."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Bands, DatasetInfo, Part, Pixels
from semiseg.data.band_reader import BandReader, cut_files
from semiseg.data.bands import BAND_SUFFIXES
from semiseg.data.folder_files import TREE, FolderFiles, NameEnds, find_files, images_elsewhere
from semiseg.data.image_files import Cache, CacheDir, FileDataset, Root, find_root
from semiseg.data.image_groups import draw_share, read_groups
from semiseg.data.mask_format import format_of_settings
from semiseg.data.mask_labels import mask_labels
from semiseg.data.palette import bit_color
from semiseg.data.picture_files import BadFileError, Exif
from semiseg.data.tile_grid import TileGrid
from semiseg.declare import Mark
from semiseg.errors import UserError
from semiseg.splits.lists import IMAGE_SUFFIXES, repeated, shown, spread

MAX_CLASSES = 255
CUT_WITHOUT_BANDS = (
    "cuts images of bands alone; give dataset.bands too, for 8-bit RGB as well: `semiseg init FOLDER --bands` "
    "measures and writes both."
)

logger = logging.getLogger(__name__)


class Folder(FileDataset):
    """Own images: labeled where a mask of the same name exists, else unlabeled.

    Ids are the images' paths below ``images`` without extension. Those with a mask that are neither in val nor
    in test are the part "train", in the order of ``train.txt`` if there is one (then those that it names), else
    sorted. Images without a mask and those of ``unlabeled`` are the part "unlabeled". An image that a list
    names, or that lies in a val or test folder, has to have a mask. See ``find_files`` for the folders of
    images and masks.

    Args:
        root: folder of the dataset; ``None`` takes the folder of the dataset's name in $SEMISEG_DATA.
        classes: names in the order of the values in the masks.
        palette: RGB color of each class, for pictures; ``None`` takes those of ``values``, else distinct ones.
        values: value of each class in the masks, where that is not its position: a number, a color as
            "#rrggbb" for color-coded masks, "transparent", or a list of several. ``None`` takes the position.
        images: subfolder of the images, or a folder elsewhere; ``*`` stands for any folder name.
        masks: subfolder of the masks, or a folder elsewhere; ``*`` stands for any folder name.
        image_suffix: ending of an image's name after its id, for example "_image"; "/image" where each image lies
            in a folder of its own and is called so.
        mask_suffix: ending of a mask's name after its id, for example "_mask" or "/mask".
        image_prefix: beginning of an image's name before its id, for example "img_".
        mask_prefix: beginning of a mask's name before its id, for example "mask_".
        pairs: lists of images and their masks, two paths a line (text or CSV), in place of ``masks``.
        leave_out: paths without extension, relative to the root, of files that are no images, such as previews among
            them; ``*`` stands for any text, as in "*_preview" or "images/thumbnails/*".
        val: source of the validation images: "val" takes ``ROOT/val.txt`` or the subfolder ``val`` of the images;
            another name ending in ".txt" is a list, else a subfolder; a number in (0, 1) holds out that share of
            the labeled images, spread evenly over the sorted ids.
        test: source of the test images, chosen like ``val``; they may be absent. ``None`` takes none.
        unlabeled: folder with more images without masks, inside the root or elsewhere; ``None`` takes none.
        void: values in masks other than 255, or colors, that mean "not labeled"; "transparent" for what is fully
            transparent.
        placeholder_names: whether ``semiseg init`` made names up; counts while a class is still called "class_N".
        mask_format: format that all masks have, as ``semiseg init`` has found it; ``None`` compares the masks of a
            run with each other before it starts.
        exif: "apply" turns images, and masks that have such a tag, as their EXIF orientation says; "ignore" leaves
            them as they are stored, for masks that were drawn so. The predictions of a run do the same.
        groups: regular expression whose parentheses match the part of an id that names its patient, video, tile set
            or building, as in "^(p[0-9]+)_", or CSV file with an id and its group a line, in the root or elsewhere.
            A share for ``val`` or ``test`` then draws whole groups, and unlabeled images of a group of val or test
            are left out. ``None`` makes each image its own group, and each tile one of its block.
        bands: channels of images that are not 8-bit RGB; ``None`` for 8-bit RGB.
        tiles: grid that large pictures of bands are cut on; ``None`` takes whole pictures.
        skip_bad, cache, cache_dir: see ``FileDataset``.
        name: name of the dataset.

    Raises:
        UserError: folders or lists missing, no labeled or no validation image, faulty classes, values or palette.
    """

    def __init__(
        self,
        root: Root = None,
        *,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        values: Sequence[int | str | Sequence[int | str]] | None = None,
        images: str = "images",
        masks: str = "masks",
        image_suffix: str = "",
        mask_suffix: str = "",
        image_prefix: str = "",
        mask_prefix: str = "",
        pairs: str | Sequence[str] = (),
        leave_out: Sequence[str] = (),
        val: str | float = "val",
        test: str | float | None = "test",
        unlabeled: str | None = None,
        void: Sequence[int | str] = (),
        placeholder_names: Annotated[bool, Mark("nothing")] = False,
        mask_format: Mapping[str, Any] | None = None,
        exif: Exif = "apply",
        groups: str | None = None,
        bands: Bands | None = None,
        tiles: TileGrid | None = None,
        skip_bad: bool = False,
        cache: Cache = True,
        cache_dir: CacheDir = None,
        name: str = "folder",
    ) -> None:
        info = folder_info(name, classes, palette)
        labels = mask_labels(name, info.num_classes, values, void)
        if palette is None:
            info = folder_info(name, classes, labels.palette())
        made_up = placeholder_names and any(map(is_placeholder, info.classes))
        info = replace(info, placeholder_names=made_up, bands=bands)
        suffixes = IMAGE_SUFFIXES if bands is None else BAND_SUFFIXES
        base = find_root(root, name, TREE)
        found = find_files(
            base,
            images,
            masks,
            NameEnds(image_prefix, image_suffix),
            NameEnds(mask_prefix, mask_suffix),
            [pairs] if isinstance(pairs, str) else pairs,
            leave_out,
            suffixes,
        )
        self._missing = found.missing_images()
        outside: dict[str, Path] = {}
        if unlabeled is not None:
            outside = images_elsewhere(base / Path(unlabeled).expanduser(), found.images, suffixes)
        self.band_reader = None if bands is None else BandReader(bands)
        if tiles is not None:
            if self.band_reader is None:
                raise UserError(CUT_WITHOUT_BANDS, key="dataset.tiles")
            void_values = frozenset({IGNORE_INDEX, *labels.void})
            found, outside = cut_files(found, outside, tiles, void_values, self.band_reader)
        ids = (*found.ids, *outside)
        self._groups = read_groups(groups, base, ids)
        if tiles is not None and groups is None:
            self._groups = tiles.groups(ids)
        choices: dict[Part, str | float] = {"val": val} if test is None else {"val": val, "test": test}
        held = _held_out(base, found, choices, self._groups)
        if not held["val"]:
            raise UserError(
                f"{base} has no validation images: there is neither {base / f'{val}.txt'} nor a folder "
                f"{base / images / str(val)}. Write their names into {base / 'val.txt'}, or hold out a share of "
                "the labeled images, for example dataset.val=0.2"
            )
        measured = {image_id for ids in held.values() for image_id in ids}
        drawn = {i for part in choices for i in held[part] if not _is_beside(base, choices[part])}
        train = _training_ids(base, found, measured, drawn)
        labeled = {*train, *measured}
        rest = [image_id for image_id in (*found.ids, *outside) if image_id not in labeled]
        self._explained = values is not None or bool(void)
        super().__init__(
            info,
            parts={"train": train, **held, "unlabeled": self._apart(rest, measured)},
            images={image_id: found.image(image_id) for image_id in found.ids} | outside,
            masks={i: found.mask(i) for i in found.ids if i in found.masks or i in labeled},
            void=labels.void,
            values=None if labels.colors else labels.numbers,
            colors=labels.colors,
            transparent=labels.transparent,
            mask_format=None if mask_format is None else format_of_settings(mask_format),
            exif=exif,
            skip_bad=skip_bad,
            # Bands are read in windows, and as they are in most files.
            cache=cache and bands is None,
            cache_dir=cache_dir,
        )

    def group(self, image_id: str) -> str | None:
        """Group of an image by ``groups``; ``None`` where it has none."""
        return self._groups.get(image_id)

    def values_with_255(self) -> str | None:
        """The setting that reads 255 as the last class; ``None`` where ``values`` or ``void`` is given."""
        if self._explained:
            return None
        numbers = ",".join(map(str, (*range(self.info.num_classes - 1), 255)))
        return f"dataset.values=[{numbers}]"

    def _apart(self, unlabeled: Sequence[str], measured: set[str]) -> tuple[str, ...]:
        """Unlabeled images without those of groups that are measured on, which a log message counts."""
        held = {self._groups[image_id] for image_id in measured if image_id in self._groups}
        kept = tuple(image_id for image_id in unlabeled if self._groups.get(image_id) not in held)
        if len(kept) < len(unlabeled):
            count = len(unlabeled) - len(kept)
            logger.warning("left out %d unlabeled images of groups that are in val or test", count)
        return kept

    def image(self, image_id: str) -> Pixels:
        """See ``FileDataset``; a missing image is explained by what is there instead."""
        if image_id in self._missing:
            raise BadFileError(self.files(image_id)[0], self._missing[image_id])
        if self.band_reader is None:
            return super().image(image_id)
        return self.band_reader.image(image_id, self._images[image_id])

    def mask(self, image_id: str) -> Array | None:
        """See ``FileDataset``; of bands 255 too where a channel has no value."""
        path = self._masks.get(image_id)
        if self.band_reader is None or path is None or not path.exists():
            return super().mask(image_id)
        return self.band_reader.label(image_id, self._images[image_id], path, self.mask_reader)


def placeholder_name(label: int) -> str:
    """Name of a class that nobody has named yet."""
    return f"class_{label}"


def is_placeholder(name: str) -> bool:
    """Whether a name is one of ``placeholder_name``."""
    return re.fullmatch(r"class_\d+", name) is not None


def folder_info(name: str, classes: Sequence[str], palette: Sequence[Sequence[int]] | None) -> DatasetInfo:
    """Return the classes and colors of the settings, after checking them.

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


def _held_out(
    base: Path, found: FolderFiles, choices: Mapping[Part, str | float], groups: Mapping[str, str]
) -> dict[Part, tuple[str, ...]]:
    """Ids of val and test: first those that lists and folders name, then shares of what is left, by whole groups."""
    held: dict[Part, tuple[str, ...]] = {
        part: _named_ids(base, found, choice) for part, choice in choices.items() if isinstance(choice, str)
    }
    for part, share in choices.items():
        if isinstance(share, str):
            continue
        if not 0 < share < 1:
            raise UserError(
                "expected a share between 0 and 1, a list file or a subfolder",
                key=f"dataset.{part}",
                value=share,
            )
        taken = {image_id for ids in held.values() for image_id in ids}
        labeled = [image_id for image_id in sorted(found.masks) if image_id not in taken]
        if groups:
            held[part] = draw_share(labeled, share, groups)
        else:
            held[part] = spread(labeled, max(1, round(len(labeled) * share)))
    return held


def _named_ids(base: Path, found: FolderFiles, choice: str) -> tuple[str, ...]:
    listed = base / (choice if choice.endswith(".txt") else f"{choice}.txt")
    if choice.endswith(".txt") or listed.is_file():
        return found.listed(listed)
    return tuple(image_id for image_id in found.ids if image_id.startswith(f"{choice.strip('/')}/"))


def _is_beside(base: Path, choice: str | float) -> bool:
    """Whether a list or a subfolder of the dataset says what is held out."""
    return isinstance(choice, str) and not Path(choice).is_absolute()


def _training_ids(base: Path, found: FolderFiles, held: set[str], drawn: set[str]) -> tuple[str, ...]:
    """Ids that may be labeled: those of train.txt, or all with a mask; what is held out leaves the latter.

    It leaves train.txt too where no list beside that says what is held out, but a share, or a list elsewhere.
    """
    listed = base / "train.txt"
    if listed.is_file():
        return tuple(image_id for image_id in found.listed(listed) if image_id not in drawn)
    train = tuple(image_id for image_id in sorted(found.masks) if image_id not in held)
    if not train:
        raise UserError(f"{base} has no labeled image left for training: all {len(held)} are in val or test")
    return train
