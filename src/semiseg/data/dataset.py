"""What a dataset must offer: ids, images and masks by id."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]
Part = Literal["train", "val", "test", "unlabeled"]
IGNORE_INDEX = 255


@dataclass(frozen=True)
class DatasetInfo:
    """Names and colors of the classes.

    Args:
        name: name of the dataset, as in ``dataset=NAME``.
        classes: class names; the position is the label value.
        palette: one RGB color (0-255) a class.
        ignore_index: label value of pixels that no loss and no metric may count.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int = IGNORE_INDEX

    @property
    def num_classes(self) -> int:
        """Number of classes, the ignored value not counted."""
        return len(self.classes)


class SegDataset(Protocol):
    """Images and masks by id; ids are unique over all parts.

    The part "unlabeled" holds training images that have no mask, beside those of "train".
    """

    info: DatasetInfo

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part in their published or sorted order; empty where there is no such part."""
        ...

    def image(self, image_id: str) -> Array:
        """Return the image, ``(H, W, 3) uint8`` RGB."""
        ...

    def mask(self, image_id: str) -> Array | None:
        """Return the label map, ``(H, W) uint8`` with 255 ignored; None where the image has none."""
        ...
