"""Processes that train together: how many there are, and what is exchanged between them."""

import torch
from torch import Tensor, distributed


def ranks() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gathered(values: Tensor) -> list[Tensor]:
    """Tensors of equal shape of all ranks in their order, without gradient."""
    if ranks() == 1:
        return [values]
    with torch.no_grad():
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(ranks())]
        distributed.all_gather(parts, values.contiguous())
    return parts


def over_ranks(values: Tensor) -> Tensor:
    """Concatenate the tensors ``(n, ...)`` of all ranks in their order, without gradient."""
    return values if ranks() == 1 else torch.cat(gathered(values))


def add_over_ranks(values: Tensor) -> None:
    """Replace the values by their sum over all ranks, in place."""
    if ranks() > 1:
        distributed.all_reduce(values)
