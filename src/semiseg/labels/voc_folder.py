"""Masks in the folders of PASCAL VOC, which are also those of CVAT's "Segmentation mask 1.1".

SegmentationClass holds a PNG a picture, ImageSets/Segmentation lists of pictures, and labelmap.txt, where there is one,
the names and colors of the classes, a line each: ``name:red,green,blue:parts:actions``.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from semiseg.contracts.dataset import IGNORE_INDEX, Array
from semiseg.data.mask_labels import color_text
from semiseg.data.mask_pixels import MaskPixels, read_pixels
from semiseg.data.palette import Color, bit_color
from semiseg.data.picture_files import BadFileError
from semiseg.data.voc import CLASSES
from semiseg.errors import UserError
from semiseg.files import write_text
from semiseg.labels.label_record import IGNORE_NAME, PARTS, Findings, LabeledPicture, LabelSet, Part
from semiseg.labels.mask_shapes import UNLABELED_COLOR, MaskedPicture, Writing
from semiseg.pictures import paletted, save
from semiseg.splits.lists import read_lines

MASKS, LISTS, LABELMAP = "SegmentationClass", "ImageSets/Segmentation", "labelmap.txt"


def read_voc(sources: Sequence[Path], found: Findings) -> LabelSet:
    """Read the masks of a folder; classes are in the order of labelmap.txt, else the 21 of PASCAL VOC.

    Args:
        sources: the folder that holds SegmentationClass.
        found: gets notes.

    Raises:
        UserError: there are no masks, or labelmap.txt cannot be read.
    """
    base = _base(sources[0])
    labelmap = base / LABELMAP
    if labelmap.is_file():
        colors = _labelmap(labelmap)
        order = f"as {labelmap.name} lists them"
        read: Callable[[Path], Array] = partial(_colored, colors)
    else:
        colors = {name: bit_color(label) for label, name in enumerate(CLASSES)}
        order = f"the {len(CLASSES)} of PASCAL VOC, for want of a {LABELMAP}"
        read = _indexed
    parts = _parts(base)
    masks = sorted((base / MASKS).rglob("*.png"))
    if not masks:
        raise UserError(f"{base / MASKS} holds no PNG")
    pictures = [
        LabeledPicture(
            f"JPEGImages/{(name := path.relative_to(base / MASKS).with_suffix('').as_posix())}.*",
            path,
            None,
            raster=partial(read, path),
            part=parts.get(name),
            also=(f"{name}.*",),
        )
        for path in masks
    ]
    given = {name: color for name, color in colors.items() if name != IGNORE_NAME}
    return LabelSet(tuple(given), order, pictures, given)


def _base(source: Path) -> Path:
    """Folder that holds the masks: the source, or one below it as archives have it."""
    found = [source, *sorted(path.parent for path in source.rglob(MASKS) if path.is_dir())]
    base = next((folder for folder in found if (folder / MASKS).is_dir()), None)
    if base is None:
        raise UserError(
            f"{source} has no folder {MASKS}; expected the layout of PASCAL VOC, or an archive with it"
        )
    return base


def _labelmap(path: Path) -> dict[str, Color]:
    colors: dict[str, Color] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(("# label:", "#label:")):
            continue
        parts = re.fullmatch(r"(.+?):(?:(\d+),(\d+),(\d+))?(?::.*)?", line)
        if parts is None or any(int(value or 0) > IGNORE_INDEX for value in parts.groups()[1:]):
            raise UserError(f"{path}, line {number}: {line!r}; expected name:red,green,blue:parts:actions")
        _, red, green, blue = parts.groups()
        # Without colors they are those of PASCAL VOC, in the order of the lines.
        colors[parts[1]] = (int(red), int(green), int(blue)) if red else bit_color(len(colors))
    if len(set(colors.values())) < len(colors):
        raise UserError(f"{path}: two classes have the same color")
    return colors


def _colored(colors: dict[str, Color], path: Path) -> Array:
    """Label map of a mask by the colors that a viewer shows."""
    pixels = read_pixels(path)
    labels = {UNLABELED_COLOR: IGNORE_INDEX}
    labels |= {
        color: label for label, color in enumerate(c for name, c in colors.items() if name != IGNORE_NAME)
    }
    if IGNORE_NAME in colors:
        labels[colors[IGNORE_NAME]] = IGNORE_INDEX
    codes, where = np.unique(pixels.colors(), return_inverse=True)
    shown = [(code >> 16, code >> 8 & 255, code & 255) for code in codes.tolist()]
    if unknown := [code for code, color in zip(codes.tolist(), shown, strict=True) if color not in labels]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise BadFileError(path, f"color {color_text(unknown[0])}{more} that {LABELMAP} does not list")
    return _void_where_transparent(np.array([labels[color] for color in shown], np.uint8)[where], pixels)


def _indexed(path: Path) -> Array:
    """Label map of a mask by its numbers."""
    pixels = read_pixels(path)
    if pixels.format.kind == "color":
        raise BadFileError(
            path, f"a mask in colors, and there is no {LABELMAP} that names the classes of them"
        )
    outside = np.setdiff1d(pixels.codes, [*range(len(CLASSES)), IGNORE_INDEX])
    if len(outside):
        raise BadFileError(
            path, f"value {outside[0]} is none of PASCAL VOC (0 to 20 and 255), and there is no {LABELMAP}"
        )
    return _void_where_transparent(pixels.codes.astype(np.uint8), pixels)


def _void_where_transparent(label_map: Array, pixels: MaskPixels) -> Array:
    if pixels.transparent is not None:
        label_map[pixels.transparent] = IGNORE_INDEX
    return label_map


def _parts(base: Path) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for name, part in PARTS.items():
        path = base / LISTS / f"{name}.txt"
        if path.is_file():
            found |= dict.fromkeys(read_lines(path), part)
    return found


def write_voc(folder: Path, writing: Writing, pictures: Iterable[MaskedPicture]) -> None:
    """Write palette PNGs, whose indices are the labels and 255, with labelmap.txt and a list of the pictures.

    Args:
        folder: existing folder of the files.
        writing: classes and colors.
        pictures: the pictures with their label maps.
    """
    palette = writing.info.palette
    distinct = len({*palette, UNLABELED_COLOR}) == len(palette) + 1
    colors = palette if distinct else [bit_color(label) for label in range(len(palette))]
    shown = dict(enumerate(colors)) | {IGNORE_INDEX: UNLABELED_COLOR}
    names = []
    for picture in pictures:
        path = (folder / MASKS / picture.key).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, paletted(picture.label_map, shown))
        names.append(path.relative_to(folder / MASKS).with_suffix("").as_posix())
    lists = folder / LISTS / "default.txt"
    lists.parent.mkdir(parents=True, exist_ok=True)
    write_text(lists, "".join(f"{name}\n" for name in names))
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(writing.names, shown.values(), strict=True)]
    write_text(folder / LABELMAP, "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
