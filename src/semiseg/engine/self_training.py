"""Self-training of a linear discriminant: it labels pixels of unlabeled images, and is solved again with these."""

from collections.abc import Sequence

import torch
from torch import Tensor

from semiseg.models.discriminant import ClassMoments, Discriminant

IMAGES = 400
"""Unlabeled images that are read at most, evenly spread over the list."""

NUMBERS = 60_000_000
"""About as many numbers of features are kept: 240 MB, 127,000 pixels of 472 channels."""

SHRINKAGE = 0.1
"""Share by which covariances are reduced once there are pixels of so many images."""


def read_ids(ids: Sequence[str]) -> list[str]:
    """Return the unlabeled images that are read."""
    count = min(IMAGES, len(ids))
    return [ids[number * len(ids) // count] for number in range(count)]


class UnlabeledPixels:
    """Features of evenly spread pixels of unlabeled images.

    Args:
        images: number of images that they come from.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.parts: list[Tensor] = []

    def add(self, features: Tensor, views: int) -> None:
        """Add some of the pixels ``(P, D)`` of one of the maps of an image, which are as many as it has views."""
        kept = min(max(NUMBERS // (features.shape[1] * self.images * views), 1), len(features))
        if kept:
            places = torch.linspace(0, len(features) - 1, kept, device=features.device).long()
            self.parts.append(features[places].float())

    def train(
        self, labeled: ClassMoments, first: Discriminant, temperature: float, rounds: int, threshold: float
    ) -> Discriminant:
        """Return the discriminant after all rounds.

        In each, it labels all pixels; the confident ones are kept; and it is solved from the labeled pixels and these,
        which have equal weight in total.

        Args:
            labeled: sums over the labeled pixels.
            first: discriminant of these.
            temperature: divisor of its logits.
            rounds: number of rounds; they end where no pixel is confident.
            threshold: probability from which a pixel is kept.
        """
        found = first
        if not self.parts:
            return found
        pixels = torch.cat(self.parts)
        for _ in range(rounds):
            logits = pixels @ found.weight.T.to(pixels) + found.bias.to(pixels)
            confidence, labels = (logits / temperature).softmax(1).max(1)
            keep = confidence >= threshold
            if not keep.any():
                break
            guessed = ClassMoments(labeled.num_classes, labeled.origin)
            guessed.add(pixels[keep], labels[keep])
            both = ClassMoments(labeled.num_classes, labeled.origin)
            both.merge(labeled)
            both.merge(guessed, float(labeled.counts.sum() / guessed.counts.sum()))
            found = both.solve(SHRINKAGE)
        return found
