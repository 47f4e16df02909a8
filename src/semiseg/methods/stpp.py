"""Self-training ST and ST++ (arXiv 2106.05095): a teacher labels, a fresh student learns with strong views."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import Split
from semiseg.contracts.feeding import StoredLabels
from semiseg.contracts.recipe import FitResult, Lab, ReusedFit
from semiseg.contracts.training import Network
from semiseg.data.epochs import labeled, mixed
from semiseg.declare import Gt, Le, Lt, Mark, record
from semiseg.errors import UserError
from semiseg.methods.labeled_loss import FirstFit, LabeledLossSettings
from semiseg.methods.supervised import GroupSize, NormGroups, SupervisedLearner
from semiseg.pseudo import label_image, stability_score
from semiseg.settings import EvaluatorSettings, Other, TrainerSettings
from semiseg.tasks.inference import predict, predict_labels


@record
class SelfTraining(LabeledLossSettings):
    """ST, and with ``plus`` ST++, which learns from the images of stable predictions first.

    Every fit trains a fresh network with a fresh optimizer and schedule, for the same number of epochs, on
    batches of ``trainer.batch_size + trainer.unlabeled_batch_size`` images. The students see labeled images in the
    weak and unlabeled ones in the strong view. Masks of unlabeled images are never read (the published code opens
    them to print a score).
    """

    plus: bool = True
    """Whether the unlabeled images are ranked by stability, and the reliable ones labeled and learned first: ST++."""
    scales: Sequence[Annotated[float, Gt(0)]] = (0.5, 0.75, 1.0, 1.5, 2.0)
    """Scales of the labeling passes, factors of the image's size."""
    flip: bool = True
    """Whether the mirrored image is predicted too, at every scale of the labeling passes."""
    snapshots: Sequence[Annotated[float, Gt(0), Le(1)]] = (1 / 3, 2 / 3, 1.0)
    """Fractions of the teacher's training at which it is kept for the ranking, in rising order; the last one judges."""
    reliable_fraction: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Share of the unlabeled images that counts as reliable, published 0.5; method=st learns from all at once."""
    double_below: Annotated[int, FirstFit] = 200
    """Number of labeled images below which the teacher uses the list twice per epoch."""
    teacher_augment: Annotated[Literal["weak", "strong"], FirstFit] = "weak"
    """View of the teacher's images: "weak" as published, or "strong"."""
    bn_group_size: GroupSize = None
    """Number of images whose statistics batch norm takes together. Published: 8, as ``DataParallel`` halves batches of
    16. ``null`` takes the whole batch, with less noise, running statistics of every image, and any batch size."""
    baseline: Annotated[str | None, Mark(role="run")] = None
    """Run of the same images and network whose supervised fit is the teacher, kept at ``snapshots`` for ST++; ``null``
    trains a teacher."""
    student: Other = None
    """Network of the students, which is reported, where it has another structure or another optimizer than the teacher;
    ``null`` takes those of the run, as published."""

    needs_unlabeled: ClassVar[bool] = True

    def conflicts(self) -> Iterator[UserError]:
        """Find faults of the lists as a whole."""
        yield from super().conflicts()
        if not self.scales:
            yield UserError("give factors of the image size above 0.", key="method.scales", value=[])
        if len(self.snapshots) < 2 or list(self.snapshots) != sorted(self.snapshots):
            yield UserError(
                "give at least 2 fractions of the teacher's training in rising order.",
                key="method.snapshots",
                value=list(self.snapshots),
            )

    def reused_fits(self) -> list[ReusedFit]:
        """The teacher, where it comes from another run."""
        if self.baseline is None:
            return []
        runs = "a run of method=stpp" if self.plus else "a run of method=supervised, st or stpp"
        snapshots = self.snapshots if self.plus else ()
        return [ReusedFit(self.baseline, "teacher", runs, supervised=True, snapshots=snapshots)]

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the number of labeled and pseudo-labeled images together, for the teacher too.

        Raises:
            UserError: batch norm can't be taken over equal groups of them.
        """
        both = "trainer.batch_size + trainer.unlabeled_batch_size"
        size = trainer.batch_size + trainer.unlabeled_batch_size
        NormGroups(self.bn_group_size).check(size, trainer, both)
        return {both: size}

    def check_split(self, split: Split) -> None:
        """Require images that are unlabeled and not labeled, and with ``plus`` enough of them.

        Raises:
            UserError: there are none, or they can't be cut into reliable ones and the rest.
        """
        split.require_unlabeled("stpp" if self.plus else "st", never_labeled=True)
        if self.plus:
            self.split_by_stability(dict.fromkeys(split.never_labeled, 0.0))

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
        # The stages 1 to 6 of the published code: main.py, main().
        teacher = self._teacher(lab, self.snapshots)

        def rank() -> dict[str, Any]:
            return self.split_by_stability(_scores(lab, teacher.snapshots))

        ranking = lab.memo("rank", compute=rank, planned=rank)
        reliable = self._label(lab, "label-reliable", teacher, ranking["reliable"])
        intermediate = self._student(lab, "student-reliable", reliable)
        rest = self._label(lab, "label-rest", intermediate, ranking["rest"])
        student = self._student(lab, "student", reliable, rest)
        # Not before: the last student learns from the reliable images again.
        lab.release(reliable)
        lab.release(rest)
        return student.selected

    def _teacher(self, lab: Lab, snapshots: Sequence[float] = ()) -> FitResult:
        if self.baseline is not None:
            (given,) = self.reused_fits()
            return lab.take("teacher", given)
        view = lab.augment.strong if self.teacher_augment == "strong" else lab.augment.weak
        streams = labeled(
            lab.split.labeled, view, _batch_size(lab), lab.budget, double_below=self.double_below
        )
        return lab.fit("teacher", self._learner(lab, lab.network("teacher")), streams, snapshots)

    def _label(self, lab: Lab, step: str, by: FitResult, ids: Sequence[str]) -> StoredLabels:
        return lab.label(step, by.selected, ids, MeanOfViews(self.scales, self.flip), keep_confidence=False)

    def _student(self, lab: Lab, step: str, *pseudo: StoredLabels) -> FitResult:
        streams = mixed(
            lab.split.labeled, pseudo, lab.augment.weak, lab.augment.strong, _batch_size(lab), lab.budget
        )
        network = lab.network(step) if self.student is None else lab.network(step, role="student")
        return lab.fit(step, self._learner(lab, network), streams)

    def _learner(self, lab: Lab, network: Network) -> SupervisedLearner:
        NormGroups(self.bn_group_size).apply(network, _batch_size(lab), lab.trainer)
        return SupervisedLearner(network, self.labeled_loss(lab))

    def split_by_stability(self, scores: Mapping[str, float]) -> dict[str, Any]:
        """Cut the images into reliable ones and the rest.

        Args:
            scores: stability by image id.

        Returns:
            "reliable" and "rest", ids from the most to the least stable, ties in the given order; "scores".

        Raises:
            UserError: one of the two parts would be empty.
        """
        # published code: main.py, select_reliable()
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


class MeanOfViews:
    """Label images by the mean probability over several scales and mirrored copies, every pixel.

    Scaled sides are rounded down, every resize is bilinear with aligned corners, and logits go through softmax
    before they are resized to the image.

    Args:
        scales: scales of the views, factors of the image's size.
        flip: whether the mirrored image is predicted too, at every scale.
    """

    def __init__(self, scales: Sequence[float], flip: bool) -> None:
        # published code: main.py, label(); model/semseg/base.py, BaseNet.forward()
        self.settings = EvaluatorSettings(scales=list(scales), flip=flip)

    def __call__(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """Label one image ``(1, 3, H, W) uint8``; return labels and their mean probability."""
        return self.batch(network, images)[0]

    def batch(self, network: Network, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Label images of one size ``(N, 3, H, W) uint8``; return ``(H, W)`` uint8 and float32 of each."""
        return [label_image(maps) for maps in predict(network, images, self.settings)]


