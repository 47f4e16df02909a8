"""Batch norm in groups against separate passes, and over ranks against one process with the whole batch."""

import copy
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from semiseg.errors import UserError
from semiseg.models import grouped_norm
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.deeplabv3plus_cps import DeepLabV3PlusCPS
from semiseg.models.grouped_norm import GroupedBatchNorm2d, Running, group_batch_norm
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import SegModel
from semiseg.models.tiny import Tiny

SMALL = {"channels": 16, "low_channels": 8, "rates": (1, 2)}
SUMS = 1e-12
"""Relative difference that another order of float64 sums makes."""


def network(decoder: Callable[..., Any] = DeepLabV3PlusCPS, **options: Any) -> SegModel:
    torch.manual_seed(0)
    return segmentation_model(Tiny(8), partial(decoder, **SMALL, **options), 4).double().train()


def small_net(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, bias=False),
        nn.BatchNorm2d(6, **settings),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.BatchNorm2d(4),
    )
    with torch.no_grad():
        for norm in (net[1], net[4]):
            if norm.affine:
                norm.weight.uniform_(0.5, 2)
                norm.bias.uniform_(-1, 1)
    return net.double().train()


def images(n: int, seed: int = 1, size: int = 33) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Every image has its own brightness, so that the statistics of groups differ from those of the batch.
    return torch.rand(n, 3, size, size, dtype=torch.float64, generator=generator) * torch.arange(
        40, 40 + 50 * n, 50
    ).view(n, 1, 1, 1)


