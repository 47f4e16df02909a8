"""The data pipelines of the papers, with the operations of their published code, to measure semiseg's against.

Nothing trains on these. Each makes of an image file and a mask file what the published data set class gives its
loader: the same decoder, the same operations on arrays of the same type and size in the same order, the same work
that has no effect. Random numbers are drawn alike, but not from the same streams.
"""

import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Arrays = tuple[Any, ...]


def dmt(
    image: Path, mask: Path, crop: tuple[int, int], base: tuple[int, int] | None, table: Tensor | None
) -> Arrays:
    """DMT, labeled: whole images as float tensors; Cityscapes is first resized to ``base`` and mapped last."""
    picture = transforms.functional.to_tensor(Image.open(image).convert("RGB"))
    label = torch.as_tensor(np.asarray(Image.open(mask), dtype=np.int64)).float()[None]
    picture, label = _dmt_geometry(picture, label, crop, base)
    picture = transforms.functional.normalize(picture, MEAN, STD)
    values = label[0].long()
    return picture, values if table is None else table[values]


def dmt_pseudo(image: Path, labels: Path, crop: tuple[int, int]) -> Arrays:
    """DMT, pseudo-labeled: label and confidence come as float32 of an .npy file of ``(H, W, 2)``."""
    picture = transforms.functional.to_tensor(Image.open(image).convert("RGB"))
    both = torch.as_tensor(np.load(labels).transpose(2, 0, 1).copy())
    picture, both = _dmt_geometry(picture, both, crop, None)
    return transforms.functional.normalize(picture, MEAN, STD), both


def _dmt_geometry(
    picture: Tensor, label: Tensor, crop: tuple[int, int], base: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    if base is not None:
        picture, label = _interpolated(picture, label, base)
    scale = random.uniform(0.5, 1.5)
    size = int(scale * picture.shape[1]), int(scale * picture.shape[2])
    picture, label = _interpolated(picture, label, size)
    height, width = picture.shape[1:]
    missing = (0, max(0, crop[1] - width), 0, max(0, crop[0] - height))
    picture, label = F.pad(picture, missing, value=0), F.pad(label, missing, value=255)
    height, width = picture.shape[1:]
    top, left = random.randint(0, height - crop[0]), random.randint(0, width - crop[1])
    picture = picture[:, top : top + crop[0], left : left + crop[1]]
    label = label[:, top : top + crop[0], left : left + crop[1]]
    if random.random() < 0.5:
        picture, label = picture.flip(-1), label.flip(-1)
    return picture, label


def _interpolated(picture: Tensor, label: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    picture = F.interpolate(picture[None], size=size, mode="bilinear", align_corners=False)[0]
    return picture, F.interpolate(label[None], size=size, mode="nearest")[0]


def cps(
    image: Path, mask: Path | None, crop: int, names: Sequence[str], length: int, edges: bool = False
) -> Arrays:
    """CPS: OpenCV, normalized in float64 before the crop; the list of an epoch is made anew for every image.

    Args:
        image: Image file.
        mask: Mask file. ``None`` for unlabeled images.
        crop: Side of the crop in pixels.
        names: Names of all images.
        length: Entries of an epoch, which the list is repeated to.
        edges: Find the edges of the label, as on Cityscapes, where nothing uses them.
    """
    repeats, rest = divmod(length, len(names))
    order = torch.randperm(len(names)).tolist()
    _ = list(names) * repeats + [names[position] for position in order[:rest]]
    picture = np.array(cv2.imread(str(image), cv2.IMREAD_COLOR)[:, :, ::-1])  # type: ignore[index]
    label = None if mask is None else cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    if random.random() >= 0.5:
        picture, label = cv2.flip(picture, 1), None if label is None else cv2.flip(label, 1)
    scale = random.choice((0.5, 0.75, 1, 1.5, 1.75, 2.0))
    size = int(picture.shape[1] * scale), int(picture.shape[0] * scale)
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    if label is not None:
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        if edges:
            cv2.dilate(cv2.Canny(label, 5, 5), np.ones((7, 7), np.uint8))
    normalized = (picture.astype(np.float32) / 255.0 - np.array(MEAN)) / np.array(STD)
    top = random.randint(0, max(0, size[1] - crop))
    left = random.randint(0, max(0, size[0] - crop))
    window = _centered(normalized[top : top + crop, left : left + crop], crop, 0)
    result = torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1))).float()
    if label is None:
        return (result,)
    labels = _centered(label[top : top + crop, left : left + crop], crop, 255)
    return result, torch.from_numpy(np.ascontiguousarray(labels)).long()


