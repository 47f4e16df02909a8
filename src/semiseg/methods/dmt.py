"""Dynamic mutual training (DMT, arXiv 2004.08514): two networks label for each other and doubt each other's labels.

The recipe is ``DMT.run``. Both baselines and both halves of every phase are fits of a ``MutualLearner``; a labeling
is ``lab.label`` with ``ClassBalanced``. What a network learns beside its labels (the contrast of DMTC) comes in as
``contrast``: it attaches a head to the networks of the baselines and gives one ``ExtraLoss`` for their fits and one
for those of the phases. The ablations of the paper are other arguments of the same class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from semiseg.contracts.dataset import Split
from semiseg.contracts.training import Budget, FitResult, Lab, Network, ReusedFit, StoredLabels
from semiseg.data.epochs import labeled, unlabeled_and_labeled
from semiseg.errors import UserError
from semiseg.methods.mutual import ClassBalanced, Contrast, MutualLearner, MutualLoss, Variant
from semiseg.methods.supervised import LabeledLoss
from semiseg.seeding import derive_seed
from semiseg.settings import TrainerSettings
from semiseg.splits.dms import difference_maximized

Difference = Literal["initialization", "data"]
Report = Literal["a", "b", "better"]


@dataclass(frozen=True)
class FitLength:
    """Length, learning rate and evaluation interval of one kind of fit.

    Args:
        kind: "baseline" or "phase", the beginning of the keys in the config.
        epochs: None: ``trainer.epochs``. With ``trainer.iterations`` every fit has that many instead.
        lr: base learning rate; None: ``optimizer.lr``.
        eval_every: iterations between evaluations; None: ``trainer.eval_every``.
    """

    kind: str
    epochs: int | None = None
    lr: float | None = None
    eval_every: int | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "eval_every"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"method.{self.kind}_{key}={value}: give 1 or more, or null.")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise UserError("give a rate above 0, or null.", key=f"method.{self.kind}_lr", value=self.lr)

    def budget(self, usual: Budget) -> Budget:
        """Return the length of the fit, from that of fits without one of their own."""
        return usual if usual.iterations is not None or self.epochs is None else Budget(epochs=self.epochs)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``Lab.fit``."""
        return {"lr": self.lr, "eval_every": self.eval_every}


