"""Losses as pure functions of logits, features and labels.

All of them compute in float32 at least (autocast or not), read nothing back from the device unless they say so,
run under ``torch.compile(fullgraph=True)``, and are 0 with zero gradient where nothing is valid. By default
they return a mean; ``reduction="sum_count"`` returns ``(sum, count)``, two scalars whose quotient is that mean,
for callers that add up batches or ranks before dividing.
"""

from semiseg.contracts.training import SumCount
from semiseg.losses.adversarial import adversarial_loss, feature_matching, selected_cross_entropy
from semiseg.losses.annealed import annealed_cross_entropy, annealed_threshold
from semiseg.losses.bank_contrast import ClassBank, bank_contrast
from semiseg.losses.consistency import consistency_loss, pixel_distance, ramp_up
from semiseg.losses.cross_consistency import decoder_consistency, decoder_variance
from semiseg.losses.cross_entropy import (
    confident_cross_entropy,
    cross_entropy,
    cross_pseudo_loss,
    ohem_cross_entropy,
    weighted_image_loss,
)
from semiseg.losses.directional import directional_contrast
from semiseg.losses.divergence import confident_divergence
from semiseg.losses.mutual import MutualStatistics, dynamic_mutual_loss
from semiseg.losses.pixel_contrast import pixel_contrast
from semiseg.losses.region import class_weighted, dice_loss, focal_loss
from semiseg.losses.reliable import reliable_cross_entropy

__all__ = [
    "ClassBank",
    "MutualStatistics",
    "SumCount",
    "adversarial_loss",
    "annealed_cross_entropy",
    "annealed_threshold",
    "bank_contrast",
    "class_weighted",
    "confident_cross_entropy",
    "confident_divergence",
    "consistency_loss",
    "cross_entropy",
    "cross_pseudo_loss",
    "decoder_consistency",
    "decoder_variance",
    "dice_loss",
    "directional_contrast",
    "dynamic_mutual_loss",
    "feature_matching",
    "focal_loss",
    "ohem_cross_entropy",
    "pixel_contrast",
    "pixel_distance",
    "ramp_up",
    "reliable_cross_entropy",
    "selected_cross_entropy",
    "weighted_image_loss",
]