def _centered(window: Any, crop: int, value: int) -> Any:
    down, right = max(0, crop - window.shape[0]), max(0, crop - window.shape[1])
    sides = down // 2, down - down // 2, right // 2, right - right // 2
    return cv2.copyMakeBorder(window, *sides, cv2.BORDER_CONSTANT, value=(value,) * 3)


def stpp(image: Path, mask: Path, crop: int, base: int, known: Sequence[str], strong: bool) -> Arrays:
    """ST++: Pillow throughout; strong views have color changes, blur and cutout.

    Args:
        image: Image file.
        mask: File of its mask or of its pseudo-label.
        crop: Side of the crop in pixels.
        base: Length that the long side is drawn around, from half of it to twice.
        known: Ids of the unlabeled images, a list that is searched for every image.
        strong: Whether the view is strong.
    """
    picture: Image.Image = Image.open(image)
    label: Image.Image = Image.open(mask)
    _ = image.stem in known
    long = random.randint(base // 2, base * 2)
    width, height = picture.size
    scale = long / max(width, height)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    label = label.resize(size, Image.Resampling.NEAREST)
    border = (0, 0, max(0, crop - size[0]), max(0, crop - size[1]))
    picture, label = ImageOps.expand(picture, border, fill=0), ImageOps.expand(label, border, fill=255)
    left, top = random.randint(0, picture.width - crop), random.randint(0, picture.height - crop)
    box = (left, top, left + crop, top + crop)
    picture, label = picture.crop(box), label.crop(box)
    if random.random() < 0.5:
        flip = Image.Transpose.FLIP_LEFT_RIGHT
        picture, label = picture.transpose(flip), label.transpose(flip)
    if strong:
        picture, label = _stpp_strong(picture, label)
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return normalize(picture), torch.from_numpy(np.array(label)).long()


def _stpp_strong(picture: Image.Image, label: Image.Image) -> tuple[Image.Image, Image.Image]:
    picture = _strong_colors(picture)
    if random.random() >= 0.5:
        return picture, label
    pixels, labels = np.array(picture), np.array(label)
    left, top, width, height = _box(pixels.shape[0])
    pixels[top : top + height, left : left + width] = np.random.uniform(0, 255, (height, width, 3))
    labels[top : top + height, left : left + width] = 255
    return Image.fromarray(pixels), Image.fromarray(labels)


def _strong_colors(picture: Image.Image) -> Image.Image:
    """Color changes and blur of the strong views of ST++ and UniMatch."""
    if random.random() < 0.8:
        picture = transforms.ColorJitter(0.5, 0.5, 0.5, 0.25)(picture)
    picture = transforms.RandomGrayscale(p=0.2)(picture)
    if random.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(radius=np.random.uniform(0.1, 2.0)))
    return picture


