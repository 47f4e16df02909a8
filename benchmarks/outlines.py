"""Pixels that libraries fill a polygon with, against the pixels whose larger part it covers.

    python benchmarks/outlines.py

rasterio and pycocotools are measured where they are installed.
"""

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import cv2
import numpy as np
from PIL import Image, ImageDraw

from semiseg.labels.outlines import Bits, Ring, filled, outer_rings
from semiseg.output import text_table

SIZE = (96, 96)
POLYGONS, FINE = 60, 32
SIDES = (
    [(10, 10), (50.3, 10), (30.7, 60), (10, 60)],
    [(50.3, 10), (80, 10), (80, 60), (30.7, 60)],
)
"""Two polygons with a common side."""

Fill = Callable[[Ring], Bits]


def main() -> None:
    """Measure and print a table."""
    rings = list(polygons())
    covered = [coverage(ring) for ring in rings]
    masks = [filled([ring], SIZE) for ring in rings]
    outlines = [outer_rings(mask, 0) for mask in masks]
    rows = []
    for name, fill in fills().items():
        begun = time.perf_counter()
        found = [fill(ring) for ring in rings]
        seconds = (time.perf_counter() - begun) / POLYGONS
        wrong = [np.count_nonzero((part > 0.5) != bits) for part, bits in zip(covered, found, strict=True)]
        area = [bits.sum() - part.sum() for part, bits in zip(covered, found, strict=True)]
        left, right = (fill(np.array(side, np.float64)) for side in SIDES)
        again = [np.any([fill(ring) for ring in each], axis=0) for each in outlines]
        back = [np.count_nonzero(bits != mask) for bits, mask in zip(again, masks, strict=True)]
        cells = [f"{np.mean(wrong):.1f}", f"{np.mean(area):+.1f}", str((left & right).sum())]
        rows.append([name, *cells, f"{np.mean(back):.2f}", f"{1000 * seconds:.2f}"])
    titles = ["filled by", "wrong pixels", "too large by", "in both of two", "our outline read back", "ms"]
    mean = np.mean([part.sum() for part in covered])
    print(f"{POLYGONS} polygons of {mean:.0f} pixels on average; pixels a polygon")
    print("\n".join(text_table(titles, rows)))


def polygons() -> Iterator[Ring]:
    """Draw star-shaped polygons with 3 to 8 corners between pixels."""
    generator = np.random.default_rng(0)
    for _ in range(POLYGONS):
        corners = generator.integers(3, 9)
        angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
        radii = generator.uniform(8, 40, corners)
        center = generator.uniform(40, 56, 2)
        yield np.stack([center[0] + radii * np.cos(angles), center[1] + radii * np.sin(angles)], 1)


def coverage(ring: Ring) -> np.ndarray:
    """Return the share of each pixel that a polygon covers, counted on a grid of 32x32 points in each."""
    height, width = SIZE
    points = filled([ring * FINE], (height * FINE, width * FINE))
    shares: np.ndarray = points.reshape(height, FINE, width, FINE).mean((1, 3))
    return shares


def fills() -> dict[str, Fill]:
    """Return the ways to fill a polygon by their names."""
    found: dict[str, Fill] = {
        "semiseg": lambda ring: filled([ring], SIZE),
        "Pillow": _pillow,
        "cv2.fillPoly": _cv2,
    }
    if find_spec("rasterio"):
        found["rasterio (GDAL)"] = _rasterio
    if find_spec("pycocotools"):
        found["pycocotools"] = _pycocotools
    return found


def _pillow(ring: Ring) -> Bits:
    canvas = Image.new("L", SIZE[::-1])
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in ring.tolist()], fill=1, outline=1)
    return np.asarray(canvas, dtype=bool)


def _cv2(ring: Ring) -> Bits:
    return np.asarray(cv2.fillPoly(np.zeros(SIZE, np.uint8), [ring.astype(np.int32)], [1]), dtype=bool)


def _rasterio(ring: Ring) -> Bits:
    from rasterio.features import rasterize

    closed = [*ring.tolist(), ring[0].tolist()]
    return np.asarray(rasterize([({"type": "Polygon", "coordinates": [closed]}, 1)], SIZE), dtype=bool)


def _pycocotools(ring: Ring) -> Bits:
    from pycocotools import mask

    packed = mask.frPyObjects([ring.ravel().tolist()], *SIZE)
    return np.asarray(mask.decode(packed)[..., 0], dtype=bool)


if __name__ == "__main__":
    main()
