"""UniMatch (V1): FixMatch with two strong views and a stream whose features are perturbed (arXiv 2208.09910).

"Published code" is LiheYoung/UniMatch, ``unimatch.py`` and ``model/semseg/deeplabv3plus.py``.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput
from semiseg.declare import Ge, record
from semiseg.methods.confidence import Guess
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.weak_strong import LabelingLearner, Partner, Teacher, WeakStrongSettings
from semiseg.pseudo import channel_masks, own_rows, torch_generator


@record
class UniMatch(WeakStrongSettings):
    """UniMatch, L = (L_x + weight * (strong_weight * (L_s1 + L_s2) / 2 + feature_weight * L_fp)) / 2."""

    teacher: Teacher = "student_train"
    """Network that labels weak views: the student in the same training pass as the labeled images ("student_train", as
    published), the student in evaluation mode, or its "ema" in evaluation mode."""
    partner: Partner = "same_images"
    """Image that CutMix takes the boxes from: "same_images", the same images in another draw of all views, labeled in
    evaluation mode (as published); the batch in "reversed" order, as UniMatch V2, without this pass; or "independent"
    images in another draw."""
    strong_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the mean of both strong views. Published: 0.5."""
    feature_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the stream with perturbed features. Published: 0.5."""

    needs_unlabeled: ClassVar[bool] = True

    def run(self, lab: Lab) -> Network:
        """Train one network and return it, or its EMA."""
        network = lab.network("model", probe_rounds=self.probe_rounds)
        learner = UniMatchLearner(network, self, self.labeled_loss(lab))
        return lab.fit("train", learner, self.streams(lab, strong=2)).selected


class Passes(NamedTuple):
    """Logits of a step, ``(N, K, H, W)``, and pseudo-labels.

    Args:
        x: logits of the labeled images.
        s1: logits of the first strong view, mixed.
        s2: logits of the second strong view, mixed.
        fp: logits of the weak view with perturbed features.
        guess: pseudo-labels of the weak view.
        partner_guess: pseudo-labels of the partner's weak view; ``None`` where partners are in the same batch.
    """

    x: Tensor
    s1: Tensor
    s2: Tensor
    fp: Tensor
    guess: Guess
    partner_guess: Guess | None


class UniMatchLearner(LabelingLearner):
    """One step of UniMatch on the streams "labeled" and "unlabeled", and "partner" unless partners are reversed.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: UniMatch, loss: LabeledLoss) -> None:
        super().__init__(model, method, loss)
        self.method = method

    def full_step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = (L_x + weight * (strong_weight * (L_s1 + L_s2) / 2 + feature_weight * L_fp)) / 2."""
        passes = self.passes(batch, progress)
        labeled = self.known_loss(passes.x, batch["labeled"]["label"])
        losses = {"labeled": LossTerm(*labeled, 0.5)}
        for name, (weight, logits, target) in self.unlabeled_terms(
            batch, passes, passes.guess, passes.partner_guess
        ).items():
            losses[name] = LossTerm(*self.method.guessed_loss(logits, target), 0.5 * weight)
        return StepOutput(losses, passes.guess.statistics())

    def passes(self, batch: Batch, progress: Progress) -> Passes:
        """Make all passes of a step."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        self.observe(batch)
        partner_guess = self.label_partner(batch)
        logits_x, logits_w, logits_fp = self._clean_and_perturbed(known["image"], own["image"], progress)
        if method.teacher == "student_train":
            guess = self.labeler(logits_w.detach(), own["valid"])
        else:
            guess = self.label(own["image"], own["valid"])
        # Each view has its own box, both take the same partner.
        views = [method.mixed_view(view, own, batch.get("partner")) for view in (1, 2)]
        logits_s = self.model(torch.cat(views)).chunk(2)
        return Passes(logits_x, logits_s[0], logits_s[1], logits_fp, guess, partner_guess)

    def unlabeled_terms(
        self, batch: Batch, passes: Passes, guess: Guess, partner_guess: Guess | None
    ) -> dict[str, tuple[float, Tensor, Guess]]:
        """Return weight, logits and pseudo-labels of the three unlabeled terms."""
        method, own = self.method, batch["unlabeled"]
        strong = method.weight * method.strong_weight / 2
        return {
            "strong_1": (strong, passes.s1, method.mixed_guess(1, own, guess, partner_guess)),
            "strong_2": (strong, passes.s2, method.mixed_guess(2, own, guess, partner_guess)),
            "features": (method.weight * method.feature_weight, passes.fp, guess),
        }

    def _clean_and_perturbed(
        self, known: Tensor, weak: Tensor, progress: Progress
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of labeled images and weak views, and of the weak views with perturbed features.

        One pass of the encoder; the decoder sees all images twice, clean and perturbed, and so do the statistics of
        its batch norms.
        """
        maps = self.model.encode(torch.cat([known, weak]))
        masks = self.feature_masks(maps, progress)
        doubled = [
            torch.cat([each, each * mask[:, :, None, None].to(each.dtype)])
            for each, mask in zip(maps, masks, strict=True)
        ]
        logits = self.model.classify(self.model.decode(doubled), known.shape[-2:])
        clean, perturbed = logits.chunk(2)
        return clean[: len(known)], clean[len(known) :], perturbed[len(known) :]

    def feature_masks(self, maps: Sequence[Tensor], progress: Progress) -> list[Tensor]:
        """Draw the channel masks of 0 and 2 of each map, ``(N, channels)``, as ``Dropout2d(0.5)`` would."""
        total, rows = own_rows(progress, len(maps[0]))
        generator = torch_generator(progress, "features", maps[0].device)
        return [channel_masks(generator, total, each.shape[1])[rows] for each in maps]
