"""Shapes, textures and colors in whole numbers, so that every machine draws the same pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import Array

Coordinates = NDArray[np.int32]
Inside = NDArray[np.bool_]

UNIT = 16
"""Steps of a coordinate per pixel."""
TURN = 64
"""Number of angles in a full turn."""
COSINES = tuple(round(4096 * math.cos(2 * math.pi * index / TURN)) for index in range(TURN))


@dataclass(frozen=True)
class Frame:
    """Coordinates around a center, turned by an angle, over the part of an image that a figure may touch.

    Args:
        rows: rows of that part.
        columns: its columns.
        u: first coordinate of each pixel there, in 1/16 pixel.
        v: second coordinate.
    """

    rows: slice
    columns: slice
    u: Coordinates
    v: Coordinates


def frame(size: int, center: tuple[int, int], reach: int, angle: int) -> Frame:
    """Return coordinates around ``center`` (x, y), up to ``reach`` pixels away, turned by ``angle`` of 64."""
    x, y = center
    rows = slice(max(0, y - reach), max(0, min(size, y + reach + 1)))
    columns = slice(max(0, x - reach), max(0, min(size, x + reach + 1)))
    dy = np.arange(rows.start, rows.stop, dtype=np.int32)[:, None] - np.int32(y)
    dx = np.arange(columns.start, columns.stop, dtype=np.int32)[None, :] - np.int32(x)
    cosine, sine = COSINES[angle % TURN], COSINES[(angle - TURN // 4) % TURN]
    return Frame(rows, columns, (dx * cosine + dy * sine) >> 8, (dy * cosine - dx * sine) >> 8)


def half_plane(u: Coordinates, v: Coordinates, angle: int, distance: int) -> Inside:
    """Points that lie at most ``distance`` along a direction, one of the 64 angles."""
    projection = u * COSINES[angle % TURN] + v * COSINES[(angle - TURN // 4) % TURN]
    return np.asarray(projection <= distance * 4096)


def disk(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Circle of radius r."""
    return np.asarray(u * u + v * v <= r * r)


def square(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Square of half side 0.8 r."""
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) * 10 <= 8 * r)


def triangle(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Nearly equilateral triangle with corners about r away."""
    return half_plane(u, v, 16, r // 2) & half_plane(u, v, 37, r // 2) & half_plane(u, v, 59, r // 2)


def ring(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Ring between 0.55 r and r."""
    squared = u * u + v * v
    return np.asarray((squared <= r * r) & (squared * 10 >= 3 * r * r))


def star(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Star of five points: inside at least four of a pentagram's five lines."""
    lines = [half_plane(u, v, angle, r * 34 // 100) for angle in (16, 29, 42, 54, 67)]
    return np.asarray(np.add.reduce(lines, dtype=np.int8) >= 4) & disk(u, v, r)


def cross(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Two bars, each a third as wide as long."""
    a, b = np.abs(u), np.abs(v)
    return np.asarray((np.maximum(a, b) <= r) & (np.minimum(a, b) * 3 <= r))


def ellipse(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Ellipse 2.5 times as long as wide."""
    return np.asarray(4 * u * u + 25 * v * v <= 4 * r * r)


def half_disk(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Half of a circle."""
    return disk(u, v, r) & (v >= 0)


def corner(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """The letter L."""
    inside = np.maximum(np.abs(u), np.abs(v)) * 10 <= 8 * r
    return np.asarray(inside & ((u * 10 < -3 * r) | (v * 10 > 3 * r)))


def line(u: Coordinates, v: Coordinates, r: int) -> Inside:
    """Line of length 2 r, two pixels wide."""
    return np.asarray((np.abs(u) <= r) & (np.abs(v) <= UNIT))


def stripes(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Stripes of width p."""
    return np.asarray(u // p & 1 == 1)


def checker(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Squares of side p."""
    return np.asarray((u // p + v // p) & 1 == 1)


def dots(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Dots on a square lattice of 1.5 p."""
    q = p + p // 2
    a, b = u % q - q // 2, v % q - q // 2
    return np.asarray(8 * (a * a + b * b) <= q * q)


def grid(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Thin crossing lines 1.5 p apart."""
    q = p + p // 2
    return np.asarray((u % q * 10 < 3 * q) | (v % q * 10 < 3 * q))


def zigzag(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Stripes of width p that bend back and forth."""
    return np.asarray((u + np.abs(v % (4 * p) - 2 * p)) // p & 1 == 1)


def speckle(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Irregular cells of side p/2."""
    a, b = u // (p // 2), v // (p // 2)
    mixed = (((a * 7_919) ^ (b * 5_147)) & 0xFFFF) * 9_973
    return np.asarray((mixed >> 9) & 3 == 0)


def no_texture(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """No texture."""
    return np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.bool_)


def bands(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Narrow lines far apart."""
    return np.asarray(u % (4 * p) < p // 2)


def bricks(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Joints between bricks of 4 p by 2 p."""
    row = v // (2 * p)
    return np.asarray((v % (2 * p) * 4 < p) | ((u + (row & 1) * 2 * p) % (4 * p) * 4 < p))


def zones(u: Coordinates, v: Coordinates, p: int) -> Inside:
    """Rings that get narrower outward."""
    return np.asarray((u * u + v * v) // (16 * p * p) & 1 == 1)


Figure = Callable[[Coordinates, Coordinates, int], Inside]

CLASS_FIGURES: dict[str, tuple[Figure, Figure]] = {
    "disk": (disk, stripes),
    "square": (square, checker),
    "triangle": (triangle, dots),
    "ring": (ring, grid),
    "star": (star, zigzag),
    "cross": (cross, speckle),
}
"""Form and preferred texture of each class."""
CLUTTER_FORMS: tuple[Figure, ...] = (line, line, ellipse, half_disk, corner)
CLUTTER_TEXTURES: tuple[Figure, ...] = (no_texture, bands, bricks, zones)


def rgb(hue: int, saturation: int, value: int) -> Array:
    """Return the ``(3,) uint8`` color of a hue in degrees, and saturation and value of 0 to 255."""
    sector, rest = divmod(hue % 360, 60)
    low = value * (255 - saturation) // 255
    rising = low + (value - low) * rest // 60
    falling = value - (value - low) * rest // 60
    colors = (
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    )
    return np.array(colors[sector], dtype=np.uint8)
