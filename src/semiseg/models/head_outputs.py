"""Outputs of a network and of all its heads in one pass, before they are enlarged."""

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import Network

LOGITS = "logits"
"""Name of the classifier's output."""

Outputs = dict[str, Tensor]
"""Outputs of a pass: "logits" ``(N, K, h, w)`` and that of each head by its name."""


def head_outputs(model: Network, images: Tensor) -> Outputs:
    """Pass images ``(N, C, H, W)`` through a network and its heads; logits have the size of the decoder's map."""
    maps = model.encode(images)
    features = model.decode(maps)
    heads = {name: model.apply_head(name, maps, features) for name in model.heads}
    return heads | {LOGITS: model.classify(features, features.shape[-2:])}


def enlarged(logits: Tensor, like: Tensor) -> Tensor:
    """Return logits ``(N, K, *S)`` of the size of a map ``(..., *S)``: bilinear, aligned corners, at least float32."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return F.interpolate(precise, like.shape[-2:], mode="bilinear", align_corners=True)
