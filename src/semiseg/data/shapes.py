"""Built-in dataset of textured shapes, drawn on the fly without a file or a download."""

import random
from typing import Annotated, Any

import numpy as np

from semiseg.contracts.dataset import Array, DatasetInfo, Part
from semiseg.data.drawing import (
    CLASS_FIGURES,
    CLUTTER_FORMS,
    CLUTTER_TEXTURES,
    TURN,
    UNIT,
    Figure,
    Frame,
    Inside,
    frame,
    rgb,
)
from semiseg.declare import Ge, Le, Mark, checked
from semiseg.seeding import derive_seed

CLASSES = ("background", *CLASS_FIGURES)
PALETTE = (
    (40, 40, 40),
    (230, 75, 60),
    (240, 190, 40),
    (70, 170, 80),
    (60, 180, 220),
    (70, 90, 210),
    (190, 80, 200),
)
CLASS_TEXTURES = tuple(texture for _, texture in CLASS_FIGURES.values())
MIN_SIZE = 32
MAX_SIZE = 512
"""Largest size at which every product of coordinates fits into 32 bits."""
PARTS: tuple[Part, ...] = ("train", "val", "test")


Count = Annotated[int, Ge(0), Le(1_000_000)]


class Shapes:
    """Images of overlapping shapes of 6 classes on a cluttered background; each is a function of (seed, id).

    The form alone tells the class. A preferred texture and a preferred range of hues tell it in part, so that a
    network learns much from few labels and more from many. Light, clutter of other forms and textures, and noise
    are added. All pixels are computed in whole numbers: every machine draws the same.

    Args:
        train: number of training images, ids "train-0000", "train-0001" and so on.
        val: number of validation images.
        test: number of test images.
        size: height and width in pixels, 32 to 512.
        seed: seed of the images, apart from the seed of the run.
        own_texture: share of shapes in their class's texture; the others have that of any class.
        hue_spread: degrees that a shape's hue may be away from its class's (180 gives no hint).
        clutter: number of lines and blobs that are no class.
        noise: largest change of a value by noise.
        cache: number of drawn images that are kept in memory.
        name: name of the dataset.

    Raises:
        UserError: a number is out of its range.
    """

    @checked
    def __init__(
        self,
        *,
        train: Annotated[int, Ge(1), Le(1_000_000)] = 480,
        val: Count = 96,
        test: Count = 96,
        size: Annotated[int, Ge(MIN_SIZE), Le(MAX_SIZE)] = 96,
        seed: int = 0,
        own_texture: Annotated[float, Ge(0), Le(1)] = 0.95,
        hue_spread: Annotated[int, Ge(0), Le(180)] = 25,
        clutter: Annotated[int, Ge(0), Le(1000)] = 1,
        noise: Annotated[int, Ge(0), Le(255)] = 4,
        cache: Annotated[Count, Mark("nothing")] = 1024,
        name: str = "shapes",
    ) -> None:
        counts = {"train": train, "val": val, "test": test}
        self.info = DatasetInfo(name=name, classes=CLASSES, palette=PALETTE)
        self.size = size
        self.seed = seed
        self.own_texture = own_texture
        self.hue_spread = hue_spread
        self.clutter = clutter
        self.noise = noise
        self._ids = {
            part: tuple(f"{part}-{index:04d}" for index in range(count)) for part, count in counts.items()
        }
        self._known = frozenset(image_id for ids in self._ids.values() for image_id in ids)
        self._cache_size = cache
        self._cache: dict[str, tuple[Array, Array]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part, by number."""
        return self._ids.get(part, ())

    def image(self, image_id: str) -> Array:
        """Return the image, ``(size, size, 3) uint8`` RGB."""
        return self._drawn(image_id)[0].copy()

    def mask(self, image_id: str) -> Array:
        """Return the label map, ``(size, size) uint8``."""
        return self._drawn(image_id)[1].copy()

    def _drawn(self, image_id: str) -> tuple[Array, Array]:
        found = self._cache.get(image_id)
        if found is None:
            if image_id not in self._known:
                raise KeyError(image_id)
            found = self._draw(random.Random(derive_seed("shapes", self.seed, image_id)))
            if len(self._cache) < self._cache_size:
                self._cache[image_id] = found
        return found

    def _draw(self, rng: random.Random) -> tuple[Array, Array]:
        size = self.size
        image = np.zeros((size, size, 3), dtype=np.uint8)
        mask = np.zeros((size, size), dtype=np.uint8)
        whole = frame(size, (rng.randrange(size), rng.randrange(size)), size, rng.randrange(TURN))
        everywhere = np.ones((size, size), dtype=np.bool_)
        self._paint(image, whole, everywhere, rng.choice(CLUTTER_TEXTURES), rng.randrange(360), (10, 35), rng)
        for _ in range(self.clutter):
            self._add(image, rng, rng.choice(CLUTTER_FORMS), rng.choice(CLUTTER_TEXTURES), rng.randrange(360))
        forms = list(CLASS_FIGURES.values())
        for _ in range(rng.randint(3, 7)):
            index = rng.randrange(len(forms))
            form, texture = forms[index]
            if rng.random() >= self.own_texture:
                texture = rng.choice(CLASS_TEXTURES)
            hue = index * 60 + rng.randint(-self.hue_spread, self.hue_spread)
            rows, columns, inside = self._add(image, rng, form, texture, hue)
            mask[rows, columns][inside] = index + 1
        return self._lit(image, rng), mask

    def _add(
        self, image: Array, rng: random.Random, form: Figure, texture: Figure, hue: int
    ) -> tuple[slice, slice, Inside]:
        """Draw one figure at a random place; return its rows, columns and pixels."""
        radius = rng.randint(self.size * 12 // 96, self.size * 26 // 96)
        center = rng.randrange(self.size), rng.randrange(self.size)
        where = frame(self.size, center, radius * 4 // 3 + 1, rng.randrange(TURN))
        stretched = where.u * rng.randint(200, 320) >> 8
        inside = form(stretched, where.v, radius * UNIT)
        self._paint(image, where, inside, texture, hue, (50, 100), rng)
        return where.rows, where.columns, inside

    def _paint(
        self,
        image: Array,
        where: Frame,
        inside: Inside,
        texture: Figure,
        hue: int,
        contrasts: tuple[int, int],
        rng: random.Random,
    ) -> None:
        """Fill a figure with a texture of two colors of similar hue and different brightness."""
        bright, saturation = rng.randint(90, 235), rng.randint(60, 200)
        contrast = rng.randint(*contrasts)
        other = bright - contrast if bright > 150 else bright + contrast
        colors = np.stack([rgb(hue, saturation, bright), rgb(hue + rng.randint(-25, 25), saturation, other)])
        pattern = texture(where.u + rng.randrange(4096), where.v, rng.randint(3 * UNIT, 5 * UNIT))
        image[where.rows, where.columns][inside] = colors[pattern[inside].view(np.uint8)]

    def _lit(self, image: Array, rng: random.Random) -> Array:
        """Apply a gradient of light and noise."""
        size = self.size
        ramp = np.arange(size, dtype=np.int32)
        base, across, down = rng.randint(190, 290), rng.randint(-90, 90), rng.randint(-90, 90)
        light = base + (ramp[None, :] * across + ramp[:, None] * down) // size
        drawn = np.frombuffer(rng.randbytes(image.size), dtype=np.uint8).reshape(image.shape)
        change = (drawn.astype(np.int32) - 128) * self.noise >> 7
        lit = (image * light[..., None] >> 8) + change
        return np.clip(lit, 0, 255).astype(np.uint8)
