"""A segmentation network that normalizes its own input and returns logits at input size."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.contracts.training import Network
from semiseg.models.strides import safe_convolutions

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputConvention:
    """How a network wants its pixels: ``(x[order] / scale - mean) / std``.

    Args:
        order: "RGB" or "BGR"; mean and std are in this order.
        scale: divisor of the 8-bit values: 255 for a 0-1 range, 1 for 0-255.
        mean: subtracted after the division.
        std: divided by last.
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
    def from_dict(cls, values: dict[str, Any]) -> "InputConvention":
        """Inverse of ``as_dict``."""
        return cls(values["order"], values["scale"], tuple(values["mean"]), tuple(values["std"]))


class Backbone(Protocol):
    """A feature extractor.

    ``channels`` are those of the returned maps c1..c4 (c1 at stride 4); ``output_stride`` is the stride of
    c4; ``convention`` is the input that its weights were trained with.
    """

    channels: tuple[int, int, int, int]
    output_stride: int
    convention: InputConvention

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Map a normalized image ``(N, 3, H, W)`` to c1..c4."""
        ...


class SegModel(Network):
    """Backbone, decoder, classifier and auxiliary heads.

    ``heads`` is empty until something is attached; predictions never use it. A method that needs more than
    logits calls ``features = model.features(images)``, ``model.classify(features, size)`` and
    ``model.heads[name](features)``.

    Args:
        backbone: see ``Backbone``.
        decoder: maps ``[c1, c2, c3, c4]`` to one feature map ``(N, D, h, w)``; has ``out_channels``.
        classifier: maps that to logits ``(N, K, h, w)``.
        num_classes: K.
        align_corners: of the last bilinear resize; True in all published methods here.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
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
        self.register_buffer("mean", torch.empty(0), persistent=False)
        self.register_buffer("std", torch.empty(0), persistent=False)
        convention = backbone.convention
        assert isinstance(convention, InputConvention)
        self.set_convention(convention)

    @property
    def feature_channels(self) -> int:
        """D, the channels of the decoder's feature map."""
        return int(self.decoder.out_channels)  # type: ignore[arg-type]

    def attach(self, name: str, head: nn.Module) -> None:
        """Add an auxiliary head; it is trained, saved and loaded with the network, as part of its head.

        Args:
            name: its key in ``heads``.
            head: see ``semiseg.models.heads.Head``; maps ``(N, D, h, w)`` to anything.

        Raises:
            ValueError: the name is taken, the head expects another number of channels than D, or it can't be
                saved because it has no ``config``.
        """
        if name in self.heads:
            raise ValueError(f"the network has a head {name!r} already; use it, or delete it first")
        if not (hasattr(head, "in_channels") and hasattr(head, "config")):
            raise ValueError(f"head {name!r} ({type(head).__name__}) needs in_channels and config()")
        if head.in_channels != self.feature_channels:
            raise ValueError(
                f"head {name!r} takes {head.in_channels} channels; the decoder gives {self.feature_channels}"
            )
        self.heads[name] = head

    def set_convention(self, convention: InputConvention) -> None:
        """Normalize from now on as other weights want it."""
        self.convention = convention
        for name, values in (("mean", convention.mean), ("std", convention.std)):
            self.register_buffer(
                name, self.get_buffer(name).new_tensor(values).view(1, -1, 1, 1), persistent=False
            )

    def normalize(self, images: Tensor) -> Tensor:
        """Turn ``(N, 3, H, W)`` RGB values 0-255 (uint8 or float) into the network's input."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        x = images.to(mean.dtype) / self.convention.scale
        if self.convention.order == "BGR":
            x = x.flip(1)
        normalized: Tensor = (x - mean) / std
        return normalized

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's maps of ``(N, 3, H, W)`` RGB images 0-255, uint8 or float."""
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