class StableImages:
    """Score images by the stability of the predictions of several networks, as in evaluation.

    Published: one scale, no mirror.

    Args:
        settings: settings by which the networks are applied to an image.
        precision: ``trainer.precision`` of the run.
    """

    def __init__(self, settings: EvaluatorSettings, precision: str) -> None:
        self.settings = settings
        self.precision = precision

    def __call__(self, networks: nn.ModuleList, images: Tensor) -> Tensor:
        """Score one image ``(1, 3, H, W) uint8``; return a scalar float64."""
        return self.batch(networks, images)[0]

    def batch(self, networks: nn.ModuleList, images: Tensor) -> list[Tensor]:
        """Score images of one size ``(N, 3, H, W) uint8``; return a scalar float64 of each."""
        snapshots = (cast(Network, network) for network in networks)
        labels = [predict_labels(each, images, self.settings, self.precision) for each in snapshots]
        return [stability_score(of_image) for of_image in zip(*labels, strict=True)]


def _scores(lab: Lab, snapshots: Sequence[Network]) -> dict[str, float]:
    """Return the stability of all unlabeled images."""
    ids, policy = lab.split.never_labeled, StableImages(lab.evaluator, lab.trainer.precision)
    # Read from the device at the end: nothing else waits for it.
    scores = dict(lab.predict(nn.ModuleList(snapshots), ids, policy))
    return dict(zip(ids, torch.stack([scores[image_id] for image_id in ids]).tolist(), strict=True))
