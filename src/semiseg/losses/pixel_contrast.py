"""Contrast of single pixels with the mean of their class and with pixels of other classes (ReCo, DMTC).

The result is that of a representation upsampled to the size of the labels, which is never made: see ``Upsampled``.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.training import SumCount
from semiseg.losses.reduction import Reduction, reduced, reducible
from semiseg.losses.upsampled import Upsampled, pick, sum_of_products

MIN_LENGTH = 1e-8
"""Length below which vectors are not stretched to unit length, as in ``torch.cosine_similarity``."""

BLOCK_ENTRIES = 2**22
"""Number of similarities of queries and cells that are held at a time."""


class PixelSample(NamedTuple):
    """Pixels to compare, numbered ``(n * H + y) * W + x``.

    Rows stand for K classes: on a CPU those that are present, elsewhere all, so that the host need not wait
    to know which are. Rows that are not ``counted`` hold arbitrary pixels.

    Args:
        prototypes: ``(K, D)`` mean representation of each class, without gradient.
        queries: ``(K, Q) int64`` pixels that are pulled to the prototype of their class.
        negatives: ``(K, Q, M) int64`` pixels of other classes that each query is pushed from.
        counted: ``(K,) bool``, classes with queries and another class to differ from.
        present: number of classes that have pixels, scalar int64; 0 where there is only one.
    """

    prototypes: Tensor
    queries: Tensor
    negatives: Tensor
    counted: Tensor
    present: Tensor


@reducible(Tensor, SumCount)
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
    """Pull pixels that the network is not sure of to the mean of their class, away from pixels of others.

    Every present class draws ``num_queries`` of its unsure pixels, and each of these ``num_negatives`` pixels of
    the other classes, more from classes whose mean is similar. The loss of a query is
    ``-log(exp(s / t) / (exp(s / t) + sum_n exp(s_n / t)))`` with the cosine similarities s to its class's mean
    and s_n to the negatives. Means over the queries of a class are averaged over the present classes; a class
    without unsure pixels adds 0. Only queries carry a gradient. With fewer than two classes the loss is 0.
    It is the loss of ReCo (arXiv 2104.04465) in the form that DMTC has.

    The host waits for no other device. ``torch.compile(fullgraph=True)`` accepts no ``Generator`` among the
    arguments: leave it ``None`` there, or draw with ``draw_pixels`` and compile ``contrast_pixels`` alone.

    Args:
        representation: vectors ``(N, D, h, w)``, floating point. Its bilinear upsampling with aligned corners to
            the size of the labels is compared; it may have that size already.
        labels: labels ``(N, H, W) int64``, classes 0 to C-1 or ``ignore_index``.
        probabilities: class probabilities ``(N, C, H, W)`` of the same pixels; they get no gradient.
        num_queries: number of pixels drawn from each class, with replacement.
        num_negatives: number of pixels drawn for each query, with replacement.
        temperature: divisor t of the similarities, also in the choice of other classes.
        strong_threshold: probability of its own class from which a pixel is no query.
        generator: source of all draws, on the device of the labels; ``None`` draws from the global one.
        ignore_index: label of pixels that take no part.
        ignored_as_class_0: count ignored pixels as class 0, as the published DMTC does.
        reduction: ``"mean"`` or ``"sum_count"``; the count is the number of present classes, 0 where it is 1.
    """
    if ignored_as_class_0:
        labels = labels.masked_fill(labels == ignore_index, 0)
    with torch.autocast(representation.device.type, enabled=False):
        precise = representation if representation.dtype == torch.float64 else representation.float()
        upsampled = Upsampled(precise, (labels.shape[1], labels.shape[2]))
        sample = draw_pixels(
            upsampled,
            labels,
            probabilities.detach(),
            num_queries,
            num_negatives,
            temperature,
            strong_threshold,
            generator,
            ignore_index,
        )
        total = contrast_pixels(upsampled, sample, temperature)
    return reduced(SumCount(total, sample.present), reduction)


@torch.no_grad()
def draw_pixels(
    upsampled: Upsampled,
    labels: Tensor,
    probabilities: Tensor,
    num_queries: int,
    num_negatives: int,
    temperature: float,
    strong_threshold: float,
    generator: torch.Generator | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> PixelSample:
    """Draw the pixels of one contrast.

    Args:
        upsampled: the representation, float32 at least; to be used outside of autocast.
        labels: labels ``(N, H, W) int64``.
        probabilities: class probabilities ``(N, C, H, W)``.
        num_queries: number of queries of each class.
        num_negatives: number of negatives of each query.
        temperature: divisor of the similarities in the choice of other classes.
        strong_threshold: probability of its own class from which a pixel is no query.
        generator: source of the draws; ``None`` draws from the global one.
        ignore_index: label of pixels that take no part.
    """
    classes = torch.arange(probabilities.shape[1], device=labels.device)
    ignored = labels == ignore_index
    own = probabilities.gather(1, labels.masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
    # One sort lines up the unsure pixels of class 0, its sure ones, the unsure ones of class 1, and so on.
    key = (2 * labels + ~(own < strong_threshold)).masked_fill(ignored, 2 * len(classes))
    key, order = key.int().flatten().sort(stable=True)
    start, middle, end = (torch.searchsorted(key, (2 * classes + part).int()) for part in range(3))
    present = end > start
    prototypes = upsampled.sums(labels.masked_fill(ignored, len(classes)), len(classes))
    prototypes /= (end - start).clamp_min(1).unsqueeze(1)
    rows = _rows(present)
    likely = negative_classes(prototypes, present, temperature)[rows]
    other = _drawn_classes(likely, num_queries * num_negatives, generator)
    negatives = _drawn_between(pick(start, other), pick(end, other), generator)
    wanted = rows.unsqueeze(1).expand(-1, num_queries)
    queries = _drawn_between(start[wanted], middle[wanted], generator)
    number = present.sum()
    last = len(order) - 1  # where a row does not count, its bounds may lie behind
    return PixelSample(
        prototypes[rows],
        pick(order, queries.clamp_max(last)),
        pick(order, negatives.clamp_max(last)).view(-1, num_queries, num_negatives),
        ((middle > start) & (number > 1))[rows],
        number * (number > 1),
    )


def contrast_pixels(upsampled: Upsampled, sample: PixelSample, temperature: float) -> Tensor:
    """Add up the mean losses of the counted classes of a sample.

    Args:
        upsampled: the representation, float32 at least; to be used outside of autocast.
        sample: the pixels to compare.
        temperature: divisor of the similarities.
    """
    queries = F.normalize(upsampled.at(sample.queries), dim=2, eps=MIN_LENGTH)
    keys = F.normalize(sample.prototypes, dim=1, eps=MIN_LENGTH)
    positive = torch.einsum("kqd,kd->kq", queries, keys) / temperature
    negative = _log_sum_exp(queries.flatten(0, 1), upsampled, sample.negatives.flatten(0, 1), temperature)
    # -log(exp(s / t) / (exp(s / t) + sum_n exp(s_n / t))) of each query
    losses = torch.logaddexp(positive, negative.view_as(positive)) - positive
    return torch.where(sample.counted, losses.mean(1), 0.0).sum()


def negative_classes(prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Return the probabilities ``(C, C)`` with which queries of each class (rows) draw negatives of the others.

    They are proportional to ``exp(cosine similarity of the prototypes / temperature)``. A class itself and absent
    classes have 0, and rows without another class are 0 throughout.

    Args:
        prototypes: mean vectors ``(C, D)`` of the classes.
        present: classes ``(C,) bool`` that have pixels.
        temperature: divisor of the similarities.
    """
    # published code of DMTC: utils/module_list.py, contrastive_loss, as in ReCo
    unit = F.normalize(prototypes, dim=1, eps=MIN_LENGTH)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.mT / temperature).masked_fill(itself | ~present, -torch.inf)
    return similarity.softmax(1).nan_to_num(0.0)


