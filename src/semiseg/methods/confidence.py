"""Pseudo-labels of a batch and which of them are confident enough to be learned: settings and module for methods."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.contracts.feeding import View
from semiseg.contracts.training import Batch
from semiseg.data.collate import Item
from semiseg.data.streams import Stream, Streams
from semiseg.declare import Ge, Gt, Le, Lt, record
from semiseg.errors import UserError
from semiseg.pseudo import mixed, reversed_within
from semiseg.pseudo.thresholds import best_share_thresholds, confidence_histogram, precise_thresholds

BINS = 1000
"""Bins of the histograms of the confidence."""

Rule = Literal["fixed", "adaptive", "class_balanced"]
Alignment = Literal["none", "labeled", "uniform"]


@record
class ConfidenceSettings:
    """Settings of confident pseudo-labels, for methods to inherit."""

    threshold: Annotated[float, Ge(0), Le(1)] = 0.95
    """Probability that a pixel's pseudo-label needs at least to be learned. Published: 0.95; UniMatch and CorrMatch on
    Cityscapes 0."""
    threshold_rule: Rule = "fixed"
    """Threshold of each class: "fixed" is ``threshold``, as published; "adaptive" follows the mean confidence, lower
    for classes that are predicted less (FreeMatch, arXiv 2205.07246); "class_balanced" keeps the best ``keep_share`` of
    the pixels of each predicted class."""
    keep_share: Annotated[float, Gt(0), Le(1)] = 0.6
    """Share of the pixels of each predicted class that ``threshold_rule=class_balanced`` keeps."""
    threshold_momentum: Annotated[float, Ge(0), Lt(1)] = 0.99
    """Share that running statistics of thresholds and alignment keep at a step; at first, all steps count equally."""
    align: Alignment = "none"
    """Distribution of classes that pseudo-labels are brought to, by factors on the probabilities: "none" as published;
    that of "labeled" pixels; or "uniform" (ReMixMatch, arXiv 1911.09785)."""
    gate_share: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the labeled images that is not trained on: the confidence from which predictions of a class are right as
    often as ``gate_precision`` is measured on them, and replaces lower thresholds; 0 for no such gate."""
    gate_precision: Annotated[float, Gt(0), Le(1)] = 0.9
    """Share of right pseudo-labels of each class that the gate asks for."""

    probe_rounds: Annotated[int, Ge(0)] = 0
    """Rounds in which the probe that the classifier begins as (``init_head=probe``) labels unlabeled images and is
    fitted again with its confident pixels; 0 fits it to the labeled images alone."""

    def held_out(self, labeled: Sequence[str]) -> tuple[list[str], list[str]]:
        """Divide labeled ids into those to train on and those that the gate measures on.

        Raises:
            UserError: one of both would be empty.
        """
        if self.gate_share == 0:
            return list(labeled), []
        count = round(self.gate_share * len(labeled))
        if not 0 < count < len(labeled):
            raise UserError(
                f"holds out {count} of {len(labeled)} labeled images; both parts need at least one. Give a share near "
                f"{max(1, len(labeled) // 5) / max(2, len(labeled)):.2g}, or 0.",
                key="method.gate_share",
                value=self.gate_share,
            )
        # Spread over the list, whose order may follow the content.
        chosen = {int((index + 0.5) * len(labeled) / count) for index in range(count)}
        return (
            [each for index, each in enumerate(labeled) if index not in chosen],
            [each for index, each in enumerate(labeled) if index in chosen],
        )

    def gated(self, streams: Streams, held_out: Sequence[str], view: View, batch_size: int) -> Streams:
        """Return batches with the stream ``held_out`` too, where ids for it are given."""
        if not held_out:
            return streams
        gate = Stream(tuple(Item(each, "true", view) for each in held_out), batch_size)
        return replace(streams, streams={**streams.streams, "held_out": gate})


