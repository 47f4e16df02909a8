"""Cross pseudo supervision (CPS, arXiv 2106.01226): two networks teach each other, with or without CutMix."""

from typing import ClassVar, Literal

from semiseg.contracts.dataset import Split
from semiseg.contracts.training import Lab, Network
from semiseg.data.epochs import Unlabeled, separate
from semiseg.errors import UserError
from semiseg.methods.cps_learner import CPSLearner, TeacherMode
from semiseg.methods.supervised import LabeledLoss
from semiseg.settings import TrainerSettings


class CPS:
    """Cross pseudo supervision.

    The defaults are the paper's method; the behavior of the published code that deviates from it is in switches:
    ``same_image=True``, ``reshuffle_unlabeled=False``, ``nominal_lengths=True`` and ``gradient_scale=1/W``
    (W = 4 GPUs on VOC, 8 on Cityscapes), all on in a run that repeats published numbers.

    Args:
        cutmix: learn from CutMix mixtures of two unlabeled images.
        weight: lambda of the unlabeled term. Published: VOC 1.5, with CutMix 1; Cityscapes 6, with CutMix 5.
        labeled_in_cps: count labeled images in the unlabeled term; None as published: without CutMix only.
        gradient_scale: factor of the whole loss. The published code divides gradients by the number W of
            GPUs once too often; 1/W repeats that, and equals lr / W with weight_decay * W under SGD.
        same_image: mix two augmentations of the same image, as the published code does by an equal seed of
            both samplers; False mixes two images, as the paper says.
        reshuffle_unlabeled: draw a new order of unlabeled images each epoch; the published code does not.
        nominal_lengths: take total // ratio for the number of labeled images, as the published code does,
            which is one off the length of its lists; matters for the iterations of an epoch alone.
        merge: take labeled and unlabeled images, of equal number, through a network at once. Losses and
            running statistics equal those of separate passes, in float64 bit for bit; dropout draws
            otherwise. It pays where a pass is small: with two crops a stream on ResNet-50, a step on a CPU
            took 0.85 of the time at 160 pixels and 1.02 at 320.
        report: the network that is kept and reported: "first" as published, or "better", the one of both that
            an evaluation on the validation images finds better, at twice the time of evaluations. The mean
            of both is no choice: what a run reports is one network, which every tool can load.
        teacher_mode: mode of the networks while they label CutMix images; "train" as published, then these
            passes update the running statistics too; "eval" uses running statistics and no dropout.
        loss: "ce", or "ohem" as published for Cityscapes; the unlabeled term is cross entropy always.
        ohem_threshold: probability of the true class above which OHEM leaves a pixel out.
        ohem_min_kept: pixels of a batch that OHEM keeps at least; None: 5/64 of them, the published share.
        name: name of the option in the config.

    Raises:
        UserError: an unknown choice or a factor out of range.
    """

    needs_unlabeled: ClassVar[bool] = True

    def __init__(
        self,
        *,
        cutmix: bool = True,
        weight: float = 1.0,
        labeled_in_cps: bool | None = None,
        gradient_scale: float = 1.0,
        same_image: bool = False,
        reshuffle_unlabeled: bool = True,
        nominal_lengths: bool = False,
        merge: bool = False,
        report: Literal["first", "better"] = "first",
        teacher_mode: TeacherMode = "train",
        loss: Literal["ce", "ohem"] = "ce",
        ohem_threshold: float = 0.7,
        ohem_min_kept: int | None = None,
        name: str = "cps",
    ) -> None:
        if weight < 0:
            raise UserError("give 0 or more, for example 1.5.", key="method.weight", value=weight)
        if gradient_scale <= 0:
            raise UserError(
                "give a factor above 0, for example 0.25.", key="method.gradient_scale", value=gradient_scale
            )
        if teacher_mode not in ("train", "eval"):
            raise UserError("choose train or eval.", key="method.teacher_mode", value=teacher_mode)
        if report not in ("first", "better"):
            raise UserError("choose first or better.", key="method.report", value=report)
        self.cutmix = cutmix
        self.weight = weight
        self.labeled_in_cps = not cutmix if labeled_in_cps is None else labeled_in_cps
        self.gradient_scale = gradient_scale
        self.same_image = same_image
        self.reshuffle_unlabeled = reshuffle_unlabeled
        self.nominal_lengths = nominal_lengths
        self.merge = merge
        self.report = report
        self.teacher_mode: TeacherMode = teacher_mode
        self.loss = LabeledLoss(loss, ohem_threshold, ohem_min_kept)
        self.name = name

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Labeled and unlabeled images, which pass through the networks apart.

        Raises:
            UserError: with ``merge`` their numbers differ.
        """
        if self.merge and trainer.batch_size != trainer.unlabeled_batch_size:
            raise UserError(
                f"method.merge=true: needs equal trainer.batch_size={trainer.batch_size} and "
                f"trainer.unlabeled_batch_size={trainer.unlabeled_batch_size}."
            )
        return {
            "trainer.batch_size": trainer.batch_size,
            "trainer.unlabeled_batch_size": trainer.unlabeled_batch_size,
        }

    def check_split(self, split: Split) -> None:
        """Require validation images where the better network is asked for.

        Raises:
            UserError: there are none.
        """
        if self.report == "better" and not split.val:
            raise UserError(
                "the dataset has no validation images to find the better network on. Choose "
                "method.report=first.",
                key="method.report",
                value="better",
            )

    def run(self, lab: Lab) -> Network:
        """Train both networks together and return the first, or the better one."""
        learner = CPSLearner(
            lab.network("branch_1"),
            lab.network("branch_2", differs_from="branch_1"),
            cutmix=self.cutmix,
            weight=self.weight,
            labeled_in_cps=self.labeled_in_cps,
            gradient_scale=self.gradient_scale,
            loss=self.loss,
            teacher_mode=self.teacher_mode,
            merge=self.merge,
            better=self.report == "better",
        )
        ids, view = lab.split.unlabeled, lab.augment.weak
        unlabeled = {"unlabeled": Unlabeled(ids, view)}
        if self.cutmix:
            unlabeled["unlabeled_2"] = Unlabeled(ids, view, "unlabeled" if self.same_image else None)
        streams = separate(
            lab.split.labeled,
            view,
            unlabeled,
            batch_size=lab.trainer.batch_size,
            unlabeled_batch_size=lab.trainer.unlabeled_batch_size,
            budget=lab.budget,
            reshuffle_unlabeled=self.reshuffle_unlabeled,
            nominal_lengths=self.nominal_lengths,
        )
        return lab.fit("train", learner, streams).selected
