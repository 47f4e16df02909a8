"""CorrMatch: correlations between positions spread confident pseudo-labels (arXiv 2306.04300).

"Published code" is BBBBchan/CorrMatch: ``corrmatch.py`` and ``model/semseg/deeplabv3plus.py``.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.declare import Ge, Le, record
from semiseg.engine.moving_threshold import MovingThreshold
from semiseg.errors import UserError
from semiseg.losses import confident_divergence
from semiseg.methods.confidence import Guess
from semiseg.methods.labeled_loss import LabeledLoss
from semiseg.methods.weak_strong import LabelingLearner, Teacher, WeakStrongSettings
from semiseg.models.heads import CorrelationHead
from semiseg.pseudo import (
    box_maps,
    channel_masks,
    correlated_regions,
    correlation_map,
    mixed,
    own_rows,
    propagated,
    region_votes,
    reversed_within,
    torch_generator,
)
from semiseg.pseudo.correlation import Propagation
from semiseg.seeding import derive_seed, seed_everything

HEAD = "correlation"
"""Name of the head in ``Network.heads``."""


@record
class CorrMatch(WeakStrongSettings):
    """CorrMatch, L = ((L_x + L_x,corr) / 2 + weight * (L_s + L_kl + L_fp + (L_us + L_uw) / 2) / 4) / 2.

    The published code has ``partner=same_images pairing=frozen list_rule=shuffled_once threshold_mask=mixed
    kl_target=unmixed``.
    """

    teacher: Teacher = "student_train"
    """Network that labels weak views: the student in the same training pass as the labeled images ("student_train", as
    published), the student in evaluation mode, or its "ema" in evaluation mode. Regions are always the student's."""
    threshold: Annotated[float, Ge(0), Le(1)] = 0.85
    """Probability that a pixel's pseudo-label needs at least to be learned, at the start of the training. Published:
    0.85; Cityscapes 0 with ``threshold_update=fixed``."""
    threshold_update: Literal["ema", "fixed"] = "ema"
    """Threshold of later steps: an "ema" of the largest confidence of each predicted class, averaged over the classes
    (as published, the default), or "fixed" (published for Cityscapes, where the published code can't do it)."""
    threshold_decay: Annotated[float, Ge(0), Le(1)] = 0.999
    """Share of the threshold that a step keeps. Published: 0.999."""
    threshold_mask: Literal["mixed", "unmixed"] = "unmixed"
    """Pixels that the threshold learns from: those that are no padding in the "mixed" image, although their confidence
    is that of the weak view, as published; or in the "unmixed" view itself (the default)."""
    kl_target: Literal["unmixed", "mixed"] = "mixed"
    """Prediction that the strong view is drawn to: that of the "unmixed" weak view, which shows something else inside
    of the box, as published; or "mixed" as the image is (the default)."""
    propagate: Propagation = "scatter"
    """Way in which logits follow the correlation M: "scatter" sums z_i M[i, j] over i, as published (the default: the
    others have no published numbers); "normalized" divides this by the sum of M[i, j]; "gather" sums over j."""
    regions: Annotated[int, Ge(1)] = 128
    """Number of positions, the same in all images of a batch, whose regions vote. Published: 128."""

    needs_unlabeled: ClassVar[bool] = True

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        yield from super().conflicts()
        if self.threshold_rule != "fixed":
            yield UserError(
                "the threshold of CorrMatch moves by its own rule. Choose method.threshold_update, and leave "
                "method.threshold_rule=fixed.",
                key="method.threshold_rule",
                value=self.threshold_rule,
            )
        if self.gate_share:
            yield UserError(
                "CorrMatch keeps pseudo-labels by its own threshold alone, which knows no gate. Give 0.",
                key="method.gate_share",
                value=self.gate_share,
            )

    def run(self, lab: Lab) -> Network:
        """Train one network and return it, or its EMA."""
        model = lab.network("model", probe_rounds=self.probe_rounds)
        # After the network, whose draws stay the same, and before the fit, so that the optimizer gets its parameters.
        seed_everything(derive_seed(lab.seed, "model", HEAD))
        attach(model)
        learner = CorrMatchLearner(model, self, self.labeled_loss(lab), lab.trainer.accumulate)
        return lab.fit("train", learner, self.streams(lab, strong=1)).selected

    def divergence(self, logits: Tensor, target: Tensor, guess: Guess) -> SumCount:
        """Return L_kl of confident pixels, see ``divisor`` and ``groups``."""

        def loss(logits: Tensor, target: Tensor, keep: Tensor, valid: Tensor) -> SumCount:
            return confident_divergence(logits, target, keep, valid, self.divisor, reduction="sum_count")

        return self.by_group(loss, logits, target, guess.keep, guess.valid)


