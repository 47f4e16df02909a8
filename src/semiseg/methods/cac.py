"""Directional context-aware consistency (CAC, arXiv 2106.14133): two crops of an image agree where they overlap."""

from typing import ClassVar, Literal

import torch

from semiseg.contracts.training import Augmentation, Lab, Network
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.overlap import OverlapPair
from semiseg.data.views import OverlapCrops
from semiseg.errors import UserError
from semiseg.losses.directional import NORMALIZERS, Normalizer
from semiseg.methods.cac_learner import HEAD, CACLearner
from semiseg.methods.feature_bank import FeatureBank, ranks
from semiseg.methods.supervised import LabeledLoss
from semiseg.models.heads import Projector
from semiseg.settings import TrainerSettings

PROBE = 128
"""Side of the image that a network's stride is found with."""


class CAC:
    """Directional context-aware consistency.

    The defaults are the authors' code where it is the method that their results come from, and its correction
    where it is an accident of their setup: ``replay=True`` and ``iterations_per_epoch=1157`` repeat the latter,
    ``groups=W`` (2 GPUs on VOC, 4 on Cityscapes) the average over GPUs. ``normalizer="overlap"`` is the paper's
    formula; "anchors" is what its numbers were made with.

    Args:
        weight: factor of the contrastive losses; no ramp-up.
        temperature: divisor of the cosines.
        positive_threshold: confidence that the target of a cell has to exceed.
        normalizer: "anchors", the mean over the cells that learn, or "overlap", over all common cells.
        bank_steps: earlier steps whose features are kept beside those of the running one. Published: 1, on VOC
            with ResNet-101 2, on Cityscapes 0.
        selected: cells of each crop batch (and group) that become negatives, at random; None: all, to which the
            published numbers 6400 and 16200 amount.
        warmup_epochs: first epochs with the supervised loss alone.
        groups: equal parts of a batch whose contrastive losses are averaged apart, as on so many GPUs.
        downsample: average the decoder's map over 2 x 2 cells first; False for decoders that end at stride 8.
        projection: channels of the compared features.
        labeled_augment: view of the labeled images, "weak", or "strong" for the colors of ``augment`` too (with
            ``augment=cac`` the jitter that is published for Cityscapes).
        replay: bring the same batches again within an epoch once a list is used up, as the published code does.
        iterations_per_epoch: fixed number, published 1157; None: one pass over the longer list.
        loss: "ce" as published, or "ohem".
        ohem_threshold: probability of the true class above which OHEM leaves a pixel out.
        ohem_min_kept: pixels of a batch that OHEM keeps at least; None: 5/64 of them.
        name: name of the option in the config.

    Raises:
        UserError: an unknown choice or a number out of range.
    """

    needs_unlabeled: ClassVar[bool] = True

    def __init__(
        self,
        *,
        weight: float = 0.1,
        temperature: float = 0.1,
        positive_threshold: float = 0.75,
        normalizer: Normalizer = "anchors",
        bank_steps: int = 1,
        selected: int | None = None,
        warmup_epochs: int = 5,
        groups: int = 1,
        downsample: bool = True,
        projection: int = 128,
        labeled_augment: Literal["weak", "strong"] = "weak",
        replay: bool = False,
        iterations_per_epoch: int | None = None,
        loss: Literal["ce", "ohem"] = "ce",
        ohem_threshold: float = 0.7,
        ohem_min_kept: int | None = None,
        name: str = "cac",
    ) -> None:
        for key, value, low in (
            ("weight", weight, 0),
            ("bank_steps", bank_steps, 0),
            ("selected", selected, 1),
            ("warmup_epochs", warmup_epochs, 0),
            ("groups", groups, 1),
            ("projection", projection, 1),
            ("iterations_per_epoch", iterations_per_epoch, 1),
        ):
            if value is not None and value < low:
                raise UserError(f"give {low} or more.", key=f"method.{key}", value=value)
        if temperature <= 0:
            raise UserError(
                "give a number above 0, for example 0.1.", key="method.temperature", value=temperature
            )
        if not 0 <= positive_threshold < 1:
            raise UserError(
                "give a probability from 0 to below 1.",
                key="method.positive_threshold",
                value=positive_threshold,
            )
        if normalizer not in NORMALIZERS:
            raise UserError(f"choose {' or '.join(NORMALIZERS)}.", key="method.normalizer", value=normalizer)
        if labeled_augment not in ("weak", "strong"):
            raise UserError("choose weak or strong.", key="method.labeled_augment", value=labeled_augment)
        self.weight = weight
        self.temperature = temperature
        self.positive_threshold = positive_threshold
        self.normalizer: Normalizer = normalizer
        self.bank_steps = bank_steps
        self.selected = selected
        self.warmup_epochs = warmup_epochs
        self.groups = groups
        self.downsample = downsample
        self.projection = projection
        self.labeled_augment = labeled_augment
        self.replay = replay
        self.iterations_per_epoch = iterations_per_epoch
        self.loss = LabeledLoss(loss, ohem_threshold, ohem_min_kept)
        self.name = name

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Labeled images, and pairs of crops that pass through the network apart.

        Raises:
            UserError: the pairs cannot be divided into the groups.
        """
        pairs = trainer.unlabeled_batch_size
        if pairs % (self.groups * trainer.accumulate):
            parts = f" and trainer.accumulate={trainer.accumulate}" if trainer.accumulate > 1 else ""
            raise UserError(
                f"cannot divide trainer.unlabeled_batch_size={pairs} with it{parts}.",
                key="method.groups",
                value=self.groups,
            )
        return {"trainer.batch_size": trainer.batch_size, "trainer.unlabeled_batch_size": pairs}

    def run(self, lab: Lab) -> Network:
        """Train one network and return it."""
        model = lab.network("model")
        model.attach(HEAD, Projector(model.feature_channels, model.feature_channels, self.projection))
        augment, trainer = lab.augment, lab.trainer
        stride = map_stride(model, self.downsample)
        view = _crops(augment, stride)
        crop = view.pair.size
        streams = separate(
            lab.split.labeled,
            augment.strong if self.labeled_augment == "strong" else augment.weak,
            {"unlabeled": Unlabeled(lab.split.unlabeled, view)},
            batch_size=trainer.batch_size,
            unlabeled_batch_size=trainer.unlabeled_batch_size,
            budget=lab.budget,
            iterations_per_epoch=self.iterations_per_epoch,
            replay=self.replay,
        )
        learner = CACLearner(
            model,
            FeatureBank(self._capacity(trainer, crop[0] * crop[1] // stride**2), self.projection),
            stride=stride,
            downsample=self.downsample,
            weight=self.weight,
            temperature=self.temperature,
            positive_threshold=self.positive_threshold,
            normalizer=self.normalizer,
            warmup_epochs=self.warmup_epochs,
            groups=self.groups,
            selected=self.selected,
            loss=self.loss,
        )
        return lab.fit("train", learner, streams).selected

    def _capacity(self, trainer: TrainerSettings, cells: int) -> int:
        """Entries of the bank: both crops of all steps that it keeps, over all ranks."""
        parts = trainer.accumulate * self.groups
        available = trainer.unlabeled_batch_size // parts * cells
        if self.selected is not None and self.selected > available:
            raise UserError(
                f"each batch of crops has {available} cells{(' in a group' if parts > 1 else '')}; give "
                "at most that, or null for all.",
                key="method.selected",
                value=self.selected,
            )
        chosen = available if self.selected is None else self.selected
        return ranks() * (self.bank_steps + 1) * 2 * parts * chosen


def map_stride(model: Network, downsample: bool) -> int:
    """Pixels that a cell of the compared maps stands for, found by one pass in evaluation mode.

    Raises:
        UserError: cells of the network's maps are no whole number of pixels.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        cells = model.features(torch.zeros(1, 3, PROBE, PROBE, dtype=torch.uint8, device=device)).shape[-1]
    model.train(training)
    if PROBE % cells:
        raise UserError(
            f"The network makes maps of {cells} cells out of {PROBE} pixels; cac needs cells of whole pixels, "
            "as the decoders here have them."
        )
    return PROBE // cells * (2 if downsample else 1)


