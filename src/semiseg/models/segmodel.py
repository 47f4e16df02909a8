"""A segmentation network that normalizes its own input and returns logits at input size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.contracts.training import Network, Part
from semiseg.errors import UserError
from semiseg.models.strides import safe_convolutions
from semiseg.models.tuning import Tuning, keep_still, tune
from semiseg.models.weights import State

FEATURES = "features"
"""The source of a head that reads the decoder's feature map."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputConvention:
    """Input that a network expects: ``(x[order] / scale - mean) / std``.

    Args:
        order: order of the channels, "RGB" or "BGR", or "bands" for channels as they are; mean and std follow it.
        scale: divisor of the 8-bit values: 255 for a 0-1 range, 1 for 0-255 and for bands.
        mean: numbers that are subtracted after the division.
        std: divisors at the end.
    """

    order: str = "RGB"
    scale: float = 255.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputConvention:
        """Inverse of ``as_dict``."""
        return cls(values["order"], values["scale"], tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True)
class Converted:
    """The tensors of a weights file, named as in the parts of ``SegModel``.

    Args:
        format: name of the code base whose format it is.
        backbone: entries of ``ResNet``, or of any other backbone that a file of semiseg holds.
        decoder: entries of the decoder that the format belongs to; empty where there is none.
        classifier: entries of that decoder's classifier.
        convention: input that the weights were trained with; ``None`` where the file does not say.
        left_out: number of entries that are not used, by the first word of their names.
        source: file that they come from, for messages.
    """

    format: str
    backbone: State
    decoder: State = field(default_factory=dict)
    classifier: State = field(default_factory=dict)
    convention: InputConvention | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Stage:
    """One of the maps that a backbone returns.

    Args:
        channels: number of channels.
        stride: pixels of the image from one position of the map to the next.
    """

    channels: int
    stride: int


class Backbone(nn.Module):
    """A feature extractor; its subclasses set ``stages``, ``convention`` and perhaps ``size_multiple``."""

    shared_settings: ClassVar[type] = Tuning
    """Keys that the config node of every backbone has in addition to the arguments of its constructor."""

    tuning: Tuning = Tuning()
    """What of it is trained, and how; see ``tune``."""

    stages: tuple[Stage, ...]
    """Maps c1, c2, ... that it returns, from fine to coarse."""

    convention: InputConvention
    """Input that its weights were trained with."""

    size_multiple: int = 1
    """Number that height and width of an image must be multiples of: the patch size of a transformer."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a normalized image ``(N, 3, H, W)`` to one map for each stage."""
        raise NotImplementedError

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return its modules by the stage that they belong to ("stem", "c1", ...), from input to output."""
        return {}

    def require_size(self, key: str, size: tuple[int, int]) -> None:
        """Refuse a size of images that it can't take for another reason than ``size_multiple``.

        Args:
            key: key that the size was given with, for the message.
            size: height and width.

        Raises:
            UserError: it can't.
        """

    def tune(self, tuning: Tuning) -> Self:
        """Freeze and change it as settings say, once, after its initial weights were loaded; return it.

        Raises:
            UserError: it has not the stages or layers that they name.
        """
        tune(self, self.part_modules(), tuning)
        self.tuning = tuning
        return self

    def train(self, mode: bool = True) -> Self:
        """Choose training or evaluation mode; frozen stages and norms stay in evaluation mode."""
        super().train(mode)
        if mode and (self.tuning.freeze or self.tuning.freeze_norm):
            keep_still(self, self.part_modules(), self.tuning)
        return self

    def read_weights(self) -> Converted | None:
        """Return all entries of the file of its initial weights; ``None`` where that holds no decoder's."""
        return None


