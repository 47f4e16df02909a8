"""Contrast of single pixels with the mean of their class and with pixels of the others (ReCo, DMTC).

The representation stays at the network's resolution, though every pixel of the labels takes part. Bilinear
upsampling is linear: the mean of a class is the adjoint of the upsampling applied to the class's mask, times
the cells of the map; the similarity of a pixel to a query is a mean of four entries of queries @ cells.
"""

from typing import Literal, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.data.dataset import IGNORE_INDEX
from semiseg.losses.cross_entropy import Reduction, SumCount

NORM_EPS = 1e-8
"""Shorter vectors are not stretched to unit length, as in ``torch.cosine_similarity``."""

BLOCK_ENTRIES = 2**22
"""Similarities between queries and cells that are held at a time."""


class PixelSample(NamedTuple):
    """Which pixels are compared; a pixel has the number ``(n * H + y) * W + x``.

    K is the number of classes looked at: on a CPU those that are present, elsewhere all, so that the host need
    not know which these are. Rows of classes that are not ``counted`` hold arbitrary pixels.

    Args:
        classes: ``(K,) int64``, rising.
        prototypes: ``(K, D)`` mean representation of each class's pixels, without gradient.
        queries: ``(K, Q) int64`` pixels that are pulled to their class's prototype.
        negatives: ``(K, Q, M) int64`` pixels of other classes that each query is pushed from.
        counted: ``(K,) bool``, classes that have queries and another class to differ from.
        present: scalar int64, number of classes that have pixels; 0 where that is a single one.
    """

    classes: Tensor
    prototypes: Tensor
    queries: Tensor
    negatives: Tensor
    counted: Tensor
    present: Tensor


@overload
def pixel_contrast(
    representation: Tensor,
    labels: Tensor,
    probabilities: Tensor,
    num_queries: int = ...,
    num_negatives: int = ...,
    temperature: float = ...,
    strong_threshold: float = ...,
    generator: torch.Generator | None = ...,
    ignore_index: int = ...,
    *,
    ignored_as_class_0: bool = ...,
    reduction: Literal["mean"] = ...,
) -> Tensor: ...
@overload
def pixel_contrast(
    representation: Tensor,
    labels: Tensor,
    probabilities: Tensor,
    num_queries: int = ...,
    num_negatives: int = ...,
    temperature: float = ...,
    strong_threshold: float = ...,
    generator: torch.Generator | None = ...,
    ignore_index: int = ...,
    *,
    ignored_as_class_0: bool = ...,
    reduction: Literal["sum_count"],
) -> SumCount: ...
def pixel_contrast(
    representation: Tensor,
    labels: Tensor,
    probabilities: Tensor,
    num_queries: int = 256,
    num_negatives: int = 512,
    temperature: float = 0.5,
    strong_threshold: float = 0.97,
    generator: torch.Generator | None = None,
    ignore_index: int = IGNORE_INDEX,
    *,
    ignored_as_class_0: bool = False,
    reduction: Reduction = "mean",
) -> Tensor | SumCount:
    """Pull uncertain pixels to the mean of their class, and push them from pixels of similar classes.

    Every class of the batch draws ``num_queries`` of its pixels that the network is not sure of, and each of
    these ``num_negatives`` pixels of the other classes, more often of classes with a similar mean. A query's
    loss is ``-log(exp(s+ / t) / (exp(s+ / t) + sum exp(s- / t)))`` of cosine similarities; the means over the
    queries of a class are summed and divided by the number of present classes. Only queries have a gradient.
    It is the loss of ReCo (arXiv 2104.04465) as DMTC uses it. It is 0 where fewer than two classes are present.

    On an accelerator the host waits for nothing. ``torch.compile(fullgraph=True)`` takes no ``Generator`` as an
    argument: leave it None there, or draw by ``draw_pixels`` and compile ``contrast_pixels``.

    Args:
        representation: ``(N, D, h, w)`` floating point, of any resolution; it stands for its bilinear upsampling
            with aligned corners to the size of the labels.
        labels: ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        probabilities: ``(N, C, H, W)`` class probabilities of the same pixels; no gradient flows into them.
        num_queries: pixels drawn of each class, with replacement.
        num_negatives: pixels drawn for each query, with replacement.
        temperature: divisor of the similarities, in the loss and in the choice of other classes.
        strong_threshold: pixels whose own class has at least this probability are no queries.
        generator: where the draws come from, on the device of the labels; None: the global generator.
        ignore_index: label of pixels that take no part.
        ignored_as_class_0: count ignored pixels as class 0, as the published DMTC does by mistake.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of present classes, 0 below two.
    """
    if ignored_as_class_0:
        labels = labels.masked_fill(labels == ignore_index, 0)
    sample = draw_pixels(
        representation,
        labels,
        probabilities,
        num_queries,
        num_negatives,
        temperature,
        strong_threshold,
        generator,
        ignore_index,
    )
    total = contrast_pixels(representation, (labels.shape[1], labels.shape[2]), sample, temperature)
    return total / sample.present.clamp_min(1) if reduction == "mean" else (total, sample.present)