def _check_crop(crop: tuple[int, int], stride: int) -> None:
    """Refuse crops that cells do not fill."""
    if not any(side % stride for side in crop):
        return
    given, nearest = list(crop), [max(round(side / stride), 1) * stride for side in crop]
    square = crop[0] == crop[1]
    raise UserError(
        f"cac compares cells of {stride}x{stride} pixels, which have to fill a crop; the nearest "
        f"size is {(nearest[0] if square else nearest)}.",
        key="trainer.crop_size",
        value=given[0] if square else given,
    )


def _crops(augment: Augmentation, stride: int) -> OverlapCrops:
    """Return the view of unlabeled images: ``augment.pair``, or two crops with size, scale and colors of the others.

    Raises:
        UserError: cells do not fill the crops, or these are not shifted by whole cells.
    """
    view = augment.pair
    if view is None:
        _check_crop(augment.geometry.size, stride)
        return OverlapCrops(OverlapPair.like(augment.geometry, stride), augment.photometric)
    if not isinstance(view, OverlapCrops):
        raise UserError(
            f"augment.pair is a {type(view).__name__}: cac compares overlapping crops; give "
            "semiseg.data.views.OverlapCrops, or null."
        )
    _check_crop(view.pair.size, stride)
    if view.pair.stride % stride:
        raise UserError(
            f"a cell of the compared maps is {stride} pixels; choose {stride} or a multiple of it.",
            key="augment.pair.pair.stride",
            value=view.pair.stride,
        )
    return view
