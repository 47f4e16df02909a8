"""Names of classes in YAML and JSON: lists, mappings, and those of COCO, YOLO, nnU-Net, CVAT and Supervisely."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from semiseg.data.mask_labels import color_text
from semiseg.errors import UserError
from semiseg.onboard.class_lines import parse_triple
from semiseg.onboard.names import MAX_NUMBER, ClassEntry

HOLDERS = ("names", "classes", "categories", "labels")
NAMES = ("name", "title", "label", "readable", "class")
NUMBERS = ("id", "value", "index", "idx", "label", "class")
COLORS = ("color", "colour", "rgb")


def document_entries(text: str, path: Path) -> list[ClassEntry]:
    """Return the classes of a YAML or JSON document; none where it holds no names.

    Args:
        text: content of the file.
        path: the file, for messages.

    Raises:
        UserError: it is not valid YAML or JSON.
    """
    try:
        # Every value stays text: a class may be called "no", or 1e3.
        if path.suffix.lower() == ".json":
            content = json.loads(text, parse_int=str, parse_float=str)
        else:
            content = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = place.line + 1 if place else getattr(error, "lineno", 1)
        raise UserError(
            f"{path}: no valid YAML or JSON (line {line}); correct it, or give the names by --classes"
        ) from error
    if isinstance(content, Mapping):
        content = next((content[key] for key in HOLDERS if content.get(key)), content)
    if isinstance(content, Mapping):
        return [_pair(*pair) for pair in content.items()] if all(map(_fits, content.items())) else []
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [ClassEntry(each) if isinstance(each, str) else _item(each) for each in content]
    return []


def _fits(pair: tuple[Any, Any]) -> bool:
    """Whether a key and its value are a name and its number or color, in any order."""
    key, value = pair
    if isinstance(value, str):
        return key.isdigit() or value.isdigit() or parse_triple(value) is not None
    return isinstance(value, Sequence) and _color(value) is not None


def _pair(key: str, value: Any) -> ClassEntry:
    if isinstance(value, str) and key.isdigit() and not value.isdigit():
        return ClassEntry(value, int(key))
    if isinstance(value, str) and value.isdigit():
        return ClassEntry(key, int(value))
    return ClassEntry(key, color=_color(value))


def _item(item: Any) -> ClassEntry:
    """Class of a mapping with a name, as COCO's categories are; numbers of a database are no values of masks."""
    if not isinstance(item, Mapping):
        return ClassEntry("")
    name = next(
        (str(item[key]) for key in NAMES if isinstance(item.get(key), str) and not item[key].isdigit()), ""
    )
    number = next((int(item[key]) for key in NUMBERS if str(item.get(key, "")).isdigit()), None)
    color = next((_color(item[key]) for key in COLORS if key in item), None)
    if number is not None and number > (255 if color else MAX_NUMBER):
        number = None
    return ClassEntry(name, number, color)


def _color(value: Any) -> str | None:
    if isinstance(value, str):
        return parse_triple(value)
    numbers = [int(each) for each in value if isinstance(each, str) and each.isdigit()][:3]
    if len(numbers) < 3 or len(value) not in (3, 4) or max(numbers) > 255:
        return None
    return color_text(numbers[0] << 16 | numbers[1] << 8 | numbers[2])
