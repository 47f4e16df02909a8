"""Small folders of own images and masks, in any layout."""

import numpy as np
from PIL import Image

GREY = np.repeat(np.array([[0, 0, 0, 1, 1, 2, 2, 255]], np.uint8), 6, axis=0)
COLORS = {0: (0, 0, 0), 1: (128, 64, 0), 2: (0, 255, 128), 255: (255, 255, 255)}
GENERATOR = np.random.default_rng(0)


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    (picture.quantize(8) if mode == "P" else picture).save(path)


def photo(path, shape=GREY.shape):
    save(path, GENERATOR.integers(0, 256, (*shape, 3), dtype=np.uint8))


def colored(grey=GREY):
    return np.array([COLORS[int(value)] for value in grey.ravel()], np.uint8).reshape(*grey.shape, 3)


def fields(
    root, images="images/{}.jpg", masks="masks/{}.png", mask=GREY, labeled="abcde", unlabeled="xyz", **how
):
    """Labeled and unlabeled images in a layout."""
    for stem in labeled:
        photo(root / images.format(stem))
        save(root / masks.format(stem), mask, **how)
    for stem in unlabeled:
        photo(root / images.format(stem))
    return root