class Logits(NamedTuple):
    """Logits of a step, ``(N, K, H, W)``.

    Args:
        labeled: of the labeled images.
        weak: of the weak views, without gradient, from the network that labels.
        perturbed: of the weak views with perturbed features.
        strong: of the mixed strong views.
        labeled_spread: of the labeled images, passed on along their correlation.
        weak_spread: of the weak views, passed on.
        strong_spread: of the mixed strong views, passed on.
        partner: of the partners' weak views, without gradient; ``None`` takes the weak views in reversed order.
    """

    labeled: Tensor
    weak: Tensor
    perturbed: Tensor
    strong: Tensor
    labeled_spread: Tensor
    weak_spread: Tensor
    strong_spread: Tensor
    partner: Tensor | None = None


class CorrMatchLearner(LabelingLearner):
    """One step of CorrMatch on the streams "labeled" and "unlabeled", and "partner" unless partners are reversed.

    Args:
        model: network with the head "correlation", see ``attach``.
        method: settings.
        loss: loss of labeled pixels.
        parts: parts of a batch (``trainer.accumulate``), each of which moves the threshold by so much less.
    """

    def __init__(self, model: Network, method: CorrMatch, loss: LabeledLoss, parts: int = 1) -> None:
        super().__init__(model, method, loss)
        self.method = method
        kept = 1.0 if method.threshold_update == "fixed" else method.threshold_decay ** (1 / parts)
        self.threshold = MovingThreshold(method.threshold, kept)

    def full_step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute the loss of labeled images, weak views and a mixed strong view."""
        known, own, partner = batch["labeled"]["image"], batch["unlabeled"], batch.get("partner")
        size, count = _size(own["image"]), len(known)
        self.observe(batch)
        other = None if partner is None else self.answer(partner["image"])
        # Published code: one pass of the labeled images with the weak views, one of the mixed strong views.
        maps = self.model.encode(torch.cat([known, own["image"]]))
        clean, perturbed = self._clean_and_perturbed(maps, size, progress)
        spread, correlation = self._spread(maps, clean)
        rows = self.region_rows(correlation.shape[1], progress)
        regions = correlated_regions(correlation[count:], rows, _size(maps[-1]), size)
        weak = clean[count:].detach() if self.method.teacher == "student_train" else self.answer(own["image"])
        strong = own["strong_1"]
        other_strong = reversed_within(strong, self.method.groups) if partner is None else partner["strong_1"]
        maps = self.model.encode(mixed(strong, other_strong, box_maps(own["box_1"], size)))
        strong = self.model.classify(self.model.decode(maps), size)
        found = Logits(
            labeled=clean[:count],
            weak=weak,
            perturbed=perturbed[count:],
            strong=strong,
            labeled_spread=spread[:count],
            weak_spread=spread[count:],
            strong_spread=self._spread(maps, strong)[0],
            partner=other,
        )
        return self.compare(found, regions, batch)

    def compare(self, found: Logits, regions: Tensor, batch: Batch) -> StepOutput:
        """Turn the logits of a step into its losses, and move the threshold.

        Args:
            found: logits of the step.
            regions: regions of the weak views, ``(N, R, H, W) bool``, in the order in which they vote.
            batch: batch with the labels, boxes and maps ``valid``.
        """
        method, label, weight = self.method, batch["labeled"]["label"], self.method.weight / 8
        guess, target, wanted = self._targets(found, batch)
        inside = box_maps(batch["unlabeled"]["box_1"], label.shape[-2:])
        usable = regions & (~inside & target.valid)[:, None]
        voted = region_votes(usable, target.label, target.keep, self.threshold.value, self.model.num_classes)
        spread = target._replace(label=voted[0], keep=voted[1])
        losses = {
            "labeled": LossTerm(*self.known_loss(found.labeled, label), 0.25),
            "labeled_spread": LossTerm(*self.known_loss(found.labeled_spread, label), 0.25),
            "strong": LossTerm(*method.guessed_loss(found.strong, spread), weight),
            "divergence": LossTerm(*method.divergence(found.strong, wanted, target), weight),
            "features": LossTerm(*method.guessed_loss(found.perturbed, guess), weight),
            "strong_spread": LossTerm(*method.guessed_loss(found.strong_spread, spread), weight / 2),
            "weak_spread": LossTerm(*method.guessed_loss(found.weak_spread, guess), weight / 2),
        }
        valid = target.valid.sum().clamp_min(1)
        scalars = {
            "threshold": self.threshold.value.clone(),
            "region_pixels": (spread.keep & ~target.keep).sum() / valid,
            "region_relabeled": (spread.label != target.label).sum() / valid,
        }
        return StepOutput(losses, guess.statistics() | scalars)

    @torch.no_grad()
    def _targets(self, found: Logits, batch: Batch) -> tuple[Guess, Guess, Tensor]:
        """Return pseudo-labels of the weak views, and those of the mixed view with the logits it is drawn to."""
        method, own, partner = self.method, batch["unlabeled"], batch.get("partner")
        guess: Guess = self.labeler(found.weak, own["valid"])
        if found.partner is None or partner is None:
            logits, other = reversed_within(found.weak, method.groups), guess.reversed(method.groups)
        else:
            logits, other = found.partner, self.labeler(found.partner, partner["valid"], learn=False)
        inside = box_maps(own["box_1"], found.weak.shape[-2:])
        target = guess.mixed(other, inside)
        counted = (target if method.threshold_mask == "mixed" else guess).valid
        # Published code: the threshold moves before it is used.
        threshold = self.threshold(guess.confidence, guess.label, counted, self.model.num_classes)
        guess = guess._replace(keep=guess.confidence >= threshold)
        target = target._replace(keep=(target.confidence >= threshold) & target.valid)
        wanted = mixed(found.weak, logits, inside) if method.kl_target == "mixed" else found.weak
        return guess, target, wanted

    def _clean_and_perturbed(
        self, maps: Sequence[Tensor], size: Sequence[int], progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """Return logits of all images, clean and with perturbed features, decoded in one pass."""
        masks = self.feature_masks(maps, progress)
        doubled = [
            torch.cat([each, each * mask[:, :, None, None].to(each.dtype)])
            for each, mask in zip(maps, masks, strict=True)
        ]
        clean, perturbed = self.model.classify(self.model.decode(doubled), size).chunk(2)
        return clean, perturbed

    def _spread(self, maps: Sequence[Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits passed on along the correlation of the last map, and this correlation."""
        one, two = self.model.apply_head(HEAD, maps, maps[-1]).chunk(2, 1)
        correlation = correlation_map(one, two)
        # Only the head and the backbone learn from it, not the classifier.
        small = F.interpolate(logits.detach(), one.shape[-2:], mode="bilinear", align_corners=True)
        spread = propagated(small, correlation, self.method.propagate)
        return F.interpolate(spread, logits.shape[-2:], mode="bilinear", align_corners=True), correlation

    def feature_masks(self, maps: Sequence[Tensor], progress: Progress) -> list[Tensor]:
        """Draw the channel masks of 0 and 2 of each map, ``(N, channels)``, as ``Dropout2d(0.5)`` would."""
        total, rows = own_rows(progress, len(maps[0]))
        generator = torch_generator(progress, "features", maps[0].device)
        return [channel_masks(generator, total, each.shape[1])[rows] for each in maps]

    def region_rows(self, positions: int, progress: Progress) -> Tensor:
        """Draw the positions of the regions, ``(R,) int64``."""
        device, shape = self.threshold.value.device, (self.method.regions,)
        generator = torch_generator(progress, "regions", device)
        # Published code: the last position is never drawn.
        return torch.randint(0, max(positions - 1, 1), shape, generator=generator, device=device)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def attach(model: Network) -> None:
    """Add the head of correlations to a network, on the last map of its backbone."""
    channels = model.map_channels
    model.attach(HEAD, CorrelationHead(channels[-1], model.num_classes), f"c{len(channels)}")
