import itertools
import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.contracts.dataset import DatasetInfo
from semiseg.errors import Interrupted, UserError
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.evaluate import evaluate, pseudo_label_quality, quality_ids, take_samples
from semiseg.tasks.inference import predict, predict_labels, window_spans

CPU = torch.device("cpu")
INFO = DatasetInfo("toy", ("dark", "middle", "bright"), ((0, 0, 0), (9, 9, 9), (255, 255, 255)))


class Brightness(Backbone):
    """One feature map: the brightness; batch norm and dropout show the mode, sizes show the batching."""

    stages = (Stage(1, 1),) * 4
    convention = InputConvention("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, eps=0)
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return [self.dropout(self.norm(x.mean(1, keepdim=True)))] * 4


class Last(nn.Module):
    out_channels = 1

    def forward(self, features):
        return features[-1]


@pytest.fixture
def network():
    classifier = nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        # Logits of three classes that win around 0, 100 and 200.
        classifier.weight[:, 0, 0, 0] = torch.tensor([0.0, 0.1, 0.2])
        classifier.bias[:] = torch.tensor([0.0, -5.0, -20.0])
    return SegModel(Brightness(), Last(), classifier, 3)


@dataclass
class Toy:
    images: dict
    masks: dict
    info: DatasetInfo = field(default=INFO)
    opened: list = field(default_factory=list)

    def ids(self, part):
        return tuple(self.images)

    def image(self, image_id):
        return self.images[image_id]

    def mask(self, image_id):
        self.opened.append(image_id)
        mask = self.masks[image_id]
        if isinstance(mask, Exception):
            raise mask
        return mask


def toy(*sizes):
    """Images of three gray levels and masks of the class that belongs to each."""
    images, masks = {}, {}
    for number, (height, width) in enumerate(sizes):
        label = np.random.default_rng(number).integers(0, 3, (height, width)).astype(np.uint8)
        images[f"i{number}"] = np.repeat((label * 100)[:, :, None], 3, axis=2)
        masks[f"i{number}"] = label
    return Toy(images, masks)


def test_a_right_network_scores_one_and_a_wrong_mask_counts(network):
    dataset = toy((6, 8), (6, 8))
    found = evaluate(network, dataset, ("i0", "i1"), EvaluatorSettings(), CPU)
    assert (found.miou, found.accuracy, found.coverage) == (1.0, 1.0, 1.0)
    dataset.masks["i1"] = np.full((6, 8), 255, np.uint8)
    dataset.masks["i1"][0, 0] = (dataset.images["i1"][0, 0, 0] // 100 + 1) % 3
    found = evaluate(network, dataset, ("i0", "i1"), EvaluatorSettings(), CPU)
    assert found.accuracy == pytest.approx(48 / 49)


def test_images_of_one_size_share_a_batch(network):
    dataset = toy((6, 8), (8, 6), (6, 8), (6, 8), (6, 8), (8, 6))
    found = evaluate(network, dataset, dataset.ids("val"), EvaluatorSettings(batch_size=2), CPU)
    assert found.miou == 1.0
    assert [shape[0] for shape in network.backbone.seen] == [2, 2, 2]


TOGETHER = [
    (EvaluatorSettings(pad="size", pad_to=9), (9, 9)),
    (EvaluatorSettings(pad="multiple", pad_to=8, pad_value="reflect"), (8, 8)),
    (EvaluatorSettings(mode="slide", window=10), (10, 10)),
    (EvaluatorSettings(mode="slide", window=10, window_sum="probabilities"), (10, 10)),
    (EvaluatorSettings(fit="resize", fit_to=8), (8, 8)),
    (EvaluatorSettings(resize_to=[6, 20]), (6, 20)),
    (EvaluatorSettings(center_crop=9, crop_margin="class_0"), (9, 9)),
]


@pytest.mark.parametrize(("settings", "size"), TOGETHER)
@pytest.mark.parametrize("metrics", [[], ["calibration"]])
def test_images_that_are_seen_at_one_size_share_a_batch(network, settings, size, metrics):
    dataset = toy((6, 8), (8, 6), (7, 7), (6, 8))
    dataset.masks["i1"] = np.roll(dataset.masks["i1"], 1)
    settings, seen = replace(settings, metrics=metrics), {}

    def watch(ids, labels, truth):
        seen.update(zip(ids, zip(labels.tolist(), truth.tolist(), strict=True), strict=True))

    ids = dataset.ids("val")
    found = evaluate(network, dataset, ids, replace(settings, batch_size=3), CPU, watch=watch)
    assert network.backbone.seen == [(3, 3, *size), (1, 3, *size)]
    together, seen = seen, {}
    alone = evaluate(network, dataset, ids, replace(settings, batch_size=1), CPU, watch=watch)
    assert together == seen
    assert list(seen) == list(ids)
    assert found.confusion == alone.confusion
    assert found.totals == pytest.approx(alone.totals)


def test_smaller_batches_where_memory_runs_out(network, caplog):
    dataset = toy((6, 8), (8, 6), (7, 7), (6, 8), (8, 6))
    settings = EvaluatorSettings(pad="size", pad_to=9)
    expected = evaluate(network, dataset, dataset.ids("val"), settings, CPU)
    network.backbone.seen.clear()
    tried = []

    def run_out(_, given):
        tried.append(len(given[0]))
        if len(given[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    network.backbone.register_forward_pre_hook(run_out)
    assert evaluate(network, dataset, dataset.ids("val"), settings, CPU) == expected
    assert tried == [5, 2, 2, 1]
    (record,) = caplog.records
    assert "5 images at once; going on with 2" in record.getMessage()


def test_batching_does_not_change_the_result(network):
    dataset = toy(*[(5, 7)] * 5)
    dataset.masks["i3"] = np.zeros((5, 7), np.uint8)
    results = [
        evaluate(network, dataset, dataset.ids("val"), EvaluatorSettings(batch_size=n), CPU)
        for n in (1, 2, 5)
    ]
    assert results[0] == results[1] == results[2]


def test_a_tiny_scale_keeps_a_pixel(network):
    settings = EvaluatorSettings(scales=[0.001])
    assert evaluate(network, toy((6, 8)), ("i0",), settings, CPU).miou is not None
    assert network.backbone.seen[-1][-2:] == (1, 1)


def test_every_module_gets_its_own_mode_back(network):
    network.train()
    network.backbone.norm.eval()
    before = {name: module.training for name, module in network.named_modules()}
    statistics = network.backbone.norm.running_mean.clone()
    settings = EvaluatorSettings(flip=True, scales=[0.5, 1.0])
    first = evaluate(network, toy((6, 8)), ("i0",), settings, CPU)
    assert evaluate(network, toy((6, 8)), ("i0",), settings, CPU) == first
    assert {name: module.training for name, module in network.named_modules()} == before
    assert torch.equal(network.backbone.norm.running_mean, statistics)


def test_the_mode_comes_back_after_a_stop(network):
    network.train()

    def stop():
        raise Interrupted("SIGTERM", 143)

    with pytest.raises(Interrupted):
        evaluate(network, toy((6, 8)), ("i0",), EvaluatorSettings(), CPU, stop=stop)
    assert network.training
    assert network.backbone.seen == []


def test_stop_is_asked_before_each_batch(network):
    calls = []
    dataset = toy((6, 8), (6, 8), (6, 8))
    evaluate(
        network,
        dataset,
        dataset.ids("val"),
        EvaluatorSettings(batch_size=2),
        CPU,
        stop=lambda: calls.append(1),
    )
    assert len(calls) == 2


def test_no_random_number_is_drawn(network):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    dataset = toy((6, 8), (7, 8))
    evaluate(network, dataset, dataset.ids("val"), EvaluatorSettings(), CPU)
    pseudo_label_quality(network, dataset, quality_ids(dataset.ids("train"), 0, 1), EvaluatorSettings(), CPU)
    take_samples(network, dataset, ("i0",), EvaluatorSettings(), CPU)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_an_image_without_mask_cannot_be_evaluated(network):
    dataset = toy((6, 8))
    dataset.masks["i0"] = None
    with pytest.raises(UserError, match="'i0' of dataset 'toy' has no mask"):
        evaluate(network, dataset, ("i0",), EvaluatorSettings(), CPU)


def test_a_mask_of_another_size_is_named(network):
    dataset = toy((6, 8))
    dataset.masks["i0"] = np.zeros((6, 9), np.uint8)
    with pytest.raises(UserError, match=r"'i0'.*8x6.*9x6"):
        evaluate(network, dataset, ("i0",), EvaluatorSettings(), CPU)


def test_rounded_mean_by_config(network):
    dataset = toy((7, 9))
    dataset.masks["i0"] = np.roll(dataset.masks["i0"], 1)
    exact = evaluate(network, dataset, ("i0",), EvaluatorSettings(), CPU)
    found = evaluate(network, dataset, ("i0",), EvaluatorSettings(decimals=3), CPU)
    assert found.miou == round(exact.miou, 3) != exact.miou
    assert (found.iou, found.accuracy) == (exact.iou, exact.accuracy)


def test_resizing_reaches_images_and_masks(network):
    dataset = toy((6, 8), (12, 16))
    for image_id, factor in (("i0", 1), ("i1", 2)):
        blocks = np.kron(toy((6, 8)).masks["i0"], np.ones((factor, factor), np.uint8))
        dataset.masks[image_id], dataset.images[image_id] = blocks, np.repeat(blocks[:, :, None] * 100, 3, 2)
    found = evaluate(network, dataset, ("i0", "i1"), EvaluatorSettings(resize_to=[6, 8]), CPU)
    assert found.miou == 1.0
    assert np.sum(found.confusion) == 2 * 48
    assert {shape[-2:] for shape in network.backbone.seen} == {(6, 8)}
    sample = take_samples(network, dataset, ("i1",), EvaluatorSettings(resize_to=[6, 8]), CPU)[0]
    assert sample.prediction.shape == (12, 16)


def test_scores_of_the_middle_and_of_its_margin(network):
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = 200
    mask = np.zeros((4, 10), np.uint8)
    mask[:, 3:7] = 2
    toy, shapes = Toy({"wide": wide}, {"wide": mask}), []

    def watch(ids, labels, truth):
        shapes.append((tuple(labels.shape[1:]), truth[0].tolist()))

    cropped = evaluate(network, toy, ["wide"], EvaluatorSettings(center_crop=6), CPU, watch=watch)
    assert shapes[-1] == ((4, 6), mask[:, 2:8].tolist())
    assert cropped.totals["miou"] == 1
    around = EvaluatorSettings(center_crop=6, crop_margin="class_0")
    evaluate(network, toy, ["wide"], around, CPU, watch=watch)
    size, truth = shapes[-1]
    assert size == (6, 6)
    assert truth == np.pad(mask[:, 2:8], ((1, 1), (0, 0))).tolist()
    evaluate(network, toy, ["wide"], EvaluatorSettings(crop_margin="class_0"), CPU, watch=watch)
    assert shapes[-1][0] == (4, 10)


def test_the_margin_is_the_mean_color():
    backbone = Brightness()
    backbone.convention = InputConvention("BGR", 2.0, (10.0, 20.0, 30.0), (1.0, 1.0, 1.0))
    network = SegModel(backbone, Last(), nn.Conv2d(1, 3, 1), 3)
    inputs = []
    backbone.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    toy = Toy({"a": np.full((2, 2, 3), 9, np.uint8)}, {"a": np.zeros((2, 2), np.uint8)})
    evaluate(network, toy, ["a"], EvaluatorSettings(center_crop=4, crop_margin="class_0"), CPU)
    assert inputs[0].shape == (1, 3, 4, 4)
    assert (inputs[0].abs().sum(1) < 1e-5).sum() == 12


def test_absent_classes_by_config(network):
    dataset = toy((4, 4))
    dataset.images["i0"][:], dataset.masks["i0"][:] = 100, 1
    for absent, miou in (("skip", 1.0), ("zero", 1 / 3)):
        found = evaluate(network, dataset, ("i0",), EvaluatorSettings(absent=absent), CPU)
        assert found.miou == pytest.approx(miou)


ALL_SETTINGS = [
    EvaluatorSettings(),
    EvaluatorSettings(flip=True),
    EvaluatorSettings(scales=[0.5, 1.0, 1.5], flip=True),
    EvaluatorSettings(mode="slide", window=16),
    EvaluatorSettings(mode="slide", window=9, stride=4),
    EvaluatorSettings(mode="slide", window=5, stride=1.0, flip=True),
    EvaluatorSettings(pad="size", pad_to=20),
    EvaluatorSettings(pad="multiple", pad_to=8),
    EvaluatorSettings(pad="multiple", pad_to=8, pad_value="reflect"),
    EvaluatorSettings(pad="center", pad_to=16),
    EvaluatorSettings(pad="center", pad_to=16, pad_value="reflect"),
    EvaluatorSettings(resize_to=[6, 20]),
    EvaluatorSettings(resize_to=[30, 9], scales=[0.5, 1.0], flip=True),
    EvaluatorSettings(resize_to=[11, 14]),
]


@pytest.mark.parametrize("settings", ALL_SETTINGS)
def test_probabilities_have_the_size_of_the_image_and_sum_to_one(network, settings):
    images = torch.from_numpy(np.stack([toy((11, 14)).image("i0")] * 2)).permute(0, 3, 1, 2)
    found = predict(network, images, settings)
    assert found.shape == (2, 3, 11, 14)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 11, 14))
    assert torch.equal(predict_labels(network, images, settings), found.argmax(1))
    assert network.training


PADS = [("size", 20, (20, 20)), ("multiple", 8, (16, 16)), ("center", 16, (16, 16)), ("none", 0, (11, 14))]


@pytest.mark.parametrize(("pad", "pad_to", "size"), PADS)
def test_padding_by_rule(network, pad, pad_to, size):
    predict(network, torch.zeros(1, 3, 11, 14), EvaluatorSettings(pad=pad, pad_to=pad_to))
    assert network.backbone.seen[-1][-2:] == size


@pytest.mark.parametrize("pad", ["size", "center"])
def test_a_larger_image_is_not_padded(network, pad):
    predict(network, torch.zeros(1, 3, 11, 14), EvaluatorSettings(pad=pad, pad_to=4))
    assert network.backbone.seen[-1][-2:] == (11, 14)


def test_reflection_beyond_the_image_is_explained(network):
    settings = EvaluatorSettings(pad="size", pad_to=40, pad_value="reflect")
    with pytest.raises(UserError, match=r"14x11[\s\S]*pad_value=zero"):
        predict(network, torch.zeros(1, 3, 11, 14), settings)


@pytest.mark.parametrize("stride", [2 / 3, 0.5, 1.0, 1, 3, 7])
@pytest.mark.parametrize("length", [7, 8, 20, 21])
def test_windows_cover_the_axis(length, stride):
    spans = window_spans(length, 7, stride)
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(end - start == 7 for start, end in spans)
    assert all(later[0] <= earlier[1] for earlier, later in itertools.pairwise(spans))
    assert len(set(spans)) == len(spans)


def test_bf16_is_close_and_float32(network):
    images = torch.from_numpy(toy((11, 14)).image("i0").copy()).permute(2, 0, 1)[None]
    found = predict(network, images, EvaluatorSettings(), precision="bf16")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, predict(network, images, EvaluatorSettings()), rtol=0, atol=0.2)


def test_quality_ids_depend_on_the_seed_alone():
    ids = tuple(f"u{index}" for index in range(500))
    chosen = quality_ids(ids, seed=0)
    assert len(set(chosen)) == 100
    assert list(chosen) == sorted(chosen, key=ids.index)
    assert quality_ids(ids, seed=0) == chosen
    assert quality_ids(ids, seed=1) != chosen
    assert quality_ids(ids[:7], seed=0) == ids[:7]


def test_quality_of_a_network(network):
    dataset = toy((6, 8), (6, 8))
    found = pseudo_label_quality(network, dataset, dataset.ids("train"), EvaluatorSettings(), CPU)
    assert found == evaluate(network, dataset, dataset.ids("train"), EvaluatorSettings(), CPU)


def test_quality_leaves_out_bad_masks_and_warns_once_about_each(network, caplog):
    dataset = toy(*[(6, 8)] * 6)
    dataset.masks |= {
        "i1": None,
        "i2": OSError("cannot identify image file quality-a"),
        "i3": np.zeros((5, 8), np.uint8),
        "i4": np.full((6, 8), 77, np.uint8),
    }
    expected = evaluate(network, dataset, ("i0", "i5"), EvaluatorSettings(), CPU)
    for _ in range(3):
        assert (
            pseudo_label_quality(network, dataset, dataset.ids("train"), EvaluatorSettings(), CPU) == expected
        )
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert "'i2'" in messages[0]
    assert "quality-a" in messages[0]
    assert "'i3'" in messages[1]
    assert "[77]" in messages[2]


def test_quality_without_any_mask_is_none(network, caplog):
    dataset = toy((6, 8))
    dataset.masks["i0"] = None
    assert pseudo_label_quality(network, dataset, ("i0",), EvaluatorSettings(), CPU) is None
    assert pseudo_label_quality(network, dataset, (), EvaluatorSettings(), CPU) is None
    assert caplog.records == []


class Stored:
    def __init__(self, labels):
        self.labels = labels

    @property
    def ids(self):
        return tuple(self.labels)

    def label(self, image_id):
        return self.labels[image_id]


def test_quality_of_stored_labels():
    dataset = toy((6, 8), (6, 8), (6, 8))
    half = dataset.masks["i0"].copy()
    half[:3] = 255
    source = Stored({"i0": half, "i2": dataset.masks["i2"]})
    found = pseudo_label_quality(source, dataset, ("i0", "i1"), EvaluatorSettings(), CPU)
    assert (found.accuracy, found.coverage) == (1.0, 0.5)
    assert dataset.opened == ["i0"]


def test_a_stop_request_leaves_the_quality(network):
    def stop():
        raise Interrupted("SIGTERM", 143)

    dataset = toy((6, 8))
    for source in (network, Stored(dataset.masks)):
        with pytest.raises(Interrupted):
            pseudo_label_quality(source, dataset, ("i0",), EvaluatorSettings(), CPU, stop=stop)


def test_samples(network):
    dataset = toy((6, 8), (7, 9))
    dataset.masks["i1"] = None
    first, second = take_samples(network, dataset, ("i0", "i1"), EvaluatorSettings(), CPU)
    assert (first.id, first.prediction.dtype, first.confidence.dtype) == ("i0", np.uint8, np.float32)
    assert np.array_equal(first.prediction, first.truth)
    assert 1 / 3 < first.confidence.min() <= first.confidence.max() <= 1
    assert second.truth is None
    assert second.prediction.shape == (7, 9)
