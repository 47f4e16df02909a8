"""Label Studio's JSON of tasks: brushes, polygons, rectangles and ellipses; also the shorter JSON-MIN.

Source of the format: https://labelstud.io/guide/export. Coordinates are percents of the picture as a browser shows it,
which applies a rotation in the EXIF data. Later regions cover earlier ones.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from semiseg.data.mask_labels import color_text
from semiseg.data.picture_files import BadFileError
from semiseg.errors import UserError
from semiseg.files import replacing, write_json
from semiseg.labels.brush_rle import from_brush, to_brush
from semiseg.labels.label_files import each_readable, files_of, load_json
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
from semiseg.labels.label_studio_pictures import picture_names, uploaded_name
from semiseg.labels.label_studio_pngs import Pngs, named_pngs, png_shapes
from semiseg.labels.mask_shapes import MaskedPicture, Writing
from semiseg.labels.outlines import ellipse, rectangle, ring_of, turned

CONFIG = "label_config.xml"
"""File of the labeling interface, whose labels give the order of the classes."""
CONTROL, PICTURE = "label", "image"
Region = dict[str, Any]


def read_label_studio(sources: Sequence[Path], found: Findings) -> LabelSet:
    """Read tasks; classes are in the order of an XML of the labeling interface among the sources, else sorted.

    Among the sources may be folders of the PNGs that Label Studio exports; then these are read instead of the regions
    in the JSON, which gives the pictures of the tasks.

    Raises:
        UserError: a source does not exist, or there is no JSON.
    """
    configs = [source for source in sources if source.suffix == ".xml"]
    others = [source for source in sources if source.suffix != ".xml"]
    configs += [path for source in others if (path := source / CONFIG).is_file()]
    pngs = named_pngs(source for source in others if source.is_dir())
    tasks: list[tuple[Region, Path]] = []
    each_readable(_jsons(others, bool(pngs)), lambda path: tasks.extend(_tasks(path)), found)
    pictures = [_picture(task, path, pngs, found) for task, path in tasks]
    listed = [name for path in configs for name in _labels_of(path)]
    used = {shape.label for picture in pictures for shape in picture.shapes if shape.label}
    order = (
        f"as {configs[0]} lists them"
        if configs
        else f"sorted by name; {CONFIG} among the sources orders them"
    )
    names = dict.fromkeys((*listed, *sorted(used.difference(listed))))
    return LabelSet(tuple(name for name in names if name != IGNORE_NAME), order, pictures)


def _jsons(sources: Sequence[Path], with_pngs: bool) -> list[Path]:
    """Return the JSON files; folders of PNGs need none."""
    if not with_pngs:
        return files_of(sources, "*.json", "Label Studio's JSON")
    files = [path for source in sources for path in (source.rglob("*.json") if source.is_dir() else [source])]
    if not files:
        raise UserError(
            f"{sources[0]} holds PNGs of Label Studio's brush, which are named by the number of their task; its JSON "
            "says which picture that is. Export the project as JSON too, and name both: "
            f"semiseg import label-studio {sources[0]} tasks.json"
        )
    return sorted(files)


def _labels_of(path: Path) -> list[str]:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path}: no XML of a labeling interface ({error})") from error
    return [label.attrib["value"] for label in root.iter("Label") if "value" in label.attrib]


def _tasks(path: Path) -> Iterator[tuple[Region, Path]]:
    content = load_json(path)
    for number, task in enumerate(content if isinstance(content, list) else [content], start=1):
        single = isinstance(content, dict) and "data" not in content
        if single or not isinstance(task, dict) or picture_names(task) is None:
            raise BadFileError(
                path, f"task {number} names no picture; expected the JSON or JSON-MIN of Label Studio"
            )
        yield task, path


def _picture(task: Region, path: Path, pngs: Pngs, found: Findings) -> LabeledPicture:
    names, uploaded = picture_names(task) or ("",), uploaded_name(task)
    if pngs:
        shapes_of_pngs = png_shapes(pngs.get(str(task.get("id")), ()))
        return LabeledPicture(names[0], path, None, shapes_of_pngs, also=names[1:], uploaded=uploaded)
    shapes, sizes = [], set()
    for number, region in enumerate(_regions(task, found), start=1):
        try:
            form = _form(region)
            if form is None:
                found.left_out[f"regions of the kind {region.get('type', 'unknown')}"] += 1
                continue
            sizes.add(_size(region))
            shapes.append(LabeledShape(_label(region), (form,), name=f"region {number}"))
        except (KeyError, TypeError, ValueError) as error:
            text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
            found.fault(names[0], path, f"region {number}: {text}")
    if len(sizes) > 1:
        found.fault(
            names[0], path, "regions for pictures of " + " and ".join(f"{w}x{h}" for h, w in sorted(sizes))
        )
    size = min(sizes, default=None)
    return LabeledPicture(names[0], path, size, tuple(shapes), also=names[1:], uploaded=uploaded)


def _regions(task: Region, found: Findings) -> list[Region]:
    """Regions of a task, each with its value in it; what several controls say of one region is joined."""
    regions: dict[str, Region] = {}
    for number, result in enumerate(_results(task, found)):
        region = {**result, **result.get("value", {})}
        regions.setdefault(str(result.get("id", number)), {}).update(region)
    return [region for region in regions.values() if _is_region(region)]


def _results(task: Region, found: Findings) -> list[Region]:
    """Results of the annotation that counts: the ground truth, else the newest that was not skipped."""
    if "data" not in task:  # JSON-MIN
        lists = (value for value in task.values() if isinstance(value, list))
        return [each for values in lists for each in values if isinstance(each, dict)]
    kept = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
    if not kept:
        found.left_out["tasks with predictions alone"] += bool(task.get("predictions"))
        return []
    found.left_out["older annotations of a task that has several"] += len(kept) - 1
    newest = max(kept, key=lambda each: (bool(each.get("ground_truth")), str(each.get("updated_at", ""))))
    return list(newest["result"])


def _is_region(region: Region) -> bool:
    """Whether it marks a place, and not the whole picture as choices and texts do."""
    return any(key in region for key in ("rle", "points", "vertices", "x", "imageDataURL"))


def _label(region: Region) -> str:
    labels = [name for key, names in region.items() if key.endswith("labels") for name in names]
    if len(labels) != 1:
        raise ValueError(f"labels {', '.join(labels)}; expected one" if labels else "no label")
    return str(labels[0])


def _size(region: Region) -> tuple[int, int]:
    return int(region["original_height"]), int(region["original_width"])


def _form(region: Region) -> Form | None:
    """Area of a region; ``None`` for marks that are none."""
    height, width = _size(region)
    if region.get("image_rotation"):
        raise ValueError(
            f"drawn on a picture turned by {region['image_rotation']} degrees; turn it back and export"
        )
    scale = np.array([width, height]) / 100
    if "rle" in region:
        return lambda: Patch(from_brush(region["rle"], (height, width)))
    if "points" in region:
        return Outline((ring_of(region["points"]) * scale,))
    if "radiusX" in region:
        x, y = np.array([region["x"], region["y"]]) * scale
        radii = np.array([region["radiusX"], region["radiusY"]]) * scale
        return Outline((ellipse((x, y), (radii[0], radii[1]), float(region.get("rotation", 0))),))
    if "width" in region and "height" in region:
        left, top = np.array([region["x"], region["y"]]) * scale
        right, bottom = np.array([region["x"] + region["width"], region["y"] + region["height"]]) * scale
        # Label Studio turns a rectangle about its first corner.
        return Outline(
            (turned(rectangle(left, top, right, bottom), (left, top), float(region.get("rotation", 0))),)
        )
    return None


def write_label_studio(folder: Path, writing: Writing, pictures: Iterable[MaskedPicture]) -> None:
    """Write tasks.json to import, and label_config.xml, the labeling interface of the project.

    Labels of a person are annotations, those of a network predictions.

    Args:
        folder: existing folder of the files.
        writing: classes, and the way in which areas are written.
        pictures: the pictures with their label maps.
    """
    kind = "annotations" if writing.reviewed else "predictions"
    tasks = []
    for picture in pictures:
        answer = {
            "result": list(_written(picture, writing)),
            **({} if writing.reviewed else {"model_version": "semiseg"}),
        }
        tasks.append({"data": {PICTURE: f"{writing.address}{picture.key}"}, kind: [answer]})
    write_json(folder / "tasks.json", tasks)
    root = ElementTree.Element("View")
    ElementTree.SubElement(root, "Image", {"name": PICTURE, "value": f"${PICTURE}", "zoom": "true"})
    tag = "BrushLabels" if writing.as_masks else "PolygonLabels"
    labels = ElementTree.SubElement(root, tag, {"name": CONTROL, "toName": PICTURE})
    for name, (red, green, blue) in writing.colors.items():
        color = color_text(red << 16 | green << 8 | blue)
        ElementTree.SubElement(labels, "Label", {"value": name, "background": color})
    ElementTree.indent(root)
    with replacing(folder / CONFIG) as file:
        ElementTree.ElementTree(root).write(file, "utf-8")


def _written(picture: MaskedPicture, writing: Writing) -> Iterator[Region]:
    height, width = picture.size
    shared = {"from_name": CONTROL, "to_name": PICTURE, "original_width": width, "original_height": height}
    shared["image_rotation"] = 0
    if writing.as_masks:
        for number, (name, bits) in enumerate(writing.masks(picture.label_map), start=1):
            value = {"format": "rle", "rle": to_brush(bits), "brushlabels": [name]}
            yield {"id": f"r{number}", "type": "brushlabels", **shared, "value": value}
        return
    for number, (name, ring) in enumerate(writing.outlines(picture.label_map), start=1):
        points = (ring / [width, height] * 100).tolist()
        yield {
            "id": f"r{number}",
            "type": "polygonlabels",
            **shared,
            "value": {"points": points, "polygonlabels": [name], "closed": True},
        }
