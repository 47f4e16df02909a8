"""Class names of label files without spaces around them."""

from collections import defaultdict
from dataclasses import replace

from semiseg.errors import UserError
from semiseg.labels.label_record import Findings, LabeledPicture, LabelSet
from semiseg.splits.lists import shown


def spelled(content: LabelSet, found: Findings) -> LabelSet:
    """Return the content with class names without spaces around them; note names that differ in case only.

    Args:
        content: content of label files.
        found: gets notes.

    Raises:
        UserError: a name is empty, or label maps have two classes whose names differ in spaces only.
    """
    if any(not name.strip() for name in content.classes):
        raise UserError("the label files have a class without a name; give it a name there")
    _note_cases(content, found)
    spaced = [name for name in content.classes if name != name.strip()]
    if not spaced:
        return content
    classes = tuple(dict.fromkeys(name.strip() for name in content.classes))
    if len(classes) < len(content.classes) and any(picture.raster for picture in content.pictures):
        raise UserError(f"names differ in spaces only: {shown(map(repr, spaced))}; rename them")
    found.notes.append(f"spaces around names are left out: {shown(map(repr, spaced))}")
    colors = {name.strip(): color for name, color in content.colors.items()}
    pictures = [_renamed(picture) for picture in content.pictures]
    return replace(content, classes=classes, pictures=pictures, colors=colors)


def _renamed(picture: LabeledPicture) -> LabeledPicture:
    shapes = tuple(
        replace(shape, label=None if shape.label is None else shape.label.strip()) for shape in picture.shapes
    )
    return replace(picture, shapes=shapes)


def _note_cases(content: LabelSet, found: Findings) -> None:
    alike: dict[str, set[str]] = defaultdict(set)
    for name in content.classes:
        alike[name.strip().casefold()].add(name.strip())
    for names in alike.values():
        if len(names) > 1:
            found.notes.append(
                f"names that differ in case only are classes of their own: {shown(sorted(names))}"
            )
