"""Weights files of plain vision transformers, in the names of timm, DINOv2, UniMatch V2 or semiseg."""

import re
from dataclasses import replace

from semiseg.models.convert import read_converted
from semiseg.models.segmodel import Backbone, Converted
from semiseg.models.weights import State, load_state

SWIGLU = {".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}
"""Names of the giant's linear layers in DINOv2 and in timm."""


def read_transformer(path: str, ema: bool) -> Converted:
    """Read a file, and name the entries of its backbone as in ``ViT``.

    Args:
        path: file in timm's names, official of DINOv2, or a checkpoint of UniMatch V2 or semiseg.
        ema: whether ``model_ema`` is read where the file holds it and ``model``.

    Raises:
        UserError: the file is missing, damaged, holds something else, or is of no known format.
    """
    found = read_converted(path, ema=ema)
    return replace(found, backbone=timm_names(found.backbone))


def timm_names(state: State) -> State:
    """Turn the entries of DINOv2 below ``net.`` into timm's; those of timm stay.

    With registers, timm adds the position of the class token to that token.
    """
    state = {
        re.sub("|".join(map(re.escape, SWIGLU)), lambda found: SWIGLU[found[0]], key): value
        for key, value in state.items()
    }
    registers = state.pop("net.register_tokens", None)
    positions, token = state.get("net.pos_embed"), state.get("net.cls_token")
    if registers is not None:
        state["net.reg_token"] = registers
        if positions is not None and token is not None:
            state["net.cls_token"] = token + positions[:, :1]
            state["net.pos_embed"] = positions[:, 1:]
    return state


def load_transformer(backbone: Backbone, found: Converted, network: str, depth: int) -> None:
    """Load the entries of a file strictly, but for those of parts that the backbone does not use.

    Args:
        backbone: ``ViT`` to load into.
        found: content of the file.
        network: timm's name of the network, for the error.
        depth: number of blocks that the backbone has kept.

    Raises:
        UserError: names or shapes differ; it names some and counts all.
    """
    own = backbone.state_dict()

    def unused(key: str) -> bool:
        number = re.match(r"net\.blocks\.(\d+)\.", key)
        later = number is not None and int(number[1]) >= depth
        return later or (key not in own and key.startswith(("net.norm.", "net.fc_norm.")))

    load_state(
        backbone,
        {key: value for key, value in found.backbone.items() if not unused(key)},
        f"Weights file {found.source} ({found.format})",
        f"timm's {network}",
        "Give the file made for this backbone.network, or the network that the file was made for.",
    )
