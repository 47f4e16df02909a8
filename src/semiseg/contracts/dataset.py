"""Contracts of data: datasets, and their division into labeled and unlabeled images; needs no torch."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semiseg.declare import Ge, Gt, Len, Mark, check_fields
from semiseg.errors import UserError, raise_all

Array = NDArray[np.uint8]
Pixels = NDArray[Any]
"""Pixels of an image ``(H, W, C)``: uint8 RGB, or as the ``Bands`` of its dataset say."""

Confidence = NDArray[np.float32]
"""Probability of the label of each pixel, ``(H, W) float32``."""

Part = Literal["train", "val", "test", "unlabeled"]
IGNORE_INDEX = 255


@dataclass(frozen=True)
class Bands:
    """Channels of images that are not 8-bit RGB, and how a network gets them.

    The network's input is ``(pixel - mean) / std``. A pixel without a value in one of its channels (NaN, infinite,
    nodata) is filled with the mean there, which becomes 0, and has no label.

    Args:
        channels: number of channels.
        dtype: number type of the pixels; files of a smaller type are converted without loss, others are refused.
        mean: mean of each channel over all valid pixels of training images; ``semiseg init --bands`` measures it.
        std: standard deviation of each channel, likewise.
        nodata: value that stands for "no value here"; ``None`` takes that of the file, where it has one.
        display: channels shown as red, green and blue, counted from 1, or one channel shown in gray; ``None`` takes the
            first three, or the first of fewer.

    Raises:
        UserError: a value out of range, or lists of another length than ``channels``.
    """

    channels: Annotated[int, Ge(1)]
    dtype: Literal["uint8", "uint16", "float32"]
    mean: Annotated[Sequence[float], Mark(expected="one number a channel")]
    std: Annotated[Sequence[float], Gt(0), Mark(expected="one number above 0 a channel")]
    nodata: float | None = None
    display: Annotated[Sequence[int], Len(1, 3), Ge(1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        raise_all(self._conflicts())
        for name in ("mean", "std", "display"):
            values = getattr(self, name)
            object.__setattr__(self, name, None if values is None else tuple(values))

    def _conflicts(self) -> Iterator[UserError]:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                yield UserError(
                    f"{len(values)} numbers for {self.channels} channels; expected one a channel, as "
                    "`semiseg init FOLDER --bands` measures them.",
                    key=name,
                    value=list(values),
                )
        if self.display is not None and (len(self.display) == 2 or max(self.display) > self.channels):
            yield UserError(
                f"expected one or three channels from 1 to {self.channels}.",
                key="display",
                value=list(self.display),
            )

    @property
    def shown(self) -> tuple[int, ...]:
        """Channels shown as red, green and blue, or one in gray, counted from 0."""
        if self.display is not None:
            return tuple(number - 1 for number in self.display)
        return (0, 1, 2) if self.channels >= 3 else (0,)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }


def kind_of_images(bands: Bands | None) -> str:
    """Describe the channels of images in a few words."""
    return "8-bit RGB images" if bands is None else f"images of {bands.channels} bands of {bands.dtype}"


@dataclass(frozen=True)
class DatasetInfo:
    """Names and colors of the classes, and the kind of the images.

    Args:
        name: name of the dataset, as in ``dataset=NAME``.
        classes: class names; the position is the label value.
        palette: one RGB color (0-255) for each class.
        ignore_index: label value of pixels that no loss and no metric may count.
        label_of: thing that has a label: each "pixel", or the whole "image", whose mask then has one pixel.
        placeholder_names: whether names were made up, as "class_1": equal ones do not prove equal classes.
        bands: channels of the images; ``None`` for 8-bit RGB.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int = IGNORE_INDEX
    label_of: Literal["pixel", "image"] = "pixel"
    placeholder_names: bool = False
    bands: Bands | None = None

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return 3 if self.bands is None else self.bands.channels

    @property
    def num_classes(self) -> int:
        """Number of classes, the ignored value not counted."""
        return len(self.classes)

    def label_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the label of an image; a mask of another size is a fault."""
        return (height, width) if self.label_of == "pixel" else (1, 1)


class SegDataset(Protocol):
    """Images and masks by id; ids are unique over all parts.

    The part "unlabeled" holds training images that have no mask; those of "train" have one. Images and masks are also
    read in threads and processes other than that which made the dataset.
    """

    info: DatasetInfo

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part in their published or sorted order; empty where there is no such part."""
        ...

    def image(self, image_id: str) -> Pixels:
        """Return the image, ``(H, W, 3) uint8`` RGB, or what ``info.bands`` says."""
        ...

    def mask(self, image_id: str) -> Array | None:
        """Return the label map, ``uint8`` of ``info.label_size`` with 255 ignored; ``None`` where there is none."""
        ...


@runtime_checkable
class Grouped(SegDataset, Protocol):
    """A dataset that knows which images belong together, such as those of a patient, a video or a building.

    Images of one group are similar, so that a score is too high where a network has learned from some of them and is
    measured on others.
    """

    def group(self, image_id: str) -> str | None:
        """Name of the group of an image; ``None`` where it has none."""
        ...


def ids_sha256(ids: Iterable[str]) -> str:
    """Return the hex SHA-256 of ids in their order, joined by LF, without one at the end."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """Ids of the labeled, unlabeled, validation and test images of a run.

    Args:
        labeled: ids of images whose masks are learned from.
        unlabeled: ids of images whose masks are never learned from.
        val: ids of images that networks are selected on.
        test: ids of images that are only reported; may be empty.
        name: share or number of labels, as the config gives it: "1/8", "732", "full".
        family: name of the rule that made it.
        split_id: number or name of its partition among those of the rule.
    """

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()
    name: str = "full"
    family: str = "every"
    split_id: str = "0"

    @cached_property
    def sha256(self) -> dict[str, str]:
        """Hex SHA-256 of the labeled and of the unlabeled ids, in their order and joined by LF."""
        return {"labeled": ids_sha256(self.labeled), "unlabeled": ids_sha256(self.unlabeled)}

    @property
    def fraction(self) -> float:
        """Share of labeled images among all training images."""
        # A set, since with ``unlabeled=all`` the labeled images are unlabeled too.
        return len(self.labeled) / len({*self.labeled, *self.unlabeled})

    @property
    def counts(self) -> dict[str, int]:
        """Number of ids of each kind."""
        kinds = ("labeled", "unlabeled", "val", "test")
        return {kind: len(getattr(self, kind)) for kind in kinds}

    @property
    def never_labeled(self) -> tuple[str, ...]:
        """Unlabeled ids that are not labeled too, as all labeled ones are with ``unlabeled=all``."""
        labeled = set(self.labeled)
        return tuple(image_id for image_id in self.unlabeled if image_id not in labeled)

    def require_unlabeled(self, method: str, *, never_labeled: bool = False) -> None:
        """Require images that a method can label.

        Args:
            method: name of the method.
            never_labeled: whether images are required that are not labeled too.

        Raises:
            UserError: there are none.
        """
        if self.never_labeled if never_labeled else self.unlabeled:
            return
        if never_labeled:
            needs, cure = "labels images that are unlabeled and not labeled,", ""
        else:
            needs = "needs unlabeled images"
            cure = "learn from the labeled ones as unlabeled too (unlabeled=all), "
        raise UserError(
            f"method={method} {needs} and this leaves none. Label fewer (split=1/8), {cure}or take method=supervised.",
            key="split",
            value=self.name,
        )