def _rows(present: Tensor) -> Tensor:
    """Classes to compute: those that are present where the host can read them without waiting, else all."""
    if present.device.type == "cpu" and not torch.compiler.is_compiling():
        return present.nonzero().squeeze(1)
    return torch.arange(len(present), device=present.device)


def _drawn_classes(probabilities: Tensor, number: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``(K, number)`` classes from the rows ``(K, C)`` of probabilities; any where they are all 0."""
    bound = probabilities.cumsum(1)
    bound = bound / bound[:, -1:].clamp_min(torch.finfo(bound.dtype).tiny)
    shape = (len(bound), number)
    drawn = torch.rand(shape, generator=generator, device=bound.device, dtype=bound.dtype)
    return torch.searchsorted(bound, drawn, right=True).clamp_max(probabilities.shape[1] - 1)


def _drawn_between(start: Tensor, end: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw an integer uniformly from each range; ``start`` where it is empty."""
    # Integers of 31 bits times a number of pixels: exact, unlike float32, whose product may round up to the end.
    drawn = torch.randint(2**31, start.shape, generator=generator, device=start.device)
    return start + (drawn * (end - start) >> 31)


def _log_sum_exp(queries: Tensor, upsampled: Upsampled, pixels: Tensor, temperature: float) -> Tensor:
    """Return ``(R,)`` log sum over m of exp(<query, unit vector of pixel m> / temperature).

    Args:
        queries: ``(R, D)`` unit vectors.
        upsampled: the representation, which gets no gradient here.
        pixels: numbers ``(R, M) int64`` of the negatives of each query.
        temperature: divisor of the similarities.
    """
    first, shares = upsampled.corners(pixels)
    lengths = upsampled.squared_lengths().clamp_min(MIN_LENGTH**2).sqrt()
    shares = shares / (temperature * pick(lengths, pixels)).unsqueeze(-1)
    result: Tensor = _LogSumExp.apply(queries, upsampled.cells.detach(), first, shares, upsampled.steps)
    return result


class _LogSumExp(torch.autograd.Function):
    """Log of the sum over m of exp(shares . (query . corners of m)), with its gradient in the same pass.

    Storing the gradient, as large as the queries, saves storing the similarities of all queries with all cells.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, cells: Tensor, first: Tensor, shares: Tensor, steps: tuple[int, ...]
    ) -> Tensor:
        result, gradient = queries.new_empty(len(queries)), torch.empty_like(queries)
        rows = max(BLOCK_ENTRIES // len(cells), 1)
        for start in range(0, len(queries), rows):
            block = slice(start, start + rows)
            result[block], gradient[block] = _block(queries[block], cells, first[block], shares[block], steps)
        ctx.save_for_backward(gradient)
        return result

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer.unsqueeze(1), None, None, None, None


def _block(
    queries: Tensor, cells: Tensor, first: Tensor, shares: Tensor, steps: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    similarity = queries @ cells.mT
    exponent = sum_of_products((similarity[:, step:].gather(1, first) for step in steps), shares.unbind(2))
    result = exponent.logsumexp(1)
    softmax = (exponent - result.unsqueeze(1)).exp()
    weights = similarity.zero_()
    for step, share in zip(steps, shares.unbind(2), strict=True):
        weights[:, step:].scatter_add_(1, first, softmax * share)
    return result, weights @ cells
