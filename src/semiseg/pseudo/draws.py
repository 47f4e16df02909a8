"""Random draws inside a training step: the same for any number of processes that share its batch.

A draw is a function of (seed, step name, iteration, slot). Each process (rank) holds a part of the batch's images.
Two rules keep draws independent of the number of ranks:

- A draw for every image (CutMix boxes, feature masks) is made for the images of all ranks, and each keeps its own part:
  ``total, rows = own_rows(progress, len(images))``.
- A draw among the pixels or cells of the whole batch (contrastive queries, negatives) needs them all: gather them over
  the ranks first, then draw with the same generator everywhere.

``step_generator`` and ``torch_generator`` begin equally on all ranks. Dropout and other layers that draw by themselves
use torch's global generator, which is seeded anew for every pass, by ``Progress.seed``. Where several ranks share a
pass, each has to add its own number to that seed (``derive_seed(progress.seed, "rank", progress.rank)``), or their
images would get equal masks. So with dropout a result depends on the number of ranks; nothing else may.
"""

import numpy as np
import torch
from torch import Tensor

from semiseg.contracts.training import Progress
from semiseg.seeding import derive_seed


def step_generator(progress: Progress, name: str) -> np.random.Generator:
    """Return a NumPy generator for the draws called ``name`` in this pass, the same on all ranks."""
    return np.random.default_rng(derive_seed(progress.seed, name))


def torch_generator(progress: Progress, name: str, device: torch.device) -> torch.Generator:
    """Return a torch generator on a device for the draws called ``name`` in this pass, the same on all ranks."""
    return torch.Generator(device).manual_seed(derive_seed(progress.seed, name))


def own_rows(progress: Progress, count: int) -> tuple[int, slice]:
    """Return for how many images to draw, and which of these draws belong to this process.

    Args:
        progress: the pass.
        count: number of images of a stream, or of other equal parts of it, that this process holds.

    Returns:
        The number over all ranks, and the rows of this one.
    """
    first = progress.rank * count
    return progress.ranks * count, slice(first, first + count)


def on_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy draws from the CPU to a device without waiting for it; what is drawn should be small, such as corners."""
    # A copy from memory that is not page-locked would wait for the work before it.
    return (drawn.pin_memory() if device.type == "cuda" else drawn).to(device, non_blocking=True)