class Decoder(nn.Module):
    """A module that makes one feature map of the maps of a backbone.

    Args:
        stages: stages of the backbone.
        name: name of the option in the config; a message names the decoder by it.

    Raises:
        UserError: the backbone lacks a map that the decoder ``needs``.
    """

    needs: ClassVar[tuple[int, ...]] = ()
    """Strides of the maps that it reads, apart from the last map, which may have any."""

    smallest_batch: ClassVar[int] = 1
    """Images of a training batch that it needs."""

    reduction: ClassVar[int] = 1
    """Factor by which its coarsest map is smaller than the backbone's last one."""

    align_logits: bool = True
    """``align_corners`` of the last bilinear resize, that of the logits to the size of the images."""

    linear_channels: int = 0
    """Channels at the beginning of its feature map that are maps of the backbone, so that a linear classifier of these
    can be fitted without training (``init_head=probe``); 0 for none."""

    out_channels: int
    """Channels of its feature map."""

    def __init__(self, stages: Sequence[Stage], name: str = "") -> None:
        super().__init__()
        self.name = name
        strides = [stage.stride for stage in stages]
        shown = ", ".join(map(str, strides))
        if lacking := [stride for stride in self.needs if stride not in strides]:
            raise UserError(
                f"needs a map of stride {lacking[0]}, and those of the backbone have {shown}. Choose a backbone with "
                "a pyramid, such as resnet50 or timm's convnext_tiny, or a model that reads the last map alone, "
                f"such as pspnet{' or linear, or dpt' if len(set(strides)) == 1 else ''}.",
                key="model",
                value=name or type(self).__name__,
            )
        self.needed = tuple(strides.index(stride) for stride in self.needs)
        """Positions of the maps that it needs among those of the backbone."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn the maps of all stages into a feature map ``(N, out_channels, h, w)``."""
        raise NotImplementedError

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the module that maps this feature map to logits ``(N, num_classes, h, w)``; by default a 1x1 conv."""
        return nn.Conv2d(self.out_channels, num_classes, 1)


class SegModel(Network):
    """Backbone, decoder, classifier and auxiliary heads.

    ``heads`` is empty until something is attached; predictions never use it. A method that needs more than
    logits takes the steps of ``forward`` one by one: ``maps = model.encode(images)``,
    ``features = model.decode(maps)``, ``model.classify(features, size)``, and ``model.apply_head(name, maps,
    features)``, or ``model.heads[name](features)`` for a head on the features.

    Args:
        backbone: feature extractor.
        decoder: module that makes one feature map of the backbone's.
        classifier: module that maps ``(N, D, h, w)`` to logits ``(N, K, h, w)``.
        num_classes: number of classes K.
        align_corners: way of the last bilinear resize; that of the decoder, see ``Decoder.align_logits``.
    """

    backbone: Backbone
    decoder: Decoder

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        classifier: nn.Module,
        num_classes: int,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.classifier = classifier
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.heads = nn.ModuleDict()
        self.sources: dict[str, str] = {}
        # Buffers, to be on the network's device; not in its state dict, where no published file has them.
        self.register_buffer("mean", torch.empty(0), persistent=False)
        self.register_buffer("std", torch.empty(0), persistent=False)
        self.set_convention(backbone.convention)

    @property
    def feature_channels(self) -> int:
        """Channels D of the decoder's feature map."""
        return self.decoder.out_channels

    @property
    def linear_channels(self) -> int:
        """Channels at the beginning of that map that are maps of the backbone, which a linear classifier may use."""
        return int(getattr(self.decoder, "linear_channels", 0))

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Channels of the backbone's maps c1, c2, ..."""
        return tuple(stage.channels for stage in self.backbone.stages)

    @property
    def coarsest_stride(self) -> int:
        """Pixels of an image from one position of the coarsest map to the next."""
        # A decoder of one's own need not say it.
        return self.backbone.stages[-1].stride * int(getattr(self.decoder, "reduction", 1))

    @property
    def size_multiple(self) -> int:
        """Number that height and width of the images must be multiples of; 1 for all but transformers."""
        return self.backbone.size_multiple

    def attach(self, name: str, head: nn.Module, source: str = FEATURES) -> None:
        """Add an auxiliary head; it is trained, saved and loaded with the network, in the group ``head``.

        Args:
            name: key of the head in ``heads``.
            head: module that maps ``(N, C, h, w)`` to anything; see ``semiseg.models.heads.Head``.
            source: map that it reads: "features" of the decoder with C = D, or "c1", "c2", ... of the backbone.

        Raises:
            ValueError: the name is taken, there is no such source, the head expects another number of channels
                than it has, or the head can't be saved because it has no ``config``.
        """
        if name in self.heads:
            raise ValueError(f"the network has a head {name!r} already; use it, or delete it first")
        if not (hasattr(head, "in_channels") and hasattr(head, "config")):
            raise ValueError(f"head {name!r} ({type(head).__name__}) needs in_channels and config()")
        channels = self.feature_channels if source == FEATURES else self._stage(source).channels
        if head.in_channels != channels:
            giver = "the decoder" if source == FEATURES else source
            raise ValueError(f"head {name!r} takes {head.in_channels} channels; {giver} gives {channels}")
        self.heads[name] = head
        self.sources[name] = source

    def apply_head(self, name: str, maps: Sequence[Tensor], features: Tensor) -> Tensor:
        """Return the output of a head for its source among the maps of ``encode`` and ``decode``."""
        source = self.sources[name]
        if source != FEATURES:
            features = maps[int(source.removeprefix("c")) - 1]
        result: Tensor = self.heads[name](features)
        return result

    def parts(self) -> list[Part]:
        """Return all parameters by part, in the order of ``parameters()``."""
        backbone = self.backbone.part_modules()
        places: list[tuple[str, Literal["backbone", "head"], list[nn.Module]]] = [
            *((f"backbone.{name}", "backbone", modules) for name, modules in backbone.items()),
            ("backbone", "backbone", [self.backbone]),
            ("decoder", "head", [self.decoder]),
            ("classifier", "head", [self.classifier]),
            *((f"heads.{name}", "head", [head]) for name, head in self.heads.items()),
            ("network", "head", [self]),
        ]
        found, taken = [], set()
        # The first part that holds a parameter gets it, so the whole backbone gives what no stage of it names.
        for name, group, modules in places:
            own = [each for module in modules for each in module.parameters() if each not in taken]
            taken.update(own)
            if own:
                found.append(Part(name, group, tuple(own)))
        return found

    def set_convention(self, convention: InputConvention) -> None:
        """Normalize images in future as other weights expect it."""
        self.convention = convention
        for name, values in (("mean", convention.mean), ("std", convention.std)):
            self.register_buffer(
                name, self.get_buffer(name).new_tensor(values).view(1, -1, 1, 1), persistent=False
            )

    @property
    def mean_color(self) -> Tensor:
        """Pixel ``(1, C, 1, 1)`` of an image that ``normalize`` turns into 0, on the device of the network."""
        # From its own buffer: a list would be copied to the device, and waited for.
        color: Tensor = self.get_buffer("mean") * self.convention.scale
        return color.flip(1) if self.convention.order == "BGR" else color

    def normalize(self, images: Tensor) -> Tensor:
        """Turn ``(N, C, H, W)``, RGB values 0-255 (uint8 or float) or bands, into the network's input."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        x = images.to(mean.dtype) / self.convention.scale
        if self.convention.order == "BGR":
            x = x.flip(1)
        normalized: Tensor = (x - mean) / std
        return normalized

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's maps c1, c2, ... of ``(N, C, H, W)`` images, RGB 0-255 (uint8 or float) or bands."""
        with safe_convolutions(images.device):
            maps: list[Tensor] = self.backbone(self.normalize(images))
        return maps

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the decoder's feature map ``(N, D, h, w)`` of the backbone's maps."""
        with safe_convolutions(maps[0].device):
            features: Tensor = self.decoder(maps)
        return features

    def classify(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return logits ``(N, K, *size)`` of a decoder feature map, at least float32 under autocast too."""
        with safe_convolutions(features.device):
            logits = self.classifier(features)
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()  # 8 bits of mantissa tie neighboring classes and blunt the confidence
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=self.align_corners)

    def _stage(self, source: str) -> Stage:
        stages = {f"c{number}": stage for number, stage in enumerate(self.backbone.stages, 1)}
        if source not in stages:
            raise ValueError(f"source {source!r}: there are {', '.join([FEATURES, *stages])}")
        return stages[source]


def require_multiple(key: str, sides: Sequence[int], multiple: int) -> None:
    """Refuse a size that a backbone can't take.

    Args:
        key: key that the size was given with, for the message.
        sides: height and width, or one number for both.
        multiple: number that the sides must be multiples of; see ``Backbone.size_multiple``.

    Raises:
        UserError: a side is no multiple.
    """
    if all(side % multiple == 0 for side in sides):
        return
    below = [max(side // multiple, 1) * multiple for side in sides]
    above = [-(-side // multiple) * multiple for side in sides]
    nearest = " or ".join(dict.fromkeys((_size(below), _size(above))))
    raise UserError(
        f"the backbone takes sides that are multiples of {multiple} pixels. Give {nearest}.",
        key=key,
        value=_size(sides),
    )


def _size(sides: Sequence[int]) -> str:
    return str(sides[0]) if len(set(sides)) == 1 else f"[{','.join(map(str, sides))}]"
