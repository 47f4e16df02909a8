"""Building a network from its parts, and storing it in a file from which it can be built again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from semiseg.contracts.dataset import Bands, DatasetInfo
from semiseg.contracts.training import Network
from semiseg.declare import accepts, split_shared
from semiseg.errors import UserError
from semiseg.models.convert import load_head
from semiseg.models.input_channels import band_convention, extend_input
from semiseg.models.lora import is_low_rank, merged_state
from semiseg.models.precision import as_stored
from semiseg.models.segmodel import FEATURES, Backbone, Decoder, InputConvention, SegModel, Stage
from semiseg.models.tuning import Tuning, tuning_of
from semiseg.models.weights import State, load_state, require_finite

FORMAT = 1


def segmentation_model(
    backbone: Backbone,
    decoder: Callable[[Sequence[Stage]], Decoder],
    num_classes: int,
    bands: Bands | None = None,
) -> SegModel:
    """Return a segmentation network with a fresh decoder and classifier.

    Where the file of the backbone's weights holds these too and they fit, they are loaded.

    Args:
        backbone: backbone, which may have read weights of decoder and classifier too.
        decoder: class of the decoder or ``functools.partial`` of one, called with the stages of the backbone.
        num_classes: number of classes K, the ignored label not counted.
        bands: channels of the images, to which the first convolution is extended; ``None`` for 8-bit RGB.

    Raises:
        UserError: the backbone lacks a map that the decoder needs, or its first layer cannot be extended.
    """
    if bands is not None:
        extend_input(backbone, bands.channels)
    head = decoder(backbone.stages)
    # A decoder of one's own need not be a ``Decoder``.
    align = bool(getattr(head, "align_logits", True))
    model = SegModel(backbone, head, head.make_classifier(num_classes), num_classes, align)
    if (initial := backbone.read_weights()) is not None:
        load_head(model, initial)
    if bands is not None:
        model.set_convention(band_convention(bands))
    return model


def bundle(model: Network, info: DatasetInfo, config: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
    """Copy a network into a dict that ``torch.load(weights_only=True)`` can read back after ``torch.save``.

    Args:
        model: network; its tensors are copied to the CPU.
        info: names and colors of the classes.
        config: nodes ``{"backbone": node, "model": node}``, each with the arguments of the component and its class
            as ``_target_``.
        extra: plain values to store with it: ``step``, ``iteration``, the primary score.

    Raises:
        TypeError: a value of ``config``, of a head's ``config()`` or of ``extra`` is not plain.
    """
    return {
        **_plain(extra),
        "format": FORMAT,
        "state_dict": {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()},
        **network_state(model),
        "classes": list(info.classes),
        "palette": [list(color) for color in info.palette],
        "config": {part: _plain(config[part]) for part in ("backbone", "model")},
        # Left out for RGB and for networks of the run's own kind: checkpoints of versions without them stay equal.
        **({} if info.bands is None else {"bands": info.bands.as_dict()}),
        **({} if model.role is None else {"role": model.role}),
    }


def network_state(model: Network) -> dict[str, Any]:
    """Return the input convention and the heads of a network as plain values, which its config does not hold.

    ``sources`` names the map that a head reads, where that is not the decoder's.
    """
    state: dict[str, Any] = {
        "convention": model.convention.as_dict(),
        "heads": {name: _plain(head.config()) for name, head in model.heads.items()},  # type: ignore[operator]
    }
    # Left out where it is empty: checkpoints of versions without sources stay equal.
    if sources := {name: model.sources[name] for name in model.heads if model.sources[name] != FEATURES}:
        state["sources"] = sources
    return state


def restore_heads_and_input(model: Network, values: Mapping[str, Any]) -> None:
    """Restore input convention and heads of ``network_state`` or of a bundle in a fresh network.

    The heads have fresh weights.

    Raises:
        UserError: a head's class is no ``nn.Module`` class, or does not fit the network.
    """
    model.set_convention(InputConvention.from_dict(values["convention"]))
    sources = values.get("sources", {})
    for name, node in values.get("heads", {}).items():
        head_type, options = _component(node)
        try:
            model.attach(name, head_type(**options), sources.get(name, FEATURES))
        except (TypeError, ValueError) as error:
            raise UserError(f"The checkpoint's head {name!r} cannot be built: {error}.") from error


def from_bundle(values: Mapping[str, Any]) -> SegModel:
    """Return the network of a bundle, on the CPU and in evaluation mode.

    The classes that it names are called only if they are ``nn.Module`` classes, with the weights of the
    bundle instead of ``backbone.weights``.

    Raises:
        UserError: the dict is no bundle, has another format, names no network, or its tensors don't fit or
            are not finite.
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
    backbone_type, options = _component(values["config"]["backbone"], Backbone)
    decoder_type, decoder_options = _component(values["config"]["model"])
    if "weights" in options:
        options["weights"] = "none"
    options, _ = split_shared(backbone_type, options)
    backbone = backbone_type(**options).tune(_low_rank(values))
    decoder = partial(decoder_type, **decoder_options)
    model = segmentation_model(backbone, decoder, len(values["classes"]), bundled_bands(values))
    restore_heads_and_input(model, values)
    require_finite(values["state_dict"], "The checkpoint")
    as_stored(model, values["state_dict"])
    load_state(model, values["state_dict"], "The checkpoint", "the network that its own config describes")
    return model.eval()


def fitted_state(values: Mapping[str, Any], network: Network) -> State:
    """Return the tensors of a bundle by the names that a network has, whose low-rank matrices may be others.

    Where they are, those of the bundle are merged into its weights, and those of the network stay.

    Args:
        values: bundle.
        network: network of the same structure apart from them.
    """
    state: State = values["state_dict"]
    own = {key: value for key, value in network.state_dict().items() if is_low_rank(key)}
    if not own and not any(map(is_low_rank, state)):
        return state
    if isinstance(network.backbone, Backbone) and network.backbone.tuning.structure == _low_rank(values):
        return state
    return {**merged_state(state, _low_rank(values).lora), **own}


def _low_rank(values: Mapping[str, Any]) -> Tuning:
    """Return the settings of the low-rank matrices in a bundle."""
    backbone = values["config"]["backbone"]
    return tuning_of({key: backbone[key] for key in ("freeze", "lora") if key in backbone}).structure


def bundled_bands(values: Mapping[str, Any]) -> Bands | None:
    """Return the channels of the images that the network of a bundle takes; ``None`` for 8-bit RGB."""
    return Bands(**values["bands"]) if "bands" in values else None


def _component(
    node: Mapping[str, Any], kind: type[nn.Module] = nn.Module
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the class and the arguments of a config node; refuse what is not a network class of a kind."""
    target = str(node.get("_target_", ""))
    options = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The checkpoint's network class {target!r} can't be imported ({error}). "
            "If it is your own, start from the directory that it is in."
        ) from error
    # A checkpoint from a stranger must not get any other function called.
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise UserError(
            f"The checkpoint names {target!r}, which is not a network class ({kind.__name__}); refused."
        )
    if not accepts(found, "name"):  # the name of an option need not be an argument of its class
        options.pop("name", None)
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
