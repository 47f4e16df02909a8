"""Evaluation against the published implementations: numbers of theirs, and their procedures written out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn

from semiseg.config import build
from semiseg.config.searchpath import conf_dir
from semiseg.contracts.dataset import DatasetInfo
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.evaluate import evaluate
from semiseg.tasks.inference import predict, predict_labels, window_spans
from semiseg.tasks.metrics import ConfusionMatrix

PLAIN = InputConvention("RGB", 1.0, (120.0, 110.0, 100.0), (50.0, 60.0, 70.0))
BGR = InputConvention("BGR", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))


class Convolutions(Backbone):
    stages = (Stage(6, 4),) * 4

    def __init__(self, convention):
        super().__init__()
        self.convention = convention
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=4, padding=2),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, padding=1),
        )

    def forward(self, x):
        return [self.layers(x)] * 4


class Last(nn.Module):
    out_channels = 6

    def forward(self, features):
        return features[-1]


@pytest.fixture
def network(request):
    torch.manual_seed(0)
    model = SegModel(Convolutions(getattr(request, "param", PLAIN)), Last(), nn.Conv2d(6, 4, 1), 4)
    return model.double().eval()


def picture(height, width, n=1):
    y, x, c, i = np.ogrid[:height, :width, :3, :n]
    values = ((3 + 4 * c + i) * x + (5 - 3 * c) * y + x * y // 7 + 40 * c) % 256
    return torch.from_numpy(values.astype(np.uint8)).permute(3, 2, 0, 1)


def option(name):
    """The evaluator ``conf/evaluator/NAME.yaml``."""
    settings = build.settings(EvaluatorSettings, OmegaConf.load(conf_dir() / "evaluator" / f"{name}.yaml"))
    assert settings.name == name
    return settings


class OneImage:
    """A dataset of one picture with a mask."""

    info = DatasetInfo("one", ("a", "b", "c", "d"), ((0, 0, 0),) * 4)

    def __init__(self, height, width):
        self.picture = picture(height, width)[0].permute(1, 2, 0).numpy()
        y, x = np.mgrid[:height, :width]
        self.truth = ((y // 3 + x // 5) % 5).astype(np.uint8)
        self.truth[self.truth == 4] = 255

    def ids(self, part):
        return ("one",)

    def image(self, image_id):
        return self.picture

    def mask(self, image_id):
        return self.truth


def grid_matrix(truth, prediction, classes, **arguments):
    matrix = ConfusionMatrix(classes, **arguments)
    matrix.update(torch.as_tensor(prediction), torch.as_tensor(truth))
    return matrix.compute()


@pytest.mark.golden("ST++ metric and palette")
def test_metric_of_stpp():
    prediction = [[0, 1, 2, 2], [0, 1, 1, 2]]
    truth = [[0, 1, 2, 1], [0, 0, 1, 255]]
    found = grid_matrix(truth, prediction, 3)
    assert found.confusion == [[2, 1, 0], [0, 2, 1], [0, 0, 1]]
    assert found.iou == [2 / 3, 1 / 2, 1 / 2]
    assert found.miou == pytest.approx(5 / 9)
    with_absent = grid_matrix(truth, prediction, 4)
    assert with_absent.iou[3] is None
    assert with_absent.miou == found.miou


@pytest.mark.golden("CPS metric")
def test_metric_of_cps():
    y, x = np.mgrid[:40, :50]
    truth = (3 * y + 5 * x) % 21
    prediction = (truth + ((x + y) % 4 == 0)) % 21
    truth[(y % 7 == 0) & (x % 5 == 0)] = 255
    found = grid_matrix(truth, prediction, 21)
    assert np.sum(found.confusion) == 1940
    assert np.trace(found.confusion) == 1456
    assert found.accuracy == pytest.approx(1456 / 1940)
    assert found.miou == pytest.approx(0.600657657, abs=1e-9)
    assert np.mean(found.iou[1:]) == pytest.approx(0.599717089, abs=1e-9)


@pytest.mark.golden("CPS metric")
def test_metric_of_cac_counts_an_absent_class_as_zero_and_rounds():
    y, x = np.mgrid[:40, :50]
    truth = (3 * y + 5 * x) % 21
    prediction = (truth + ((x + y) % 4 == 0)) % 21
    truth[(y % 7 == 0) & (x % 5 == 0)] = 255
    cac = {"absent": option("cac").absent, "decimals": option("cac").decimals}
    assert grid_matrix(truth, prediction, 21, **cac).miou == 0.601
    assert grid_matrix(truth, prediction, 22, **cac).miou == round(0.600657657 * 21 / 22, 3)
    wider = grid_matrix(truth, prediction, 22, absent="zero")
    assert wider.miou == pytest.approx(0.600657657 * 21 / 22, abs=1e-9)


@pytest.mark.golden("DMT confusion matrix")
def test_metric_of_dmt():
    n, c, h, w = np.ogrid[:3, :5, :4, :6]
    logits = 1.2 * np.sin(1 + 0.9 * n + 1.7 * c + 0.6 * h + 0.35 * w * (c + 1))
    winner = logits.argmax(1)
    n, h, w = np.ogrid[:3, :4, :6]
    truth = (winner + ((h + 2 * w + n) % 3 == 0)) % 5
    truth[(h + w + n) % 7 == 0] = 255
    found = grid_matrix(truth, (winner + (h + w + n) % 2) % 5, 5)
    assert found.confusion == [
        [2, 4, 0, 0, 2],
        [0, 7, 1, 0, 0],
        [0, 2, 7, 5, 0],
        [0, 0, 3, 9, 3],
        [6, 0, 0, 4, 7],
    ]
    assert found.accuracy == pytest.approx(0.5161290, abs=1e-7)
    assert found.iou == pytest.approx([0.1428571, 0.5, 0.3888889, 0.375, 0.3181818], abs=1e-7)
    assert found.miou == pytest.approx(0.3449856, abs=1e-7)


@pytest.mark.golden("CPS sliding windows")
def test_windows_of_cps():
    rows, columns = (window_spans(length, 800, 2 / 3) for length in (1024, 2048))
    assert rows == [(0, 800), (224, 1024)]
    assert columns == [(0, 800), (534, 1334), (1068, 1868), (1248, 2048)]
    counts = [
        len(window_spans(max(h, crop), crop, 2 / 3)) * len(window_spans(max(w, crop), crop, 2 / 3))
        for h, w, crop in (
            (375, 500, 512),
            (334, 500, 512),
            (600, 500, 512),
            (300, 700, 512),
            (1024, 2048, 800),
        )
    ]
    assert counts == [1, 1, 2, 2, 8]


def centered(x, height, width, value=0.0):
    top, left = (height - x.shape[-2]) // 2, (width - x.shape[-1]) // 2
    canvas = torch.full((*x.shape[:-2], height, width), value, dtype=x.dtype)
    canvas[..., top : top + x.shape[-2], left : left + x.shape[-1]] = x
    return canvas, top, left


def normalized_forward(network, x):
    logits = network.classifier(network.decoder(network.backbone(x)))
    return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)


@torch.no_grad()
def cps_logits(network, image, crop):
    """A CPS evaluation of one image, written out for one scale."""
    height, width = image.shape[-2:]
    if max(height, width) <= crop:
        x, top, left = centered(network.normalize(image), crop, crop)
        return normalized_forward(network, x)[..., top : top + height, left : left + width]
    raw, top, left = centered(image.double(), max(height, crop), max(width, crop))
    stride = math.ceil(crop * 2 / 3)
    total = torch.zeros(1, network.num_classes, *raw.shape[-2:], dtype=torch.float64)
    for row in range(math.ceil((raw.shape[-2] - crop) / stride) + 1):
        for column in range(math.ceil((raw.shape[-1] - crop) / stride) + 1):
            y = min(row * stride + crop, raw.shape[-2]) - crop
            x = min(column * stride + crop, raw.shape[-1]) - crop
            window = network.normalize(raw[..., y : y + crop, x : x + crop])
            total[..., y : y + crop, x : x + crop] += normalized_forward(network, window)
    return total[..., top : top + height, left : left + width]


@pytest.mark.parametrize(("name", "window"), [("cps_voc", 512), ("cps_cityscapes", 800)])
def test_options_of_cps(network, name, window):
    assert (option(name).mode, option(name).window, option(name).stride) == ("slide", window, 2 / 3)
    assert (option(name).absent, option(name).scales, option(name).flip) == ("skip", [1.0], False)
    image = picture(window + 5, 90)
    found = predict_labels(network, image, option(name))
    assert torch.equal(found, cps_logits(network, image, window).max(1).indices)


SIZES = [(375, 500, 512), (334, 500, 512), (600, 500, 512), (300, 700, 512), (61, 40, 37)]


@pytest.mark.golden("CPS sliding windows")
@pytest.mark.parametrize(
    "network", [PLAIN, BGR, InputConvention()], indirect=True, ids=["plain", "bgr", "imagenet"]
)
@pytest.mark.parametrize(("height", "width", "crop"), SIZES)
def test_sliding_window_of_cps(network, height, width, crop):
    check_sliding_window(network, height, width, crop)


@pytest.mark.golden("CPS sliding windows")
@pytest.mark.slow
def test_sliding_window_of_cps_on_a_street_scene(network):
    check_sliding_window(network, 1024, 2048, 800)


def check_sliding_window(network, height, width, crop):
    image = picture(height, width)
    expected = cps_logits(network, image, crop)
    settings = EvaluatorSettings(mode="slide", window=crop)
    assert torch.equal(predict_labels(network, image, settings), expected.max(1).indices)
    if max(height, width) <= crop:
        # The color that normalizes to zero is rounded to float32 where the pixels are.
        torch.testing.assert_close(predict(network, image, settings), expected.softmax(1), rtol=0, atol=1e-6)


@torch.no_grad()
def test_probabilities_of_windows_are_those_of_their_mean_logits(network):
    image = picture(60, 90)
    settings = EvaluatorSettings(mode="slide", window=37, stride=20)
    spans = [window_spans(length, 37, 20) for length in (60, 90)]
    hits = torch.zeros(60, 90, dtype=torch.float64)
    total = torch.zeros(1, 4, 60, 90, dtype=torch.float64)
    for y, y_end in spans[0]:
        for x, x_end in spans[1]:
            hits[y:y_end, x:x_end] += 1
            total[..., y:y_end, x:x_end] += network(image[..., y:y_end, x:x_end])
    assert hits.max() > 2
    torch.testing.assert_close(
        predict(network, image, settings), (total / hits).softmax(1), rtol=0, atol=1e-12
    )


@torch.no_grad()
def test_multi_scale_of_stpp(network):
    image = picture(45, 71)
    x = network.normalize(image)
    total = torch.zeros(1, 4, 45, 71, dtype=torch.float64)
    for scale in (0.5, 0.75, 1.0, 1.5, 2.0):
        size = (math.floor(scale * 45), math.floor(scale * 71))
        scaled = F.interpolate(x, size, mode="bilinear", align_corners=True)
        for mirrored in (False, True):
            view = scaled.flip(3) if mirrored else scaled
            share = normalized_forward(network, view).softmax(1)
            share = share.flip(3) if mirrored else share
            total += F.interpolate(share, (45, 71), mode="bilinear", align_corners=True)
    settings = option("multi_scale")
    found = predict(network, image.double(), settings)
    torch.testing.assert_close(found, total / 10, rtol=0, atol=1e-12)
    assert torch.equal(predict_labels(network, image.double(), settings), total.max(1).indices)


@torch.no_grad()
def test_padding_of_cac(network):
    x = F.pad(network.normalize(picture(45, 71)), (0, 1, 0, 3), mode="reflect")
    expected = normalized_forward(network, x)[..., :45, :71]
    settings = option("cac")
    assert torch.equal(predict_labels(network, picture(45, 71), settings), expected.max(1).indices)
    torch.testing.assert_close(
        predict(network, picture(45, 71), settings), expected.softmax(1), rtol=0, atol=1e-12
    )


@torch.no_grad()
def test_padding_of_dmt_is_black_before_normalization(network):
    raw = torch.zeros(1, 3, 505, 505)
    raw[..., :45, :71] = picture(45, 71)
    expected = normalized_forward(network, network.normalize(raw))[..., :45, :71]
    torch.testing.assert_close(
        predict(network, picture(45, 71), option("dmt_voc")), expected.softmax(1), rtol=0, atol=1e-12
    )


@torch.no_grad()
def test_native_size_of_stpp(network):
    expected = normalized_forward(network, network.normalize(picture(45, 71)))
    assert torch.equal(predict_labels(network, picture(45, 71), option("stpp")), expected.max(1).indices)
    assert (option("stpp").absent, option("stpp").decimals) == ("skip", None)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(1024, 2048), (90, 70)])
def test_half_size_of_dmt(network, height, width):
    """Cityscapes is measured at half its size; other sizes are brought to the same one."""
    dataset = OneImage(height, width)
    image = torch.from_numpy(dataset.picture).permute(2, 0, 1)[None].float()
    small = F.interpolate(image, (512, 1024), mode="bilinear", align_corners=False)
    if height == 1024:
        mean = image.view(1, 3, 512, 2, 1024, 2).mean((3, 5))
        torch.testing.assert_close(small, mean)
        truth = dataset.truth[::2, ::2]
    else:
        rows, columns = (np.arange(512) * height // 512, np.arange(1024) * width // 1024)
        truth = dataset.truth[rows][:, columns]
    prediction = normalized_forward(network, network.normalize(small)).max(1).indices[0]
    expected = grid_matrix(truth, prediction, 4)
    assert evaluate(network, dataset, ("one",), option("dmt_cityscapes"), torch.device("cpu")) == expected


@torch.no_grad()
def test_images_at_the_size_already_are_not_touched(network):
    dataset = OneImage(512, 1024)
    settings = [option(name) for name in ("dmt_cityscapes", "whole")]
    first, second = (evaluate(network, dataset, ("one",), each, torch.device("cpu")) for each in settings)
    assert first == second
