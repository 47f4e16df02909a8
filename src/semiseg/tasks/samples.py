"""Pictures of samples: image, truth, prediction and confidence side by side."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.contracts.tracking import Sample

IGNORED_COLOR = (255, 255, 255)
HEADER_HEIGHT = 18
GAP = 4
PANEL_WIDTHS = (160, 640)
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
    gray = np.rint(np.nan_to_num(confidence).clip(0, 1) * 255).astype(np.uint8)
    panels = [("image", Image.fromarray(image))]
    if truth is not None:
        panels.append(("truth", Image.fromarray(colorize(truth, info))))
    panels.append(("prediction", Image.fromarray(colorize(prediction, info))))
    panels.append(("confidence", Image.fromarray(gray)))
    return side_by_side(panels)


def side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Draw pictures of one size in a row, each below its title.

    Small pictures are enlarged by a whole factor and large ones reduced, so that each is 160-640 pixels wide.
    """
    height, width = _panel_size(*reversed(panels[0][1].size))
    canvas = Image.new(
        "RGB", (len(panels) * width + (len(panels) - 1) * GAP, height + HEADER_HEIGHT), (255, 255, 255)
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for position, (title, panel) in enumerate(panels):
        left = position * (width + GAP)
        draw.text((left + 2, 2), title, fill=(0, 0, 0), font=font)
        # Nearest, since a mixed color would be a class that is not there.
        resized = panel.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
        canvas.paste(resized, (left, HEADER_HEIGHT))
    return canvas


def split_panels(picture: Image.Image) -> dict[str, Image.Image]:
    """Cut a picture by ``render`` into its panels: "image", "truth" where there is one, "prediction", "confidence".

    Raises:
        ValueError: another kind of picture.
    """
    for names in (PANELS, tuple(name for name in PANELS if name != "truth")):
        step, rest = divmod(picture.width + GAP, len(names))
        gaps = [
            picture.crop((left - GAP, 0, left, picture.height)).convert("L").getextrema()
            for left in range(step, picture.width, step)
        ]
        if not rest and picture.height > HEADER_HEIGHT and all(gap == (255, 255) for gap in gaps):
            return {
                name: picture.crop((left, HEADER_HEIGHT, left + step - GAP, picture.height))
                for name, left in zip(names, range(0, picture.width, step), strict=True)
            }
    raise ValueError("not a picture of a sample")


def write_samples(folder: Path, samples: Sequence[Sample], info: DatasetInfo) -> list[Path]:
    """Write a PNG of each sample into ``folder`` and return the files; a sample always has the same file name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, sample in enumerate(samples):
        path = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', sample.id)}.png"
        render(sample.image, sample.truth, sample.prediction, sample.confidence, info).save(path)
        paths.append(path)
    return paths


def _panel_size(height: int, width: int) -> tuple[int, int]:
    low, high = PANEL_WIDTHS
    if width < low:
        factor = -(-low // width)
        return height * factor, width * factor
    if width > high:
        return max(round(height * high / width), 1), high
    return height, width
