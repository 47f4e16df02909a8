"""Backbones of the timm library that return maps: convolutional, hierarchical, or plain transformers."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, Lt
from semiseg.errors import UserError
from semiseg.models.resnet import Weights
from semiseg.models.segmodel import Backbone, InputConvention, Stage
from semiseg.models.timm_library import not_fetched, require_known, timm_library
from semiseg.models.timm_parts import stage_modules
from semiseg.models.weights import load_state, read_state

PLAIN_TRANSFORMERS = ("vision_transformer", "deit", "eva")
"""Modules of timm whose networks have one stride, and take images of any size that their patches fill."""

OPTION = "backbone=timm"

WINDOWED = ("swin_transformer", "swin_transformer_v2")
"""Modules of timm whose networks pad their maps to whole windows; their patches have to fill the images."""


class Timm(Backbone):
    """A timm network that returns its last four feature maps.

    Maps normalized images ``(N, 3, H, W)`` to c1..c4, c4 at ``output_stride``; H and W are multiples of the patch
    size of a plain transformer, whose four maps all have this stride, or of a Swin transformer, 4. ``stages`` and
    ``convention`` (mean, std) are those that timm declares. A stage of a Swin transformer that had one window in its
    pretraining does not shift its windows, whatever the size of the images.

    Args:
        name: timm's name, for example ``tf_efficientnet_lite0``.
        network: timm's name, where ``name`` is that of an option; ``null`` takes ``name``.
        output_stride: stride of c4; one that is not the network's own only where timm can dilate it.
        weights: initial weights: "none", "pretrained" (fetched once by timm) or the path of a .safetensors or .pth
            file in timm's names for exactly this network, classifier included or not.
        drop_path: probability that the last block is left out for an image in training, which rises from 0 at the
            first block (stochastic depth, Huang et al., arXiv 1603.09382); 0 leaves out none.

    Raises:
        UserError: timm is not installed, does not know the name or can't build it with this stride or with
            stochastic depth; or the weights are missing, damaged or of another network.
    """

    def __init__(
        self,
        name: str,
        *,
        network: str | None = None,
        output_stride: int = 16,
        weights: Weights = "none",
        drop_path: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        super().__init__()
        name = network or name
        self.name = name
        overlay = {} if weights in ("none", "pretrained") else {"state_dict": _checked_state(name, weights)}
        self.net = _create(name, output_stride, weights != "none", overlay, drop_path)
        info = self.net.feature_info
        strides = tuple(info.reduction())
        if strides[-1] != output_stride:
            raise UserError(
                f"the last four maps of {name} have strides {', '.join(map(str, strides))}. Give "
                f"backbone.output_stride={strides[-1]}, or choose a network that timm can dilate, such as "
                f"convnext_tiny or tf_efficientnet_lite0.{_plain_too(strides)}",
                key="backbone.output_stride",
                value=output_stride,
            )
        self.stages = tuple(map(Stage, info.channels(), strides))
        if len(set(strides)) == 1:
            self.size_multiple = output_stride
        elif _is_one_of(name, WINDOWED):
            self.size_multiple = strides[0]
        self.channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        known = timm_library(OPTION).get_pretrained_cfg(name)
        self.convention = InputConvention("RGB", 255.0, tuple(known.mean), tuple(known.std))

    def require_size(self, key: str, size: tuple[int, int]) -> None:
        """Refuse a size that the network is not made for; nothing but shapes is computed."""
        with torch.device("meta"):
            probe = copy.deepcopy(self.net).to("meta").eval()
            try:
                probe(torch.empty(1, 3, *size))
            except Exception as error:  # each of a thousand networks refuses in its own way
                own = timm_library(OPTION).get_pretrained_cfg(self.name).input_size[-1]
                raise UserError(
                    f"{self.name} cannot take images of {size[0]}x{size[1]} pixels ({str(error).splitlines()[0]}). It "
                    f"was made for {own}x{own}: give that, or choose a network without a fixed size, such as "
                    "convnext_tiny, or a plain transformer with backbone=vit.",
                    key=key,
                    value=list(size),
                ) from error

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return c1..c4 of a normalized image ``(N, 3, H, W)``."""
        maps = list(self.net(x))
        return [feature.permute(0, 3, 1, 2) for feature in maps] if self.channels_last else maps

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules by stage: "stem", "c1" to "c4", or "block1", ... of a plain transformer.

        Empty for networks whose maps are not those of modules, such as HRNet.
        """
        one_stride = len({stage.stride for stage in self.stages}) == 1
        return stage_modules(self.net, self.net.feature_info.module_name(), one_stride)


def _is_one_of(name: str, modules: Sequence[str]) -> bool:
    return bool(timm_library(OPTION).models.is_model_in_modules(name, modules))


def _create(
    name: str, output_stride: int, pretrained: bool, overlay: dict[str, Any], drop_path: float = 0.0
) -> Any:
    timm = timm_library(OPTION)
    require_known(name, OPTION, "backbone.name")
    options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    if _is_one_of(name, PLAIN_TRANSFORMERS):
        options = {"dynamic_img_size": True}
    if _is_one_of(name, WINDOWED):
        options["dynamic_img_size"] = True
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        with _without_warnings():
            net = timm.create_model(
                name,
                pretrained=pretrained,
                pretrained_cfg_overlay=overlay,
                features_only=True,
                out_indices=(-4, -3, -2, -1),
                **options,
            )
    except (OSError, RuntimeError) as error:
        if not pretrained or overlay:
            raise
        raise not_fetched(name, OPTION, error) from error
    except (TypeError, ValueError, NotImplementedError, AssertionError, IndexError) as error:
        if "drop_path_rate" in str(error):
            raise _no_stochastic_depth(name, drop_path) from error
        own = _own_strides(name)
        if own is None or own[-1] != output_stride or "output_stride" not in options:
            raise _unsuitable(name, output_stride, own, error) from error
        # It can't dilate, and need not.
        return _create(name, 32, pretrained, overlay, drop_path)
    # Some take the rate and do nothing with it.
    if drop_path and not any(type(each).__name__ == "DropPath" for each in net.modules()):
        raise _no_stochastic_depth(name, drop_path)
    # Loaded by now; it would stay in memory with the network.
    net.pretrained_cfg.pop("state_dict", None)
    return net


def _own_strides(name: str) -> tuple[int, ...] | None:
    """Return the strides of a network's last four maps where nothing is dilated; ``None`` where it gives no maps."""
    try:
        with torch.device("meta"):
            net = timm_library(OPTION).create_model(name, features_only=True, out_indices=(-4, -3, -2, -1))
    except Exception:  # each of a thousand networks refuses in its own way
        return None
    return tuple(net.feature_info.reduction())


