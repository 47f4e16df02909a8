"""Drawn photographs with label maps, in which images and masks look as they do in real folders."""

import numpy as np
from PIL import Image

SIZE = (48, 40)
PALETTE = np.array([[0, 0, 0], [200, 40, 30], [30, 60, 180], [240, 220, 20]], np.uint8)


def scene(number):
    """A textured ground (0) with a disk (1) and a square (2): RGB image and label map."""
    width, height = SIZE
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width]
    image = (
        110 + 25 * np.sin(x / 5 + number)[..., None] * [1, 0.8, 0.6] + rng.normal(0, 12, (height, width, 3))
    )
    labels = np.zeros((height, width), np.uint8)
    center = rng.uniform(0.2, 0.8, 2) * [width, height]
    labels[(x - center[0]) ** 2 + (y - center[1]) ** 2 < 64] = 1
    left, top = int(rng.integers(0, width - 12)), int(rng.integers(0, height - 12))
    labels[top : top + 12, left : left + 12] = 2
    image[labels > 0] = image[labels > 0] * 0.3 + 90 * labels[labels > 0][:, None]
    return np.clip(image, 0, 255).astype(np.uint8), labels


def instances(labels, number):
    """Numbers of objects, of their own in each image."""
    numbers = np.array([0, *np.random.default_rng(number).integers(1, 250, 2)], np.uint8)
    return numbers[labels]


def depth(labels):
    """A smooth map of distances."""
    height, width = labels.shape
    y, x = np.mgrid[:height, :width]
    return (5 * y + x % 5 + labels).astype(np.uint8)


def edges(labels):
    """Outlines of one pixel."""
    found = np.zeros_like(labels)
    found[1:, 1:] = (labels[1:, 1:] != labels[:-1, 1:]) | (labels[1:, 1:] != labels[1:, :-1])
    return found * np.uint8(255)


def superpixels(labels):
    """Small areas with numbers of their own."""
    height, width = labels.shape
    y, x = np.mgrid[:height, :width]
    return ((y // 4) * 12 + x // 4).astype(np.uint8)


def overlay(image, labels):
    """The picture below the colors of its labels."""
    return (image // 2 + PALETTE[labels] // 2).astype(np.uint8)


def moved(labels):
    """Labels as somebody else draws them."""
    return np.roll(labels, 3, axis=1)


def put(path, pixels, **options):
    """Save pixels below new folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def write(root, count, **kinds):
    """Write pictures of scenes.

    Args:
        root: folder of the dataset.
        count: number of scenes.
        kinds: pairs of a path with ``{}`` for the number, and what is drawn there: a function of image, labels and
            number; with a third entry, only of the first so many scenes.
    """
    for number in range(count):
        image, labels = scene(number)
        for path, draw, *first in kinds.values():
            if number < (first[0] if first else count):
                put(root / path.format(number), draw(image, labels, number))
    return root


def photo(image, labels, number):
    return image


def mask(image, labels, number):
    return labels


def other_mask(image, labels, number):
    return moved(labels)


def colors(image, labels, number):
    return PALETTE[labels]
