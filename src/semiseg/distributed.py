"""Processes that train together: how many there are, and what is exchanged between them."""

from torch import Tensor, distributed


def ranks() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gathered(values: Tensor) -> Tensor:
    """Stack the tensors ``(n, ...)`` of all ranks in their order, ``(ranks, n, ...)``, without gradient."""
    values = values.detach().contiguous()
    if ranks() == 1:
        return values[None]
    stacked = values.new_empty((ranks(), *values.shape))
    # gloo takes the concatenated shape only.
    distributed.all_gather_into_tensor(stacked.flatten(0, 1), values)
    return stacked


def over_ranks(values: Tensor) -> Tensor:
    """Concatenate the tensors ``(n, ...)`` of all ranks in their order, without gradient."""
    return values if ranks() == 1 else gathered(values).flatten(0, 1)


def add_over_ranks(values: Tensor) -> None:
    """Replace the values by their sum over all ranks, in place."""
    if ranks() > 1:
        distributed.all_reduce(values)
