"""FixMatch for segmentation: the label of a weak view is learned on a strong view of the same crop, after CutMix.

FixMatch is arXiv 2001.07685. "Published code" is its form for segmentation in LiheYoung/UniMatch (``fixmatch.py``: the
student labels) and in LiheYoung/UniMatch-V2 (``fixmatch.py``: an EMA teacher labels).
"""

from typing import ClassVar

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput
from semiseg.declare import record
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.weak_strong import LabelingLearner, WeakStrongSettings, split_pass


@record
class FixMatch(WeakStrongSettings):
    """FixMatch with CutMix, L = (L_x + weight * L_s) / 2.

    The defaults are the form of UniMatch V2. That of UniMatch V1: ``teacher=student_train partner=same_images``; the
    published code of both has ``pairing=frozen``.
    """

    needs_unlabeled: ClassVar[bool] = True

    def run(self, lab: Lab) -> Network:
        """Train one network and return it or its EMA."""
        network = lab.network("model", probe_rounds=self.probe_rounds)
        learner = FixMatchLearner(network, self, self.labeled_loss(lab))
        return lab.fit("train", learner, self.streams(lab, strong=1)).selected


class FixMatchLearner(LabelingLearner):
    """One step of FixMatch on the streams "labeled" and "unlabeled", and "partner" unless partners are reversed.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: FixMatch, loss: LabeledLoss) -> None:
        super().__init__(model, method, loss)
        self.method = method

    def full_step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = (L_x + weight * L_s) / 2."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        self.observe(batch)
        partner_guess = self.label_partner(batch)
        strong = method.mixed_view(1, own, batch.get("partner"))
        if method.teacher == "student_train":
            # Published code of UniMatch: two passes, the labeled images with the weak views.
            logits_x, logits_w = split_pass(self.model, known["image"], own["image"])
            guess = self.labeler(logits_w.detach(), own["valid"])
            logits_s = self.model(strong)
        else:
            # Published code of UniMatch V2: one pass, the labeled images with the strong views.
            guess = self.label(own["image"], own["valid"])
            logits_x, logits_s = split_pass(self.model, known["image"], strong)
        target = method.mixed_guess(1, own, guess, partner_guess)
        losses = {
            "labeled": LossTerm(*self.known_loss(logits_x, known["label"]), 0.5),
            "strong": LossTerm(*method.guessed_loss(logits_s, target), 0.5 * method.weight),
        }
        return StepOutput(losses, guess.statistics())
