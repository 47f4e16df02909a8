"""Weights of other code bases, and of semiseg itself, as initial weights of a network."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from semiseg.errors import UserError
from semiseg.models.formats import CPS, FORMATS, Format
from semiseg.models.lora import merged_state
from semiseg.models.segmodel import Backbone, Converted, InputConvention, SegModel
from semiseg.models.tuning import tuning_of
from semiseg.models.weights import State, load_state, misfits, read_content, some, state_of

PARTS = ("backbone", "decoder", "classifier")
OWN = "semiseg"
AVERAGE = "model_ema"
"""Entry of a checkpoint with the average of the weights over the training."""

log = logging.getLogger(__name__)
_logged: set[str] = set()


def convert(state: Mapping[str, Tensor], *, branch: int = 1) -> Converted:
    """Find the format of a state dict by its names, and translate them.

    Known are ResNets of torchvision and with the deep stem of v1c or of timm's ``resnet50s``, UniMatch's Xception-65,
    plain vision transformers of DINOv2 and timm, the mix transformers of SegFormer, the DeepLabV2 of AdvSemiSeg that
    was trained on COCO, the checkpoints of DST-CBC (DMT), DMTC, ST++, CPS, CAC, UniMatch, UniMatch V2, CorrMatch and
    SegFormer, and those of semiseg. The prefix
    ``module.`` of data-parallel training is removed.

    Args:
        state: names and tensors.
        branch: number of the network in a CPS checkpoint, 1 (published as its result) or 2.

    Raises:
        UserError: no format has these names, or the format that fits lacks some of them.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    left_out: dict[str, int] = {}
    inner = f"branch{branch}."
    if f"{inner}{CPS.mark}" in state:
        others = [key for key in state if not key.startswith(inner)]
        left_out = dict(Counter(key.split(".")[0] for key in others))
        state = {key.removeprefix(inner): value for key, value in state.items() if key.startswith(inner)}
    found = next((each for each in FORMATS if each.mark in state), None)
    if found is None:
        found = _own_format(state)
    return _translate(found, state, left_out)


def read_converted(path: str | Path, *, ema: bool = False) -> Converted:
    """Read a weights file of any known format; nothing but tensors and plain values is unpickled.

    Args:
        path: weights file.
        ema: whether ``model_ema`` is read where the file holds it and ``model``.

    Raises:
        UserError: the file is missing, damaged, holds something else, or is of no known format.
    """
    content = read_content(path)
    averaged = ema and isinstance(content, Mapping) and isinstance(content.get(AVERAGE), Mapping)
    state = state_of(content[AVERAGE] if averaged else content, path)
    source = f"{path}, its {AVERAGE}" if averaged else str(path)
    if isinstance(content, Mapping) and {"convention", "config"} <= content.keys():
        if "lora" in (node := content["config"]["backbone"]):
            state = merged_state(state, tuning_of({"lora": node["lora"]}).lora)
        return replace(
            _translate(_own_format(state), state, {}),
            convention=InputConvention.from_dict(content["convention"]),
            source=source,
        )
    try:
        return replace(convert(state), source=source)
    except UserError as error:
        raise UserError(f"Weights file {path}: {error}") from error


def load_backbone(
    backbone: Backbone,
    found: Converted,
    target: str,
    hint: str,
    describe: Callable[[State], str] = lambda _: "",
) -> None:
    """Load the backbone's entries of a weights file, all of which have to fit.

    Args:
        backbone: backbone to load into.
        found: content of the file.
        target: name of the backbone, for the error.
        hint: advice for the error.
        describe: function that names the network of a state dict, for the error; "" where it does not know.

    Raises:
        UserError: entries are missing, left over or of another shape.
    """
    kind = describe(found.backbone)
    format = f"looks like {kind}, format {found.format}" if kind else found.format
    load_state(backbone, found.backbone, f"Weights file {found.source} ({format})", target, hint)


def convention_of(found: Converted) -> InputConvention:
    """Return the input that the weights of a file were trained with.

    Raises:
        UserError: the file does not say.
    """
    if found.convention is None:
        raise UserError(
            f"Weights file {found.source} ({found.format}) does not say the input that it was trained with, and with "
            "another one it is worth nothing. Give it: backbone.convention=coco for a network that began from COCO "
            "weights (BGR, 0-255), backbone.convention=imagenet for one that began from ImageNet's."
        )
    return found.convention


def load_head(model: SegModel, found: Converted) -> None:
    """Load decoder and classifier where all their names and shapes fit, else leave them as they are.

    One line of the log, once in a process, says what was loaded and what keeps its initial weights.
    """
    said = [f"backbone loaded ({len(found.backbone)} entries)"]
    for part, state in (("decoder", found.decoder), ("classifier", found.classifier)):
        module = model.get_submodule(part)
        own = module.state_dict()
        if state and not (differences := misfits(own, state)):
            load_state(module, state, found.source, part)
            said.append(f"{part} loaded ({len(state)} entries)")
        elif own:
            reason = ", ".join(differences) if state else "the file has none"
            said.append(f"{part} keeps its first weights ({reason})")
    if found.left_out:
        names = ", ".join(f"{name} ({count} entries)" for name, count in found.left_out.items())
        said.append(f"not used: {names}")
    line = f"{found.source}, format {found.format}: {'; '.join(said)}."
    # Methods build several networks from one file.
    if line not in _logged:
        _logged.add(line)
        log.info(line)


def _own_format(state: Mapping[str, Tensor]) -> Format:
    if not any(key.startswith("backbone.") for key in state):
        known = ", ".join(each.name for each in FORMATS)
        raise UserError(
            f"its {len(state)} entries are named as in no known format, for example {some(list(state))}.\n"
            f"Known are: {known}, {OWN}. Rename them as torchvision names those of its ResNets."
        )
    names = {f"{part}.": f"{part}." for part in PARTS}
    return Format(OWN, "", names | {"": ""})


def _translate(kind: Format, state: Mapping[str, Tensor], left_out: Mapping[str, int]) -> Converted:
    parts: dict[str, State] = {part: {} for part in PARTS}
    dropped = Counter(left_out)
    strange = []
    for key, value in state.items():
        # The first that fits: a format ends in "", which takes all that is left.
        prefix = next((each for each in kind.names if key.startswith(each)), None)
        if prefix is None:
            strange.append(key)
        elif not kind.names[prefix]:
            dropped[key.split(".")[0]] += 1
        else:
            part, _, name = f"{kind.names[prefix]}{key.removeprefix(prefix)}".partition(".")
            parts[part][name] = value
    if strange:
        raise UserError(
            f"it looks like {kind.name}, but {len(strange)} of its {len(state)} entries are unknown there: "
            f"{some(strange)}."
        )
    return Converted(
        kind.name, parts["backbone"], parts["decoder"], parts["classifier"], kind.convention, dict(dropped)
    )
