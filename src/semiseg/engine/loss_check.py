"""Whether the loss of a step is finite, and what is said where it is not."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from semiseg.contracts.training import Batch, StepOutput
from semiseg.engine.compute import Readback
from semiseg.errors import RunFailed


class LossNotFinite(RunFailed):
    """A loss that is NaN or infinite.

    Args:
        message: iteration, terms and images, and what to do.
        terms: terms of the loss with their values.
    """

    def __init__(self, message: str, terms: str) -> None:
        super().__init__(message)
        self.terms = terms


class LossCheck:
    """The losses of one step and whether they are finite, which the host need not know before the next step.

    Args:
        iteration: 0-based number of the step.
        outputs: what the learner returned for each part of the batch.
        parts: the parts; their ids alone are kept.
        read: function that starts to read a tensor.
    """

    def __init__(
        self,
        iteration: int,
        outputs: Sequence[StepOutput],
        parts: Sequence[Batch],
        read: Callable[[Tensor], Readback] = Readback,
    ) -> None:
        self.iteration = iteration
        self._images = [image_ids(part) for part in parts]
        self._terms = [without_gradient(output).losses for output in outputs]
        self._reading = read(torch.stack([output.total.detach() for output in outputs]))

    @property
    def late(self) -> bool:
        """Whether the host would have to wait for the answer."""
        return self._reading.late

    def require_finite(self) -> None:
        """Wait for the losses.

        Raises:
            LossNotFinite: one is not finite; it names the first part of the batch that has such a loss.
        """
        finite = torch.isfinite(self._reading.values()).tolist()
        if all(finite):
            return
        part = finite.index(False)
        terms = ", ".join(f"{name} {float(term.mean):.4g}" for name, term in self._terms[part].items())
        raise LossNotFinite(
            f"The loss is not finite at iteration {self.iteration} ({terms}); the optimizer has not stepped.\n"
            f"Images of this batch: {self._images[part]}\n"
            "Look at these images and labels, lower optimizer.lr, or set trainer.clip_grad_norm.",
            terms,
        )


def image_ids(batch: Batch) -> str:
    """Name the images of a batch, for messages."""
    return "; ".join(f"{name}: {', '.join(part['id'])}" for name, part in batch.items())


def without_gradient(output: StepOutput) -> StepOutput:
    """Return a result that can be kept beyond the backward pass, after which its graph is to hold no memory."""
    losses = {name: dataclasses.replace(term, sum=term.sum.detach()) for name, term in output.losses.items()}
    return StepOutput(losses, output.scalars)
