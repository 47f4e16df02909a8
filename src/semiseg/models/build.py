"""Putting a network together, and taking it apart into a file that stands on its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.training import Network
from semiseg.errors import UserError
from semiseg.models.convert import load_head
from semiseg.models.segmodel import InputConvention, SegModel
from semiseg.models.weights import load_state

FORMAT = 1


class Decoder(Protocol):
    """What turns a backbone's maps into one; an ``nn.Module``."""

    out_channels: int

    def __call__(self, features: Sequence[Tensor]) -> Tensor:
        """Map ``[c1, c2, c3, c4]`` to a feature map ``(N, out_channels, h, w)``."""
        ...

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Return the module that maps this feature map to logits ``(N, num_classes, h, w)``."""
        ...


DecoderFactory = Callable[..., Any]
"""Called with ``in_channels`` (of c1..c4) and ``output_stride``; returns a ``Decoder``."""


def segmentation_model(backbone: nn.Module, decoder: DecoderFactory, num_classes: int) -> SegModel:
    """Return a segmentation network with a fresh decoder and classifier.

    Where the file of the backbone's weights holds these too and they fit, they are loaded.

    Args:
        backbone: see ``semiseg.models.segmodel.Backbone``.
        decoder: a decoder class or ``functools.partial`` of one.
        num_classes: K, the ignored label not counted.
    """
    head = decoder(in_channels=backbone.channels, output_stride=backbone.output_stride)
    model = SegModel(backbone, head, head.make_classifier(num_classes), num_classes)
    initial = getattr(backbone, "initial", None)
    if initial is not None:
        load_head(model, initial)
        backbone.initial = None  # type: ignore[assignment]
    return model


def bundle(model: Network, info: DatasetInfo, config: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
    """Copy a network into a dict that ``torch.load(weights_only=True)`` can read back after ``torch.save``.

    Args:
        model: the network; its tensors are copied to the CPU.
        info: gives class names and palette.
        config: ``{"backbone": node, "model": node}``, each the arguments of the component and its class
            as ``_target_``.
        extra: plain values to keep with it: ``step``, ``iteration``, the primary score.

    Raises:
        TypeError: a value of ``config``, of a head's ``config()`` or of ``extra`` is not plain.
    """
    return {
        **_plain(extra),
        "format": FORMAT,
        "state_dict": {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()},
        **traits(model),
        "classes": list(info.classes),
        "palette": [list(color) for color in info.palette],
        "config": {part: _plain(config[part]) for part in ("backbone", "model")},
    }


def traits(model: Network) -> dict[str, Any]:
    """Return what a network has beyond its config: its input convention and its heads, as plain values."""
    heads = {name: _plain(head.config()) for name, head in model.heads.items()}  # type: ignore[operator]
    return {"convention": model.convention.as_dict(), "heads": heads}


def equip(model: Network, values: Mapping[str, Any]) -> None:
    """Give a fresh network the input convention and the heads of ``traits`` or of a bundle.

    The heads have fresh weights.

    Raises:
        UserError: a class that it names is no ``nn.Module`` class, or does not suit the network.
    """
    model.set_convention(InputConvention.from_dict(values["convention"]))
    for name, node in values.get("heads", {}).items():
        head_type, options = _component(node)
        try:
            model.attach(name, head_type(**options))
        except (TypeError, ValueError) as error:
            raise UserError(f"The checkpoint's head {name!r} cannot be built: {error}.") from error


def from_bundle(values: Mapping[str, Any]) -> SegModel:
    """Return the network of a bundle, on the CPU and in evaluation mode.

    The classes that it names are called only if they are ``nn.Module`` classes, with the weights of the
    bundle instead of ``backbone.weights``.

    Raises:
        UserError: the dict is no bundle, of another format, names no network, or its tensors don't fit.
    """
    missing = [
        key for key in ("format", "state_dict", "convention", "classes", "config") if key not in values
    ]
    if missing:
        raise UserError(f"This is no semiseg checkpoint: it lacks {', '.join(missing)}.")
    if values["format"] != FORMAT:
        raise UserError(
            f"The checkpoint has format {values['format']}; this version of semiseg reads format {FORMAT}."
        )
    backbone_type, options = _component(values["config"]["backbone"])
    decoder_type, decoder_options = _component(values["config"]["model"])
    if "weights" in options:
        options["weights"] = "none"
    backbone = backbone_type(**options)
    model = segmentation_model(
        backbone, lambda **shape: decoder_type(**shape, **decoder_options), len(values["classes"])
    )
    equip(model, values)
    load_state(model, values["state_dict"], "The checkpoint", "the network that its own config describes")
    return model.eval()


def _component(node: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class and the arguments of a config node; refuse what is not a network class."""
    target = str(node.get("_target_", ""))
    options = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The checkpoint's network class {target!r} can't be imported ({error}). "
            "If it is your own, start from the directory that it lies in."
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"The checkpoint names {target!r}, which is not a network class; refused.")
    return found, options


def _plain(value: Any) -> Any:
    """Copy nested mappings and sequences into dicts and lists; refuse anything that is not a plain value."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"not a plain value: {value!r} ({type(value).__name__})")