class Guess(NamedTuple):
    """Pseudo-labels of a batch of unlabeled images, without gradient.

    Args:
        label: most probable class, ``(N, H, W) int64``.
        confidence: its probability, ``(N, H, W)``.
        keep: whether it is confident enough, ``(N, H, W) bool``.
        valid: False in padding, ``(N, H, W) bool``.
    """

    label: Tensor
    confidence: Tensor
    keep: Tensor
    valid: Tensor

    def mixed(self, other: "Guess", inside: Tensor) -> "Guess":
        """Take the partner's values inside of the boxes ``(N, H, W) bool``."""
        return Guess(*(mixed(a, b, inside) for a, b in zip(self, other, strict=True)))

    def reversed(self, groups: int = 1) -> "Guess":
        """Return the guess of the images in reversed order, within each of ``groups`` parts of the batch."""
        return Guess(*(reversed_within(values, groups) for values in self))

    def statistics(self) -> dict[str, Tensor]:
        """Scalars to log: share of the pixels, without padding, that are learned, and their mean confidence."""
        count = self.valid.sum().clamp_min(1)
        return {
            "unlabeled_used": (self.keep & self.valid).sum() / count,
            "unlabeled_confidence": (self.confidence * self.valid).sum() / count,
        }


class PseudoLabeler(nn.Module):
    """The rule by which logits become pseudo-labels; what it learns of the data are its buffers.

    Args:
        settings: threshold and its rule.
        num_classes: number of classes K.
    """

    def __init__(self, settings: ConfidenceSettings, num_classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        uniform = torch.full((num_classes,), 1 / num_classes)
        for name, start in self._statistics(uniform).items():
            self.register_buffer(name, start.clone())
            self.register_buffer(f"{name}_updates", torch.zeros(()))

    def _statistics(self, uniform: Tensor) -> dict[str, Tensor]:
        """Return the running statistics that the settings need, with their first values."""
        settings, counts = self.settings, torch.zeros(self.num_classes, BINS)
        wanted: dict[str, Tensor] = {}
        if settings.threshold_rule == "adaptive":
            # FreeMatch, eq. (5) and (6): both begin at 1 / K.
            wanted |= {"mean_confidence": uniform[0], "mean_probability": uniform}
        if settings.threshold_rule == "class_balanced":
            wanted["confidences"] = counts
        if settings.align != "none":
            wanted["unaligned"] = uniform
        if settings.align == "labeled":
            wanted["labeled_classes"] = uniform
        if settings.gate_share > 0:
            wanted |= {"gate_counts": counts, "gate_hits": counts}
        return wanted

    def _update(self, name: str, value: Tensor) -> None:
        """Move a running statistic; the first steps count equally, then older ones fade."""
        kept, updates = self.get_buffer(name), self.get_buffer(f"{name}_updates")
        momentum = (1 - 1 / (updates + 1)).clamp_max(self.settings.threshold_momentum)
        # One number that is not finite would stay in it for good.
        value = torch.where(value.isfinite(), value, kept)
        kept.copy_(momentum * kept + (1 - momentum) * value)
        updates += 1

    @torch.no_grad()
    def forward(self, logits: Tensor, valid: Tensor, learn: bool = True) -> Guess:
        """Label a batch.

        Args:
            logits: logits ``(N, K, H, W)``, floating point.
            valid: ``(N, H, W) bool``, False in padding.
            learn: whether statistics of the data may be updated by this batch; partners of CutMix, which are labeled
                in addition, do not count.
        """
        probabilities = self._probabilities(logits, valid, learn and self.training)
        confidence, label = probabilities.max(1)
        if learn and self.training:
            self._learn(probabilities, confidence, label, valid)
        # Published code of UniMatch: the threshold itself is confident enough.
        thresholds = self.thresholds(confidence)
        needed = thresholds if thresholds.ndim == 0 else thresholds[label]
        return Guess(label, confidence, confidence >= needed, valid)

    def thresholds(self, like: Tensor) -> Tensor:
        """Return the thresholds in use, a scalar or one for each class ``(K,)``, of the type of ``like``."""
        settings = self.settings
        chosen = torch.full((), settings.threshold, dtype=like.dtype, device=like.device)
        if settings.threshold_rule == "adaptive":
            # FreeMatch, eq. (7): tau_c = p_c / max(p) * tau.
            classes = self.get_buffer("mean_probability")
            chosen = (classes / classes.max() * self.get_buffer("mean_confidence")).to(like.dtype)
        elif settings.threshold_rule == "class_balanced":
            chosen = best_share_thresholds(self.get_buffer("confidences"), settings.keep_share).to(like.dtype)
        if settings.gate_share > 0:
            hits, counts = self.get_buffer("gate_hits"), self.get_buffer("gate_counts")
            gate = precise_thresholds(hits, counts, settings.gate_precision, settings.threshold)
            chosen = torch.maximum(chosen, gate.to(like.dtype))
        return chosen

    def follow(self, batch: Batch, answer: Callable[[Tensor], Tensor]) -> None:
        """Note what thresholds and alignment need of labeled images; every step begins with it.

        Args:
            batch: batch with the stream "labeled", and "held_out" for the gate.
            answer: function that gives the logits of weak views, without gradient, as for pseudo-labels.
        """
        self.observe(batch["labeled"]["label"])
        if (held_out := batch.get("held_out")) is not None:
            self.calibrate(answer(held_out["image"]), held_out["label"])

    @torch.no_grad()
    def observe(self, target: Tensor) -> None:
        """Note the classes of labeled pixels ``(N, H, W) int64``, where pseudo-labels are aligned with them."""
        if self.settings.align == "labeled" and self.training:
            counted = (target != IGNORE_INDEX).flatten()
            counts = torch.zeros(self.num_classes, dtype=torch.int64, device=target.device)
            places = torch.where(counted, target.flatten(), 0)
            counts.scatter_add_(0, places, counted.long())
            shares = counts / counts.sum().clamp_min(1)
            self._update(
                "labeled_classes", torch.where(counts.sum() > 0, shares, self.get_buffer("labeled_classes"))
            )

    @torch.no_grad()
    def calibrate(self, logits: Tensor, target: Tensor) -> None:
        """Measure how often predictions are right on labeled images that are not trained on.

        Args:
            logits: logits of these images ``(N, K, H, W)``, floating point, made as those of pseudo-labels.
            target: their labels ``(N, H, W) int64``.
        """
        confidence, label = self._probabilities(logits, target != IGNORE_INDEX, learn=False).max(1)
        known = target != IGNORE_INDEX
        for name, counted in (("gate_counts", known), ("gate_hits", known & (label == target))):
            self._update(name, confidence_histogram(confidence, label, counted, self.num_classes, BINS))

    def _probabilities(self, logits: Tensor, valid: Tensor, learn: bool) -> Tensor:
        """Return probabilities, aligned where that is set."""
        if logits.dtype != torch.float64:
            logits = logits.float()
        probabilities = logits.softmax(1)
        if self.settings.align == "none":
            return probabilities
        if learn:
            self._update("unaligned", _mean_over(probabilities, valid))
        # ReMixMatch, section 3.1: scaled by the ratio of the wanted to the found distribution, then normalized.
        wanted = torch.full_like(self.get_buffer("unaligned"), 1 / self.num_classes)
        if self.settings.align == "labeled":
            wanted = self.get_buffer("labeled_classes")
        factors = (wanted / self.get_buffer("unaligned").clamp_min(1e-6)).to(probabilities.dtype)
        aligned = probabilities * factors[:, None, None]
        return aligned / aligned.sum(1, keepdim=True).clamp_min(1e-12)

    def _learn(self, probabilities: Tensor, confidence: Tensor, label: Tensor, valid: Tensor) -> None:
        """Update the statistics of the thresholds."""
        if self.settings.threshold_rule == "adaptive":
            self._update("mean_confidence", (confidence * valid).sum() / valid.sum().clamp_min(1))
            self._update("mean_probability", _mean_over(probabilities, valid))
        elif self.settings.threshold_rule == "class_balanced":
            histogram = confidence_histogram(confidence, label, valid, self.num_classes, BINS)
            self._update("confidences", histogram)


def _mean_over(probabilities: Tensor, valid: Tensor) -> Tensor:
    """Return the mean probability of each class over valid pixels, ``(K,)``."""
    return (probabilities * valid[:, None]).sum((0, 2, 3)) / valid.sum().clamp_min(1)
