"""Disagreement of two networks: both predict the same images, which are ranked and drawn."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.data.display import displayed
from semiseg.data.palette import Color
from semiseg.errors import UserError
from semiseg.report.gallery import stacked
from semiseg.runs.predictor import load
from semiseg.runs.use import FinishedRun
from semiseg.tasks.samples import colorize, side_by_side
from semiseg.tasks.shown_size import reduced, sample_size

# Okabe and Ito's colors, which people with any color vision can distinguish.
ONLY_A, ONLY_B, NEITHER = (0, 114, 178), (230, 159, 0), (204, 121, 167)
ROW, SQUARE, SPACE = 20, 12, 6


@dataclass(frozen=True)
class Disagreement:
    """Labels of two networks for one image; all numbers are shares of its counted pixels, 0-1.

    Pixels with a true class count; without a mask all count, and none is known to be right.

    Args:
        id: Id of the image.
        pixels: Number of pixels that count.
        differ: Share where the networks predict different classes.
        right_a: Share where the first is right; ``None`` without a mask.
        right_b: Share where the second is right; ``None`` without a mask.
        only_a: Share where the first alone is right; ``None`` without a mask.
        only_b: Share where the second alone is right; ``None`` without a mask.
    """

    id: str
    pixels: int
    differ: float
    right_a: float | None = None
    right_b: float | None = None
    only_a: float | None = None
    only_b: float | None = None


class NetworkComparison:
    """The reported networks of two finished runs on the same images, each applied as its run evaluates it.

    Images and masks come from the dataset of the first run, or of the second where the first alone halves images.

    Args:
        a: First run.
        b: Second run.
        part: Part of the dataset, "val" or "test".
        device: Device to compute on: "auto", "cpu", "cuda" or "cuda:N".
        root: Folder of the dataset; ``None`` uses that of the run.

    Raises:
        UserError: the runs have other classes, or no image of this part in common.
    """

    def __init__(
        self, a: FinishedRun, b: FinishedRun, part: str, device: str = "auto", root: str | None = None
    ) -> None:
        self.part = part
        networks = [load(run.path, device=device) for run in (a, b)]
        if networks[0].classes != networks[1].classes:
            names = " and ".join(", ".join(each.classes) for each in networks)
            raise UserError(f"The networks name other classes: {names}.")
        first, second = a.data(root), b.data(root)
        halve = [each.half_size for each in networks]
        home, other = (second, first) if halve == [True, False] else (first, second)
        # Never in tiles, as the runs evaluate; images that the dataset has halved are not halved again.
        self._a, self._b = (
            replace(each, tiling=None, half_size=each.half_size and not all(halve)) for each in networks
        )
        self.dataset, self.info = home[0], home[0].info
        mine, theirs = (split.val if part == "val" else split.test for _, split in (home, other))
        shared = set(theirs)
        self.ids = tuple(image_id for image_id in mine if image_id in shared)
        """Images of the part that both runs have, in the dataset's order."""
        self.left_out = len(mine) + len(theirs) - 2 * len(self.ids)
        """Number of images that only one of the runs has."""
        self.ranked: list[Disagreement] = []
        if not self.ids:
            raise UserError(
                f"The runs share no {part} images ({len(mine)} and {len(theirs)}). Choose another --part."
            )

    def rank(self, progress: Callable[[Sequence[str]], Iterable[str]]) -> None:
        """Label all images with both networks and order them in ``ranked``, the one where most pixels differ first.

        Args:
            progress: Function that yields the given ids one by one, and may show progress.
        """
        found = [self._disagreement(image_id) for image_id in progress(self.ids)]
        self.ranked = sorted(found, key=lambda each: -each.differ)

    def picture(self, image_id: str) -> Image.Image:
        """Draw one image with the predictions of both networks; see ``draw``."""
        image, truth, a, b = self._labeled(image_id)
        size = sample_size(*image.shape[:2])
        kept = None if truth is None else reduced(truth, size)
        shown = displayed(reduced(image, size), self.info.bands)
        return draw(shown, kept, reduced(a, size), reduced(b, size), self.info)

    def _labeled(self, image_id: str) -> tuple[Array, Array | None, Array, Array]:
        image = self.dataset.image(image_id)
        a, b = (each.predict(image).label for each in (self._a, self._b))
        return image, self.dataset.mask(image_id), a, b

    def _disagreement(self, image_id: str) -> Disagreement:
        _, truth, first, second = self._labeled(image_id)
        counted = counted_pixels(truth, first, self.info)
        pixels = int(counted.sum())

        def share(chosen: NDArray[np.bool_]) -> float:
            return float(chosen[counted].sum() / max(pixels, 1))

        differ = share(first != second)
        if truth is None:
            return Disagreement(image_id, pixels, differ)
        right_a, right_b = first == truth, second == truth
        only = share(right_a & ~right_b), share(right_b & ~right_a)
        return Disagreement(image_id, pixels, differ, share(right_a), share(right_b), *only)


