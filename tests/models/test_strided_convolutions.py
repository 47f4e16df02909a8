"""Narrow strided 1x1 convolutions: oneDNN's gradient by their weights damages the heap, so none may ask for it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.contracts.training import Batch, Learner, LossTerm, Progress, StepOutput
from semiseg.engine.step import forward_backward
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv2 import DeepLabV2
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import Backbone, InputConvention, SegModel, Stage
from semiseg.models.strides import safe_convolutions
from semiseg.models.tiny import Tiny

CPU = torch.device("cpu")
SMALL = partial(DeepLabV3Plus, channels=8, low_channels=4, rates=(1, 2))
PROGRESS = Progress(iteration=0, total=10, epoch=0, seed=1)


def convolutions(output: Tensor) -> list[Any]:
    """Nodes of the graph of all convolutions that a backward pass will differentiate."""
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [each for each, _ in node.next_functions]
    return [node for node in seen if node.name() == "ConvolutionBackward0"]


def endangered(output: Tensor) -> list[tuple[int, ...]]:
    """Sizes of the weights that oneDNN must not be asked for the gradient of."""
    return [
        tuple(node._saved_weight.shape)
        for node in convolutions(output)
        if node._saved_weight.shape[1] < 16
        and node._saved_weight.shape[2:] == (1, 1)
        and set(node._saved_stride) != {1}
        and set(node._saved_padding) == {0}
        and node._saved_groups == 1
    ]


def channels_last(*size: int) -> Tensor:
    return torch.randn(size).to(memory_format=torch.channels_last)


class Subclass(nn.Conv2d):
    """Like the layers of timm that pad or normalize weights."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight - 1, self.bias, self.stride, self.padding, self.dilation)


class Foreign(Backbone):
    """A backbone from outside whose every map comes from a convolution of another kind."""

    stages = (Stage(4, 4), Stage(5, 8), Stage(6, 16), Stage(7, 32))
    convention = InputConvention()

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1, 4)
        self.second = Subclass(4, 5, 1, (2, 2))
        self.third = nn.Parameter(torch.randn(6, 5, 1, 1))
        self.fourth = nn.Sequential(nn.Conv2d(6, 6, 1, (1, 2), "valid"), nn.Conv2d(6, 7, 1, (2, 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        c1 = self.first(x)
        c2 = self.second(c1)
        c3 = F.conv2d(input=c2, weight=self.third, stride=[2, 2])
        return [c1, c2, c3, self.fourth(c3)]


class Adversarial(Learner):
    """A network and what a method may make beside it."""

    def __init__(self, network: SegModel) -> None:
        super().__init__()
        self.network = network
        self.discriminator = nn.Sequential(nn.Conv2d(3, 6, 1, 2), nn.ReLU(), nn.Conv2d(6, 1, 1, 2))
        self.dangers: list[tuple[int, ...]] = []

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        logits = self.network(batch["labeled"]["image"])
        verdict = self.discriminator(logits)
        self.dangers = endangered(verdict)
        return StepOutput({"adversarial": LossTerm(verdict.square().sum(), torch.tensor(verdict.numel()))})


def batch(size: int = 64) -> Batch:
    image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    return {"labeled": {"image": image.contiguous(memory_format=torch.channels_last), "id": ["a", "b"]}}


def gradients(
    convolution: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, ...]:
    inputs = [value.detach().clone().requires_grad_() for value in (x, weight, bias)]
    y = convolution(*inputs)
    torch.manual_seed(1)
    return y, *torch.autograd.grad(y, inputs, torch.randn(y.shape).to(y), retain_graph=True)


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (64, 64)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2), (4, 2)], ids=str)
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (1, 1), (3, 1), (5, 2)])
def test_gradients_equal_those_in_float64(
    kernel: int, padding: int, stride: int | tuple[int, int], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    for channels in (1, 2, 3, 5, 8, 15, 16, 40):
        x, weight = channels_last(2, channels, *size), channels_last(7, channels, kernel, kernel)
        bias = torch.randn(7)
        convolution = partial(F.conv2d, stride=stride, padding=padding)
        expected = gradients(
            convolution, x.double().contiguous(), weight.double().contiguous(), bias.double()
        )
        with safe_convolutions(CPU):
            found = gradients(convolution, x, weight, bias)
        assert endangered(found[0]) == []
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), channels


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_gradients_in_groups_equal_those_in_float64(channels: int, stride: int) -> None:
    torch.manual_seed(0)
    for kernel, groups in ((1, 2), (1, 4), (3, 2), (3, 12)):
        x, weight = (
            channels_last(2, channels * groups, 30, 30),
            channels_last(groups, channels, kernel, kernel),
        )
        bias = torch.randn(groups)
        convolution = partial(F.conv2d, stride=stride, groups=groups)
        expected = gradients(
            convolution, x.double().contiguous(), weight.double().contiguous(), bias.double()
        )
        with safe_convolutions(CPU):
            found = gradients(convolution, x, weight, bias)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(("channels", "kernel", "stride"), [(16, 1, 2), (4, 3, 2), (4, 1, 1)])