@torch.no_grad()
def draw_pixels(
    representation: Tensor,
    labels: Tensor,
    probabilities: Tensor,
    num_queries: int,
    num_negatives: int,
    temperature: float,
    strong_threshold: float,
    generator: torch.Generator | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> PixelSample:
    """Draw the pixels of one contrast; arguments as in ``pixel_contrast``."""
    num_classes = probabilities.shape[1]
    ignored = labels == ignore_index
    own = probabilities.gather(1, labels.masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
    # One sort lines up the uncertain pixels of class 0, its other pixels, those of class 1, and so on.
    key = (2 * labels + ~(own < strong_threshold)).masked_fill(ignored, 2 * num_classes).int()
    key, order = key.flatten().sort(stable=True)
    bounds = torch.searchsorted(key, torch.arange(2 * num_classes + 1, dtype=torch.int32, device=key.device))
    classes = _visited(bounds[2::2] - bounds[:-1:2])
    start, middle, end = (bounds[2 * classes + step] for step in range(3))
    count, uncertain = end - start, middle - start
    present = count > 0
    prototypes = _prototypes(representation, labels, classes, count)
    likely = other_class_distribution(prototypes, present, temperature)
    queries = _spread(start, uncertain, (len(classes), num_queries), generator)
    other = _draw_classes(likely, num_queries * num_negatives, generator)
    negatives = _spread(start[other], count[other], other.shape, generator)
    last = order.numel() - 1  # rows that do not count may point behind the last pixel
    several = present.sum() > 1
    return PixelSample(
        classes,
        prototypes,
        order[queries.clamp_max(last)],
        order[negatives.clamp_max(last)].view(-1, num_queries, num_negatives),
        (uncertain > 0) & several,
        present.sum() * several,
    )


def contrast_pixels(
    representation: Tensor, size: tuple[int, int], sample: PixelSample, temperature: float
) -> Tensor:
    """Sum the losses of the counted classes of a sample.

    Args:
        representation: ``(N, D, h, w)`` floating point.
        size: ``(H, W)``, the resolution of the sample's pixels.
        sample: the pixels to compare.
        temperature: divisor of the similarities.
    """
    with torch.autocast(representation.device.type, enabled=False):
        values = _precise(representation)
        cells = values.permute(0, 2, 3, 1).flatten(0, 2)
        place, share = _corners(values, size)
        classes, drawn = sample.queries.shape
        queries = F.normalize(
            _upsampled(cells, sample.queries.flatten(), place, share, size), dim=1, eps=NORM_EPS
        )
        keys = F.normalize(sample.prototypes, dim=1, eps=NORM_EPS).repeat_interleave(drawn, 0)
        positive = (queries * keys).sum(1) / temperature
        inverse = _squared_norms(values.detach(), size).clamp_min(NORM_EPS**2).rsqrt().flatten()
        negatives = sample.negatives.flatten(0, 1)
        negative = _LogSumExp.apply(queries, cells.detach(), negatives, place, share, inverse, temperature)
        losses = (torch.logaddexp(positive, negative) - positive).view(classes, drawn).mean(1)
        return torch.where(sample.counted, losses, 0.0).sum()


def other_class_distribution(prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Return ``(K, K)`` probabilities with which each class draws negatives of the others.

    They go with the exponential of the prototypes' cosine similarity over the temperature. Absent classes and
    a class itself have 0, and so has a row without any other class.

    Args:
        prototypes: ``(K, D)``.
        present: ``(K,) bool``.
        temperature: divisor of the similarities.
    """
    unit = F.normalize(prototypes, dim=1, eps=NORM_EPS)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.mT / temperature).masked_fill(itself | ~present, -torch.inf)
    return similarity.softmax(1).nan_to_num(0.0)
