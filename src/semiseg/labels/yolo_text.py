"""Polygons of Ultralytics' YOLO: a text file a picture, and data.yaml or classes.txt with the names of the classes.

Source of the format: https://docs.ultralytics.com/datasets/segment/. A line is the number of a class and x and y of
each corner as shares of width and height, of the picture as a viewer shows it. Smaller areas cover larger ones, as in
Ultralytics.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from semiseg.errors import UserError
from semiseg.files import write_text
from semiseg.labels.label_files import each_readable, files_of
from semiseg.labels.label_record import (
    IGNORE_NAME,
    PARTS,
    Findings,
    LabeledPicture,
    LabeledShape,
    LabelSet,
    Outline,
    Part,
)
from semiseg.labels.mask_shapes import MaskedPicture, Writing
from semiseg.labels.outlines import ring_of
from semiseg.splits.lists import IMAGE_SUFFIXES, read_lines

LABELS, NAMES = "labels", "classes.txt"
BOX_NUMBERS = 4
BEYOND = 0.02
"""Share of width or height by which corners may lie outside of the picture."""


def read_yolo(sources: Sequence[Path], found: Findings) -> LabelSet:
    """Read the labels that a data.yaml or classes.txt belongs to; classes are in the order of their numbers.

    Text files lie in folders called ``labels``, which stand for those called ``images``, or next to their pictures.

    Args:
        sources: the file of names, or a folder that holds it or lies at most two levels below it.
        found: gets faults and marks that are no areas.

    Raises:
        UserError: there are no names, or no labels.
    """
    path, content = _description(sources[0])
    names = _names(content, path)
    base = path.parent / str(content.get("path") or ".")
    base = base if base.is_dir() else path.parent
    texts = [file for file in files_of([base], "*.txt", "text files of YOLO") if file != path]
    files = [file for file in texts if LABELS in file.parts] or [
        file for file in texts if _image(file.with_suffix(""))
    ]
    if not files:
        raise UserError(
            f"{base} has neither a folder '{LABELS}' with text files, such as labels/train/a.txt, nor text files with "
            "the names of pictures next to them"
        )
    listed = _listed(content, base)
    pictures: list[LabeledPicture] = []

    def read(file: Path) -> None:
        place = file.relative_to(base).with_suffix("")
        picture = PurePosixPath(*("images" if part == LABELS else part for part in place.parts))
        shapes = _shapes(file, names, found)
        part = listed.get(file.stem) or next((PARTS[each] for each in place.parts if each in PARTS), None)
        name = _image(base.absolute() / picture) or f"{picture}.*"
        pictures.append(LabeledPicture(name, file, None, shapes, part=part, relative=True))

    each_readable(files, read, found)
    classes = tuple(name for name in names if name != IGNORE_NAME)
    return LabelSet(classes, f"names in {path.name}, in the order of their numbers", pictures)


def _image(stem: Path) -> str | None:
    """Image file of a path without extension."""
    return next((path for suffix in IMAGE_SUFFIXES if Path(path := f"{stem}{suffix}").is_file()), None)


def _description(source: Path) -> tuple[Path, dict[str, Any]]:
    """File of the names, and its content as of a data.yaml."""
    folders = [source, *source.absolute().parents[:2]] if source.is_dir() else []
    yamls = [path for folder in folders for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])]
    for path in [source] if source.is_file() and source.suffix != ".txt" else yamls:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{path}: no YAML ({error})") from error
        if isinstance(content, dict) and "names" in content:
            return path, content
    lists = [source] if source.suffix == ".txt" else [folder / NAMES for folder in folders]
    if listed := next((path for path in lists if path.is_file()), None):
        return listed, {"names": read_lines(listed)}
    raise UserError(
        f"{source}: expected the data.yaml of YOLO, with 'names', or {NAMES} with a name a line, or the folder that "
        "holds it"
    )


def _names(content: dict[str, Any], path: Path) -> list[str]:
    names = content["names"]
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f"{path}: names have the numbers {sorted(names)}; expected 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    return [str(name) for name in names]


def _listed(content: dict[str, Any], base: Path) -> dict[str, Part]:
    """Part of each name that text files of pictures list."""
    found: dict[str, Part] = {}
    for key, part in PARTS.items():
        entries = content.get(key) or ()
        for entry in [entries] if isinstance(entries, str) else entries:
            path = base / str(entry)
            if path.suffix == ".txt" and path.is_file():
                found |= {PurePosixPath(line).stem: part for line in read_lines(path)}
    return found


def _shapes(file: Path, names: Sequence[str], found: Findings) -> tuple[LabeledShape, ...]:
    shapes = []
    for number, line in enumerate(read_lines(file), start=1):
        first, *rest = line.split()
        values = [float(text) for text in rest]
        if len(values) == BOX_NUMBERS:
            found.left_out["boxes without an outline"] += 1
            continue
        if not (first.isdigit() and int(first) < len(names)):
            raise ValueError(f"line {number}: class {first}; expected 0 to {len(names) - 1}")
        if len(values) % 2:
            raise ValueError(
                f"line {number}: {len(values)} numbers after the class; expected pairs of x and y"
            )
        if any(not -BEYOND <= value <= 1 + BEYOND for value in values):
            raise ValueError(
                f"line {number}: coordinates outside of 0 to 1; expected shares of width and height"
            )
        ring = ring_of(list(zip(values[::2], values[1::2], strict=True)))
        shapes.append(LabeledShape(names[int(first)], (Outline((ring,)),), name=f"line {number}"))
    return tuple(shapes)


def write_yolo(folder: Path, writing: Writing, pictures: Iterable[MaskedPicture]) -> None:
    """Write labels/NAME.txt a picture and data.yaml; the pictures belong into images/.

    Args:
        folder: existing folder of the files.
        writing: classes, and the way in which areas are written.
        pictures: the pictures with their label maps.
    """
    for picture in pictures:
        height, width = picture.size
        lines = []
        for name, ring in writing.outlines(picture.label_map):
            numbers = (ring / [width, height]).ravel().tolist()
            lines.append(" ".join([str(writing.names.index(name)), *(f"{number:.8g}" for number in numbers)]))
        path = (folder / "labels" / picture.key).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{line}\n" for line in lines))
    content = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(writing.names))}
    write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
