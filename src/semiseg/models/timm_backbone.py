"""Backbones of the timm library that return maps: convolutional, hierarchical, or plain transformers."""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from semiseg.declare import Ge, Lt
from semiseg.errors import UserError
from semiseg.models.resnet import Weights
from semiseg.models.segmodel import Backbone, InputConvention, Stage
from semiseg.models.timm_parts import stage_modules
from semiseg.models.weights import load_state, read_state

PLAIN_TRANSFORMERS = ("vision_transformer", "deit", "eva")
"""Modules of timm whose networks have one stride, and take images of any size that their patches fill."""

INSTALL = 'pip install "semiseg[timm]"'


class Timm(Backbone):
    """A timm network that returns its last four feature maps.

    Maps normalized images ``(N, 3, H, W)`` to c1..c4, c4 at ``output_stride``; H and W are multiples of the patch
    size of a plain transformer, whose four maps all have this stride. ``stages`` and ``convention`` (mean, std)
    are those that timm declares.

    Args:
        name: timm's name, for example ``tf_efficientnet_lite0``.
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
        output_stride: int = 16,
        weights: Weights = "none",
        drop_path: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        super().__init__()
        self.name = name
        overlay = {} if weights in ("none", "pretrained") else {"state_dict": _checked_state(name, weights)}
        self.net = _create(name, output_stride, weights != "none", overlay, drop_path)
        info = self.net.feature_info
        strides = tuple(info.reduction())
        if strides[-1] != output_stride:
            raise UserError(
                f"the last four maps of {name} have strides {', '.join(map(str, strides))}. Give "
                f"backbone.output_stride={strides[-1]}, or choose a network that timm can dilate, such as "
                "convnext_tiny or tf_efficientnet_lite0.",
                key="backbone.output_stride",
                value=output_stride,
            )
        self.stages = tuple(map(Stage, info.channels(), strides))
        if len(set(strides)) == 1:
            self.size_multiple = output_stride
        self.channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        known = _timm().get_pretrained_cfg(name)
        self.convention = InputConvention("RGB", 255.0, tuple(known.mean), tuple(known.std))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return c1..c4 of a normalized image ``(N, 3, H, W)``."""
        maps = list(self.net(x))
        return [feature.permute(0, 3, 1, 2) for feature in maps] if self.channels_last else maps

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules by stage: "stem", "c1" to "c4", or "block1", ... of a plain transformer.

        Empty for networks whose maps are not those of modules, such as HRNet.
        """
        return stage_modules(self.net, self.net.feature_info.module_name(), self.size_multiple > 1)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"backbone=timm needs the package timm: {INSTALL}") from error
    return timm


def _create(
    name: str, output_stride: int, pretrained: bool, overlay: dict[str, Any], drop_path: float = 0.0
) -> Any:
    timm = _timm()
    _check_name(name)
    options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    if timm.models.is_model_in_modules(name, PLAIN_TRANSFORMERS):
        options = {"dynamic_img_size": True}
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
        origin = timm.get_pretrained_cfg(name).hf_hub_id or "no published file known"
        raise UserError(
            f"The pretrained weights of {name} ({origin}) are not on this machine and could not be fetched "
            f"({error}). Copy the published model.safetensors here and give it with backbone.weights=PATH, or "
            "start from random weights with backbone.weights=none."
        ) from error
    except (TypeError, ValueError, NotImplementedError, AssertionError, IndexError) as error:
        if "drop_path_rate" in str(error):
            raise _no_stochastic_depth(name, drop_path) from error
        raise UserError(
            f"timm can't give its features at backbone.output_stride={output_stride} ({error}). Try "
            "backbone.output_stride=32, or another network.",
            key="backbone.name",
            value=name,
        ) from error
    # Some take the rate and do nothing with it.
    if drop_path and not any(type(each).__name__ == "DropPath" for each in net.modules()):
        raise _no_stochastic_depth(name, drop_path)
    # Loaded by now; it would stay in memory with the network.
    net.pretrained_cfg.pop("state_dict", None)
    return net


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


def _check_name(name: str) -> None:
    timm = _timm()
    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    nearest = f" Did you mean {', '.join(near)}?" if near else ""
    raise UserError(
        f"timm {timm.__version__} has no network of this name.{nearest} timm.list_models() lists them all.",
        key="backbone.name",
        value=name,
    )


def _no_stochastic_depth(name: str, drop_path: float) -> UserError:
    return UserError(
        f"timm's {name} has no stochastic depth. Give 0, or choose a network that has it, such as convnext_tiny, "
        "resnet50 or a transformer.",
        key="backbone.drop_path",
        value=drop_path,
    )


def _checked_state(name: str, path: str) -> dict[str, Tensor]:
    """Read a weights file and compare it with the whole network: timm would ignore entries that do not fit."""
    _check_name(name)
    state = read_state(path)
    classifier = _timm().get_pretrained_cfg(name).classifier or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)

    def is_head(key: str) -> bool:
        return key.rsplit(".", 1)[0] in heads

    with torch.device("meta"):  # names and shapes are enough
        whole = _timm().create_model(name)
    for key in [key for key in whole.state_dict() if is_head(key)]:
        state.setdefault(key, whole.state_dict()[key])
        if state[key].shape != whole.state_dict()[key].shape:
            state[key] = whole.state_dict()[key]
    load_state(
        whole, state, f"Weights file {path}", f"timm's {name}", "Give the file made for this backbone.name."
    )
    return {key: value for key, value in state.items() if not is_head(key)}
