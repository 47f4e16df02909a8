"""The JSON of polygons that Cityscapes is annotated in.

Source of the format: https://github.com/mcordts/cityscapesScripts, which draws the polygons with Pillow, later ones
over earlier ones; so does this module, because the published masks are drawn so.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from semiseg.data.cityscapes import CLASSES
from semiseg.files import write_json
from semiseg.labels.label_files import each_readable, files_of, load_json, mapping_of
from semiseg.labels.label_record import (
    IGNORE_NAME,
    PARTS,
    Findings,
    LabeledPicture,
    LabeledShape,
    LabelSet,
    Outline,
)
from semiseg.labels.mask_shapes import MaskedPicture, Writing
from semiseg.labels.outlines import ring_of

UNUSED = (
    *(
        "unlabeled",
        "ego vehicle",
        "rectification border",
        "out of roi",
        "static",
        "dynamic",
        "ground",
        "parking",
    ),
    *("rail track", "guard rail", "bridge", "tunnel", "polegroup", "caravan", "trailer"),
)
"""Labels that are not evaluated: their pixels are not labeled."""

UNSEEN = ("license plate",)
"""Labels that the masks of Cityscapes do not show."""

GROUP = "group"
ENDINGS = ("_gtFine_polygons", "_gtCoarse_polygons", "_polygons")


def read_cityscapes(sources: Sequence[Path], found: Findings) -> LabelSet:
    """Read files of polygons; classes are the 19 of Cityscapes where all labels are of it, else sorted by name.

    Raises:
        UserError: a source does not exist or holds no such file.
    """
    contents: list[tuple[Path, dict[str, Any]]] = []

    def read(path: Path) -> None:
        content = mapping_of(load_json(path), ("imgHeight", "imgWidth", "objects"), path, "Cityscapes")
        contents.append((path, content))

    each_readable(files_of(sources, "*_polygons.json", "JSON files of Cityscapes' polygons"), read, found)
    labels = {str(each["label"]) for _, content in contents for each in content["objects"]}
    own = {name.replace("_", " "): name for name in CLASSES}
    of_cityscapes = all(label in (*UNUSED, *UNSEEN) or label.removesuffix(GROUP) in own for label in labels)
    if of_cityscapes:
        groups = {f"{label}{GROUP}": name for label, name in own.items()} | dict.fromkeys(UNUSED)
        names = {label: (own | groups | dict.fromkeys(UNSEEN))[label] for label in labels}
        classes, order = tuple(CLASSES), "the 19 that Cityscapes evaluates"
    else:
        classes = tuple(sorted(label for label in labels if _class_of(label, labels) == label))
        names = {label: _class_of(label, labels) for label in labels}
        order = "sorted by name, since the files list none"
    pictures = [_picture(content, path, names, found) for path, content in contents]
    return LabelSet(classes, order, pictures, dict(CLASSES) if of_cityscapes else {})


def _class_of(label: str, labels: Iterable[str]) -> str | None:
    """Class of a label that Cityscapes does not have; ``None`` where its pixels are not labeled."""
    single = label.removesuffix(GROUP)
    return None if label in (*UNUSED[:4], IGNORE_NAME) else single if single in labels else label


def _picture(
    content: dict[str, Any], path: Path, names: dict[str, str | None], found: Findings
) -> LabeledPicture:
    stem = next(path.stem.removesuffix(end) for end in ENDINGS if path.stem.endswith(end))
    folders = path.parent.parts[-2:]
    name = str(PurePosixPath(*folders, f"{stem}_leftImg8bit.*"))
    shapes = []
    for number, each in enumerate(content["objects"], start=1):
        label = str(each["label"])
        if each.get("deleted") or label in UNSEEN:
            continue
        try:
            outline = Outline((ring_of(each["polygon"]),), with_rim=True)
        except (KeyError, TypeError, ValueError) as error:
            found.fault(name, path, f"object {number} ({label}): {error}")
            continue
        shapes.append(LabeledShape(names[label], (outline,), name=f"object {number}"))
    size = int(content["imgHeight"]), int(content["imgWidth"])
    part = next((PARTS[folder] for folder in folders if folder in PARTS), None)
    return LabeledPicture(name, path, size, tuple(shapes), part=part, also=(f"{stem}.*",))


def write_cityscapes(folder: Path, writing: Writing, pictures: Iterable[MaskedPicture]) -> None:
    """Write NAME_gtFine_polygons.json a picture.

    Args:
        folder: existing folder of the files.
        writing: classes, and the way in which areas are written.
        pictures: the pictures with their label maps.
    """
    for picture in pictures:
        key = PurePosixPath(picture.key)
        path = folder / key.parent / f"{key.stem.removesuffix('_leftImg8bit')}{ENDINGS[0]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = picture.size
        objects = [
            {
                "label": "unlabeled" if name == IGNORE_NAME else name.replace("_", " "),
                "polygon": ring.tolist(),
            }
            for name, ring in writing.outlines(picture.label_map)
        ]
        write_json(path, {"imgHeight": height, "imgWidth": width, "objects": objects})
