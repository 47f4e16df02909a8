"""Small pictures of bands for tests: TIFF with a place on the ground, PNG and arrays."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semiseg.contracts.dataset import Bands

CLASSES = ["soil", "crop", "water"]


def bands(channels: int, dtype: str, **options: Any) -> Bands:
    """Bands with the mean 100 and the deviation 50 in each channel."""
    return Bands(channels, dtype, [100.0] * channels, [50.0] * channels, **options)  # type: ignore[arg-type]


def numbers(height: int, width: int, channels: int, dtype: str, seed: int = 0) -> NDArray[Any]:
    """Numbers from 1 to 200, of which each channel has its own."""
    rng = np.random.RandomState(seed)
    return rng.randint(1, 201, (height, width, channels)).astype(dtype)


def write_tiff(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write ``(H, W, C)`` as TIFF of ten meters a pixel in UTM zone 33N, where the options do not say otherwise."""
    import rasterio
    from rasterio.transform import from_origin

    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    colors = options.pop("colorinterp", None)
    profile = {
        **place,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": pixels.shape[2],
        **options,
    }
    with rasterio.open(path, "w", driver="GTiff", dtype=pixels.dtype.name, **profile) as file:
        file.write(np.moveaxis(pixels, -1, 0))
        if colors is not None:
            file.colorinterp = colors
    return path


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    """Write ``(H, W, 1 or 3 or 4)`` of 8 or 16 bits as PNG, red first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = pixels.shape[2]
    cv2.imwrite(str(path), pixels if count == 1 else pixels[..., [2, 1, 0, 3][:count]])
    return path


def write_fields(
    root: Path, channels: int, dtype: str, count: int = 5, size: tuple[int, int] = (64, 80)
) -> Path:
    """Write pictures whose brightness is their class, masks for all but the last one, and val.txt with the first."""
    rng = np.random.RandomState(7)
    for number in range(count):
        label = np.kron(rng.randint(0, 3, (size[0] // 16, size[1] // 16)), np.ones((16, 16), int))
        pixels = label[..., None] * 60 + rng.randint(10, 40, (*size, channels))
        write_tiff(root / "images" / f"f{number}.tif", pixels.astype(dtype))
        if number < count - 1:
            write_tiff(root / "masks" / f"f{number}.tif", label[..., None].astype(np.uint8), nodata=255)
    (root / "val.txt").write_text("f0\n")
    return root
