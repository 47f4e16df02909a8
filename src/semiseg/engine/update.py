"""Change of the weights by the gradients of a step: brought to their scale, clipped, and given to the optimizers."""

from typing import Any, cast

import torch
from torch import Tensor

from semiseg.contracts.training import Learner, Optimizer
from semiseg.engine.joint_optimizer import JointOptimizer


class Update:
    """Optimizers of a fit with what their gradients go through.

    Args:
        learner: learner whose gradients are clipped.
        optimizer: optimizer over its parameters.
        scaler: scale of the losses; a step whose scaled gradients are not finite leaves the weights as they are.
        clip: largest norm of the gradient; ``None`` does not clip.
    """

    def __init__(
        self, learner: Learner, optimizer: Optimizer, scaler: torch.amp.GradScaler, clip: float | None
    ) -> None:
        self._learner, self._optimizer, self._scaler, self._clip = learner, optimizer, scaler, clip

    def scaled(self, loss: Tensor) -> Tensor:
        """Return a loss as it is to be differentiated."""
        return self._scaler.scale(loss)

    def apply(self) -> None:
        """Change the weights by the gradients that they have."""
        parts = self._parts()
        for part in parts:
            self._scaler.unscale_(part)
        if self._clip is not None:
            # Reads nothing back: the factor stays on the device.
            torch.nn.utils.clip_grad_norm_(self._learner.parameters(), self._clip)
        for part in parts:
            self._scaler.step(part)
        if parts:
            self._scaler.update()

    def _parts(self) -> list[torch.optim.Optimizer]:
        """The optimizers that have gradients; the scaler knows no others."""
        optimizer = self._optimizer
        parts = optimizer.parts if isinstance(optimizer, JointOptimizer) else (optimizer,)
        return [
            cast(torch.optim.Optimizer, part)
            for part in parts
            if any(each.grad is not None for group in part.param_groups for each in group["params"])
        ]

    def logged(self) -> dict[str, float]:
        """Return the scale, to be logged; nothing where losses are not scaled."""
        return {"train/loss_scale": self._scaler.get_scale()} if self._scaler.is_enabled() else {}

    def state(self) -> dict[str, Any]:
        """Entries of a checkpoint beside those of the optimizer; none where losses are not scaled."""
        return {"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