def loss(outputs: Tensor) -> Tensor:
    return (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()


def separately(model: nn.Module, batches: list[Tensor], groups: int, running: Running) -> list[Tensor]:
    """Outputs of one pass a group; with "first" the others update copies of the statistics, as replicas do."""
    outputs = []
    for batch in batches:
        for index, part in enumerate(batch.chunk(groups)):
            if running == "every" or index == 0:
                outputs.append(model(part))
            else:
                copies = {key: value.clone() for key, value in model.named_buffers()}
                outputs.append(torch.func.functional_call(model, copies, (part,)))
    return outputs


def assert_close_gradients(one: nn.Module, other: nn.Module) -> None:
    for (name, first), (_, second) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert first.grad is not None, name
        assert second.grad is not None, name
        torch.testing.assert_close(
            first.grad, second.grad, rtol=SUMS, atol=SUMS * second.grad.abs().max().item(), msg=name
        )


@pytest.mark.parametrize("running", ["every", "first"])
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize(
    "make", [small_net, network, partial(network, DeepLabV3Plus, aspp_dropout=0, dropout=0)]
)
def test_equals_separate_passes(make: Callable[[], nn.Module], groups: int, running: Running) -> None:
    batches = [images(6, seed) for seed in (1, 2)]
    plain, grouped = make(), group_batch_norm(make(), groups, running)
    expected = torch.cat(separately(plain, batches, groups, running))
    observed = torch.cat([grouped(batch) for batch in batches])
    assert torch.equal(observed, expected)
    assert list(grouped.state_dict()) == list(plain.state_dict())
    for key, value in grouped.named_buffers():
        assert torch.equal(value, plain.get_buffer(key)), key
    loss(observed).backward()
    loss(expected).backward()
    # The sums over a batch and over its parts run in another order in the convs' weight gradients.
    assert_close_gradients(grouped, plain)


def test_gradient_of_the_input_equals_separate_passes() -> None:
    plain, grouped = nn.BatchNorm2d(5).double(), group_batch_norm(nn.BatchNorm2d(5).double(), 2)
    x = torch.randn(4, 5, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss(grouped(one)).backward()
    loss(torch.cat([plain(part) for part in other.chunk(2)])).backward()
    assert one.grad is not None
    assert other.grad is not None
    assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize(("running", "counted"), [("every", 9), ("first", 3)])
def test_momentum_and_counter_of_three_batches(running: Running, counted: int) -> None:
    grouped = group_batch_norm(nn.BatchNorm2d(3, momentum=0.25).double(), 3, running)
    mean = torch.zeros(3, dtype=torch.float64)
    var = torch.ones(3, dtype=torch.float64)
    for seed in range(3):
        batch = images(6, seed)
        grouped(batch)
        for part in batch.chunk(3)[: 3 if running == "every" else 1]:
            mean = 0.75 * mean + 0.25 * part.mean((0, 2, 3))
            var = 0.75 * var + 0.25 * part.transpose(0, 1).flatten(1).var(1)
    torch.testing.assert_close(grouped.get_buffer("running_mean"), mean, rtol=SUMS, atol=0)
    torch.testing.assert_close(grouped.get_buffer("running_var"), var, rtol=SUMS, atol=0)
    assert grouped.get_buffer("num_batches_tracked") == counted


@pytest.mark.parametrize(
    "settings",
    [{"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.1, "momentum": 0.9}],
)
@pytest.mark.parametrize("running", ["every", "first"])
def test_settings_of_the_layer_are_kept(settings: dict[str, Any], running: Running) -> None:
    plain, grouped = small_net(**settings), group_batch_norm(small_net(**settings), 2, running)
    batches = [images(4, seed) for seed in (1, 2)]
    expected = torch.cat(separately(plain, batches, 2, running))
    assert torch.equal(torch.cat([grouped(batch) for batch in batches]), expected)
    for key, value in grouped.state_dict().items():
        assert torch.equal(value, plain.state_dict()[key]), key
    assert torch.equal(grouped.eval()(batches[0]), plain.eval()(batches[0]))


def test_conversion_shares_the_parameters_and_keeps_the_mode() -> None:
    net = small_net().eval()
    net[1].weight.requires_grad_(False)
    before = dict(net.named_parameters())
    assert group_batch_norm(net, 2) is net
    assert isinstance(net[1], GroupedBatchNorm2d)
    assert not net[1].training
    assert all(parameter is before[name] for name, parameter in net.named_parameters())
    assert not net[1].weight.requires_grad
    assert "groups=2" in repr(net)


def test_evaluation_is_plain_for_any_batch() -> None:
    plain, grouped = small_net().eval(), group_batch_norm(small_net(), 4).eval()
    assert torch.equal(grouped(images(3)), plain(images(3)))


def test_converting_again_changes_the_groups() -> None:
    net = group_batch_norm(small_net(), 2, "first")
    group_batch_norm(net, 3, "every")
    assert torch.equal(net(images(6)), torch.cat(separately(small_net(), [images(6)], 3, "every")))


def test_copies_are_independent() -> None:
    grouped = group_batch_norm(small_net(), 2)
    twin = copy.deepcopy(grouped)
    grouped(images(4))
    assert not torch.equal(twin[1].running_mean, grouped[1].running_mean)
    assert torch.equal(twin(images(4)), group_batch_norm(small_net(), 2)(images(4)))


def test_uneven_batch() -> None:
    with pytest.raises(UserError, match="batch of 5 images can't be cut into 2 equal groups"):
        group_batch_norm(small_net(), 2)(images(5))


@pytest.mark.parametrize(
    ("arguments", "named"), [((0,), "groups=0"), ((2, "all"), "every, first")], ids=["groups", "running"]
)
def test_bad_arguments(arguments: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        group_batch_norm(small_net(), *arguments)


class OwnNorm(nn.BatchNorm2d):
    """Might do anything beside normalizing."""


@pytest.mark.parametrize("norm", [OwnNorm(3), nn.BatchNorm1d(3), nn.SyncBatchNorm(3)])
def test_unknown_batch_norms_are_refused(norm: nn.Module) -> None:
    with pytest.raises(UserError, match=type(norm).__name__):
        group_batch_norm(nn.Sequential(norm), 2)


def test_compiles_without_a_graph_break() -> None:
    torch.compiler.reset()
    for running in ("every", "first"):
        grouped, eager = (group_batch_norm(small_net(), 2, running) for _ in range(2))
        compiled = torch.compile(grouped, backend="eager", fullgraph=True)
        assert torch.equal(compiled(images(4)), eager(images(4)))
        assert torch.equal(grouped[1].running_var, eager[1].running_var)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_half_precision_equals_separate_passes(memory_format: torch.memory_format) -> None:
    def make() -> nn.Module:
        return network().float().to(memory_format=memory_format)  # type: ignore[call-overload]

    batch = images(4).float().to(memory_format=memory_format)
    plain, grouped = make(), group_batch_norm(make(), 2)
    with torch.autocast("cpu", torch.bfloat16):
        expected, observed = torch.cat(separately(plain, [batch], 2, "every")), grouped(batch)
    assert torch.equal(observed, expected)
    loss(observed).backward()
    for name, parameter in grouped.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32


def test_memory_format_is_kept() -> None:
    x = torch.randn(4, 6, 5, 7).contiguous(memory_format=torch.channels_last)
    y = group_batch_norm(nn.BatchNorm2d(6), 2)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)


class LastMap(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)[-1]
        return result


class TestTimm:
    def net(self, name: str) -> nn.Module:
        timm = pytest.importorskip("timm")
        torch.manual_seed(0)
        net: nn.Module = timm.create_model(name, features_only=True, out_indices=(0, 1))
        return net.double().train()

    @pytest.mark.parametrize("running", ["every", "first"])
    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "resnet10t"])
    def test_equals_separate_passes(self, name: str, running: Running) -> None:
        plain, grouped = self.net(name), group_batch_norm(self.net(name), 2, running)
        outputs = separately(LastMap(plain), [images(4)], 2, running)
        assert torch.equal(grouped(images(4))[-1], torch.cat(outputs))
        assert list(grouped.state_dict()) == list(plain.state_dict())
        for key, value in grouped.named_buffers():
            assert torch.equal(value, plain.get_buffer(key)), key

    def test_activation_is_kept(self) -> None:
        layers = pytest.importorskip("timm.layers")
        plain = layers.BatchNormAct2d(3, act_layer=nn.Hardswish).double()
        grouped = group_batch_norm(copy.deepcopy(plain), 2)
        expected = torch.cat([plain(part) for part in images(4).chunk(2)])
        assert torch.equal(grouped(images(4)), expected)
        assert expected.min() > -0.376


SETTINGS: tuple[tuple[int, Running, bool], ...] = (
    (1, "every", False),
    (2, "every", False),
    (2, "first", True),
    (3, "every", True),
)
"""Groups, whose running statistics, and whether the ranks have unequal shares of every group."""


def over_ranks(rank: int, folder: Path) -> None:
    """Train two batches on this rank's images, for each setting, and store what came of it."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    results = {"plain": [of_setting(rank, *setting) for setting in SETTINGS]}
    results |= {name: step(make(), rank) for name, make in NETWORKS.items()}
    for make in NETWORKS.values():
        for autocast in (False, True):
            step(make().float(), rank, autocast)
    with fused_on_cpu():
        results["fused"] = [of_setting(rank, *setting) for setting in SETTINGS]
        results["bf16"] = step(network().float(), rank, autocast=True)["output"].isfinite().all()
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def of_setting(rank: int, groups: int, running: Running, uneven: bool) -> dict[str, Any]:
    """Two batches through a small network."""
    net = group_batch_norm(small_net(), groups, running, sync=True)
    inputs = [part_of_rank(images(12, seed), rank, groups, uneven).requires_grad_() for seed in (1, 2)]
    outputs = [net(batch) for batch in inputs]
    sum(weighted(output).sum() for output in outputs).backward()
    return {
        "outputs": [output.detach() for output in outputs],
        "gradients": [batch.grad for batch in inputs],
        "parameters": {name: parameter.grad for name, parameter in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
    }


def resnet_network() -> SegModel:
    torch.manual_seed(0)
    decoder = partial(DeepLabV3Plus, **SMALL, aspp_dropout=0, dropout=0)
    return segmentation_model(ResNet(18), decoder, 4).double().train()


NETWORKS: dict[str, Callable[[], SegModel]] = {
    "cps": network,
    "stpp": partial(network, DeepLabV3Plus, aspp_dropout=0, dropout=0),
    "resnet18": resnet_network,
}
"""Networks of the project, whose activations are in place."""


def step(net: SegModel, rank: int | None, autocast: bool = False) -> dict[str, Any]:
    """A forward and a backward pass in two groups, over the images of a rank, or over all in one process."""
    group_batch_norm(net, 2, sync=rank is not None)
    batch = images(8).to(net.mean.dtype)
    batch = batch if rank is None else part_of_rank(batch, rank, 2, uneven=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = net(batch.contiguous(memory_format=torch.channels_last))
    weighted(output).sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"output": output.detach(), "parameters": gradients, "buffers": dict(net.named_buffers())}


@contextmanager
def fused_on_cpu() -> Iterator[None]:
    """Give the CPU the operations that torch has for CUDA alone, as its documentation of them says."""
    library = torch.library.Library("aten", "IMPL")
    for name, operation in FUSED.items():
        library.impl(name, operation, "CPU")
    with mock.patch.object(grouped_norm, "FUSED_DEVICES", {"cpu"}):
        yield


def wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def along(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def fused_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(wide(x), (0, 2, 3), correction=0)
    return mean, (var + eps).rsqrt()


def fused_gather(
    like: Tensor,
    means: Tensor,
    scales: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    assert counts.dtype == (like if running_mean is None else running_mean).dtype
    shares = (counts / counts.sum())[:, None]
    mean = (means * shares).sum(0)
    var = ((scales**-2 - eps + (means - mean) ** 2) * shares).sum(0)
    if running_mean is not None and running_var is not None:
        running_mean.mul_(1 - momentum).add_(momentum * mean)
        running_var.mul_(1 - momentum).add_(momentum * var * counts.sum() / (counts.sum() - 1))
    return mean, (var + eps).rsqrt()


def fused_elemt(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor, eps: float
) -> Tensor:
    normal = (wide(x) - along(mean)) * along(scale)
    if weight is not None and bias is not None:
        normal = normal * along(weight) + along(bias)
    return normal.to(x.dtype)


def fused_reduce(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    for_input: bool,
    for_weight: bool,
    for_bias: bool,
) -> tuple[Tensor, ...]:
    formats = (torch.contiguous_format, torch.channels_last)
    assert any(
        grad.is_contiguous(memory_format=each) and x.is_contiguous(memory_format=each) for each in formats
    )
    assert grad.dtype == x.dtype
    total = wide(grad).sum((0, 2, 3))
    centered = (wide(grad) * (wide(x) - along(mean))).sum((0, 2, 3))
    nothing = total.new_empty(0)
    return total, centered, centered * scale if for_weight else nothing, total if for_bias else nothing


def fused_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    total: Tensor,
    centered: Tensor,
    counts: Tensor,
) -> Tensor:
    assert counts.dtype == torch.int32
    assert counts.is_contiguous()
    size = counts.sum()
    slope = along(centered / size * scale**2)
    result = (wide(grad) - along(total / size) - (wide(x) - along(mean)) * slope) * along(scale)
    return (result if weight is None else result * along(weight)).to(x.dtype)


FUSED: dict[str, Callable[..., Any]] = {
    "batch_norm_stats": fused_stats,
    "batch_norm_gather_stats_with_counts": fused_gather,
    "batch_norm_elemt": fused_elemt,
    "batch_norm_backward_reduce": fused_reduce,
    "batch_norm_backward_elemt": fused_backward,
}


def part_of_rank(batch: Tensor, rank: int, groups: int, uneven: bool) -> Tensor:
    """Rank's images of every group, 2 or 4 of 6 where ``uneven``."""
    share = len(batch) // groups // 2 - (1 if uneven else 0)
    parts = [part[:share] if rank == 0 else part[share:] for part in batch.chunk(groups)]
    return torch.cat(parts).clone()


def weighted(output: Tensor) -> Tensor:
    """A loss that weighs channels and rows, and every image alike."""
    channels = torch.linspace(-1, 1, output.shape[1], dtype=output.dtype).view(-1, 1, 1)
    rows = torch.linspace(0, 1, output.shape[2], dtype=output.dtype).view(-1, 1)
    return (output * channels * rows).square()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks found; their processes are started once."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(over_ranks, (folder,), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "fused"])
@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_two_ranks_equal_one_process_with_the_whole_batch(
    of_ranks: list[dict[str, Any]], setting: int, way: str
) -> None:
    # The statistics of both ranks are joined: another order of the sums.
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
    groups, running, uneven = SETTINGS[setting]
    net = group_batch_norm(small_net(), groups, running)
    inputs = [images(12, seed).requires_grad_() for seed in (1, 2)]
    outputs = [net(batch) for batch in inputs]
    sum(weighted(output).sum() for output in outputs).backward()
    found = [results[way][setting] for results in of_ranks]
    for rank, result in enumerate(found):
        cut = partial(part_of_rank, rank=rank, groups=groups, uneven=uneven)
        for index in range(2):
            close(result["outputs"][index], cut(outputs[index].detach()))
            close(result["gradients"][index], cut(inputs[index].grad))
        for key, value in net.named_buffers():
            close(result["buffers"][key], value)
    for name, parameter in net.named_parameters():
        close(sum(result["parameters"][name] for result in found), parameter.grad)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_activations_in_place_over_two_ranks(of_ranks: list[dict[str, Any]], name: str) -> None:
    expected = step(NETWORKS[name](), None)
    found = [results[name] for results in of_ranks]
    for rank, result in enumerate(found):
        own = part_of_rank(expected["output"], rank, 2, uneven=False)
        assert (result["output"] - own).norm() < SUMS * own.norm()
        for key, value in expected["buffers"].items():
            torch.testing.assert_close(result["buffers"][key], value, rtol=SUMS, atol=SUMS)
    parameters = expected["parameters"]
    summed = {key: sum(result["parameters"][key] for result in found) for key in parameters}
    difference = sum((summed[key] - value).square().sum() for key, value in parameters.items())
    assert difference.sqrt() < SUMS * sum(value.square().sum() for value in parameters.values()).sqrt()


@pytest.mark.slow
def test_resnet_equals_separate_passes() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return ResNet(18).double().train()

    plain, grouped = make(), group_batch_norm(make(), 2, "first")
    outputs = [plain(part)[-1] for part in images(4).chunk(2)]
    assert torch.equal(grouped(images(4))[-1], torch.cat(outputs))
