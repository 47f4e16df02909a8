"""UniMatch V2: an EMA teacher, two strong views and complementary dropout of their features (arXiv 2410.10777).

"Published code" is LiheYoung/UniMatch-V2, ``unimatch_v2.py`` and ``model/semseg/dpt.py``.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput
from semiseg.declare import record
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.weak_strong import LabelingLearner, WeakStrongSettings, split_pass
from semiseg.pseudo import complementary_masks, own_rows, torch_generator, undropped_images
from semiseg.pseudo.perturbation import Undropped


@record
class UniMatchV2(WeakStrongSettings):
    """UniMatch V2, L = (L_x + weight * (L_s1 + L_s2) / 2) / 2.

    Published with a DINOv2 backbone and ``model=dpt``; the published code has ``pairing=frozen
    ema_buffers=average_truncate``.
    """

    undropped: Undropped = "half"
    """Images whose features are not dropped in either strong view: "half" of them rounded down, as published, so that a
    single image is always dropped; each with probability 1/2 ("bernoulli"); or "none"."""

    needs_unlabeled: ClassVar[bool] = True

    def run(self, lab: Lab) -> Network:
        """Train one network and return its EMA, or it."""
        network = lab.network("model", probe_rounds=self.probe_rounds)
        learner = UniMatchV2Learner(network, self, self.labeled_loss(lab))
        return lab.fit("train", learner, self.streams(lab, strong=2)).selected


class UniMatchV2Learner(LabelingLearner):
    """One step of UniMatch V2 on the streams "labeled" and "unlabeled", and "partner" unless partners are reversed.

    Args:
        model: network to train.
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: UniMatchV2, loss: LabeledLoss) -> None:
        super().__init__(model, method, loss)
        self.method = method

    def full_step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = (L_x + weight * (L_s1 + L_s2) / 2) / 2."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        self.observe(batch)
        partner_guess = self.label_partner(batch)
        if method.teacher == "student_train":
            logits_x, logits_w = split_pass(self.model, known["image"], own["image"])
            guess = self.labeler(logits_w.detach(), own["valid"])
        else:
            guess = self.label(own["image"], own["valid"])
            logits_x = self.model(known["image"])
        # Each view has its own box, both take the same partner.
        views = [method.mixed_view(view, own, batch.get("partner")) for view in (1, 2)]
        targets = [method.mixed_guess(view, own, guess, partner_guess) for view in (1, 2)]
        logits_s = self._dropped(torch.cat(views), progress).chunk(2)
        strong = 0.5 * method.weight / 2
        losses = {
            "labeled": LossTerm(*self.known_loss(logits_x, known["label"]), 0.5),
            "strong_1": LossTerm(*method.guessed_loss(logits_s[0], targets[0]), strong),
            "strong_2": LossTerm(*method.guessed_loss(logits_s[1], targets[1]), strong),
        }
        return StepOutput(losses, guess.statistics())

    def _dropped(self, images: Tensor, progress: Progress) -> Tensor:
        """Return logits of both strong views, of which each channel of the features is dropped in one."""
        maps = self.model.encode(images)
        masks = self.feature_masks(maps, progress)
        maps = [each * mask[:, :, None, None].to(each.dtype) for each, mask in zip(maps, masks, strict=True)]
        return self.model.classify(self.model.decode(maps), images.shape[-2:])

    def feature_masks(self, maps: Sequence[Tensor], progress: Progress) -> list[Tensor]:
        """Draw the complementary masks of each map, ``(2 n, channels)``, both views one after the other.

        Maps of one number of channels, such as all of a transformer, share their mask.
        """
        n = len(maps[0]) // 2
        total, rows = own_rows(progress, n)
        generator = torch_generator(progress, "features", maps[0].device)
        undropped = undropped_images(
            generator, total, self.method.undropped, self.method.groups * progress.ranks
        )
        drawn = {}
        for channels in dict.fromkeys(each.shape[1] for each in maps):
            masks = complementary_masks(generator, undropped, channels)
            drawn[channels] = torch.cat([view[rows] for view in masks.chunk(2)])
        return [drawn[each.shape[1]] for each in maps]
