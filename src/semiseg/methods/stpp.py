"""Self-training ST and ST++ (arXiv 2106.05095): a teacher labels, a fresh student learns with strong views."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import Split
from semiseg.contracts.training import FitResult, Lab, Network, ReusedFit, StoredLabels
from semiseg.data.epochs import labeled, mixed
from semiseg.errors import UserError
from semiseg.methods.supervised import LabeledLoss, NormGroups, SupervisedLearner
from semiseg.pseudo import stability_score
from semiseg.settings import EvaluatorSettings, TrainerSettings
from semiseg.tasks.inference import predict, predict_labels


class MultiScaleLabeling:
    """Label images by the mean probability over several scales and mirrored copies, every pixel.

    Scaled sides are rounded down, every resize is bilinear with aligned corners, and logits go through softmax
    before they are resized to the image.

    Args:
        scales: factors of the image's size.
        flip: predict the mirrored image too, at every scale.

    Raises:
        UserError: no scale, or one that is not above 0.
    """

    def __init__(self, scales: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 2.0), flip: bool = True) -> None:
        if not scales or min(scales) <= 0:
            raise UserError(
                "give factors of the image size above 0.", key="method.scales", value=list(scales)
            )
        self.settings = EvaluatorSettings(scales=list(scales), flip=flip)

    def __call__(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """Label one image.

        Args:
            network: the labeler.
            images: ``(1, 3, H, W) uint8``.

        Returns:
            Labels ``(H, W) uint8`` and their mean probability ``(H, W) float32``.
        """
        confidence, label = predict(network, images, self.settings)[0].max(0)
        return label.to(torch.uint8), confidence


class SelfTraining:
    """ST, and with ``plus`` ST++, which learns from the images of stable predictions first.

    Every fit trains a fresh network with a fresh optimizer and schedule, for the same number of epochs, on
    batches of ``trainer.batch_size + trainer.unlabeled_batch_size`` images. Masks of unlabeled images are never
    read (the published code opens them to print a score).

    Args:
        plus: ST++: rank the unlabeled images by stability, label and learn the reliable ones first.
        scales: image sizes of the labeling passes.
        flip: label with mirrored images too.
        snapshots: when the teacher is kept for the ranking, as fractions of its training; the last one judges.
        reliable_fraction: share of the unlabeled images that counts as reliable.
        double_below: use a labeled list of fewer images twice per epoch of the teacher.
        teacher_augment: "weak" as published, or "strong" for the teacher too. The students see labeled
            images in the weak and unlabeled ones in the strong view.
        bn_group_size: see ``NormGroups``. 8 repeats the published runs, whose batches of 16 were halved by
            ``DataParallel``. None, the default, takes the whole batch: the statistics are less noisy, the
            running ones see every image, and any batch size will do.
        loss: "ce" as published, or "ohem" for all fits.
        ohem_threshold: probability of the (pseudo-)label above which OHEM leaves a pixel out.
        ohem_min_kept: pixels of a batch that OHEM keeps at least; None: 5/64 of them.
        baseline: directory of a run of the same images and network whose supervised fit is the teacher; it has
            to have kept its network at ``snapshots`` where these are needed. None: a teacher is trained.
        name: name of the option in the config.

    Raises:
        UserError: a setting out of range.
    """

    needs_unlabeled: ClassVar[bool] = True

    def __init__(
        self,
        *,
        plus: bool = True,
        scales: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 2.0),
        flip: bool = True,
        snapshots: Sequence[float] = (1 / 3, 2 / 3, 1.0),
        reliable_fraction: float = 0.5,
        double_below: int = 200,
        teacher_augment: Literal["weak", "strong"] = "weak",
        bn_group_size: int | None = None,
        loss: Literal["ce", "ohem"] = "ce",
        ohem_threshold: float = 0.7,
        ohem_min_kept: int | None = None,
        baseline: str | None = None,
        name: str = "stpp",
    ) -> None:
        if not 0 < reliable_fraction < 1:
            raise UserError(
                "give a share between 0 and 1, published is 0.5; method=st learns from all images at once.",
                key="method.reliable_fraction",
                value=reliable_fraction,
            )
        if (
            len(snapshots) < 2
            or list(snapshots) != sorted(snapshots)
            or not 0 < snapshots[0] <= snapshots[-1] <= 1
        ):
            raise UserError(
                "give at least 2 fractions of the teacher's training in rising order, above 0 and at most 1.",
                key="method.snapshots",
                value=list(snapshots),
            )
        if teacher_augment not in ("weak", "strong"):
            raise UserError("choose weak or strong.", key="method.teacher_augment", value=teacher_augment)
        self.plus = plus
        self.labeling = MultiScaleLabeling(scales, flip)
        self.snapshots = tuple(snapshots)
        self.reliable_fraction = reliable_fraction
        self.double_below = double_below
        self.teacher_augment = teacher_augment
        self.groups = NormGroups(bn_group_size)
        self.loss = LabeledLoss(loss, ohem_threshold, ohem_min_kept)
        self.given = None if baseline is None else self._given(baseline)
        self.name = name

    def reused_fits(self) -> list[ReusedFit]:
        """The teacher, where it comes from another run."""
        return [] if self.given is None else [self.given]

    def _given(self, run: str) -> ReusedFit:
        suits = "a run of method=stpp" if self.plus else "a run of method=supervised, st or stpp"
        return ReusedFit(
            run, "teacher", suits, supervised=True, snapshots=self.snapshots if self.plus else ()
        )

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Labeled and pseudo-labeled images together, for the teacher too.

        Raises:
            UserError: batch norm can't be taken over equal groups of them.
        """
        both = "trainer.batch_size + trainer.unlabeled_batch_size"
        size = trainer.batch_size + trainer.unlabeled_batch_size
        self.groups.check(size, trainer, both)
        return {both: size}

    def check_split(self, split: Split) -> None:
        """Require images that are unlabeled and not labeled, and with ``plus`` enough of them.

        Raises:
            UserError: there are none, or they can't be cut into reliable ones and the rest.
        """
        ids = split.never_labeled
        if not ids:
            raise UserError(
                f"method={self.name} labels images that are unlabeled and not labeled, and this leaves "
                "none. Label fewer (split=1/8), or take method=supervised.",
                key="split",
                value=split.name,
            )
        if self.plus:
            self.split_by_stability(dict.fromkeys(ids, 0.0))

    def run(self, lab: Lab) -> Network:
        """Train a teacher and one student (ST) or two (ST++); return the last student."""
        if self.plus:
            return self._stpp(lab)
        teacher = self._teacher(lab)
        pseudo = self._label(lab, "label", teacher, lab.split.never_labeled)
        student = self._student(lab, "student", pseudo)
        lab.release(pseudo)
        return student.selected

    def _stpp(self, lab: Lab) -> Network:
        teacher = self._teacher(lab, self.snapshots)

        def rank() -> dict[str, Any]:
            return self.split_by_stability(_scores(lab, teacher.snapshots))

        ranking = lab.memo("rank", compute=rank, planned=rank)
        reliable = self._label(lab, "label-reliable", teacher, ranking["reliable"])
        intermediate = self._student(lab, "student-reliable", reliable)
        rest = self._label(lab, "label-rest", intermediate, ranking["rest"])
        student = self._student(lab, "student", reliable, rest)
        lab.release(reliable)
        lab.release(rest)
        return student.selected

    def _teacher(self, lab: Lab, snapshots: Sequence[float] = ()) -> FitResult:
        if self.given is not None:
            return lab.take("teacher", self.given)
        view = lab.augment.strong if self.teacher_augment == "strong" else lab.augment.weak
        streams = labeled(
            lab.split.labeled, view, _batch_size(lab), lab.budget, double_below=self.double_below
        )
        return lab.fit("teacher", self._learner(lab, "teacher"), streams, snapshots)

    def _label(self, lab: Lab, step: str, by: FitResult, ids: Sequence[str]) -> StoredLabels:
        return lab.label(step, by.selected, ids, self.labeling, keep_confidence=False)

    def _student(self, lab: Lab, step: str, *pseudo: StoredLabels) -> FitResult:
        streams = mixed(
            lab.split.labeled, pseudo, lab.augment.weak, lab.augment.strong, _batch_size(lab), lab.budget
        )
        return lab.fit(step, self._learner(lab, step), streams)

    def _learner(self, lab: Lab, tag: str) -> SupervisedLearner:
        network = self.groups.apply(lab.network(tag), _batch_size(lab), lab.trainer)
        return SupervisedLearner(network, self.loss)

    def split_by_stability(self, scores: Mapping[str, float]) -> dict[str, Any]:
        """Cut the images into reliable ones and the rest.

        Args:
            scores: stability by image id.

        Returns:
            "reliable" and "rest", ids from the most stable on, equal scores in the order given; "scores".

        Raises:
            UserError: one of the two parts would be empty.
        """
        ranked = sorted(scores, key=lambda image_id: scores[image_id], reverse=True)
        reliable = int(len(ranked) * self.reliable_fraction)
        if not 0 < reliable < len(ranked):
            raise UserError(
                f"{len(ranked)} unlabeled images can't be cut into a reliable part of "
                f"{self.reliable_fraction} and a rest: add unlabeled images, or use method=st."
            )
        return {"reliable": ranked[:reliable], "rest": ranked[reliable:], "scores": dict(scores)}


def _batch_size(lab: Lab) -> int:
    return lab.trainer.batch_size + lab.trainer.unlabeled_batch_size


def _scores(lab: Lab, snapshots: Sequence[Network]) -> dict[str, float]:
    """Stability of every unlabeled image, predicted as in evaluation (published: one scale, not mirrored)."""
    settings, precision = lab.evaluator, lab.trainer.precision

    def stability(networks: nn.ModuleList, images: Tensor) -> Tensor:
        snapshots = (cast(Network, network) for network in networks)
        return stability_score([predict_labels(each, images, settings, precision)[0] for each in snapshots])

    scores = lab.predict(nn.ModuleList(snapshots), lab.split.never_labeled, stability)
    return {image_id: float(score) for image_id, score in scores}
