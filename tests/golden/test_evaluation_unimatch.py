"""Evaluation of both versions of UniMatch: numbers recorded from their programs on a small network."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from noise_fill import fill, images, labels
from omegaconf import OmegaConf
from torch import Tensor, nn

from semiseg.config import build
from semiseg.config.searchpath import conf_dir
from semiseg.contracts.dataset import DatasetInfo
from semiseg.models.segmodel import Backbone, Decoder, InputConvention, SegModel, Stage
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.evaluate import evaluate
from semiseg.tasks.inference import predict, predict_labels, window_spans
from semiseg.tasks.metrics import ConfusionMatrix

pytestmark = pytest.mark.golden("UniMatch evaluation")

SIZES = [(50, 70), (37, 44), (30, 30)]
WINDOWS = {"mode": "slide", "stride_rounding": "down", "window_sum": "probabilities"}


class TwoConvs(Backbone):
    convention = InputConvention("RGB", 1.0, (0.0,) * 3, (1.0,) * 3)
    stages = (Stage(8, 2), Stage(8, 4))

    def __init__(self, size_multiple: int) -> None:
        super().__init__()
        self.size_multiple = size_multiple
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.seen: list[tuple[int, int]] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        self.seen.append((x.shape[-2], x.shape[-1]))
        assert all(side % self.size_multiple == 0 for side in x.shape[-2:])
        fine = self.bn1(self.conv1(x)).relu()
        return [fine, self.bn2(self.conv2(fine)).relu()]


class Fused(Decoder):
    out_channels = 10

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        super().__init__(stages)
        self.reduce, self.bn = nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.fuse, self.bn2 = nn.Conv2d(14, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10)

    def forward(self, maps: list[Tensor]) -> Tensor:
        fine, coarse = maps
        coarse = self.bn(self.reduce(coarse)).relu()
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=True)
        return self.bn2(self.fuse(torch.cat([fine, coarse], 1))).relu()


def network(size_multiple: int = 1) -> SegModel:
    backbone = TwoConvs(size_multiple)
    model = SegModel(backbone, Fused(backbone.stages), nn.Conv2d(10, 19, 1), 19)
    fill(model)
    with torch.no_grad():
        model.classifier.weight.mul_(6)
    return model.eval()


class Pictures:
    info = DatasetInfo("made", tuple(f"c{n}" for n in range(19)), ((0, 0, 0),) * 19)

    def image(self, number: int) -> np.ndarray:
        return images(1, *SIZES[number], 700 + 10 * number)[0].permute(1, 2, 0).contiguous().numpy()

    def mask(self, number: int) -> np.ndarray:
        return labels(1, *SIZES[number], 19, number)[0].numpy()


def sha(labels: Tensor) -> str:
    return hashlib.sha1(labels.to(torch.uint8).numpy().tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("changes", "size_multiple", "miou", "maps", "seen"),
    [
        (
            {},
            1,
            0.9924979171531816,
            ["e4ed16350822468f", "981804dff4ad5397", "5b73edb7264dbf8b"],
            SIZES,
        ),
        (
            {"center_crop": 28},
            1,
            1.3778312611175938,
            ["afda77d69804800b", "b4e54f330ebbd775", "f43fe21f06528ecf"],
            [(28, 28)] * 3,
        ),
        (
            {**WINDOWS, "window": 21, "window_edge": "shrink"},
            1,
            1.0134610798894588,
            ["65b8f4226d3f34e6", "4456f8a12de25ce0", "63c54de29ab49149"],
            [
                *[(height, width) for height in (21, 21, 21, 8) for width in (21, 21, 21, 21, 14)],
                *[(height, width) for height in (21, 21, 9) for width in (21, 21, 16, 2)],
                *[(height, width) for height in (21, 16, 2) for width in (21, 16, 2)],
            ],
        ),
        (
            {"fit": "resize"},
            14,
            0.973601228594628,
            ["abe20b513726fb9f", "cbe8ab84d59200cc", "d9fc95d575a19b52"],
            [(56, 70), (42, 42), (28, 28)],
        ),
        (
            {"fit": "resize", "fit_to": 14},
            1,
            0.973601228594628,
            ["abe20b513726fb9f", "cbe8ab84d59200cc", "d9fc95d575a19b52"],
            [(56, 70), (42, 42), (28, 28)],
        ),
        (
            {**WINDOWS, "window": 28},
            14,
            1.0403148015178723,
            ["2b224a3849ed037c", "5a904387bffab6f2", "be43874dd5f1c478"],
            [(28, 28)] * 20,
        ),
    ],
    ids=["V1 whole", "V1 center", "V1 windows", "V2 whole", "V2 whole, given multiple", "V2 windows"],
)
def test_recorded_evaluation(
    changes: dict[str, object], size_multiple: int, miou: float, maps: list[str], seen: list[tuple[int, int]]
) -> None:
    model, found = network(size_multiple), []
    settings = EvaluatorSettings(absent="zero", batch_size=1, **changes)
    metrics = evaluate(
        model,
        Pictures(),
        (0, 1, 2),
        settings,
        torch.device("cpu"),
        watch=lambda _, predicted, __: found.append(sha(predicted)),
    )
    assert 100 * metrics.miou == pytest.approx(miou, rel=1e-9)
    assert found == maps
    assert model.backbone.seen == seen


def option(name: str) -> EvaluatorSettings:
    return build.settings(EvaluatorSettings, OmegaConf.load(conf_dir() / "evaluator" / f"{name}.yaml"))


def test_windows_on_cityscapes() -> None:
    first, second = option("unimatch_cityscapes"), option("unimatch_v2_cityscapes")

    def spans(length: int, used: EvaluatorSettings) -> list[tuple[int, int]]:
        return window_spans(
            length, used.window, used.stride, rounding=used.stride_rounding, edge=used.window_edge
        )

    assert spans(1024, first) == [(0, 801), (534, 1024)]
    assert spans(2048, first) == [(0, 801), (534, 1335), (1068, 1869), (1602, 2048)]
    assert spans(1024, second) == [(0, 798), (226, 1024)]
    assert spans(2048, second) == [(0, 798), (532, 1330), (1064, 1862), (1250, 2048)]
    assert {each.window_sum for each in (first, second)} == {"probabilities"}
    assert {option(name).absent for name in ("unimatch", "unimatch_v2")} == {"zero"}


@pytest.mark.parametrize(
    ("size", "seen"),
    [((366, 500), (364, 504)), ((375, 500), (378, 504)), ((7, 21), (14, 28)), ((6, 3), (14, 14))],
)
def test_nearest_multiple(size: tuple[int, int], seen: tuple[int, int]) -> None:
    """The original fails where a side is below half a patch; here it becomes one patch."""
    model = network(14)
    image = images(1, *size, 3)
    found = predict_labels(model, image, option("unimatch_v2"))
    assert model.backbone.seen == [seen]
    with torch.no_grad():
        resized = F.interpolate(image, seen, mode="bilinear", align_corners=True)
        logits = F.interpolate(model(resized), size, mode="bilinear", align_corners=True)
    assert torch.equal(found, logits.max(1).indices)
    found_maps = predict(model, image, option("unimatch_v2"))
    torch.testing.assert_close(found_maps, logits.softmax(1), rtol=0, atol=1e-12)


def test_cut_windows_are_padded_to_what_the_network_takes() -> None:
    model = network(14)
    settings = EvaluatorSettings(**{**WINDOWS, "window": 21, "window_edge": "shrink"})
    found = predict(model, images(1, 30, 44, 3), settings)
    assert found.shape == (1, 19, 30, 44)
    assert set(model.backbone.seen) == {(28, 28), (28, 14), (14, 28), (14, 14)}
    torch.testing.assert_close(found.sum(1), torch.ones(1, 30, 44, dtype=torch.float64))


def test_probabilities_of_windows_are_the_mean_of_their_softmax() -> None:
    model, image = network(), images(1, 40, 50, 5)
    settings = EvaluatorSettings(**WINDOWS, window=28)
    total, hits = torch.zeros(1, 19, 40, 50, dtype=torch.float64), torch.zeros(40, 50)
    with torch.no_grad():
        for y in (0, 12):
            for x in (0, 18, 22):
                total[..., y : y + 28, x : x + 28] += model(image[..., y : y + 28, x : x + 28]).softmax(1)
                hits[y : y + 28, x : x + 28] += 1
    torch.testing.assert_close(predict(model, image, settings), total / hits, rtol=0, atol=1e-12)
    assert torch.equal(predict_labels(model, image, settings), total.max(1).indices)
    small = predict(model, image[..., :20, :20], settings)
    torch.testing.assert_close(small.sum(1), torch.ones(1, 20, 20, dtype=torch.float64))


@pytest.mark.parametrize(
    ("prediction", "truth", "classes", "miou"),
    [
        ([[0, 1, 2, 2], [0, 1, 1, 2]], [[0, 1, 2, 1], [0, 0, 1, 255]], 4, 0.4166666666666667),
        (None, None, 5, 0.13313169802314547),
    ],
)
def test_absent_classes_count_as_zero(prediction: object, truth: object, classes: int, miou: float) -> None:
    y, x = np.ogrid[:12, :14]
    if prediction is None:
        prediction = (x // 4 + y // 3) % 3
        truth = np.where(x * y % 5 == 1, 255, (x // 5 + y // 4) % 4)
    matrix = ConfusionMatrix(classes, absent=option("unimatch").absent)
    matrix.update(torch.as_tensor(prediction), torch.as_tensor(truth))
    assert matrix.compute().miou == pytest.approx(miou, rel=1e-9)
