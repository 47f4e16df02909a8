"""Masks painted from label files: which label is which class, and the files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.contracts.dataset import IGNORE_INDEX, Array
from semiseg.data.palette import Color, bit_color
from semiseg.data.picture_files import UPRIGHT, BadFileError
from semiseg.errors import UserError, nearest
from semiseg.labels.image_places import PlacedPicture
from semiseg.labels.label_record import Findings, LabelSet, Order
from semiseg.labels.painting import Painting
from semiseg.pictures import paletted, save
from semiseg.splits.lists import repeated, shown

BACKGROUND = "background"
BACKGROUNDS = (BACKGROUND, "_background_", "__background__")
"""Names of a class that is taken for what no shape covers, in any case."""
MOST_CLASSES = 255


@dataclass(frozen=True)
class ChosenClasses:
    """Classes of a dataset, and the label of each name in the label files.

    Args:
        names: names of the classes in the order of the labels.
        labels: label of each name of the label files; 255 for those that mean "not labeled".
        rest: label of what no shape covers.
        colors: color of each class; ``None`` where the files do not give distinct ones.
    """

    names: tuple[str, ...]
    labels: dict[str, int]
    rest: int
    colors: tuple[Color, ...] | None


def choose_classes(
    content: LabelSet, given: Sequence[str] | None, void: Sequence[str], background: str | None
) -> ChosenClasses:
    """Choose the classes.

    Args:
        content: content of the label files.
        given: names of classes in the order of the labels; ``None`` takes the order of the files.
        void: names that mean "not labeled".
        background: name of the class of what no shape covers; a new one becomes the first. ``None``: that is not
            labeled, or there are no shapes but label maps.

    Raises:
        UserError: names that the files do not have, that occur twice or that are neither a class nor void; or fewer
            than two classes, or more than 255.
    """
    known = [*content.classes, *([background] if background is not None else [])]
    if unknown := [name for name in (*(given or ()), *void) if name not in known]:
        near = nearest(unknown[0], known)
        hint = f"; did you mean {near}?" if near else "."
        raise UserError(f"the label files have no {unknown[0]}{hint} They have: {shown(content.classes, 20)}")
    names = [name for name in (given or content.classes) if name not in void]
    if background is not None and background not in names and background not in void:
        names.insert(0, background)
    if twice := repeated(names):
        raise UserError(f"classes occur twice: {shown(twice)}")
    if left := [name for name in content.classes if name not in names and name not in void]:
        raise UserError(
            f"--classes leaves out {shown(left, 20)}; name them too, or say that their pixels are not labeled: "
            f"--void {','.join(left)}"
        )
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(
            f"the label files give {len(names)} classes ({shown(names)}); expected 2 to {MOST_CLASSES}. What no shape "
            "covers becomes a class by --background NAME"
        )
    labels = {name: names.index(name) if name in names else IGNORE_INDEX for name in known}
    rest = IGNORE_INDEX if background is None else labels[background]
    return ChosenClasses(tuple(names), labels, rest, _colors(content, names))


def _colors(content: LabelSet, names: Sequence[str]) -> tuple[Color, ...] | None:
    """Colors of the files, where every class has one of its own; black is free for a new background."""
    colors = [content.colors.get(name, (0, 0, 0) if name not in content.classes else None) for name in names]
    known = [color for color in colors if color is not None]
    return tuple(known) if len(set(known)) == len(names) else None


def write_masks(
    masks: Mapping[Path, PlacedPicture],
    chosen: ChosenClasses,
    order: Order,
    crowd_is_void: bool,
    found: Findings,
    tick: Callable[[], None],
) -> None:
    """Write masks as palette PNGs of labels, on the pictures as a viewer shows them.

    Args:
        masks: picture of each file.
        chosen: classes.
        order: what is painted over what.
        crowd_is_void: whether crowds are not labeled.
        found: gets faults, and the number of shapes outside of their picture.
        tick: function called after each mask.
    """
    painting = Painting(chosen.labels, chosen.rest, order, crowd_is_void)
    colors = dict(enumerate(chosen.colors or [bit_color(label) for label in range(len(chosen.names))]))
    for path, each in masks.items():
        try:
            label_map = _upright(painting.label_map(each.picture, each.size, found), each)
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, paletted(label_map, colors))
        except BadFileError as error:
            found.fault(each.picture.file, error.file, error.reason)
        tick()


def _upright(label_map: Array, placed: PlacedPicture) -> Array:
    """Turn a label map as a viewer turns its picture.

    Raises:
        BadFileError: it is a mask of another size than the picture.
    """
    if label_map.shape != placed.size:
        turned = placed.size[::-1] if placed.orientation >= 5 else placed.size
        if label_map.shape != turned or placed.stored:
            (height, width), (own_height, own_width) = placed.size, label_map.shape
            raise BadFileError(
                placed.picture.source,
                f"mask is {own_width}x{own_height}, its image {width}x{height} (width x height)",
            )
        return np.asarray(Image.fromarray(label_map).transpose(UPRIGHT[placed.orientation]))
    if not placed.stored:
        return label_map
    return np.asarray(Image.fromarray(label_map).transpose(UPRIGHT[placed.orientation]))
