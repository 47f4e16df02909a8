"""Geometry and cutout against numbers that the original programs gave."""

import hashlib
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semiseg.contracts.dataset import Array
from semiseg.data.cutout import Cutout
from semiseg.data.geometry import LongSide, RandomCrop, ScaleChoice, ScaleUniform
from semiseg.data.overlap import OverlapPair
from semiseg.data.resize import resized
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.inference import predict

STPP = {"pad_color": (0, 0, 0), "draw_order": "xy"}
CPS_SCALES = ScaleChoice([0.5, 0.75, 1, 1.5, 1.75, 2.0])


def grid(width: int, height: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    y, x = np.mgrid[:height, :width]
    return x, y


def make_image(width: int, height: int) -> Array:
    x, y = grid(width, height)
    return np.stack([(3 * x + 5 * y) % 256, (7 * x + 2 * y + 40) % 256, x * y % 256], -1).astype(np.uint8)


def make_mask(width: int, height: int) -> Array:
    x, y = grid(width, height)
    return np.where(x % 37 == 0, 255, (x // 13 + y // 11) % 21).astype(np.uint8)


def sha(array: np.ndarray[Any, Any] | None) -> str:
    assert array is not None
    return hashlib.sha1(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


@pytest.mark.golden("ST++ inputs")
def test_inputs() -> None:
    assert sha(make_image(500, 375)) == "3e5fd2693fa9"
    assert sha(make_mask(500, 375)) == "5e48e899e464"


@pytest.mark.golden("ST++ transforms")
@pytest.mark.parametrize(
    ("width", "height", "seed", "size", "image_sha", "mask_sha"),
    [
        (500, 375, 0, (594, 446), "debc7d55ea5e", "4af9c79fe1af"),
        (500, 375, 1, (337, 253), "f041c9718c91", "f05c138b711c"),
        (500, 375, 2, (257, 193), "ee408acba40d", "d066d595485d"),
        (500, 375, 3, (443, 332), "825d64e8fe33", "dbc5fc5bf60e"),
        (333, 500, 0, (396, 594), "a8f056786ba0", None),
        (333, 500, 1, (224, 337), "8d28ea12c65c", None),
        (333, 500, 2, (171, 257), "a5a2a35df60f", None),
    ],
)
def test_stpp_resize(
    width: int, height: int, seed: int, size: tuple[int, int], image_sha: str, mask_sha: str | None
) -> None:
    rule = LongSide(400, 0.5, 2.0)
    drawn = rule.size(height, width, random.Random(seed))
    assert drawn == (size[1], size[0])
    assert sha(resized(make_image(width, height), drawn, rule.interpolation)) == image_sha
    if mask_sha is not None:
        assert sha(resized(make_mask(width, height), drawn, rule.interpolation)) == mask_sha


@pytest.mark.golden("ST++ transforms")
@pytest.mark.parametrize(
    ("width", "height", "seed", "image_sha", "mask_sha"),
    [
        (500, 375, 0, "699ec4f06576", "ac53876d1945"),
        (500, 375, 1, "0f4fa23293f2", "c4d10bfd9eaf"),
        (500, 375, 2, "262e60a23d16", "1445d868d3f6"),
        (200, 150, 0, "be1a27ccd121", "6a97f969bc93"),
    ],
)
def test_stpp_crop(width: int, height: int, seed: int, image_sha: str, mask_sha: str) -> None:
    crop = RandomCrop(321, resize=None, flip="none", **STPP)  # type: ignore[arg-type]
    image, mask = crop(make_image(width, height), make_mask(width, height), random.Random(seed))
    assert (sha(image), sha(mask)) == (image_sha, mask_sha)
    if width == 200:
        assert mask is not None
        assert image[300, 300].tolist() == [0, 0, 0]
        assert mask[300, 300] == 255
        assert image[0, 0].tolist() == [0, 40, 0]


@pytest.mark.golden("ST++ transforms")
@pytest.mark.parametrize(("seed", "flipped"), [(0, False), (1, True)])
def test_stpp_flip(seed: int, flipped: bool) -> None:
    image = make_image(50, 40)
    result, _ = RandomCrop((40, 50), resize=None, draw_when="longer")(image, None, random.Random(seed))
    assert np.array_equal(result, image[:, ::-1] if flipped else image)


@pytest.mark.golden("ST++ transforms")
@pytest.mark.parametrize(
    ("seed", "image_sha", "mask_sha"),
    [
        (0, "383886cec79c", "6a4af43c19f0"),
        (1, "5545ca01e4c0", "7e70eee2b6ff"),
        (2, "c9ce4d5cdf5c", "f828bd921863"),
        (3, "039cb599e499", "cc055006b174"),
    ],
)
def test_stpp_weak_chain(seed: int, image_sha: str, mask_sha: str) -> None:
    crop = RandomCrop(321, LongSide(400), **STPP)  # type: ignore[arg-type]
    image, mask = crop(make_image(500, 375), make_mask(500, 375), random.Random(seed))
    assert (sha(image), sha(mask)) == (image_sha, mask_sha)


@pytest.mark.golden("ST++ transforms")
def test_stpp_cutout() -> None:
    image = make_image(500, 375)[20:341, 10:331]
    mask = make_mask(500, 375)[20:341, 10:331]
    assert (sha(image), sha(mask)) == ("215c64fe96c4", "c760bc8f3255")
    expected = {
        1: ("ad7e944d018b", "573413b24c2e", 9866),
        3: ("ed856401562f", "7c72db60fe5b", 13802),
        4: ("1770084adc19", "1eebc04ed4da", 27184),
    }
    # The original gates on Python's generator and draws the box from numpy's.
    assert [seed for seed in range(6) if random.Random(seed).random() < 0.5] == list(expected)
    for seed, (image_sha, mask_sha, ignored) in expected.items():
        erased, erased_mask = Cutout().erase(image, mask, np.random.RandomState(seed))
        assert erased_mask is not None
        assert (sha(erased), sha(erased_mask), int((erased_mask == 255).sum())) == (
            image_sha,
            mask_sha,
            ignored,
        )


class CountingRandomState(np.random.RandomState):
    """Counts the integer draws: two for each box that is tried."""

    integers = 0

    def randint(self, *args: Any, **kwargs: Any) -> Any:
        self.integers += 1
        return super().randint(*args, **kwargs)


@pytest.mark.golden("ST++ transforms")
def test_stpp_cutout_statistics() -> None:
    rng = CountingRandomState(0)
    cutout, draws = Cutout(), 20_000
    area = 0
    for _ in range(draws):
        _, _, width, height = cutout.box(321, 321, rng)
        area += width * height
    assert area / draws / 321**2 == pytest.approx(0.141, abs=0.003)
    assert rng.integers / 2 / draws == pytest.approx(3.6, abs=0.1)


@pytest.mark.golden("CPS crops")
@pytest.mark.parametrize(
    ("height", "width", "crop", "seed", "mirror", "size", "corner"),
    [
        (375, 500, 512, 0, True, (562, 750), (2, 66)),
        (375, 500, 512, 1, False, (187, 250), (0, 0)),
        (375, 500, 512, 2, True, (187, 250), (0, 0)),
        (375, 500, 512, 3, False, (656, 875), (33, 189)),
        (1024, 2048, 800, 0, True, (1536, 3072), (41, 1060)),
        (1024, 2048, 800, 1, False, (512, 1024), (0, 65)),
        (1024, 2048, 800, 2, True, (512, 1024), (0, 23)),
        (1024, 2048, 800, 3, False, (1792, 3584), (133, 1515)),
    ],
)
def test_cps_geometry(
    height: int,
    width: int,
    crop: int,
    seed: int,
    mirror: bool,
    size: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    x, y = grid(width, height)
    image = np.stack([x // 8, y // 8, x * 0], -1).astype(np.uint8)
    rule = RandomCrop(crop, CPS_SCALES, "first", "centered", draw_when="longer", crop_off_by_one=True)
    result, mask = rule(image, make_mask(width, height), random.Random(seed))

    moved = np.ascontiguousarray(image[:, ::-1]) if mirror else image
    moved = resized(moved, size, "opencv")[corner[0] : corner[0] + crop, corner[1] : corner[1] + crop]
    top, left = (crop - moved.shape[0]) // 2, (crop - moved.shape[1]) // 2
    assert np.array_equal(result[top : top + moved.shape[0], left : left + moved.shape[1]], moved)
    outside = np.ones((crop, crop), bool)
    outside[top : top + moved.shape[0], left : left + moved.shape[1]] = False
    assert mask is not None
    assert (result[outside] == (124, 116, 104)).all()
    assert (mask[outside] == 255).all()


DMT = {"pad_color": (0, 0, 0), "draw_when": "unfitting"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE_BGR = (104.008, 116.669, 122.675)


def dmt_pair() -> tuple[Array, Array]:
    x, y = grid(26, 20)
    channels = [(7 * y + 11 * x + 53 * c + (y * x) % 17) % 256 for c in range(3)]
    return np.stack(channels, -1).astype(np.uint8), ((y // 3 + x // 4) % 5).astype(np.uint8)


def conventions(image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The crop as the ImageNet and as the COCO network see it."""
    mean, std = IMAGENET
    return [(image.astype(np.float64) / 255 - mean) / std, image.astype(np.float64)[..., ::-1] - CAFFE_BGR]


@pytest.mark.golden("DMT transforms")
@pytest.mark.parametrize(
    ("seed", "imagenet", "coco", "labels", "ignored"),
    [
        (1, (-426.00950, 1178.65073, 0.256729), (-24574.71114, 67875.71326, 140.658661), 366, 96),
        (2, (405.54300, 1029.72495, 1.098142), (23476.59393, 59433.79448, -66.206970), 507, 0),
        (3, (-30.84437, 1008.13662, 0.155632), (-1796.51018, 58047.87806, 134.755157), 487, 36),
    ],
)
def test_dmt_geometry(
    seed: int, imagenet: tuple[float, ...], coco: tuple[float, ...], labels: int, ignored: int
) -> None:
    """The original resizes in float; on a float image so does this, 8-bit images are rounded to the nearest level."""
    image, label = dmt_pair()
    crop = RandomCrop((16, 18), ScaleUniform(0.5, 1.5, "torch"), **DMT)  # type: ignore[arg-type]
    exact, mask = crop(image.astype(np.float32), label, random.Random(seed))
    for seen, (total, absolute, pixel), scale in zip(
        conventions(exact), (imagenet, coco), (1, 57), strict=True
    ):
        assert seen.sum() == pytest.approx(total, abs=1e-4 * scale)
        assert np.abs(seen).sum() == pytest.approx(absolute, abs=1e-4 * scale)
        assert seen[3, 5, 0] == pytest.approx(pixel, abs=2e-6 * scale)
    assert mask is not None
    assert (int(mask[mask != 255].sum()), int((mask == 255).sum())) == (labels, ignored)
    rounded, same = crop(image, label, random.Random(seed))
    assert rounded.dtype == np.uint8
    assert np.abs(rounded - exact).max() <= 0.5 + 1e-3
    assert np.array_equal(same, mask)


@pytest.mark.golden("DMT transforms")
@pytest.mark.parametrize(("seed", "total", "padded"), [(1, 445.71429, 96), (2, 620.57143, 0)])
def test_dmt_confidence_follows_the_label(seed: int, total: float, padded: int) -> None:
    """Sum over label and confidence ``(label + 1) / 7``; the original pads both with 255, here confidence with 0."""
    _, label = dmt_pair()
    crop = RandomCrop((16, 18), ScaleUniform(0.5, 1.5, "torch"), **DMT)  # type: ignore[arg-type]
    placement = crop.draw(20, 26, random.Random(seed))
    moved = placement.map(label, 255)
    confidence = placement.map(((label + 1) / 7).astype(np.float32), 0)
    assert moved[moved != 255].sum() + confidence.sum(dtype=np.float64) == pytest.approx(total, abs=1e-4)
    assert int((moved == 255).sum()) == padded
    assert np.array_equal(confidence[moved != 255], ((moved + 1.0) / 7).astype(np.float32)[moved != 255])


@pytest.mark.golden("DMT transforms")
def test_dmt_resizes_cityscapes_before_it_scales() -> None:
    image, label = dmt_pair()
    half, half_label = resized(image.astype(np.float32), (10, 13), "torch"), resized(label, (10, 13), "torch")
    crop = RandomCrop((5, 6), ScaleUniform(0.5, 1.5, "torch"), **DMT)  # type: ignore[arg-type]
    result, mask = crop(half, half_label, random.Random(1))
    seen = conventions(result)[1]
    assert seen.sum() == pytest.approx(1227.59099, abs=1e-3)
    assert np.abs(seen).sum() == pytest.approx(5091.52313, abs=1e-3)
    assert mask is not None
    assert int(mask[mask != 255].sum()) == 64


class Seen(Backbone):
    """A backbone that keeps its last input and gives it back as all maps."""

    stages = (Stage(3, 1),) * 4
    convention = InputConvention()
    out_channels = 3

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.last = x
        return [x] * 4


class LastMap(nn.Module):
    out_channels = 3

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[-1]


@pytest.mark.golden("DMT transforms")
def test_dmt_pads_test_images_before_it_normalizes() -> None:
    """The original number is that of 24x30 pixels; six more black rows make a square."""
    model = SegModel(Seen(), LastMap(), nn.Identity(), 3)
    image = torch.from_numpy(dmt_pair()[0]).permute(2, 0, 1)[None]
    assert predict(model, image, EvaluatorSettings(pad="size", pad_to=30)).shape == (1, 3, 20, 26)
    seen = model.backbone.last
    black = (-2.117904, -2.035714, -1.804444)
    assert seen.shape == (1, 3, 30, 30)
    assert seen[0, :, -1, -1].tolist() == pytest.approx(black, abs=1e-6)
    assert seen.double().sum().item() == pytest.approx(-815.73587 + 6 * 30 * sum(black), abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_torch_interpolation_is_that_of_torch(seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width, new_height, new_width = (int(side) for side in generator.integers(5, 300, 4))
    image = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
    label = generator.integers(0, 21, (height, width)).astype(np.uint8)
    size = (new_height, new_width)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = (
        F.interpolate(planes, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    )
    exact = resized(image.astype(np.float32), size, "torch")
    assert np.abs(exact - expected).max() < 0.02
    assert np.abs(resized(image, size, "torch") - expected).max() < 0.52
    nearest = F.interpolate(torch.from_numpy(label)[None, None].float(), size=size, mode="nearest")[0, 0]
    assert np.array_equal(resized(label, size, "torch"), nearest.numpy())


VOC = (375, 500, 400, 320)
CITY = (1024, 2048, 2048, 720)


@pytest.mark.golden("CAC crops")
@pytest.mark.parametrize(
    ("rule", "seed", "box_1", "box_2", "flips"),
    [
        (VOC, 0, (0, 16, 136, 320), (184, 0, 320, 304), "TF"),
        (VOC, 1, (0, 0, 288, 320), (0, 0, 288, 320), "FT"),
        (VOC, 2, (152, 0, 320, 296), (0, 24, 168, 320), "FT"),
        (VOC, 3, (0, 0, 312, 256), (8, 64, 320, 320), "FT"),
        (CITY, 0, (368, 264, 720, 720), (0, 0, 352, 456), "FF"),
        (CITY, 1, (192, 0, 720, 568), (0, 152, 528, 720), "TT"),
        (CITY, 2, (160, 152, 720, 720), (0, 0, 560, 568), "FF"),
        (CITY, 3, (0, 64, 224, 720), (496, 0, 720, 656), "FF"),
    ],
)
def test_cac_pairs(
    rule: tuple[int, int, int, int],
    seed: int,
    box_1: tuple[int, ...],
    box_2: tuple[int, ...],
    flips: str,
) -> None:
    height, width, base, crop = rule
    pair = OverlapPair(crop, LongSide(base, 0.8, 2.0, "pil_bicubic"))(
        make_image(width, height), random.Random(seed)
    )
    assert (pair.box_1, pair.box_2) == (box_1, box_2)
    assert "".join("FT"[flip] for flip in (pair.flip_1, pair.flip_2)) == flips
    parts = []
    for image, box, flip in ((pair.image_1, box_1, pair.flip_1), (pair.image_2, box_2, pair.flip_2)):
        upright = image[:, ::-1] if flip else image
        parts.append(upright[box[0] : box[2], box[1] : box[3]])
    assert np.array_equal(*parts)


@pytest.mark.golden("UniMatch views")
@pytest.mark.parametrize(
    ("width", "height", "seed", "weak_sha", "padding_sha", "padded"),
    [
        (500, 375, 0, "ea76f385edf9", "47f3cc7bde48", 0),
        (500, 375, 1, "47cf9529091c", "96b8f600a69c", 9951),
        (500, 375, 2, "07828d5b1391", "0c4b6a2aac69", 32431),
        (500, 375, 3, "95b8088cd49b", "47f3cc7bde48", 0),
        (200, 150, 0, "9aaf66929c77", "93ee80128923", 36810),
        (200, 150, 1, "75102301654d", "fb2d485dbeba", 81873),
        (200, 150, 2, "6712e8dce4d5", "e2748bf31f84", 90753),
        (200, 150, 3, "e95bc97a0e6d", "ff6ccc483b2b", 66355),
    ],
)
def test_padding_of_unimatch(
    width: int, height: int, seed: int, weak_sha: str, padding_sha: str, padded: int
) -> None:
    rule = RandomCrop(321, LongSide(None, 0.5, 2.0, "pil_bilinear"), **STPP)
    placement = rule.draw(height, width, random.Random(seed))
    assert sha(placement.image(make_image(width, height))) == weak_sha
    valid = placement.valid()
    assert int((~valid).sum()) == padded
    assert sha(np.where(valid, 0, 255).astype(np.uint8)) == padding_sha
