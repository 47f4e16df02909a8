"""Cross-consistency training (CCT, arXiv 2003.09005): decoders that see perturbed features agree with the main one.

"Published code" is yassouali/CCT, ``models/model.py``, ``models/decoders.py``, ``utils/losses.py`` and ``trainer.py``.
"""

import random
from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from itertools import accumulate
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.views import Weak
from semiseg.declare import Ge, Gt, Le, Lt, record
from semiseg.distributed import over_ranks
from semiseg.errors import UserError
from semiseg.losses import (
    annealed_cross_entropy,
    annealed_threshold,
    decoder_consistency,
    decoder_variance,
    ramp_up,
)
from semiseg.losses.cross_consistency import DecoderDistance
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.models.pixel_shuffle import (
    PixelShuffleClassifier,
    ShuffleDecoders,
    cell_order,
    enlarged_maps,
)
from semiseg.pseudo import (
    adversarial_shift,
    channel_masks,
    object_boxes,
    object_cutout,
    on_device,
    own_rows,
    step_generator,
    torch_generator,
    weakly_active,
)
from semiseg.seeding import derive_seed
from semiseg.settings import Count, TrainerSettings

HEAD = "auxiliary"
"""Name of the head that holds the auxiliary decoders."""

ANNEALED_SHARE = 0.4
"""Share of the fit in which the threshold of the annealed cross entropy rises."""

COMPARED = 8
"""Decoders, drawn in each step, whose predictions ``pairwise_weight`` draws together."""

KEPT_ACTIVATION = (0.7, 0.9)
"""Range of the share of the largest activation that positions must stay below (F-Drop)."""

NOISE = 0.3
"""Largest relative change of a feature (F-Noise)."""

Some = Annotated[int, Ge(0)]


@record
class DecoderCounts:
    """Numbers of auxiliary decoders, by what is done to the features that they see.

    The defaults are those of the published code, 30 in all. Its re-implementation in CAC has 12: none of ``vat``, two
    of each other kind.
    """

    vat: Some = 2
    """Decoders whose features are shifted to where the prediction changes most (I-VAT)."""
    dropout: Some = 6
    """Decoders whose features lose half of their channels, in each image others; the rest is doubled."""
    cutout: Some = 6
    """Decoders whose features lose a part of each large object (G-Cutout). The outlines are found on the CPU, which an
    accelerator waits for once in a step."""
    context: Some = 2
    """Decoders that see what the main decoder takes for an object alone (Con-Msk)."""
    object: Some = 2
    """Decoders that see what the main decoder takes for background alone (Obj-Msk)."""
    feature_drop: Some = 6
    """Decoders whose features lose the most active positions (F-Drop)."""
    noise: Some = 6
    """Decoders whose features are multiplied by 1 + n, with n uniform in [-0.3, 0.3] (F-Noise)."""

    @property
    def total(self) -> int:
        """Number of all."""
        return sum(astuple(self))

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        if self.total == 0:
            yield UserError("no decoder is left; give one of them 1 or more.", key="decoders", value=0)

    def places(self) -> list[slice]:
        """Places of the kinds among all decoders, in their order."""
        ends = list(accumulate(astuple(self)))
        return [slice(first, last) for first, last in zip([0, *ends], ends, strict=False)]


@record
class AdversarialShift:
    """Shift of the features of ``decoders.vat``."""

    xi: Annotated[float, Gt(0)] = 0.1
    """Length at which the direction of steepest change is measured. Published: 1e-6, with which the shift is 0 and
    these decoders see plain features."""
    radius: Annotated[float, Gt(0)] = 2.0
    """Length of the shift in each image; published 2."""
    norm_eps: Annotated[float, Ge(0)] = 0.0
    """Number that is added to lengths before they divide. Published: 1e-8, far above the length of a gradient at
    ``xi=1e-6``."""


