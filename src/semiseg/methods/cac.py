"""Directional context-aware consistency (CAC, arXiv 2106.14133): two crops of an image agree where they overlap.

Comments give the names of the published code (dvlab-research/Context-Aware-Consistency). A whole step is its
models/model.py, CAC.forward().
"""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semiseg.contracts.feeding import Augmentation
from semiseg.contracts.recipe import Lab
from semiseg.contracts.training import Batch, Learner, LossTerm, Network, Progress, StepOutput, SumCount
from semiseg.data.epochs import Unlabeled, separate
from semiseg.data.overlap import OverlapPair
from semiseg.data.views import OverlapCrops
from semiseg.declare import Ge, Gt, Lt, record
from semiseg.distributed import over_ranks, ranks
from semiseg.errors import UserError
from semiseg.losses import directional_contrast
from semiseg.losses.directional import Normalizer
from semiseg.methods.labeled_loss import LabeledLoss, LabeledLossSettings
from semiseg.models.heads import Projector
from semiseg.pseudo import own_rows, torch_generator
from semiseg.settings import Count, TrainerSettings

HEAD = "projector"
"""Name of the head whose features are compared."""

PROBE = 128
"""Side of the image by which the stride of a network's maps is found."""


@record
class CAC(LabeledLossSettings):
    """Directional context-aware consistency.

    The defaults follow the authors' code. Side effects of their setup are off by default: ``replay=True`` and
    ``iterations_per_epoch=1157`` repeat their data loader, ``groups=W`` (2 GPUs on VOC, 4 on Cityscapes) the
    average over GPUs.
    """

    weight: Annotated[float, Ge(0)] = 0.1
    """Factor of the contrastive losses; no ramp-up."""
    temperature: Annotated[float, Gt(0)] = 0.1
    """Divisor of the cosines."""
    positive_threshold: Annotated[float, Ge(0), Lt(1)] = 0.75
    """Confidence that the target of a cell must exceed."""
    normalizer: Normalizer = "anchors"
    """Cells that the mean is over: those that learn ("anchors"), as the published code divides, or all common ones
    ("overlap"), as the paper does."""
    bank_steps: Annotated[int, Ge(0)] = 1
    """Number of earlier steps whose features are negatives too. Published: 1, on VOC with ResNet-101 2, on Cityscapes
    0."""
    selected: Count | None = None
    """Number of cells of each crop batch (and group) that become negatives, at random; ``null`` takes all, as the
    published numbers 6400 and 16200 do."""
    warmup_epochs: Annotated[int, Ge(0)] = 5
    """Number of first epochs with the supervised loss alone."""
    groups: Count = 1
    """Number of equal parts of a batch whose contrastive losses are averaged alone, then over the parts. Published: the
    GPUs, 2 on VOC, 4 on Cityscapes."""
    downsample: bool = True
    """Average of the decoder's map over 2 x 2 cells before it is projected and classified; false for decoders that end
    at stride 8."""
    projection: Count = 128
    """Channels of the compared features."""
    labeled_augment: Literal["weak", "strong"] = "weak"
    """View of the labeled images: "weak", or "strong" for the colors of ``augment`` too (with ``augment=cac`` the
    jitter that is published for Cityscapes)."""
    replay: bool = False
    """Repetition of the same batches within an epoch once a list is used up, as in the published code."""
    iterations_per_epoch: Count | None = None
    """Fixed length of an epoch, published 1157; ``null`` takes one pass over the longer list."""

    needs_unlabeled: ClassVar[bool] = True

    def batch_sizes(self, trainer: TrainerSettings) -> dict[str, int]:
        """Return the number of labeled images, and of pairs of crops, which pass through the network separately.

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
        # Before the fit, so that the optimizer gets its parameters, and after the network, whose draws stay the same.
        model.attach(HEAD, Projector(model.feature_channels, model.feature_channels, self.projection))
        augment, trainer = lab.augment, lab.trainer
        stride = map_stride(model, self.downsample)
        view = _crops(augment, stride)
        height, width = view.pair.size
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
        bank = FeatureBank(self._capacity(trainer, height * width // stride**2), self.projection)
        learner = CACLearner(model, bank, self, self.labeled_loss(lab), stride)
        return lab.fit("train", learner, streams).selected

    def _capacity(self, trainer: TrainerSettings, cells: int) -> int:
        """Return the entries of the bank: cells of both crops of all steps that it keeps, over all ranks."""
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


class CACLearner(Learner):
    """One step of CAC on the streams "labeled" and "unlabeled", the latter of ``OverlapCrops``.

    Three forward passes in this order, each with batch statistics of its own: labeled images, first crops, second
    crops. In the first epochs there is the first alone. The classifier learns from labeled pixels only: labels
    and confidences of the crops carry no gradient. They come from the training pass itself, with dropout.

    Args:
        model: network with the head "projector".
        bank: stored features of all cells of both crops, not their overlap alone; the negatives.
        method: settings.
        loss: loss of labeled pixels.
        stride: side of a cell of the compared maps, in pixels of a crop.
    """

    def __init__(
        self, model: Network, bank: "FeatureBank", method: CAC, loss: LabeledLoss, stride: int
    ) -> None:
        super().__init__()
        self.model = model
        self.bank = bank
        self.method = method
        self.loss = loss
        self.stride = stride

    def predictors(self) -> dict[str, Network]:
        """The network."""
        return {"model": self.model}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Compute L = L_sup + weight * (L_1 + L_2)."""
        method, labeled = self.method, batch["labeled"]
        # L_sup
        supervised = self.loss(self.model(labeled["image"]), labeled["label"])
        losses = {"supervised": LossTerm(*supervised)}
        if progress.epoch < method.warmup_epochs:
            return StepOutput(losses)
        pair = batch["unlabeled"]
        maps = [self.encode(pair[f"image_{view}"]) for view in (1, 2)]
        views = [self.look(features) for features in maps]
        # Before the contrast: cells of the running step are negatives too.
        self.remember(views[0], views[1], progress)
        *places, inside = common_cells(pair, (maps[0].shape[2], maps[0].shape[3]), self.stride)
        confidence = [view.confidence[cells] for view, cells in zip(views, places, strict=True)]
        highest = torch.maximum(confidence[0], confidence[1])
        # published code: pos_mask_1 or pos_mask_2; the less confident crop of a place learns from the other one.
        confident = inside & (highest > method.positive_threshold)
        learning = confident & (confidence[0] != confidence[1])
        contrast = self.contrast(views, places, learning if method.normalizer == "anchors" else inside)
        losses["contrast_1"], losses["contrast_2"] = (LossTerm(*each, method.weight) for each in contrast)
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
        return F.avg_pool2d(features, 2) if self.method.downsample else features

    def look(self, features: Tensor) -> "Cells":
        """Project and classify maps; cells are counted over images, rows and columns."""
        projected: Tensor = self.model.heads[HEAD](features)
        # The bank holds float32, and cosines near 1 need more than 8 bits.
        if projected.dtype in (torch.bfloat16, torch.float16):
            projected = projected.float()
        with torch.no_grad():
            logits = self.model.classify(features, features.shape[-2:])
            confidence, labels = logits.softmax(1).max(1)
        unit = F.normalize(projected, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        return Cells(unit, labels.flatten(), confidence.flatten())

    @torch.no_grad()
    def remember(self, one: "Cells", two: "Cells", progress: Progress) -> None:
        """Add cells of both crops to the bank, group by group."""
        groups, selected = self.method.groups, self.method.selected
        pairs = list(zip(one.parts(groups), two.parts(groups), strict=True))
        features = torch.stack([view.features for pair in pairs for view in pair])
        labels = torch.stack([view.labels for pair in pairs for view in pair])
        if selected is not None:
            # A group is on one rank: one row for each of its two crops.
            total, rows = own_rows(progress, len(labels))
            generator = torch_generator(progress, "negatives", labels.device)
            keys = torch.rand((total, labels.shape[1]), generator=generator, device=labels.device)[rows]
            # published code: selected_idx1 and selected_idx2
            chosen = keys.topk(selected, -1).indices
            labels = labels.gather(1, chosen)
            features = features.gather(1, chosen[..., None].expand(*chosen.shape, features.shape[-1]))
        self.bank.push(features.flatten(0, 1), labels.flatten())

    def contrast(
        self, views: "list[Cells]", places: list[Tensor], counted: Tensor
    ) -> tuple[SumCount, SumCount]:
        """Compare both views with each other and with the bank, group by group.

        Args:
            views: all cells of both views.
            places: cell numbers ``(P,)`` in each view; entry i of both shows the same place.
            counted: mask ``(P,) bool`` of the entries to compare.
        """
        method, found = self.method, []
        for cells_1, cells_2, chosen in zip(
            *(each.chunk(method.groups) for each in (*places, counted)), strict=True
        ):
            # Their number makes the host wait once. That costs less than comparing all: often half are left.
            rows = chosen.nonzero().squeeze(1)
            one, two = views[0].at(cells_1[rows]), views[1].at(cells_2[rows])
            # L_1 and L_2; published code: loss1 and loss2
            losses = directional_contrast(
                one.features,
                two.features,
                one.labels,
                two.labels,
                one.confidence,
                two.confidence,
                self.bank.features,
                self.bank.labels,
                method.temperature,
                method.positive_threshold,
                method.normalizer,
                bank_valid=self.bank.valid,
                num_classes=self.model.num_classes,
                reduction="sum_count",
            )
            found.append(losses)
        if method.groups == 1:
            return found[0]
        return _averaged([one for one, _ in found]), _averaged([two for _, two in found])


class Cells(NamedTuple):
    """Outputs of a network at the P cells of a batch of maps, or at some of them.

    Args:
        features: projected features ``(P, D)`` of length 1, with gradient.
        labels: predicted classes ``(P,) int64``.
        confidence: probabilities ``(P,)`` of these classes.
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


class FeatureBank(nn.Module):
    """A memory of features and their labels over steps and ranks, as buffers: a checkpoint holds it.

    It holds the newest entries, oldest first; published code: feature_bank and pseudo_label_bank.

    Args:
        capacity: number of entries that it holds, of all ranks together.
        channels: channels D of a feature.
    """

    features: Tensor
    labels: Tensor
    filled: Tensor

    def __init__(self, capacity: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(capacity, channels))
        self.register_buffer("labels", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def capacity(self) -> int:
        """Entries that it holds at most."""
        return len(self.labels)

    @property
    def valid(self) -> Tensor:
        """Mask ``(capacity,) bool`` of the entries that exist; they come first."""
        return torch.arange(self.capacity, device=self.filled.device) < self.filled

    @property
    def fill(self) -> Tensor:
        """Share of the capacity that is filled, a scalar."""
        return self.filled / self.capacity

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor) -> None:
        """Append entries of all ranks in their order, and drop the oldest where the bank is full.

        Args:
            features: features ``(n, D)``, floating point, with the same n on all ranks.
            labels: labels ``(n,)``, integers.

        Raises:
            ValueError: more entries than the capacity.
        """
        # published code: concat_all_gather()
        features = over_ranks(features.detach().to(self.features.dtype))
        labels = over_ranks(labels.detach().to(self.labels.dtype))
        count, capacity = len(labels), self.capacity
        if count > capacity:
            raise ValueError(f"{count} entries do not fit into a bank of {capacity}")
        # Computed on the device: to read how full the bank is, the host would have to wait.
        places = torch.arange(capacity, device=labels.device)
        dropped = (self.filled + count - capacity).clamp_min(0)
        moved = (places + dropped).clamp_max(capacity - 1)
        begin = self.filled - dropped
        self.features = self.features.index_select(0, moved).index_copy_(0, places[:count] + begin, features)
        self.labels = self.labels.index_select(0, moved).index_copy_(0, places[:count] + begin, labels)
        self.filled = begin + count


def common_cells(pair: dict[str, Any], size: tuple[int, int], stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find where the maps of two overlapping crops show the same place.

    Args:
        pair: batch of ``OverlapCrops``: ``box_1``, ``box_2`` ``(N, 4) int64``, ``flip_1``, ``flip_2`` ``(N,) bool``.
        size: height and width of the maps.
        stride: side of a cell in pixels of a crop.

    Returns:
        Two cell numbers ``(N * h * w,) int64``, counted over images, rows and columns of the maps as they are (after
        flipping), and whether each such pair of cells lies inside the common part. The shapes do not depend on the
        boxes: outside of the common part the numbers mean nothing.
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


def map_stride(model: Network, downsample: bool) -> int:
    """Return the side of a cell of the compared maps in pixels, found by one pass in evaluation mode.

    Raises:
        UserError: cells of the network's maps are no whole number of pixels.
    """
    training = model.training
    model.eval()  # batch norm would count this image in its statistics, or refuse a single one
    device = next(model.parameters()).device
    with torch.no_grad():
        cells = model.features(
            torch.zeros(1, model.channels, PROBE, PROBE, dtype=torch.uint8, device=device)
        ).shape[-1]
    model.train(training)
    if PROBE % cells:
        raise UserError(
            f"The network makes maps of {cells} cells out of {PROBE} pixels; cac needs cells of whole pixels, "
            "as the decoders here have them."
        )
    return PROBE // cells * (2 if downsample else 1)


def _averaged(parts: list[SumCount]) -> SumCount:
    """Return the sum of the means and their number, so that the quotient is the mean of the means."""
    means = torch.stack([each.mean for each in parts])
    return SumCount(means.sum(), torch.full((), len(parts), dtype=torch.int64, device=means.device))


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
    """Return the view of unlabeled images: ``augment.pair``, or two crops with size, scale and colors of the others."""
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
