"""Pictures of samples: image, truth, prediction and confidence side by side."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.contracts.tracking import Sample
from semiseg.tasks.shown_size import PANEL_WIDTHS, panel_size, reduced

IGNORED_COLOR = (255, 255, 255)
HEADER_HEIGHT = 18
GAP = 4
PANELS = ("image", "truth", "prediction", "confidence")


def sample_ids(ids: Sequence[str], count: int) -> tuple[str, ...]:
    """Choose ``count`` ids at equal distances, the same in every run."""
    count = min(count, len(ids))
    return tuple(ids[index * len(ids) // count] for index in range(count))


def colorize(label: Array, info: DatasetInfo) -> Array:
    """Return a label map ``(H, W) uint8`` in the colors of its classes, ``(H, W, 3) uint8``; others are white."""
    table = np.full((256, 3), IGNORED_COLOR, np.uint8)
    table[: info.num_classes] = info.palette
    return table[label]


def render(
    image: Array, truth: Array | None, prediction: Array, confidence: NDArray[np.float32], info: DatasetInfo
) -> Image.Image:
    """Draw image, truth, prediction and confidence ``side_by_side``.

    Args:
        image: image ``(H, W, 3) uint8`` RGB.
        truth: label map ``(H, W) uint8``; ``None`` leaves its panel out.
        prediction: label map ``(H, W) uint8``.
        confidence: confidence ``(H, W) float32``, 0 (black) to 1 (white).
        info: palette of the classes.
    """
    size = panel_size(*image.shape[:2])
    gray = np.rint(np.nan_to_num(reduced(confidence, size)).clip(0, 1) * 255).astype(np.uint8)
    panels = [("image", Image.fromarray(reduced(image, size)))]
    if truth is not None:
        panels.append(("truth", Image.fromarray(colorize(reduced(truth, size), info))))
    panels.append(("prediction", Image.fromarray(colorize(reduced(prediction, size), info))))
    panels.append(("confidence", Image.fromarray(gray)))
    return side_by_side(panels)


def side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Draw pictures of one size in a row, each below its title, at the size that ``panel_size`` gives them.

    Pictures narrower than a title stand at the left of their place.
    """
    first = panels[0][1]
    height, width = panel_size(first.height, first.width)
    place = max(width, PANEL_WIDTHS[0])
    canvas = Image.new(
        "RGB", (len(panels) * place + (len(panels) - 1) * GAP, height + HEADER_HEIGHT), (255, 255, 255)
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for position, (title, panel) in enumerate(panels):
        left = position * (place + GAP)
        draw.text((left + 2, 2), title, fill=(0, 0, 0), font=font)
        # Nearest, since a mixed color would be a class that is not there.
        shown = panel.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(shown, (left, HEADER_HEIGHT))
    return canvas


def split_panels(picture: Image.Image) -> dict[str, Image.Image]:
    """Cut a picture by ``render`` into its panels: "image", "truth" where there is one, "prediction", "confidence".

    Raises:
        ValueError: another kind of picture.
    """
    for names in (PANELS, tuple(name for name in PANELS if name != "truth")):
        if (panels := cut_panels(picture, len(names))) is not None:
            return dict(zip(names, panels, strict=True))
    raise ValueError("not a picture of a sample")


def cut_panels(picture: Image.Image, count: int) -> list[Image.Image] | None:
    """Cut a picture by ``side_by_side`` into its panels; ``None`` where it has not so many."""
    step, rest = divmod(picture.width + GAP, count)
    if rest or picture.height <= HEADER_HEIGHT:
        return None
    lefts = range(0, picture.width, step)
    gaps = (picture.crop((left - GAP, 0, left, picture.height)).convert("L") for left in lefts[1:])
    if any(gap.getextrema() != (255, 255) for gap in gaps):
        return None
    return [picture.crop((left, HEADER_HEIGHT, left + step - GAP, picture.height)) for left in lefts]


def write_samples(folder: Path, samples: Sequence[Sample], info: DatasetInfo) -> list[Path]:
    """Write a PNG of each sample into ``folder`` and return the files; a sample always has the same file name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, sample in enumerate(samples):
        path = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', sample.id)}.png"
        render(sample.image, sample.truth, sample.prediction, sample.confidence, info).save(path)
        paths.append(path)
    return paths
