"""CVAT's XML for images, version 1.1.

Source of the format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. Coordinates are continuous, on
the picture as CVAT shows it, which applies a rotation in the EXIF data.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from semiseg.data.mask_labels import color_text, parse_color
from semiseg.data.palette import Color
from semiseg.data.picture_files import BadFileError
from semiseg.errors import UserError
from semiseg.files import replacing
from semiseg.labels.label_files import each_readable, files_of
from semiseg.labels.label_record import (
    IGNORE_NAME,
    PARTS,
    Findings,
    Form,
    LabeledPicture,
    LabeledShape,
    LabelSet,
    Outline,
    Patch,
)
from semiseg.labels.mask_shapes import MaskedPicture, Writing, bits_bounds
from semiseg.labels.outlines import ellipse, rectangle, ring_of, turned
from semiseg.labels.run_lengths import from_runs, run_lengths
from semiseg.labels.voc_folder import MASKS, read_voc


def read_cvat(sources: Sequence[Path], found: Findings) -> LabelSet:
    """Read files of CVAT; classes are the labels in the order of the task or project.

    Folders of masks, as of "Segmentation mask 1.1", are read too.

    Raises:
        UserError: a source does not exist or holds no XML.
    """
    if not any(_holds_xml(source) for source in sources) and any(
        any(source.rglob(MASKS)) for source in sources
    ):
        return read_voc(sources, found)
    colors: dict[str, Color | None] = {}
    pictures: list[LabeledPicture] = []

    def read(path: Path) -> None:
        root = _root(path)
        for label in root.iterfind("meta/*/labels/label"):
            if label.findtext("parent") is None:
                colors.setdefault(label.findtext("name") or "", _color(label.findtext("color")))
        pictures.extend(_picture(image, path, found) for image in root.iterfind("image"))

    each_readable(files_of(sources, "*.xml", "CVAT's XML for images"), read, found)
    used = [shape.label for picture in pictures for shape in picture.shapes if shape.label]
    names = [name for name in dict.fromkeys([*colors, *used]) if name != IGNORE_NAME]
    given = {name: color for name, color in colors.items() if color is not None}
    return LabelSet(tuple(names), "labels, as CVAT's task lists them", pictures, given)


def _holds_xml(source: Path) -> bool:
    return source.is_file() or any(source.rglob("*.xml"))


def _root(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise BadFileError(path, f"no XML ({error}): damaged or cut off") from error
    if root.tag != "annotations":
        raise BadFileError(path, f"no file of CVAT: expected <annotations>, but it is <{root.tag}>")
    if root.find("track") is not None:
        raise BadFileError(path, "tracks of a video; export the task as 'CVAT for images 1.1'")
    return root


def _color(text: str | None) -> Color | None:
    try:
        return parse_color(text or "")
    except UserError:
        return None


def _picture(image: ElementTree.Element, path: Path, found: Findings) -> LabeledPicture:
    name = image.attrib["name"]
    shapes = []
    for mark in image:
        if mark.tag == "tag":
            continue
        try:
            form = _form(mark)
        except (KeyError, TypeError, ValueError) as error:
            found.fault(name, path, f"{mark.tag} of {mark.get('label')}: {error}")
            continue
        if form is None:
            found.left_out[f"marks of the kind {mark.tag}"] += 1
        else:
            layer = int(mark.get("z_order", 0))
            shapes.append(LabeledShape(mark.attrib["label"], (form,), layer=layer, name=mark.tag))
    size = int(image.attrib["height"]), int(image.attrib["width"])
    return LabeledPicture(name, path, size, tuple(shapes), part=PARTS.get(image.get("subset", "").lower()))


def _form(mark: ElementTree.Element) -> Form | None:
    def numbers(*keys: str) -> list[float]:
        return [float(mark.attrib[key]) for key in keys]

    degrees = float(mark.get("rotation", 0))
    match mark.tag:
        case "polygon":
            pairs = (pair.split(",") for pair in mark.attrib["points"].split(";") if pair.strip())
            return Outline((ring_of([[float(x), float(y)] for x, y in pairs]),))
        case "box":
            left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
            center = ((left + right) / 2, (top + bottom) / 2)
            return Outline((turned(rectangle(left, top, right, bottom), center, degrees),))
        case "ellipse":
            x, y, horizontal, vertical = numbers("cx", "cy", "rx", "ry")
            return Outline((ellipse((x, y), (horizontal, vertical), degrees),))
        case "mask":
            return lambda: _unpacked(mark.attrib)
    return None


def _unpacked(values: dict[str, str]) -> Patch:
    left, top, width, height = (int(float(values[key])) for key in ("left", "top", "width", "height"))
    counts = [int(text) for text in values["rle"].split(",") if text.strip()]
    return Patch(from_runs(counts, width * height).reshape(height, width), left, top)


def write_cvat(folder: Path, writing: Writing, pictures: Iterable[MaskedPicture]) -> None:
    """Write annotations.xml, which CVAT takes as annotations of a task with the same pictures and labels.

    Args:
        folder: existing folder of the file.
        writing: classes, and the way in which areas are written.
        pictures: the pictures with their label maps.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(_below(_below(root, "meta"), "task"), "labels")
    for name, (red, green, blue) in writing.colors.items():
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = color_text(red << 16 | green << 8 | blue)
        ElementTree.SubElement(label, "type").text = "any"
    for number, picture in enumerate(pictures):
        height, width = picture.size
        values = {"id": number, "name": picture.key, "width": width, "height": height}
        image = _below(root, "image", values)
        if writing.as_masks:
            for name, bits in writing.masks(picture.label_map):
                _below(image, "mask", {"label": name, **_shared(0), **_mask(bits)})
        else:
            for layer, (name, ring) in enumerate(writing.outlines(picture.label_map)):
                points = ";".join(f"{x:g},{y:g}" for x, y in ring.tolist())
                _below(image, "polygon", {"label": name, **_shared(layer), "points": points})
    ElementTree.indent(root)
    with replacing(folder / "annotations.xml") as file:
        ElementTree.ElementTree(root).write(file, "utf-8", xml_declaration=True)


def _below(
    parent: ElementTree.Element, tag: str, values: dict[str, Any] | None = None
) -> ElementTree.Element:
    texts = {key: str(value) for key, value in (values or {}).items()}
    return ElementTree.SubElement(parent, tag, texts)


def _shared(layer: int) -> dict[str, Any]:
    return {"source": "semi-auto", "occluded": 0, "z_order": layer}


def _mask(bits: np.ndarray) -> dict[str, Any]:
    left, top, width, height = bits_bounds(bits)
    runs = run_lengths(bits[top : top + height, left : left + width].ravel())
    return {"rle": ", ".join(map(str, runs)), "left": left, "top": top, "width": width, "height": height}