def counted_pixels(truth: Array | None, label: Array, info: DatasetInfo) -> NDArray[np.bool_]:
    """Return a mask ``(H, W) bool`` of the pixels that count: those with a true class, or all without a mask."""
    if truth is None:
        return np.ones(label.shape, np.bool_)
    counted: NDArray[np.bool_] = (truth < info.num_classes) & (truth != info.ignore_index)
    return counted


def draw(image: Array, truth: Array | None, a: Array, b: Array, info: DatasetInfo) -> Image.Image:
    """Draw image, truth where there is one, both predictions and their difference, above a legend.

    Args:
        image: Image ``(H, W, 3) uint8`` RGB.
        truth: Mask ``(H, W) uint8``; ``None`` where the image has none.
        a: Labels of the first network, ``(H, W) uint8``.
        b: Labels of the second network, ``(H, W) uint8``.
        info: Names and colors of the classes.
    """
    counted = counted_pixels(truth, a, info)
    panels = [("image", image)]
    if truth is not None:
        panels.append(("truth", colorize(truth, info)))
    for name, label in (("A", a), ("B", b)):
        if truth is not None and counted.any():
            name += f": {100 * (label == truth)[counted].mean():.1f} % right"
        panels.append((name, colorize(label, info)))
    panels.append(("difference", _difference_map(image, truth, a, b, counted)))
    row = side_by_side([(title, Image.fromarray(pixels)) for title, pixels in panels])
    differences = [("differ", NEITHER)]
    if truth is not None:
        differences = [("only A right", ONLY_A), ("only B right", ONLY_B), ("differ, neither right", NEITHER)]
    seen = sorted({*np.unique(a), *np.unique(b), *(() if truth is None else np.unique(truth[counted]))})
    classes = [(info.classes[index], info.palette[index]) for index in seen]
    return stacked([row, _legend(classes, row.width), _legend(differences, row.width)])


def _difference_map(
    image: Array, truth: Array | None, a: Array, b: Array, counted: NDArray[np.bool_]
) -> Array:
    """Draw differing pixels in color over the pale gray image, ``(H, W, 3) uint8``."""
    pale = 160 + image.mean(2, keepdims=True) * (95 / 255)
    canvas = np.broadcast_to(pale, image.shape).astype(np.uint8)
    differ = (a != b) & counted
    canvas[differ] = NEITHER
    if truth is not None:
        canvas[differ & (a == truth)] = ONLY_A
        canvas[differ & (b == truth)] = ONLY_B
    return canvas


def _legend(entries: Sequence[tuple[str, Color]], width: int) -> Image.Image:
    """Draw colored squares with their names, in as many rows as they need."""
    font = ImageFont.load_default(12)
    places, left, top = [], SPACE, 0
    for name, _ in entries:
        length = round(font.getlength(name)) + SQUARE + 4 * SPACE
        if left > SPACE and left + length > width:
            left, top = SPACE, top + ROW
        places.append((left, top))
        left += length
    canvas = Image.new("RGB", (width, top + ROW + SPACE), (255, 255, 255))
    brush = ImageDraw.Draw(canvas)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        y += SPACE
        brush.rectangle((x, y, x + SQUARE, y + SQUARE), fill=color, outline=(0, 0, 0))
        brush.text((x + SQUARE + SPACE, y - 1), name, fill=(0, 0, 0), font=font)
    return canvas
