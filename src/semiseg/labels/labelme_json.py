"""labelme's JSON, one file a picture, as versions 3 to 6 write it.

Source of the format: https://github.com/wkentaro/labelme, whose code is not used (GPL). Coordinates are continuous, on
the picture as labelme shows it, which applies a rotation in the EXIF data. Later shapes cover earlier ones.
"""

import base64
import os
from collections.abc import Iterable, Sequence
from io import BytesIO
from math import dist
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from semiseg.files import write_json, write_text
from semiseg.labels.label_files import each_readable, files_of, load_json, mapping_of
from semiseg.labels.label_record import (
    IGNORE_NAME,
    Findings,
    Form,
    LabeledPicture,
    LabeledShape,
    LabelSet,
    Outline,
    Patch,
)
from semiseg.labels.mask_shapes import MaskedPicture, Writing, bits_bounds
from semiseg.labels.outlines import ellipse, rectangle, ring_of
from semiseg.splits.lists import read_lines

LABELS = "labels.txt"
"""File of names that labelme is started with (``--labels labels.txt``)."""


def read_labelme(sources: Sequence[Path], found: Findings) -> LabelSet:
    """Read files of labelme; classes are in the order of a labels.txt next to them, else sorted by name.

    Raises:
        UserError: a source does not exist or holds no JSON.
    """
    pictures: list[LabeledPicture] = []

    def read(path: Path) -> None:
        content = load_json(path)
        pictures.append(_picture(mapping_of(content, ("shapes", "imagePath"), path, "labelme"), path, found))

    files = files_of(sources, "*.json", "labelme's JSON files")
    each_readable(files, read, found)
    used = {shape.label for picture in pictures for shape in picture.shapes if shape.label is not None}
    listed, source = _listed(sources, files)
    unlisted = sorted(used.difference(listed, [IGNORE_NAME]))
    if listed and unlisted:
        found.notes.append(
            f"{source} does not list {', '.join(unlisted)}: these classes come after those that it lists"
        )
    order = f"as {source} lists them" if listed else "sorted by name, since the files list none"
    return LabelSet((*listed, *unlisted), order, pictures)


def _listed(sources: Sequence[Path], files: Sequence[Path]) -> tuple[list[str], Path | None]:
    """Names in labels.txt of the sources, next to them or next to the first file."""
    places = [source if source.is_dir() else source.parent for source in sources]
    candidates = [folder / LABELS for place in (*places, files[0].parent) for folder in (place, place.parent)]
    path = next((path for path in candidates if path.is_file()), None)
    names = read_lines(path) if path else []
    return [name for name in dict.fromkeys(names) if name != IGNORE_NAME], path


def _picture(content: dict[str, Any], path: Path, found: Findings) -> LabeledPicture:
    name = PureWindowsPath(content["imagePath"]).as_posix()
    shapes = []
    for number, shape in enumerate(content["shapes"], start=1):
        try:
            form = _form(shape)
        except (KeyError, TypeError, ValueError, OSError) as error:
            found.fault(name, path, f"shape {number} ({shape.get('label')}): {error}")
            continue
        if form is None:
            found.left_out[f"shapes of the kind {shape.get('shape_type')}"] += 1
        else:
            shapes.append(LabeledShape(str(shape["label"]), (form,), name=f"shape {number}"))
    height, width = content.get("imageHeight"), content.get("imageWidth")
    return LabeledPicture(
        name,
        path,
        (int(height), int(width)) if height and width else None,
        tuple(shapes),
        also=(f"{path.stem}.*",),  # both files may have been renamed
        embedded=(lambda: base64.b64decode(load_json(path)["imageData"]))
        if content.get("imageData")
        else None,
    )


def _form(shape: dict[str, Any]) -> Form | None:
    """Area of a shape; ``None`` for lines and points."""
    points = shape["points"]
    match shape.get("shape_type") or "polygon":
        case "polygon" | "oriented_rectangle":
            return Outline((ring_of(points),))
        case "rectangle":
            corners = ring_of(points) if len(points) == 4 else None  # as versions from 5.5 on may write it
            (x0, y0), (x1, y1) = points[0], points[-1]
            return Outline((rectangle(x0, y0, x1, y1) if corners is None else corners,))
        case "circle":
            center, edge = points
            radius = dist(center, edge)
            return Outline((ellipse((center[0], center[1]), (radius, radius)),))
        case "mask":
            return lambda: _mask(shape)
    return None


def _mask(shape: dict[str, Any]) -> Patch:
    left, top = (int(value) for value in shape["points"][0])
    with Image.open(BytesIO(base64.b64decode(shape["mask"]))) as picture:
        return Patch(np.asarray(picture.convert("I")) > 0, left, top)


def write_labelme(folder: Path, writing: Writing, pictures: Iterable[MaskedPicture]) -> None:
    """Write a JSON file a picture, which names its picture by a relative path, and labels.txt.

    Args:
        folder: existing folder of the files.
        writing: classes, and the way in which areas are written.
        pictures: the pictures with their label maps.
    """
    for picture in pictures:
        path = (folder / picture.key).with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = picture.size
        content: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": _shapes(picture, writing),
            "imagePath": Path(os.path.relpath(picture.file, path.parent)).as_posix(),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(path, content)
    names = (IGNORE_NAME, *writing.info.classes)
    write_text(folder / LABELS, "".join(f"{name}\n" for name in names))


def _shapes(picture: MaskedPicture, writing: Writing) -> list[dict[str, Any]]:
    if not writing.as_masks:
        outlines = writing.outlines(picture.label_map)
        return [_shape(name, "polygon", ring.tolist(), None) for name, ring in outlines]
    shapes = []
    for name, bits in writing.masks(picture.label_map):
        left, top, width, height = bits_bounds(bits)
        part = bits[top : top + height, left : left + width]
        file = BytesIO()
        Image.fromarray(part.astype(np.uint8) * 255).convert("1").save(file, "PNG")
        corners: list[list[float]] = [[left, top], [left + width - 1, top + height - 1]]
        shapes.append(_shape(name, "mask", corners, base64.b64encode(file.getvalue()).decode()))
    return shapes


def _shape(name: str, kind: str, points: list[list[float]], mask: str | None) -> dict[str, Any]:
    empty: dict[str, Any] = {"group_id": None, "description": "", "flags": {}}
    return {"label": name, "points": points, "shape_type": kind, **empty, "mask": mask}
