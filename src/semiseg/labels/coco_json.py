"""COCO's JSON of instances: polygons and run lengths.

Source of the format: https://cocodataset.org/#format-data. Polygons of one annotation are united. Coordinates are
continuous: 0 is the left side of the first pixel.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.contracts.dataset import Array
from semiseg.data.picture_files import BadFileError
from semiseg.files import write_json
from semiseg.labels.label_files import each_readable, files_of, load_json, mapping_of
from semiseg.labels.label_record import (
    IGNORE_NAME,
    Findings,
    Form,
    LabeledPicture,
    LabeledShape,
    LabelSet,
    Outline,
    Part,
    Patch,
)
from semiseg.labels.mask_shapes import MaskedPicture, Writing, bits_bounds, ring_area, ring_bounds
from semiseg.labels.outlines import ring_of
from semiseg.labels.run_lengths import coco_runs, from_coco_runs
from semiseg.splits.lists import repeated, shown

POLYGON_NUMBERS = 6
"""Numbers of the smallest polygon."""


def read_coco(sources: Sequence[Path], found: Findings) -> LabelSet:
    """Read files of instances; classes are the categories in the order of the first file.

    Raises:
        UserError: a source does not exist.
    """
    classes: dict[str, None] = {}
    pictures: list[LabeledPicture] = []

    def read(path: Path) -> None:
        content = mapping_of(load_json(path), ("images", "annotations", "categories"), path, "COCO")
        names = _names(content["categories"], path, found)
        classes.update(dict.fromkeys(names.values()))
        pictures.extend(_pictures(content, names, path, found))

    each_readable(files_of(sources, "*.json", "COCO's JSON of instances"), read, found)
    classes.pop(IGNORE_NAME, None)
    return LabelSet(tuple(classes), "categories, as the file lists them", pictures)


def _names(categories: Sequence[dict[str, Any]], path: Path, found: Findings) -> dict[Any, str]:
    """Return the name of each category's id.

    Raises:
        BadFileError: an id stands for several names.
    """
    names: dict[Any, str] = {}
    for each in categories:
        first, name = names.setdefault(each["id"], str(each["name"])), str(each["name"])
        if name != first:
            raise BadFileError(
                path, f"category id {each['id']} stands for {first} and {name}; give each an id of its own"
            )
    for name in repeated(names.values()):
        ids = shown([str(number) for number, other in names.items() if other == name])
        found.notes.append(f"categories {ids} of {path.name} are all called {name}: they become one class")
    return names


def _repeated_ids(images: Sequence[dict[str, Any]], path: Path, found: Findings) -> None:
    """Record a fault of each picture that shares its id: which shapes are whose is unknown."""
    files: dict[Any, list[str]] = defaultdict(list)
    for image in images:
        files[image["id"]].append(str(image["file_name"]))
    for image_id, same in files.items():
        if len(same) > 1:
            for name in dict.fromkeys(same):
                found.fault(name, path, f"image id {image_id} stands for {' and '.join(same)}")


def _pictures(
    content: dict[str, Any], names: dict[Any, str], path: Path, found: Findings
) -> Iterable[LabeledPicture]:
    shapes: dict[Any, list[LabeledShape]] = defaultdict(list)
    files = {image["id"]: str(image["file_name"]) for image in content["images"]}
    _repeated_ids(content["images"], path, found)
    for number, annotation in enumerate(content["annotations"]):
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        name = f"annotation {annotation.get('id', number)}"
        if image_id not in files:
            found.fault(name, path, f"image {image_id} is not listed")
        elif category not in names:
            found.fault(files[image_id], path, f"{name}: category {category} is not listed")
        else:
            try:
                forms = _forms(annotation, found)
            except (KeyError, TypeError, ValueError) as error:
                found.fault(files[image_id], path, f"{name}: {error}")
                continue
            if forms:
                crowd = bool(annotation.get("iscrowd"))
                shapes[image_id].append(LabeledShape(names[category], forms, crowd, name=name))
    part = _part(path)
    for image in content["images"]:
        size = (int(image["height"]), int(image["width"])) if image.get("height") else None
        yield LabeledPicture(str(image["file_name"]), path, size, tuple(shapes[image["id"]]), part=part)


def _forms(annotation: dict[str, Any], found: Findings) -> tuple[Form, ...]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return (lambda: Patch(from_coco_runs(segmentation)),)
    if not segmentation:
        kind = "keypoints" if annotation.get("keypoints") else "boxes without an outline"
        found.left_out[kind] += 1
        return ()
    if not isinstance(segmentation[0], list):
        segmentation = [segmentation]
    large = [numbers for numbers in segmentation if len(numbers) >= POLYGON_NUMBERS]
    found.left_out["polygons of fewer than 3 points"] += len(segmentation) - len(large)
    if odd := next((numbers for numbers in large if len(numbers) % 2), None):
        raise ValueError(f"a polygon of {len(odd)} numbers; expected pairs of x and y")
    pairs = (list(zip(numbers[::2], numbers[1::2], strict=True)) for numbers in large)
    return tuple(Outline((ring_of(each),)) for each in pairs)


def _part(path: Path) -> Part | None:
    """Part that the name of the file says, as in instances_val2017.json."""
    name = path.stem.lower()
    parts: tuple[Part, ...] = ("train", "val", "test")
    return next((part for part in parts if part in name), None)


def write_coco(folder: Path, writing: Writing, pictures: Iterable[MaskedPicture]) -> None:
    """Write instances.json: an annotation a class and picture with run lengths, or one an outline.

    Run lengths are uncompressed, which all readers understand.

    Args:
        folder: existing folder of the file.
        writing: classes, and the way in which areas are written.
        pictures: the pictures with their label maps.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        height, width = picture.size
        image = {"id": len(images) + 1, "file_name": picture.key, "height": height, "width": width}
        images.append(image)
        for label, area in _areas(picture.label_map, writing):
            category = {"image_id": image["id"], "category_id": writing.names.index(label) + 1}
            annotations.append({"id": len(annotations) + 1, **category, **area, "iscrowd": 0})
    categories = [{"id": place, "name": name} for place, name in enumerate(writing.names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "instances.json", content)


def _areas(label_map: Array, writing: Writing) -> Iterator[tuple[str, dict[str, Any]]]:
    if writing.as_masks:
        for label, bits in writing.masks(label_map):
            area = int(np.count_nonzero(bits))
            yield label, {"segmentation": coco_runs(bits), "area": area, "bbox": list(bits_bounds(bits))}
        return
    for label, ring in writing.outlines(label_map):
        numbers = ring.ravel().tolist()
        yield label, {"segmentation": [numbers], "area": ring_area(ring), "bbox": list(ring_bounds(ring))}
