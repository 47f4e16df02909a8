"""Networks for images of any channels: the first convolution, normalization, and files."""

from functools import partial

import pytest
import torch
from torch import nn

from band_pictures import bands
from semiseg.contracts.dataset import Bands, DatasetInfo
from semiseg.errors import UserError
from semiseg.models.bundle import bundle, bundled_bands, from_bundle, segmentation_model
from semiseg.models.input_channels import extend_input, extended_filters
from semiseg.models.pspnet import PSPNet
from semiseg.models.resnet import ResNet
from semiseg.models.segmodel import Backbone
from semiseg.models.timm_backbone import Timm
from semiseg.models.tiny import Tiny

INFO = DatasetInfo("fields", ("a", "b"), ((0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 10])
def test_the_rule_is_that_of_timm(channels: int) -> None:
    from timm.models import adapt_input_conv

    weight = torch.randn(8, 3, 5, 5)
    assert torch.equal(extended_filters(weight, channels), adapt_input_conv(channels, weight.clone()))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 10])
@pytest.mark.parametrize(
    "make",
    [
        Tiny,
        partial(ResNet, 18),
        partial(ResNet, 18, stem="deep"),
        partial(Timm, "resnet18", output_stride=32),
        partial(Timm, "tf_efficientnet_lite0", output_stride=32),
        partial(Timm, "convnext_atto", output_stride=32),
        partial(Timm, "vit_tiny_patch16_224", output_stride=16),
    ],
)
def test_backbones_take_any_channels(make: partial[Backbone], channels: int) -> None:
    backbone = make().eval()
    maps = backbone(torch.ones(1, 3, 64, 64))
    extend_input(backbone, channels)
    found = backbone(torch.ones(1, channels, 64, 64))
    assert [each.shape for each in found] == [each.shape for each in maps]
    if channels % 3 == 0 or channels == 1:
        # Of equal channels each filter sees what those of RGB saw; of one channel, their sum.
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, maps, strict=True))


def test_a_backbone_without_a_convolution_of_rgb_is_refused() -> None:
    class Other(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(4, 16, 3))

    with pytest.raises(UserError, match="images of 5 channels: the first layer of Other is no convolution"):
        extend_input(Other(), 5)


def test_images_are_normalized_by_the_bands() -> None:
    model = segmentation_model(Tiny(), PSPNet, 2, Bands(4, "uint16", [1000, 2, 3, 4], [500, 1, 2, 3]))
    images = torch.tensor([1000.0, 3, 3, 10]).view(1, 4, 1, 1)
    assert model.normalize(images).flatten().tolist() == [0, 1, 0, 2]
    assert model.channels == 4


def test_a_file_holds_channels_type_mean_and_deviation(tmp_path: object) -> None:
    given = bands(5, "float32", nodata=-9999.0, display=[5])
    torch.manual_seed(0)
    model = segmentation_model(Tiny(4), PSPNet, 2, given).eval()
    config = {
        "backbone": {"_target_": "semiseg.models.tiny.Tiny", "width": 4},
        "model": {"_target_": "semiseg.models.pspnet.PSPNet"},
    }
    info = DatasetInfo(INFO.name, INFO.classes, INFO.palette, bands=given)
    values = bundle(model, info, config)
    assert bundled_bands(values) == given
    images = torch.rand(1, 5, 32, 32) * 200
    assert torch.equal(from_bundle(values)(images), model(images))
    rgb = bundle(segmentation_model(Tiny(4), PSPNet, 2), INFO, config)
    assert "bands" not in rgb
    assert bundled_bands(rgb) is None