class DMT:
    """Dynamic mutual training of two partners, a and b, and its ablations.

    Both partners first learn the labeled images alone. Then, in each phase, the partner's network of the phase
    before labels all unlabeled images, of which the most confident share of every class is kept, and each
    network goes on from its own of the phase before, with a fresh optimizer and schedule. The networks that label
    and go on are those that ``trainer.select`` names.

    ==============  ============  =============  =================
    ablation        ``partners``  ``variant``    exponents
    ==============  ============  =============  =================
    CBST            1             dmt            0 and 0
    DST             1             dmt            5 and 5
    naive           2, by data    naive          5 and 5
    flip            2, by data    flip           5 and 5
    online          1             online         without effect
    ==============  ============  =============  =================

    Args:
        partners: 2, or 1 network that labels for itself.
        difference: what makes the partners disagree: their "initialization", or their "data": the baselines
            learn two overlapping samples of the labeled images, 80 % each.
        weights_a: initial backbone weights of partner a; None: ``backbone.weights``. Published: coco.
        weights_b: those of partner b. Published: imagenet, and coco where the data differs.
        variant: see ``MutualLoss``; "online" has one phase, in which the network labels in every step.
        gamma_agree: exponent of the weight where network and labeler agree. Published: 5, Cityscapes 3.
        gamma_disagree: exponent where they do not; a larger one for noisier labels. Published: the same.
        ratios: share of every class that is kept, by phase.
        threshold: smallest confidence that is learned with "online".
        baseline_epochs: see ``FitLength``; so are the next five.
        phase_epochs: of the phases.
        baseline_lr: of the baselines.
        phase_lr: of the phases.
        baseline_eval_every: of the baselines.
        phase_eval_every: of the phases.
        report: "a", "b", or the "better" one on the validation images.
        loss: of the baselines: "ce" as published, or "ohem". The phases weight pixels by the method's own rule.
        ohem_threshold: probability of the true class above which OHEM leaves a pixel out.
        ohem_min_kept: pixels of a batch that OHEM keeps at least; None: 5/64 of them.
        contrast: what the networks learn beside their labels, see ``Contrast``; None: nothing, DMT.
        baseline: directory of a run of the same images and network whose baselines are taken, or of one run for
            each partner; None: they are trained.
        name: name of the option in the config.

    Raises:
        UserError: a value out of range, or one that is without effect.
    """

    needs_unlabeled: ClassVar[bool] = True

    def __init__(
        self,
        *,
        partners: int = 2,
        difference: Difference = "initialization",
        weights_a: str | None = None,
        weights_b: str | None = None,
        variant: Variant = "dmt",
        gamma_agree: float = 5.0,
        gamma_disagree: float = 5.0,
        ratios: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
        threshold: float = 0.9,
        baseline_epochs: int | None = None,
        phase_epochs: int | None = None,
        baseline_lr: float | None = None,
        phase_lr: float | None = None,
        baseline_eval_every: int | None = None,
        phase_eval_every: int | None = None,
        report: Report = "better",
        loss: Literal["ce", "ohem"] = "ce",
        ohem_threshold: float = 0.7,
        ohem_min_kept: int | None = None,
        contrast: Contrast | None = None,
        baseline: str | Sequence[str] | None = None,
        name: str = "dmt",
    ) -> None:
        self.labeled_loss = LabeledLoss(loss, ohem_threshold, ohem_min_kept)
        self.loss = MutualLoss(gamma_agree, gamma_disagree, variant, threshold)
        self.baseline = FitLength("baseline", baseline_epochs, baseline_lr, baseline_eval_every)
        self.phase = FitLength("phase", phase_epochs, phase_lr, phase_eval_every)
        if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
            given = ",".join(map(str, ratios))
            raise UserError(f"method.ratios=[{given}]: give a share above 0, at most 1, for each phase.")
        for key, value, choices in (
            ("partners", partners, (1, 2)),
            ("difference", difference, get_args(Difference)),
            ("report", report, get_args(Report)),
        ):
            if value not in choices:
                raise UserError(f"choose {' or '.join(map(str, choices))}.", key=f"method.{key}", value=value)
        if partners == 1 and difference == "data":
            raise UserError(
                "two baselines differ; needs method.partners=2.", key="method.difference", value="data"
            )
        if partners == 1 and weights_b is not None:
            raise UserError(
                "of the second network; needs method.partners=2.", key="method.weights_b", value=weights_b
            )
        if partners == 1 and report == "b":
            raise UserError("the second network; needs method.partners=2.", key="method.report", value="b")
        if variant == "online" and partners == 2:
            raise UserError(
                "a network that labels for itself; give method.partners=1.",
                key="method.variant",
                value="online",
            )
        self.tags = ("a", "b")[:partners]
        self.difference = difference
        self.weights = dict(zip(self.tags, (weights_a, weights_b), strict=False))
        self.ratios = tuple(ratios)
        self.report = report
        self.contrast = contrast
        self.name = name
        self.given = {} if baseline is None else self._given(baseline)

    def reused_fits(self) -> list[ReusedFit]:
        """The baselines, where they come from other runs."""
        return list(self.given.values())

    def _given(self, baseline: str | Sequence[str]) -> dict[str, ReusedFit]:
        runs = [baseline] * len(self.tags) if isinstance(baseline, str) else list(baseline)
        if len(runs) != len(self.tags):
            raise UserError(
                f"method.baseline=[{','.join(runs)}]: give one run of method={self.name}, or one for each of the "
                f"{len(self.tags)} networks."
            )
        # A supervised fit has learned all labeled images, and no representation.
        plain = self.difference == "initialization" and self.contrast is None
        return {
            tag: ReusedFit(
                run,
                f"baseline-{tag}",
                f"a run of method={self.name}",
                supervised=plain,
                must_match=("method.difference", "method.contrast"),
            )
            for tag, run in zip(self.tags, runs, strict=True)
        }

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Labeled and unlabeled images together, for the baselines too.

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
        split.require_unlabeled(self.name, never_labeled=True)
        if self.difference == "data" and len(split.labeled) < 2:
            raise UserError(
                "needs 2 labeled images or more; this split has 1.", key="method.difference", value="data"
            )

    def run(self, lab: Lab) -> Network:
        """Train the baselines, then all phases; return the reported network."""
        fits = {tag: self._baseline(lab, tag) for tag in self.tags}
        if self.loss.variant == "online":
            return self._phase(lab, "online", fits["a"], lab.split.never_labeled).selected
        for phase, ratio in enumerate(self.ratios, start=1):
            # Both halves of a phase start from the former one, so that their order is of no account.
            fits = {tag: self._half(lab, phase, ratio, tag, fits) for tag in self.tags}
        return self._reported(fits).selected

    def _baseline(self, lab: Lab, tag: str) -> FitResult:
        if tag in self.given:
            return lab.take(f"baseline-{tag}", self.given[tag])
        # Partners that learn different data may begin alike, as published with two networks of COCO.
        beside = "a" if tag == "b" and self.difference == "initialization" else None
        network = lab.network(tag, self.weights[tag], differs_from=beside)
        if self.contrast is not None:
            self.contrast.attach(network, derive_seed(lab.seed, tag))
        streams = labeled(
            self._labeled_ids(lab, tag),
            lab.augment.weak,
            lab.trainer.batch_size + lab.trainer.unlabeled_batch_size,
            self.baseline.budget(lab.budget),
            last="short",
            smallest=getattr(network.decoder, "smallest_batch", 1) * lab.trainer.accumulate,
        )
        extra = None if self.contrast is None else self.contrast.of_baselines()
        learner = MutualLearner(network, self.loss, extra, self.labeled_loss)
        return lab.fit(f"baseline-{tag}", learner, streams, **self.baseline.options)

    def _labeled_ids(self, lab: Lab, tag: str) -> Sequence[str]:
        split = lab.split
        if self.difference == "initialization":
            return split.labeled
        sides = difference_maximized(lab.dataset.ids("train"), split.labeled, split.name, split.split_id)
        return sides[self.tags.index(tag)]

    def _half(
        self, lab: Lab, phase: int, ratio: float, tag: str, former: Mapping[str, FitResult]
    ) -> FitResult:
        labeler = {"a": self.tags[-1], "b": "a"}[tag]
        pseudo = lab.label(
            f"label-{phase}-by-{labeler}",
            former[labeler].selected,
            lab.split.never_labeled,
            ClassBalanced(ratio, lab.evaluator, lab.trainer.precision),
        )
        fit = self._phase(lab, f"phase-{phase}-{tag}", former[tag], pseudo)
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
            budget=self.phase.budget(lab.budget),
        )
        extra = None if self.contrast is None else self.contrast.of_phases()
        learner = MutualLearner(start.selected, self.loss, extra)
        return lab.fit(name, learner, streams, **self.phase.options)

    def _reported(self, fits: Mapping[str, FitResult]) -> FitResult:
        if self.report != "better":
            return fits[self.report]
        return max(fits.values(), key=lambda fit: fit.score if fit.score and fit.score > 0 else 0.0)
