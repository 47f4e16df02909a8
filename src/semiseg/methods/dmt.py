"""Dynamic mutual training (DMT, arXiv 2004.08514): two networks label for each other and doubt each other's labels.

Comments give the names of the published code (voldemortX/DST-CBC, folder segmentation/). The ablations of the paper are
other values of the same settings; DMTC is ``DMT`` with two other steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX, Split
from semiseg.contracts.feeding import Budget, StoredLabels
from semiseg.contracts.recipe import FitResult, Lab, ReusedFit
from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput, StreamBatch
from semiseg.data.epochs import labeled, unlabeled_and_labeled
from semiseg.declare import Ge, Gt, Le, Lt, Mark, record
from semiseg.errors import UserError
from semiseg.losses import dynamic_mutual_loss
from semiseg.methods.labeled_loss import FirstFit, LabeledLoss, LabeledLossSettings
from semiseg.pseudo import ClassConfidences, confident_labels, label_image
from semiseg.settings import Count, EvaluatorSettings, Other, TrainerSettings
from semiseg.splits.dms import difference_maximized
from semiseg.tasks.inference import predict

if TYPE_CHECKING:
    from semiseg.losses.mutual import Variant as Weighting

Kind = Literal["baseline", "phase"]
"""Kinds of fits, which have lengths, rates and intervals of their own."""


@record
class DMT(LabeledLossSettings):
    """Dynamic mutual training of two partners, a and b, and its ablations.

    Both partners first learn the labeled images alone. Then, in each phase, the partner's network of the previous
    phase labels all unlabeled images, of which the most confident share of every class is kept, and each network
    continues from its own of the previous phase, with a fresh optimizer and schedule. The networks that label and
    continue are those that ``trainer.select`` names. The loss of labeled pixels is that of the baselines; the
    phases weight pixels by the method's own rule.

    ==============  ============  =============  =================
    ablation        ``partners``  ``variant``    exponents
    ==============  ============  =============  =================
    CBST            1             dmt            0 and 0
    DST             1             dmt            5 and 5
    naive           2, by data    naive          5 and 5
    flip            2, by data    flip           5 and 5
    online          1             online         without effect
    ==============  ============  =============  =================
    """

    partners: Literal[1, 2] = 2
    """Number of networks: 2, or 1 that labels for itself (CBST with both exponents 0, DST)."""
    difference: Literal["initialization", "data"] = "initialization"
    """Difference between the partners: their "initialization", or "data": the baselines learn two overlapping samples
    of the labeled images, 80 % each."""
    weights_a: Annotated[str | None, Mark(role="file", first_fit=True)] = None
    """Initial backbone weights of partner a, published: coco; ``null`` takes ``backbone.weights``."""
    weights_b: Annotated[str | None, Mark(role="file", first_fit=True)] = None
    """Initial backbone weights of partner b, published: imagenet, and coco where the data differs; ``null`` takes
    ``backbone.weights``."""
    variant: Literal["dmt", "flip", "naive", "online"] = "dmt"
    """Weights of pseudo-labeled pixels: "dmt", or the ablations "flip" and "naive" (see ``dynamic_mutual_loss``);
    "online" has one phase, in which the network labels in every step."""
    gamma_agree: Annotated[float, Ge(0)] = 5.0
    """Exponent of the weight where network and labeler agree. Published: 5, Cityscapes 3."""
    gamma_disagree: Annotated[float, Ge(0)] = 5.0
    """Exponent of the weight where they do not; a larger one for noisier labels. Published: the same."""
    ratios: Sequence[Annotated[float, Gt(0), Le(1)]] = (0.2, 0.4, 0.6, 0.8, 1.0)
    """Share of every class that is kept, for each phase."""
    threshold: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Confidence that a pixel has to exceed to be learned with "online"."""
    baseline_epochs: Annotated[Count | None, Mark(role="length", first_fit=True)] = None
    """Epochs of the baselines; ``null`` takes ``trainer.epochs``. ``trainer.iterations`` wins over it."""
    phase_epochs: Annotated[Count | None, Mark(role="length")] = None
    """Epochs of each phase; ``null`` takes ``trainer.epochs``. ``trainer.iterations`` wins over it."""
    baseline_lr: Annotated[Annotated[float, Gt(0)] | None, FirstFit] = None
    """Base learning rate of the baselines; ``null`` takes ``optimizer.lr``."""
    phase_lr: Annotated[float, Gt(0)] | None = None
    """Base learning rate of the phases; ``null`` takes ``optimizer.lr``."""
    baseline_eval_every: Count | None = None
    """Iterations between evaluations of the baselines; ``null`` takes ``trainer.eval_every``."""
    phase_eval_every: Count | None = None
    """Iterations between evaluations of the phases; ``null`` takes ``trainer.eval_every``."""
    report: Literal["a", "b", "better"] = "better"
    """Reported partner: "a", "b", or the "better" one on the validation images."""
    baseline: Annotated[str | Sequence[str] | None, Mark(role="run")] = None
    """Run of the same images and network whose baselines are taken, or a list of one for each partner; ``null`` trains
    them."""
    partner: Other = None
    """Partner b, where it has another structure or another optimizer; ``null`` takes those of the run, as published.
    ``baseline_lr`` and ``phase_lr`` change its learning rate in the same ratio."""

    needs_unlabeled: ClassVar[bool] = True
    METHOD: ClassVar[str] = "dmt"
    """Name of the method in messages."""

    def conflicts(self) -> Iterator[UserError]:
        """Find settings that do not go together."""
        yield from super().conflicts()
        if not self.ratios:
            expected = "give a share above 0, at most 1, for each phase."
            yield UserError(expected, key="method.ratios", value="[]")
        if self.partners == 1:
            for key, given, what in (
                ("difference", self.difference == "data", "two baselines differ"),
                ("weights_b", self.weights_b is not None, "of the second network"),
                ("report", self.report == "b", "the second network"),
            ):
                if given:
                    expected = f"{what}; needs method.partners=2."
                    yield UserError(expected, key=f"method.{key}", value=getattr(self, key))
            if self.partner is not None:
                yield UserError("is the second network; needs method.partners=2.", key="method.partner")
        elif self.variant == "online":
            yield UserError(
                "a network that labels for itself; give method.partners=1.",
                key="method.variant",
                value="online",
            )
        if self.baseline is not None and len(runs := self._given_runs) != self.partners:
            yield UserError(
                f"give one run of method={self.METHOD}, or one for each of the {self.partners} networks.",
                key="method.baseline",
                value=f"[{','.join(runs)}]",
            )

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the partners."""
        return ("a", "b")[: self.partners]

    def _role(self, tag: str) -> str | None:
        """Role of a partner's network: that of the run, or ``partner`` where b has another one."""
        return "partner" if tag == "b" and self.partner is not None else None

    @property
    def _given_runs(self) -> list[str]:
        if self.baseline is None:
            return []
        return [self.baseline] * self.partners if isinstance(self.baseline, str) else list(self.baseline)

    def reused_fits(self) -> list[ReusedFit]:
        """The baselines, where they come from other runs."""
        return [
            ReusedFit(
                run,
                f"baseline-{tag}",
                f"a run of method={self.METHOD}",
                supervised=self.difference == "initialization",  # it has learned all labeled images
                # Networks of dmtc have a head more.
                must_match=("method.difference", "method.contrast"),
                role=self._role(tag),
            )
            for tag, run in zip(self.tags, self._given_runs, strict=False)
        ]

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the number of labeled and unlabeled images together, for the baselines too.

        Raises:
            UserError: the batches of the phases can't be accumulated.
        """
        for key in ("batch_size", "unlabeled_batch_size"):
            if getattr(trainer, key) < trainer.accumulate:
                raise UserError(
                    f"every part of a batch needs labeled and unlabeled images; trainer.{key} is "
                    f"{getattr(trainer, key)}.",
                    key="trainer.accumulate",
                    value=trainer.accumulate,
                )
        both = "trainer.batch_size + trainer.unlabeled_batch_size"
        return {both: trainer.batch_size + trainer.unlabeled_batch_size}

    def check_split(self, split: Split) -> None:
        """Require images that are unlabeled and not labeled, and for different data 2 labeled ones.

        Raises:
            UserError: there are too few.
        """
        split.require_unlabeled(self.METHOD, never_labeled=True)
        if self.difference == "data" and len(split.labeled) < 2:
            raise UserError(
                "needs 2 labeled images or more; this split has 1.", key="method.difference", value="data"
            )

    def run(self, lab: Lab) -> Network:
        """Train the baselines, then all phases; return the reported network."""
        fits = {tag: self._baseline(lab, tag) for tag in self.tags}
        if self.variant == "online":
            return self._phase(lab, "online", fits["a"], lab.split.never_labeled).selected
        for phase, ratio in enumerate(self.ratios, start=1):
            # Both halves of a phase start from the previous phase, so their order does not matter.
            fits = {tag: self._half(lab, phase, ratio, tag, fits) for tag in self.tags}
        return self._reported(fits).selected

    def network(self, lab: Lab, tag: str) -> Network:
        """Build the network that a baseline begins with."""
        weights = {"a": self.weights_a, "b": self.weights_b}[tag]
        # Partners that learn different data may begin with equal weights, as published with two networks of COCO.
        partner = "a" if tag == "b" and self.difference == "initialization" else None
        if (role := self._role(tag)) is not None:
            return lab.network(tag, weights, differs_from=partner, role=role)
        return lab.network(tag, weights, differs_from=partner)

    def learner(self, network: Network, loss: LabeledLoss, kind: Kind) -> "MutualLearner":
        """Return the learner of one kind of fit."""
        return MutualLearner(network, self, loss)

    def _baseline(self, lab: Lab, tag: str) -> FitResult:
        if self.baseline is not None:
            return lab.take(f"baseline-{tag}", self.reused_fits()[self.tags.index(tag)])
        network = self.network(lab, tag)
        streams = labeled(
            self._labeled_ids(lab, tag),
            lab.augment.weak,
            lab.trainer.batch_size + lab.trainer.unlabeled_batch_size,
            _budget(lab, self.baseline_epochs),
            last="short",
            smallest=getattr(network.decoder, "smallest_batch", 1) * lab.trainer.accumulate,
        )
        return lab.fit(
            f"baseline-{tag}",
            self.learner(network, self.labeled_loss(lab), "baseline"),
            streams,
            lr=self.baseline_lr,
            eval_every=self.baseline_eval_every,
        )

    def _labeled_ids(self, lab: Lab, tag: str) -> Sequence[str]:
        split = lab.split
        if self.difference == "initialization":
            return split.labeled
        # published code: dms_sample.py
        sides = difference_maximized(lab.dataset.ids("train"), split.labeled, split.name, split.split_id)
        return sides[self.tags.index(tag)]

    def _half(
        self, lab: Lab, phase: int, ratio: float, tag: str, before: Mapping[str, FitResult]
    ) -> FitResult:
        labeler = {"a": self.tags[-1], "b": "a"}[tag]
        pseudo = lab.label(
            f"label-{phase}-by-{labeler}",
            before[labeler].selected,
            lab.split.never_labeled,
            ClassBalanced(ratio, lab.evaluator, lab.trainer.precision),
        )
        fit = self._phase(lab, f"phase-{phase}-{tag}", before[tag], pseudo)
        # Released after the fit, which reads them: all phases together would fill the disk.
        lab.release(pseudo)
        return fit

    def _phase(
        self, lab: Lab, name: str, start: FitResult, unlabeled: StoredLabels | Sequence[str]
    ) -> FitResult:
        streams = unlabeled_and_labeled(
            unlabeled,
            lab.split.labeled,
            lab.augment.weak,
            unlabeled_batch_size=lab.trainer.unlabeled_batch_size,
            batch_size=lab.trainer.batch_size,
            budget=_budget(lab, self.phase_epochs),
        )
        learner = self.learner(start.selected, self.labeled_loss(lab), "phase")
        return lab.fit(name, learner, streams, lr=self.phase_lr, eval_every=self.phase_eval_every)

    def _reported(self, fits: Mapping[str, FitResult]) -> FitResult:
        if self.report != "better":
            return fits[self.report]
        return max(fits.values(), key=lambda fit: fit.score if fit.score and fit.score > 0 else 0.0)


class MutualLearner(Learner):
    """One network on labeled images and on others that it has labels for.

    The streams are "labeled" and perhaps "pseudo" (with stored labels and their confidence) or "unlabeled" (the
    network labels them itself, in the same step). All images go through the network together, as published, the
    labeled ones last.

    Args:
        model: network that is trained.
        method: settings.
        loss: loss of labeled pixels, where no other images are learned.
    """

    def __init__(self, model: Network, method: DMT, loss: LabeledLoss) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.loss = loss

    def predictors(self) -> dict[str, Network]:
        """The network."""
        return {"model": self.model}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Average the weighted cross entropy over all valid pixels of the batch."""
        labeled = batch["labeled"]
        others = batch.get("pseudo", batch.get("unlabeled"))
        images = labeled["image"] if others is None else torch.cat([others["image"], labeled["image"]])
        features = self.model.features(images)
        logits = self.model.classify(features, images.shape[-2:])
        target = labeled["label"]
        if others is None:
            total, count = self.loss(logits, target)
            output = StepOutput(
                {"supervised": LossTerm(total, count)}, {"pixels_used": count / target.numel()}
            )
        else:
            output, target = self._mutual(others, logits, target)
        further = self.further_losses(features, logits, target, progress)
        return StepOutput({**output.losses, **further}, output.scalars)

    def further_losses(
        self, features: Tensor, logits: Tensor, labels: Tensor, progress: Progress
    ) -> Mapping[str, LossTerm]:
        """Return loss terms in addition to that of the labels; none in DMT.

        Args:
            features: decoder features ``(N, D, h, w)`` of the batch.
            logits: logits ``(N, C, H, W)`` of these features.
            labels: labels ``(N, H, W) int64``, true ones or pseudo-labels, or 255.
            progress: position in the fit, with the seed of draws.
        """
        return {}

    def _mutual(self, others: StreamBatch, logits: Tensor, known: Tensor) -> tuple[StepOutput, Tensor]:
        """Return the loss of pseudo-labels and true labels, and all of these labels."""
        count_others = len(others["id"])
        pseudo, confidence = self._pseudo_labels(others, logits[:count_others])
        target = torch.cat([pseudo, known])
        confidence = torch.cat([confidence, torch.ones_like(known, dtype=torch.float32)])
        is_pseudo = torch.arange(len(target), device=target.device) < count_others
        # L; published code: utils/losses.py, DynamicMutualLoss, and for the ablations FlipLoss, DynamicNaiveLoss
        (total, count), statistics = dynamic_mutual_loss(
            logits, target, confidence, is_pseudo, *self._weighting, reduction="sum_count"
        )
        used = (pseudo != IGNORE_INDEX).sum()
        scalars = {
            "pseudo_used": used / pseudo.numel(),
            "disagreement": statistics.disagreements / used.clamp_min(1),
            "disagreement_won": statistics.wins / statistics.disagreements.clamp_min(1),
            "weight": statistics.mean_weight,
            "cross_entropy": statistics.cross_entropy,
        }
        return StepOutput({"mutual": LossTerm(total, count)}, scalars), target

    @property
    def _weighting(self) -> "tuple[float, float, Weighting]":
        """Exponents and variant of ``dynamic_mutual_loss``; labels made in the same step are plain targets."""
        method = self.method
        if method.variant == "online":
            return 0.0, 0.0, "dmt"
        return method.gamma_agree, method.gamma_disagree, method.variant

    def _pseudo_labels(self, others: StreamBatch, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and confidence of the images without true labels."""
        if "label" in others:
            return others["label"], others["confidence"]
        # published code: utils/losses.py, OnlineLoss
        labels = confident_labels(logits.detach(), self.method.threshold)
        return labels, torch.ones_like(labels, dtype=torch.float32)


class ClassBalanced:
    """Label images as they are evaluated, and keep the same share of every predicted class.

    Args:
        ratio: share of every class that is kept, at most 1.
        settings: settings by which the network is applied to an image.
        precision: ``trainer.precision``; probabilities are float32, or float64 where the network is.
    """

    def __init__(self, ratio: float, settings: EvaluatorSettings, precision: str = "fp32") -> None:
        self.ratio = ratio
        self.settings = settings
        self.precision = precision

    def __call__(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """Label one image ``(1, 3, H, W) uint8``; return label and confidence of every pixel."""
        return self.batch(network, images)[0]

    def batch(self, network: Network, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Label images of one size ``(N, 3, H, W) uint8``; return label and confidence of each."""
        return [label_image(maps) for maps in predict(network, images, self.settings, self.precision)]

    def thresholds(self, num_classes: int) -> ClassConfidences:
        """Return what finds the smallest confidence of each class, on every 16th pixel of each image."""
        # published code: utils/common.py, generate_class_balanced_pseudo_labels()
        return ClassConfidences(num_classes, self.ratio)


def _budget(lab: Lab, epochs: int | None) -> Budget:
    """Return the length of a fit that may have its own epochs; ``trainer.iterations`` holds for every fit."""
    return lab.budget if lab.budget.iterations is not None or epochs is None else Budget(epochs=epochs)
