"""Files to measure data pipelines with: VOC and Cityscapes trees of any dataset's images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from semiseg.contracts.dataset import Array, SegDataset
from semiseg.data.cityscapes import LABEL_IDS, Cityscapes
from semiseg.data.image_files import FileDataset
from semiseg.data.palette import bit_color
from semiseg.data.pseudo import PseudoLabels, PseudoWriter
from semiseg.data.voc import Voc

VOC_SIZE = (500, 375)
CITYSCAPES_SIZE = (2048, 1024)
JPEG_QUALITY = 95
NOISE = {VOC_SIZE: 14, CITYSCAPES_SIZE: 1}
"""Largest change of a value, which brings files of CamVid to the size (about 110 KB and 2.3 MB) of the real ones."""


@dataclass(frozen=True)
class Tree:
    """A dataset of made files, and pseudo-labels of its images.

    Args:
        dataset: Dataset of the files; its masks have the classes of the source, as far as there are so many.
        pseudo: Labels and confidences of all training images.
        arrays: The same as .npy files by id, ``(H, W, 2) float32``, as DMT stores them.
    """

    dataset: FileDataset
    pseudo: PseudoLabels
    arrays: dict[str, Path]


def voc_tree(source: SegDataset, ids: Sequence[str], root: Path, cache: Path) -> Tree:
    """Write images as 500x375 JPEG of quality 95 and masks as palette PNG, in the layout of VOC."""
    base = root / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    palette = [part for value in range(256) for part in bit_color(value)]
    for number, image_id in enumerate(ids):
        image, mask = _resized(source, image_id, VOC_SIZE)
        Image.fromarray(image).save(base / "JPEGImages" / f"{number:05d}.jpg", quality=JPEG_QUALITY)
        label = Image.fromarray(np.where(mask < 21, mask, 255).astype(np.uint8))
        label.putpalette(palette)
        label.save(base / "SegmentationClassAug" / f"{number:05d}.png")
    names = [f"{number:05d}" for number in range(len(ids))]
    lists = base / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").write_text("\n".join(names[1:]))
    (lists / "val.txt").write_text(names[0])
    dataset = Voc(str(base), cache_dir=str(cache))
    return _labeled(dataset, root)


def cityscapes_tree(source: SegDataset, ids: Sequence[str], root: Path, cache: Path) -> tuple[Tree, Tree]:
    """Write images as 2048x1024 PNG and masks as labelIds; returns the dataset, and the same at half size."""
    table = np.zeros(256, np.uint8)
    table[: len(LABEL_IDS)] = LABEL_IDS
    for number, image_id in enumerate(ids):
        image, mask = _resized(source, image_id, CITYSCAPES_SIZE)
        part = "train" if number else "val"
        stem = f"made_{number:06d}_000019"
        for kind, end, pixels in (
            ("leftImg8bit", "leftImg8bit", image),
            ("gtFine", "gtFine_labelIds", table[mask]),
        ):
            folder = root / kind / part / "made"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{stem}_{end}.png")
    full, half = (Cityscapes(str(root), half_size=half, cache_dir=str(cache)) for half in (False, True))
    return _labeled(full, root / "full"), _labeled(half, root / "half")


def _resized(source: SegDataset, image_id: str, size: tuple[int, int]) -> tuple[Array, Array]:
    image, mask = source.image(image_id), source.mask(image_id)
    if mask is None:
        mask = np.zeros(image.shape[:2], np.uint8)
    noise = np.random.default_rng(0).integers(-NOISE[size], NOISE[size] + 1, (size[1], size[0], 3))
    noisy = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) + noise
    scaled = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    return noisy.clip(0, 255).astype(np.uint8), np.asarray(scaled, np.uint8)


def _labeled(dataset: FileDataset, root: Path) -> Tree:
    """Take the masks as pseudo-labels, with random confidences."""
    folder = root / "pseudo"
    arrays: dict[str, Path] = {}
    with PseudoWriter(folder / "store", {}) as writer:
        for number, image_id in enumerate(dataset.ids("train")):
            mask = dataset.mask(image_id)
            assert mask is not None
            confidence = np.random.default_rng(number).random(mask.shape, np.float32)
            writer.write(image_id, mask, confidence)
            arrays[image_id] = folder / f"{number}.npy"
            np.save(arrays[image_id], np.stack([mask.astype(np.float32), confidence], axis=-1))
        pseudo = writer.seal()
    return Tree(dataset, PseudoLabels(pseudo.path, thresholds=[0.5] * dataset.info.num_classes), arrays)
