"""PrevMatch: UniMatch that also learns pseudo-labels of an ensemble of its earlier networks (arXiv 2405.20610).

"Published code" is wooseok-shin/PrevMatch, ``prevmatch.py``.
"""

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import Split
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.declare import Ge, Le, record
from semiseg.errors import UserError
from semiseg.losses import weighted_image_loss
from semiseg.methods.confidence import ConfidenceSettings, Guess, PseudoLabeler
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.unimatch import UniMatch, UniMatchLearner
from semiseg.pseudo import step_generator

Weighting = Literal["pixelavg_shipped", "pixelavg", "pixelratio", "pixel"]
PREFIX = "previous."


@record
class PrevMatch(UniMatch):
    """PrevMatch, L = (L_x + L_u + lambda * L_prev) / (2 + lambda), with the terms of UniMatch as L_u and L_prev."""

    previous: Annotated[int, Ge(1)] = 8
    """Number of earlier networks that are kept, the oldest is dropped. Published: 8; COCO and ADE20K 5."""
    previous_when: Literal["new_best", "every"] = "new_best"
    """Evaluations whose network is kept: a "new_best" on the validation images, as published, or "every" one."""
    base_epochs: Annotated[int, Ge(0)] = 0
    """Epochs at the beginning whose networks are not kept."""
    ensemble: Annotated[int, Ge(1)] = 3
    """Largest number of earlier networks that label a batch together; it is drawn from 1 to this. Published: 3."""
    previous_threshold: Annotated[float, Ge(0), Le(1)] = 0.9
    """Probability that a pseudo-label of earlier networks needs at least. Published: VOC 0.9, Cityscapes 0."""
    previous_weighting: Weighting = "pixel"
    """Weight of pixels in L_prev: confident ones alone ("pixel", published for VOC); all of an image by their mean
    confidence ("pixelavg"); the same as shipped for Cityscapes, where each image's mean weighs the loss of the whole
    batch, padding included, which is N times too large ("pixelavg_shipped"); or all by the image's share of confident
    ones ("pixelratio")."""

    def check_split(self, split: Split) -> None:
        """Require validation images, at whose evaluations networks are kept.

        Raises:
            UserError: there are none.
        """
        if not split.val:
            raise UserError(
                "the dataset has no validation images, at whose evaluations the earlier networks are kept. Choose "
                "method=unimatch, or give validation images.",
                key="method",
                value="prevmatch",
            )

    def run(self, lab: Lab) -> Network:
        """Train one network and return it, or its EMA."""
        streams = self.streams(lab, strong=2)
        network = lab.network("model", probe_rounds=self.probe_rounds)
        epochs = -(-streams.iterations // streams.iterations_per_epoch)
        learner = PrevMatchLearner(network, self, self.labeled_loss(lab), epochs)
        return lab.fit("train", learner, streams).selected


class PrevMatchLearner(UniMatchLearner):
    """One step of PrevMatch; the earlier networks are submodules, so that a checkpoint holds them.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
        epochs: epochs of the fit, by which lambda rises and falls.
    """

    def __init__(self, model: Network, method: PrevMatch, loss: LabeledLoss, epochs: int) -> None:
        super().__init__(model, method, loss)
        self.settings = method
        self.epochs = epochs
        self.guess_of_previous = PseudoLabeler(
            ConfidenceSettings(threshold=method.previous_threshold), model.num_classes
        )
        self.previous = nn.ModuleList()

    def after_evaluation(self, new_best: bool, progress: Progress) -> None:
        """Keep a copy of the network, and drop the oldest."""
        due = new_best or self.settings.previous_when == "every"
        if due and progress.epoch >= self.settings.base_epochs:
            kept = [*self.previous, copy.deepcopy(self.model).requires_grad_(False)]
            self.previous = nn.ModuleList(kept[-self.settings.previous :])

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state with any number of earlier networks."""
        count = len({key.split(".")[1] for key in state_dict if key.startswith(PREFIX)})
        copies = [copy.deepcopy(self.model).requires_grad_(False) for _ in range(count)]
        self.previous = nn.ModuleList(copies)
        return super().load_state_dict(state_dict, strict, assign)

    def full_step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = (L_x + L_u + lambda * L_prev) / (2 + lambda)."""
        passes = self.passes(batch, progress)
        weight = ramp(progress.epoch, self.epochs) if len(self.previous) else 0.0
        share = 1 / (2 + weight)
        labeled = self.known_loss(passes.x, batch["labeled"]["label"])
        losses = {"labeled": LossTerm(*labeled, share)}
        own = self.unlabeled_terms(batch, passes, passes.guess, passes.partner_guess)
        for name, (factor, logits, target) in own.items():
            losses[name] = LossTerm(*self.method.guessed_loss(logits, target), share * factor)
        if len(self.previous):
            earlier = self.unlabeled_terms(batch, passes, *self.label_by_previous(batch, progress))
            for name, (factor, logits, target) in earlier.items():
                losses[f"previous_{name}"] = LossTerm(
                    *self._previous_loss(logits, target), share * weight * factor
                )
        count = torch.full((), float(len(self.previous)), device=passes.x.device)
        return StepOutput(losses, passes.guess.statistics() | {"previous_networks": count})

    @torch.no_grad()
    def label_by_previous(self, batch: Batch, progress: Progress) -> tuple[Guess, Guess | None]:
        """Return the pseudo-labels of the weak views, and of their partners, by a random ensemble."""
        chosen, weights = self.draw(progress)
        views = [batch["unlabeled"], *([batch["partner"]] if "partner" in batch else [])]
        images = torch.cat([view["image"] for view in views])
        logits: Tensor | None = None
        for index, weight in zip(chosen, weights, strict=True):
            network = cast(Network, self.previous[index]).eval()
            answer = weight * network(images)
            logits = answer if logits is None else logits + answer
        assert logits is not None
        valid = torch.cat([view["valid"] for view in views])
        guess, count = self.guess_of_previous(logits, valid), len(batch["unlabeled"]["image"])
        partner = Guess(*(each[count:] for each in guess)) if "partner" in batch else None
        return Guess(*(each[:count] for each in guess)), partner

    def draw(self, progress: Progress) -> tuple[list[int], list[float]]:
        """Draw which earlier networks label a batch, and their weights, which sum up to 1."""
        # Published code: the number by NumPy, the choice by Python, the weights by a flat Dirichlet distribution.
        generator = step_generator(progress, "previous")
        count = min(int(generator.integers(1, self.settings.ensemble + 1)), len(self.previous))
        chosen = generator.choice(len(self.previous), count, replace=False)
        return chosen.tolist(), generator.dirichlet([1.0] * count).tolist()

    def _previous_loss(self, logits: Tensor, guess: Guess) -> SumCount:
        weighting = self.settings.previous_weighting
        if weighting == "pixel":
            return self.method.guessed_loss(logits, guess)
        return weighted_image_loss(
            logits, guess.label, guess.confidence, guess.keep, guess.valid, weighting, reduction="sum_count"
        )


def ramp(epoch: int, epochs: int) -> float:
    """Return lambda of an epoch: from 0 to 1 in the first half of the training, and back to 0 in the second."""
    half = epochs // 2
    return epoch / half if epoch < half else 1 - (epoch - half) / (epochs - half)