def _unsuitable(name: str, output_stride: int, own: tuple[int, ...] | None, error: Exception) -> UserError:
    """Return the error for a network that does not give four maps at a stride, with what it lacks."""
    if own is None:
        lacking = f"timm gives no four feature maps of it ({error}). Choose another network"
    else:
        strides = ", ".join(map(str, own))
        lacking = (
            f"its last four maps have strides {strides}, and timm can't dilate it to {output_stride} ({error}). Give "
            f"backbone.output_stride={own[-1]}, or choose another network"
        )
    return UserError(
        f"{lacking}, such as convnext_tiny or tf_efficientnet_lite0; backbone=vit is for plain transformers.",
        key="backbone.name",
        value=name,
    )


def _plain_too(strides: tuple[int, ...]) -> str:
    """Name the option for plain transformers, whose maps all have one stride."""
    return (
        " backbone=vit is for plain transformers, with the decoders dpt and linear."
        if len(set(strides)) == 1
        else ""
    )


def _no_stochastic_depth(name: str, drop_path: float) -> UserError:
    return UserError(
        f"timm's {name} has no stochastic depth. Give 0, or choose a network that has it, such as convnext_tiny, "
        "resnet50 or a transformer.",
        key="backbone.drop_path",
        value=drop_path,
    )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence timm's warnings of entries that a feature extractor does not need: the file was checked before."""
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _checked_state(name: str, path: str) -> dict[str, Tensor]:
    """Read a weights file and compare it with the whole network: timm would ignore entries that do not fit."""
    require_known(name, OPTION, "backbone.name")
    state = read_state(path)
    classifier = timm_library(OPTION).get_pretrained_cfg(name).classifier or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)

    def is_head(key: str) -> bool:
        return key.rsplit(".", 1)[0] in heads

    with torch.device("meta"):  # names and shapes are enough
        whole = timm_library(OPTION).create_model(name)
    for key in [key for key in whole.state_dict() if is_head(key)]:
        state.setdefault(key, whole.state_dict()[key])
        if state[key].shape != whole.state_dict()[key].shape:
            state[key] = whole.state_dict()[key]
    load_state(
        whole, state, f"Weights file {path}", f"timm's {name}", "Give the file made for this backbone.name."
    )
    return {key: value for key, value in state.items() if not is_head(key)}
