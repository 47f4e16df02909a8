"""One training step of CAC: two overlapping crops, and which cells of their maps show the same place."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.losses import directional_contrast
from semiseg.losses.directional import Normalizer
from semiseg.methods.feature_bank import FeatureBank
from semiseg.methods.supervised import LabeledLoss
from semiseg.pseudo import own_rows, torch_generator

HEAD = "projector"
"""Name of the head whose features are compared."""


class Cells(NamedTuple):
    """What a network finds at the P cells of a batch of maps, or at some of them.

    Args:
        features: ``(P, D)``, projected to length 1, with gradient.
        labels: ``(P,) int64``, the predicted classes.
        confidence: ``(P,)``, their probabilities.
    """

    features: Tensor
    labels: Tensor
    confidence: Tensor

    def at(self, places: Tensor) -> "Cells":
        """The cells of these numbers."""
        return Cells(*(values.index_select(0, places) for values in self))

    def parts(self, count: int) -> "list[Cells]":
        """Equal parts, in order."""
        return [Cells(*values) for values in zip(*(each.chunk(count) for each in self), strict=True)]


def common_cells(pair: dict[str, Any], size: tuple[int, int], stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find where the maps of two overlapping crops show the same place.

    Args:
        pair: a batch of ``OverlapCrops``: ``box_1``, ``box_2`` ``(N, 4) int64``, ``flip_1``, ``flip_2`` ``(N,) bool``.
        size: height and width of the maps.
        stride: pixels of a crop that a cell stands for.

    Returns:
        Two cell numbers ``(N * h * w,) int64``, counted over images, rows and columns of the maps as they are (after
        flipping), and whether each such pair of cells lies inside the common part. The shapes do not depend on the
        boxes: outside of it the numbers are any.
    """
    height, width = size
    box_1, box_2 = (pair[name][:, :, None, None] // stride for name in ("box_1", "box_2"))
    flip_1, flip_2 = (pair[name][:, None, None] for name in ("flip_1", "flip_2"))
    rows = torch.arange(height, device=box_1.device)[None, :, None]
    columns = torch.arange(width, device=box_1.device)[None, None, :]
    top, left, bottom, right = box_1.unbind(1)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    rows_2 = (rows + box_2[:, 0] - top).clamp(0, height - 1)
    columns_2 = (columns + box_2[:, 1] - left).clamp(0, width - 1)
    images = torch.arange(len(box_1), device=box_1.device)[:, None, None] * (height * width)
    cells_1 = images + rows * width + torch.where(flip_1, width - 1 - columns, columns)
    cells_2 = images + rows_2 * width + torch.where(flip_2, width - 1 - columns_2, columns_2)
    return cells_1.flatten(), cells_2.flatten(), inside.flatten()


class CACLearner(Learner):
    """One step of CAC on the streams "labeled" and "unlabeled", the latter of ``OverlapCrops``.

    Three forward passes in this order, each with batch statistics of its own: labeled images, first crops, second
    crops. In the first epochs there is the first alone. The classifier learns from labeled pixels only: labels
    and confidences of the crops carry no gradient. They come from the training pass itself, with dropout.

    Args:
        model: the network, with the head "projector".
        bank: remembered features of the crops, all cells of both and not their overlap alone; the negatives.
        stride: pixels of a crop that a cell of the compared maps stands for.
        downsample: average the decoder's map over 2 x 2 cells before it is projected and classified.
        weight: factor of L_1 + L_2.
        temperature: see ``directional_contrast``.
        positive_threshold: see ``directional_contrast``.
        normalizer: see ``directional_contrast``.
        warmup_epochs: first epochs that have the supervised loss alone.
        groups: equal parts of a batch whose contrastive losses are averaged apart, then over the parts, as
            so many GPUs do.
        selected: cells of each crop batch and group that are put into the bank, drawn at random; None: all.
        loss: the loss of labeled pixels.
    """

    def __init__(
        self,
        model: Network,
        bank: FeatureBank,
        *,
        stride: int = 8,
        downsample: bool = True,
        weight: float = 0.1,
        temperature: float = 0.1,
        positive_threshold: float = 0.75,
        normalizer: Normalizer = "anchors",
        warmup_epochs: int = 5,
        groups: int = 1,
        selected: int | None = None,
        loss: LabeledLoss | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.bank = bank
        self.stride = stride
        self.downsample = downsample
        self.weight = weight
        self.temperature = temperature
        self.positive_threshold = positive_threshold
        self.normalizer: Normalizer = normalizer
        self.warmup_epochs = warmup_epochs
        self.groups = groups
        self.selected = selected
        self.loss = loss or LabeledLoss()

    def predictors(self) -> dict[str, Network]:
        """The network."""
        return {"model": self.model}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup + weight * (L_1 + L_2)."""
        labeled = batch["labeled"]
        losses = {"supervised": LossTerm(*self.loss(self.model(labeled["image"]), labeled["label"]))}
        if progress.epoch < self.warmup_epochs:
            return StepOutput(losses)
        pair = batch["unlabeled"]
        maps = [self.encode(pair[f"image_{view}"]) for view in (1, 2)]
        views = [self.look(features) for features in maps]
        self.remember(views[0], views[1], progress)
        *places, inside = common_cells(pair, (maps[0].shape[2], maps[0].shape[3]), self.stride)
        confidence = [view.confidence[cells] for view, cells in zip(views, places, strict=True)]
        highest = torch.maximum(confidence[0], confidence[1])
        confident = inside & (highest > self.positive_threshold)
        learning = confident & (confidence[0] != confidence[1])
        contrast = self.contrast(views, places, learning if self.normalizer == "anchors" else inside)
        losses["contrast_1"], losses["contrast_2"] = (LossTerm(*each, self.weight) for each in contrast)
        overlap = inside.sum().clamp_min(1)
        scalars = {
            "anchors": learning.sum(),
            "unlabeled_used": learning.sum() / overlap,
            "unlabeled_confident": confident.sum() / overlap,
            "unlabeled_confidence": torch.where(inside, highest, 0).sum() / overlap,
            "bank_fill": self.bank.fill,
        }
        return StepOutput(losses, scalars)

    def encode(self, images: Tensor) -> Tensor:
        """Return the maps ``(N, D, h, w)`` whose cells are compared."""
        features = self.model.features(images)
        return F.avg_pool2d(features, 2) if self.downsample else features

    def look(self, features: Tensor) -> Cells:
        """Project and classify maps; cells are counted over images, rows and columns."""
        projected: Tensor = self.model.heads[HEAD](features)
        if projected.dtype in (torch.bfloat16, torch.float16):
            projected = projected.float()
        with torch.no_grad():
            logits = self.model.classify(features, features.shape[-2:])
            confidence, labels = logits.softmax(1).max(1)
        unit = F.normalize(projected, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        return Cells(unit, labels.flatten(), confidence.flatten())

    @torch.no_grad()
    def remember(self, one: Cells, two: Cells, progress: Progress) -> None:
        """Put cells of both crops, group by group, into the bank."""
        groups = list(zip(one.parts(self.groups), two.parts(self.groups), strict=True))
        features = torch.stack([view.features for pair in groups for view in pair])
        labels = torch.stack([view.labels for pair in groups for view in pair])
        if self.selected is not None:
            # A group lies on one rank: one row for each of its two crops.
            total, rows = own_rows(progress, len(labels))
            generator = torch_generator(progress, "negatives", labels.device)
            keys = torch.rand((total, labels.shape[1]), generator=generator, device=labels.device)[rows]
            chosen = keys.topk(self.selected, -1).indices
            labels = labels.gather(1, chosen)
            features = features.gather(1, chosen[..., None].expand(*chosen.shape, features.shape[-1]))
        self.bank.push(features.flatten(0, 1), labels.flatten())

    def contrast(
        self, views: list[Cells], places: list[Tensor], counted: Tensor
    ) -> tuple[SumCount, SumCount]:
        """Compare both views with each other and with the bank, group by group.

        Args:
            views: all cells of both.
            places: cell numbers ``(P,)`` in both; entry i of both shows the same place.
            counted: ``(P,) bool``, the entries to compare.
        """
        found = []
        for cells_1, cells_2, chosen in zip(
            *(each.chunk(self.groups) for each in (*places, counted)), strict=True
        ):
            # Their number makes the host wait once. That costs less than comparing all: often half are left.
            rows = chosen.nonzero().squeeze(1)
            one, two = views[0].at(cells_1[rows]), views[1].at(cells_2[rows])
            found.append(
                directional_contrast(
                    one.features,
                    two.features,
                    one.labels,
                    two.labels,
                    one.confidence,
                    two.confidence,
                    self.bank.features,
                    self.bank.labels,
                    self.temperature,
                    self.positive_threshold,
                    self.normalizer,
                    bank_valid=self.bank.valid,
                    reduction="sum_count",
                )
            )
        if self.groups == 1:
            return found[0]
        return _averaged([one for one, _ in found]), _averaged([two for _, two in found])


def _averaged(parts: list[SumCount]) -> SumCount:
    """Means of the parts and their number, so that the quotient is the mean of the means."""
    means = torch.stack([total / count.clamp_min(1) for total, count in parts])
    return SumCount(means.sum(), torch.full((), len(parts), dtype=torch.int64, device=means.device))