def _box(side: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a box within a square."""
    while True:
        area, ratio = np.random.uniform(0.02, 0.4) * side * side, np.random.uniform(0.3, 1 / 0.3)
        width, height = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
        left, top = np.random.randint(0, side), np.random.randint(0, side)
        if left + width <= side and top + height <= side:
            return left, top, width, height


def unimatch(image: Path, mask: Path, crop: int) -> Arrays:
    """UniMatch, unlabeled: one crop as a weak and two strong views, their boxes, and the map of the padding.

    Args:
        image: Image file.
        mask: File of a mask, which the first version opens for its size.
        crop: Side of the crop in pixels.
    """
    picture: Image.Image = Image.open(image).convert("RGB")
    label: Image.Image = Image.fromarray(np.array(Image.open(mask)))
    longer = max(picture.size)
    long = random.randint(int(longer * 0.5), int(longer * 2.0))
    scale = long / longer
    size = int(picture.width * scale + 0.5), int(picture.height * scale + 0.5)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    label = label.resize(size, Image.Resampling.NEAREST)
    border = (0, 0, max(0, crop - size[0]), max(0, crop - size[1]))
    picture, label = ImageOps.expand(picture, border, fill=0), ImageOps.expand(label, border, fill=254)
    left, top = random.randint(0, picture.width - crop), random.randint(0, picture.height - crop)
    place = (left, top, left + crop, top + crop)
    picture, label = picture.crop(place), label.crop(place)
    if random.random() < 0.5:
        flip = Image.Transpose.FLIP_LEFT_RIGHT
        picture, label = picture.transpose(flip), label.transpose(flip)
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    views = [picture, deepcopy(picture), deepcopy(picture)]
    found: list[Tensor] = [normalize(views[0])]
    for view in views[1:]:
        view = _strong_colors(view)
        box = torch.zeros(crop, crop)
        if random.random() <= 0.5:
            left, top, width, height = _box(crop)
            box[top : top + height, left : left + width] = 1
        found += [normalize(view), box]
    ignored = torch.from_numpy(np.array(label)).long()
    found.append(torch.where(ignored == 254, 255, torch.zeros_like(ignored)))
    return tuple(found)


def cac(image: Path, mask: Path, crop: int, base: int, jitter: bool) -> Arrays:
    """CAC, labeled: arrays of float32 and int32, which become Pillow images and back for every operation."""
    picture, label = _cac_scaled(image, mask, crop, base, 0.5)
    top, left = random.randint(0, picture.shape[0] - crop), random.randint(0, picture.shape[1] - crop)
    picture, label = (
        picture[top : top + crop, left : left + crop],
        label[top : top + crop, left : left + crop],
    )
    if random.random() > 0.5:
        picture, label = np.fliplr(picture).copy(), np.fliplr(label).copy()
    drawn = Image.fromarray(np.uint8(picture))
    if jitter:
        drawn = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)(drawn)
    return _cac_tensors(drawn, label)


def cac_pair(image: Path, mask: Path, crop: int, base: int) -> Arrays:
    """CAC, unlabeled: two overlapping crops with colors of their own; labels are carried along unused."""
    picture, label = _cac_scaled(image, mask, crop, base, 0.8)
    spare = picture.shape[0] - crop, picture.shape[1] - crop
    left, top = random.randint(0, spare[1]), random.randint(0, spare[0])
    other = top, left
    for _ in range(50):
        x, y = random.randint(0, spare[1]), random.randint(0, spare[0])
        x, y = (x - left) // 8 * 8 + left, (y - top) // 8 * 8 + top
        x, y = x + 8 * (x < 0), y + 8 * (y < 0)
        common = max(0, crop - abs(x - left)) * max(0, crop - abs(y - top))
        if 0.1 <= common / (2 * crop * crop - common) <= 1:
            other = y, x
            break
    result: Arrays = ()
    for y, x in ((top, left), other):
        one, labels = picture[y : y + crop, x : x + crop], label[y : y + crop, x : x + crop]
        if random.random() < 0.5:
            one, labels = np.fliplr(one).copy(), np.fliplr(labels).copy()
        if random.random() < 0.5:
            one = cv2.GaussianBlur(one, (5, 5), sigmaX=0)
        drawn = Image.fromarray(np.uint8(one))
        if random.random() < 0.8:
            drawn = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)(drawn)
        drawn = transforms.RandomGrayscale(p=0.2)(drawn)
        result += _cac_tensors(drawn, labels)
    return result


def _cac_scaled(image: Path, mask: Path, crop: int, base: int, low: float) -> tuple[Any, Any]:
    picture: Any = np.asarray(Image.open(image).convert("RGB"), dtype=np.float32)
    label: Any = np.asarray(Image.open(mask), dtype=np.int32)
    height, width = label.shape
    long = random.randint(int(base * low), base * 2)
    size = (
        (long, int(long * height / width + 0.5))
        if width >= height
        else (int(long * width / height + 0.5), long)
    )
    drawn = Image.fromarray(np.uint8(picture))
    picture = np.asarray(drawn.resize(size, Image.Resampling.BICUBIC))
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    sides = 0, max(0, crop - size[1]), 0, max(0, crop - size[0])
    if any(sides):
        color = tuple(255 * value for value in MEAN)
        picture = cv2.copyMakeBorder(picture, *sides, cv2.BORDER_CONSTANT, value=color)
        label = cv2.copyMakeBorder(label, *sides, cv2.BORDER_CONSTANT, value=255)
    return picture, label


def _cac_tensors(drawn: Image.Image, label: Any) -> Arrays:
    picture = transforms.functional.normalize(transforms.functional.to_tensor(drawn), MEAN, STD)
    return picture, torch.from_numpy(np.array(label, dtype=np.int32)).long()
