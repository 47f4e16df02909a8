"""The record between label files and masks: pictures with shapes in drawing order, or with a label map."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from semiseg.contracts.dataset import Array
from semiseg.data.file_inspection import FileFault
from semiseg.data.palette import Color
from semiseg.labels.outlines import Bits, Ring

Order = Literal["file", "area", "layer"]
Frame = Literal["shown", "stored"]
Part = Literal["train", "val", "test"]
PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders and lists, and the part that they mean."""

IGNORE_NAME = "__ignore__"
"""Label of pixels that are not labeled, as labelme names it; read and written in all formats."""


@dataclass(frozen=True)
class Outline:
    """An area between rings.

    Args:
        rings: closed lines, of which the even-odd rule makes an area.
        with_rim: whether pixels that a line touches belong to it, as Pillow draws polygons.
    """

    rings: tuple[Ring, ...]
    with_rim: bool = False


@dataclass(frozen=True)
class Patch:
    """Pixels in a part of a picture.

    Args:
        bits: the pixels, ``(h, w) bool``.
        left: column of the first.
        top: row of the first.
    """

    bits: Bits
    left: int = 0
    top: int = 0


Form = Outline | Patch | Callable[[], Patch]
"""An area; pixels are unpacked only while they are painted, since those of all pictures take too much memory."""


@dataclass(frozen=True)
class LabeledShape:
    """An area with a label.

    Args:
        label: name of its class; ``None`` where the file says that its pixels are not labeled.
        form: the area; of several, their union. A function raises ``ValueError``, ``TypeError``, ``KeyError`` or
            ``OSError`` where the pixels cannot be unpacked.
        crowd: whether it covers a group of objects roughly.
        layer: number of its layer, the lowest below all others.
        name: name of the mark in its file, for messages.
    """

    label: str | None
    form: tuple[Form, ...]
    crowd: bool = False
    layer: int = 0
    name: str = ""


@dataclass(frozen=True)
class LabeledPicture:
    """Labels of one picture.

    Args:
        file: name or path of the picture as the label file gives it.
        source: the label file.
        size: height and width that the label file gives; ``None`` where it gives none.
        shapes: the areas, in the order of the file; unused with ``raster``.
        raster: function that reads a label map ``(H, W) uint8``, whose values are positions of the classes and 255
            where a pixel is not labeled; raises ``BadFileError``.
        part: part that the file puts the picture in.
        embedded: function that returns the bytes of the picture, which the label file holds too.
        relative: whether coordinates are shares of width and height.
        also: other names that the picture may have, tried in this order.
        uploaded: name as a server cleaned it: "_" for spaces, without other signs; tried last.
    """

    file: str
    source: Path
    size: tuple[int, int] | None
    shapes: tuple[LabeledShape, ...] = ()
    raster: Callable[[], Array] | None = None
    part: Part | None = None
    embedded: Callable[[], bytes] | None = None
    relative: bool = False
    also: tuple[str, ...] = ()
    uploaded: str | None = None

    @property
    def labeled(self) -> bool:
        """Whether there is any label."""
        return bool(self.shapes) or self.raster is not None


@dataclass
class Findings:
    """Findings on the way through label files.

    Args:
        faults: what makes a picture unusable.
        left_out: number of marks that are no areas, such as points, by their kind.
        notes: decisions that may be wrong, and how to change them.
    """

    faults: list[FileFault] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def fault(self, name: str, file: Path, reason: str) -> None:
        """Record a fault of a picture; ``name`` is its name in the label file."""
        self.faults.append(FileFault(name, str(file), reason))


@dataclass(frozen=True)
class LabelSet:
    """Content of label files.

    Args:
        classes: names of the classes in the order of the files.
        order_of_classes: origin of that order, for the report.
        pictures: the pictures.
        colors: colors of classes that the files give.
    """

    classes: tuple[str, ...]
    order_of_classes: str
    pictures: Sequence[LabeledPicture]
    colors: Mapping[str, Color] = field(default_factory=dict)