def test_other_convolutions_are_left_as_they_are(channels: int, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    given = channels_last(2, channels, 32, 32), channels_last(8, channels, kernel, kernel), torch.randn(8)
    convolution = partial(F.conv2d, stride=stride)
    expected = gradients(convolution, *given)
    with safe_convolutions(CPU):
        found = gradients(convolution, *given)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_nothing_changes_without_gradient_or_on_other_devices() -> None:
    with torch.inference_mode():
        assert isinstance(safe_convolutions(CPU), contextlib.nullcontext)
    assert isinstance(safe_convolutions(torch.device("cuda")), contextlib.nullcontext)


@pytest.mark.parametrize("width", [1, 3, 8, 15])
@pytest.mark.parametrize("decoder", [SMALL, DeepLabV2])
def test_no_tiny_network_reaches_the_fault(width: int, decoder: Callable[..., nn.Module]) -> None:
    model = segmentation_model(Tiny(width), decoder, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    logits = model(batch()["labeled"]["image"])
    assert len(convolutions(logits)) > 10
    assert endangered(logits) == []


@pytest.mark.parametrize("depth", [18, 50])
def test_no_resnet_reaches_the_fault(depth: int) -> None:
    assert endangered(segmentation_model(ResNet(depth), SMALL, 3)(batch()["labeled"]["image"])) == []


@pytest.mark.parametrize("name", ["test_resnet", "test_byobnet", "test_efficientnet", "test_nfnet"])
def test_no_network_of_timm_reaches_the_fault(name: str) -> None:
    pytest.importorskip("timm")
    from semiseg.models.timm_backbone import Timm

    model = segmentation_model(Timm(name, output_stride=32), SMALL, 3)
    assert endangered(model(batch()["labeled"]["image"])) == []


@pytest.mark.parametrize("compiled", [False, True])
def test_no_network_from_outside_reaches_the_fault(compiled: bool) -> None:
    model = segmentation_model(Foreign(), DeepLabV2, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = batch()["labeled"]["image"]
    if not compiled:
        logits = model(images)
        assert len(convolutions(logits)) > 5
        assert endangered(logits) == []
        return
    strides = []

    def note(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        strides.extend(
            node.args[3] for node in graph.graph.nodes if node.target is F.conv2d and len(node.args) > 3
        )
        return graph.forward

    torch._dynamo.reset()
    logits = torch.compile(model, backend=note, fullgraph=True)(images)
    assert strides
    assert {stride if isinstance(stride, int) else max(stride) for stride in strides} == {1}
    torch.testing.assert_close(logits, model(images))


@pytest.mark.parametrize("parts", [1, 2])
def test_nothing_that_a_method_makes_reaches_the_fault(parts: int) -> None:
    learner = Adversarial(segmentation_model(Foreign(), DeepLabV2, 3))
    learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert endangered(learner.discriminator(channels_last(2, 3, 8, 8)))
    forward_backward(learner, batch(), PROGRESS, parts, contextlib.nullcontext)
    assert learner.dangers == []
    assert learner.discriminator[0].weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["AVX2", "DEFAULT"])
def test_training_survives(isa: str) -> None:
    """Where the fault is reached, the process dies; it may need some steps for it."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__],
        env=environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


def _train() -> None:
    torch.manual_seed(0)
    for width in (2, 4, 12):
        network = segmentation_model(Tiny(width), SMALL, 3)
        learner = Adversarial(network)
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(learner.parameters(), 0.01)
        for _ in range(10):
            forward_backward(learner, batch(), PROGRESS, 1, contextlib.nullcontext)
            others = [torch.randn(size) for size in (7, 13, 33, 65, 129)]
            optimizer.step()
            optimizer.zero_grad()
            del others
    print("survived")


if __name__ == "__main__":
    _train()
