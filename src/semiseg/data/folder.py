"""Own images in a folder, with masks for some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from semiseg.contracts.dataset import IGNORE_INDEX, Array, Bands, Part, Pixels
from semiseg.data.band_reader import BandReader, cut_files
from semiseg.data.bands import BAND_SUFFIXES
from semiseg.data.folder_files import TREE, NameEnds, find_files, images_elsewhere
from semiseg.data.folder_info import folder_info, is_placeholder
from semiseg.data.folder_parts import Source, divide
from semiseg.data.image_files import Cache, CacheDir, FileDataset, Root, find_root
from semiseg.data.image_groups import read_groups
from semiseg.data.mask_format import format_of_settings
from semiseg.data.mask_labels import mask_labels
from semiseg.data.picture_files import BadFileError, Exif
from semiseg.data.tile_grid import TileGrid
from semiseg.declare import Mark
from semiseg.errors import UserError
from semiseg.splits.lists import IMAGE_SUFFIXES

CUT_WITHOUT_BANDS = (
    "cuts images of bands alone; give dataset.bands too, for 8-bit RGB as well: `semiseg init FOLDER --bands` "
    "measures and writes both."
)


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
        sources: dict[Part, Source] = {"val": val} if test is None else {"val": val, "test": test}
        parts = divide(base, base / images, found, outside, sources, self._groups)
        labeled = {image_id for part in (*sources, "train") for image_id in parts[part]}
        self._explained = values is not None or bool(void)
        super().__init__(
            info,
            parts=parts,
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

    def values_setting(self, changed: Mapping[int, str]) -> str | None:
        """See ``OpenValues``; ``None`` where ``values`` or ``void`` is given."""
        if self._explained:
            return None
        values = (changed.get(label, str(label)) for label in range(self.info.num_classes))
        return f"dataset.values=[{','.join(values)}]"

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