@record
class CCT(LabeledLossSettings):
    """Cross-consistency training, L = L_sup + weight * ramp * L_u.

    The published form: ``vat.xi=1e-6 vat.norm_eps=1e-8 padding=counted replay=true``, with ``model=pspnet_cct``.
    """

    weight: Annotated[float, Ge(0)] = 30.0
    """Weight of the unlabeled loss; published 30."""
    rampup: Annotated[float, Ge(0), Le(1)] = 0.1
    """Share of the fit in which the unlabeled loss reaches its weight, by a sigmoid ramp; published 0.1."""
    decoders: DecoderCounts = DecoderCounts()
    """Auxiliary decoders."""
    vat: AdversarialShift = AdversarialShift()
    """Shift of the features of ``decoders.vat``."""
    distance: DecoderDistance = "mse"
    """Distance of auxiliary predictions from the main one: squared difference of probabilities ("mse", as published),
    "kl", or the Jensen-Shannon divergence ("js")."""
    threshold: Annotated[float, Ge(0), Lt(1)] | None = None
    """Probability that the class of the main prediction must exceed for a pixel to count; ``null`` counts all, as
    published, where 0.5 is an option."""
    padding: Literal["counted", "masked"] = "masked"
    """Padding in the unlabeled loss: "counted" as published, or "masked", left out of sum and mean (the default)."""
    pairwise_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of the variance of the predictions of 8 auxiliary decoders. The published code computes it on demand and
    adds it after the total is formed, so that it never acted: 0."""
    annealed: bool = False
    """Whether only labeled pixels count whose true class has a probability below a threshold that rises from 1/K to 0.9
    in the first 0.4 of the fit (ab-CE, the paper's); off in the published configuration."""
    background: Annotated[int, Ge(0)] = 0
    """Class that is no object; published 0, the background of VOC."""
    replay: bool = False
    """Repetition of the same labeled batches within an epoch once their list is used up, as in the published code."""
    iterations_per_epoch: Count | None = None
    """Fixed length of an epoch, published 912 with 1,464 labeled images of VOC; ``null`` takes one pass over the longer
    list."""

    needs_unlabeled: ClassVar[bool] = True

    def conflicts(self) -> Iterator[UserError]:
        """Find values that are wrong together."""
        yield from super().conflicts()
        if self.distance == "js" and self.threshold is not None:
            yield UserError("goes with distance=mse or kl.", key="method.threshold", value=self.threshold)
        others = (
            self.class_weights,
            self.dice_weight,
            self.label_smoothing or None,
            self.logit_adjustment or None,
        )
        if self.annealed and (self.loss != "ce" or any(each is not None for each in others)):
            yield UserError(
                "is a loss of its own: it goes with loss=ce, and without class_weights, dice_weight, label_smoothing "
                "and logit_adjustment.",
                key="method.annealed",
                value=True,
            )

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the numbers of labeled and unlabeled images, which pass through the network separately."""
        return {
            "trainer.batch_size": trainer.batch_size,
            "trainer.unlabeled_batch_size": trainer.unlabeled_batch_size,
        }

    def run(self, lab: Lab) -> Network:
        """Train one network and return it.

        Raises:
            UserError: the dataset has no class ``background``.
        """
        if self.background >= lab.info.num_classes:
            raise UserError(
                f"there are {lab.info.num_classes} classes, from 0.",
                key="method.background",
                value=self.background,
            )
        model, parts = lab.network("model"), lab.augment
        attach_decoders(model, self.decoders.total)
        streams = separate(
            lab.split.labeled,
            parts.weak,
            {"unlabeled": Unlabeled(lab.split.unlabeled, Weak(parts.geometry, valid=True))},
            batch_size=lab.trainer.batch_size,
            unlabeled_batch_size=lab.trainer.unlabeled_batch_size,
            budget=lab.budget,
            iterations_per_epoch=self.iterations_per_epoch,
            replay=self.replay,
        )
        return lab.fit("train", CCTLearner(model, self, self.labeled_loss(lab)), streams).selected


def attach_decoders(model: Network, count: int) -> None:
    """Give a network auxiliary decoders of the form of its classifier: pixel shuffles, or else linear."""
    classifier = model.classifier
    stages = classifier.stages if isinstance(classifier, PixelShuffleClassifier) else 0
    model.attach(HEAD, ShuffleDecoders(model.feature_channels, model.num_classes, count, stages))


class FeatureDraws(NamedTuple):
    """Random draws of a step for N feature maps of P positions and C channels each, by kind of decoder.

    Args:
        start: directions of ``vat``, ``(D, N, P, C)``.
        channels: factors of the channels of ``dropout``, ``(D, N, C)``.
        kept: what ``cutout`` keeps, ``(D, N, H, W) bool``, at the size of logits.
        share: share of the largest activation of ``feature_drop``, ``(D,)``.
        noise: relative changes of ``noise``, ``(D, P, C)``, the same for all images.
    """

    start: Tensor
    channels: Tensor
    kept: Tensor
    share: Tensor
    noise: Tensor


class CCTLearner(Learner):
    """One step of CCT on the streams "labeled" and "unlabeled".

    Both go through the network by themselves, the labeled one first. The main decoder learns from labeled pixels alone:
    its prediction of unlabeled ones is the target and carries no gradient.

    Args:
        model: network with the head "auxiliary".
        method: settings.
        loss: loss of labeled pixels.
    """

    def __init__(self, model: Network, method: CCT, loss: LabeledLoss) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.loss = loss

    @property
    def decoders(self) -> ShuffleDecoders:
        """The auxiliary decoders."""
        head = self.model.heads[HEAD]
        assert isinstance(head, ShuffleDecoders)
        return head

    def predictors(self) -> dict[str, Network]:
        """The network; its predictions come from the main decoder."""
        return {"model": self.model}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup + weight * ramp * L_u."""
        method, known, own = self.method, batch["labeled"], batch["unlabeled"]
        supervised = self.supervised(self.model(known["image"]), known["label"], progress)
        features = self.model.features(own["image"])
        guide = self.guide(features)
        objects = guide.max(1).indices != method.background
        maps = self.perturbed(features, objects, self.draw(features, objects, progress))
        logits = enlarged_maps(maps, self.decoders.stage_parameters())
        stages = self.decoders.stages
        valid = None
        if method.padding == "masked":
            valid = _resized(own["valid"], guide.shape[-2:])
            valid = cell_order(valid[:, None], stages)
        target = guide.softmax(1)
        # L_u, the mean over decoders, classes and pixels
        unlabeled = decoder_consistency(
            logits,
            cell_order(target, stages)[None],
            method.distance,
            method.threshold,
            valid,
            reduction="sum_count",
        )
        ramp = ramp_up(progress.iteration, method.rampup * progress.total)
        losses = {
            "supervised": LossTerm(*supervised),
            "consistency": LossTerm(*unlabeled, method.weight * ramp),
        }
        if method.pairwise_weight:
            losses["pairwise"] = LossTerm(*self.pairwise(logits, progress), method.pairwise_weight)
        return StepOutput(losses, {"unlabeled_confidence": target.amax(1).mean()})

    def supervised(self, logits: Tensor, label: Tensor, progress: Progress) -> SumCount:
        """Return L_sup of logits ``(N, K, H, W)`` and labels ``(N, H, W) int64``, as the sum and count of pixels."""
        if not self.method.annealed:
            found: SumCount = self.loss(logits, label)
            return found
        threshold = annealed_threshold(
            progress.iteration, ANNEALED_SHARE * progress.total, self.model.num_classes
        )
        return SumCount(
            *annealed_cross_entropy(logits, label, threshold, reduction="sum_count", joined=over_ranks)
        )

    @torch.no_grad()
    def guide(self, features: Tensor) -> Tensor:
        """Return the logits of the main decoder at the size of the auxiliary ones, ``(N, K, H, W)``.

        Args:
            features: ``(N, C, h, w)``; H and W are h and w times 2 to the number of pixel shuffles.
        """
        side = 2**self.decoders.stages
        size = [side * each for each in features.shape[-2:]]
        logits: Tensor = self.model.classify(features, size)
        return logits

    def perturbed(self, features: Tensor, objects: Tensor, draws: FeatureDraws) -> Tensor:
        """Return what the first convs of all decoders make of their perturbed features, ``(D, K, N * h * w)``.

        These convs are linear and look at one position: masks of positions come behind them, factors of channels into
        their weights, and shifts are added, so that most decoders share one product with the features as they are.

        Args:
            features: ``(N, C, h, w)``, floating point.
            objects: where the main decoder sees an object, ``(N, H, W) bool``, at the size of logits.
            draws: draws of the step.
        """
        vat, dropout, cutout, context, ground, active, noisy = self.method.decoders.places()
        first, size = self.decoders.first, features.shape[-2:]
        positions = features.permute(0, 2, 3, 1).flatten(1, 2)
        images, cells = positions.shape[:2]
        plain = torch.cat([first[vat], first[cutout.start : active.stop]])
        maps = (plain.flatten(0, 1) @ positions.flatten(0, 1).mT).view(*plain.shape[:2], images * cells)
        shifted = self.shifted(maps[vat], draws.start)
        foreground = _resized(objects, size)
        kept = torch.cat(
            [
                _resized(draws.kept, size),
                foreground.expand(context.stop - context.start, *foreground.shape),
                ~foreground.expand(ground.stop - ground.start, *foreground.shape),
                weakly_active(features.detach(), draws.share),
            ]
        )
        masked = maps[vat.stop :] * kept.flatten(1)[:, None]
        factors = draws.channels.transpose(0, 1)[:, :, None] * first[dropout]
        dropped = factors.flatten(1, 2) @ features.flatten(2)
        dropped = dropped.view(images, *first[dropout].shape[:2], cells).permute(1, 2, 0, 3).flatten(2)
        noised = first[noisy] @ (positions * (1 + draws.noise[:, None])).flatten(1, 2).mT
        return torch.cat([shifted, dropped, masked, noised])

    def shifted(self, maps: Tensor, start: Tensor) -> Tensor:
        """Return what the first convs make of the shifted features of I-VAT, ``(D, K, N * P)``.

        In float32 at least: the shifts are measured by small differences.

        Args:
            maps: what they make of the features as they are, ``(D, K, N * P)``.
            start: random directions ``(D, N, P, C)``.
        """
        vat, (count, images, cells, _) = self.method.vat, start.shape
        if not count:
            return maps
        chosen = slice(0, count)
        first = self.decoders.first[chosen]
        stages = [(w.detach(), b.detach()) for w, b in self.decoders.stage_parameters(chosen)]
        shape = (count, first.shape[1], images, cells)
        with torch.autocast(maps.device.type, enabled=False):
            fixed = first.detach()
            length = torch.linalg.vector_norm(start, dim=(2, 3)) + vat.norm_eps
            directions = (fixed @ start.to(fixed.dtype).flatten(1, 2).mT).view(shape) / length[
                :, None, :, None
            ]
            shift = adversarial_shift(
                lambda values: enlarged_maps(values.flatten(2), stages),
                maps.to(first.dtype).view(shape),
                directions,
                fixed @ fixed.mT,
                vat.xi,
                vat.radius,
                vat.norm_eps,
            )
            return maps + first @ fixed.mT @ shift.flatten(2)

    def pairwise(self, logits: Tensor, progress: Progress) -> SumCount:
        """Return the variance of the predictions of some decoders, as a sum and a count.

        Args:
            logits: ``(D, K, M)``: D decoders, K classes, and M pixels of all images, floating point.
            progress: pass that the decoders are drawn for.
        """
        chosen = step_generator(progress, "pairwise").permutation(len(logits))[:COMPARED]
        compared = torch.stack([logits[number] for number in chosen.tolist()])
        return SumCount(*decoder_variance(compared, reduction="sum_count"))

    def draw(self, features: Tensor, objects: Tensor, progress: Progress) -> FeatureDraws:
        """Make the draws of a step; those for images are those of all ranks, of which each keeps its own."""
        counts, device = self.method.decoders, features.device
        (images, channels), cells = features.shape[:2], features[0, 0].numel()
        total, rows = own_rows(progress, images)
        numbers = partial(torch.rand, device=device)
        start = numbers(
            (counts.vat, total, cells, channels), generator=torch_generator(progress, "vat", device)
        )
        masks = channel_masks(torch_generator(progress, "dropout", device), counts.dropout * total, channels)
        # Published code: one share and one noise for the whole batch.
        share = step_generator(progress, "feature_drop").uniform(*KEPT_ACTIVATION, counts.feature_drop)
        noise = numbers((counts.noise, cells, channels), generator=torch_generator(progress, "noise", device))
        return FeatureDraws(
            start[:, rows] - 0.5,
            masks.view(counts.dropout, total, channels)[:, rows],
            on_device(self.cut(objects, progress), device),
            on_device(torch.from_numpy(share.astype(np.float32)), device),
            NOISE * (2 * noise - 1),
        )

    def cut(self, objects: Tensor, progress: Progress) -> Tensor:
        """Draw what G-Cutout keeps, ``(D, N, H, W) bool``, on the CPU."""
        count, (images, height, width) = self.method.decoders.cutout, objects.shape
        if not count:
            return torch.ones((0, images, height, width), dtype=torch.bool)
        _, rows = own_rows(progress, images)
        boxes = [object_boxes(mask) for mask in objects.cpu().numpy()]
        kept = [
            object_cutout(
                found, (height, width), random.Random(derive_seed(progress.seed, "cutout", number, image))
            )
            for number in range(count)
            for image, found in enumerate(boxes, rows.start)
        ]
        return torch.from_numpy(np.stack(kept)).view(count, images, height, width)


def _resized(mask: Tensor, size: torch.Size) -> Tensor:
    """Return masks ``(..., H, W)`` at another size, by the nearest pixel above and to the left."""
    rows, columns = (
        torch.arange(new, device=mask.device) * old // new
        for new, old in zip(size, mask.shape[-2:], strict=True)
    )
    return mask[..., rows[:, None], columns]
