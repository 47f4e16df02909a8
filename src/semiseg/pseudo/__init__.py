"""Pure functions of learning from unlabeled images: labels, thresholds, CutMix masks, stability of predictions."""

from semiseg.data.pseudo import PseudoLabels, PseudoWriter, above_thresholds
from semiseg.pseudo.class_balanced import (
    ClassConfidences,
    class_balanced_thresholds,
    confident_labels,
    label_image,
)
from semiseg.pseudo.class_pixels import class_pixels, one_hot
from semiseg.pseudo.correlation import (
    class_peaks,
    correlated_regions,
    correlation_map,
    propagated,
    region_votes,
)
from semiseg.pseudo.cutmix import box_masks, step_masks
from semiseg.pseudo.draws import on_device, own_rows, step_generator, torch_generator
from semiseg.pseudo.entropy import entropy, masked_percentiles
from semiseg.pseudo.feature_perturbation import (
    adversarial_shift,
    object_boxes,
    object_cutout,
    weakly_active,
)
from semiseg.pseudo.halves import half_boxes, half_masks, half_mixture, half_of_classes
from semiseg.pseudo.injection import Injection, cut_boxes, draw_injection, image_confidence
from semiseg.pseudo.mixing import box_maps, mixed, reversed_within
from semiseg.pseudo.perturbation import channel_masks, complementary_masks, undropped_images
from semiseg.pseudo.stability import stability_score

__all__ = [
    "ClassConfidences",
    "Injection",
    "PseudoLabels",
    "PseudoWriter",
    "above_thresholds",
    "adversarial_shift",
    "box_maps",
    "box_masks",
    "channel_masks",
    "class_balanced_thresholds",
    "class_peaks",
    "class_pixels",
    "complementary_masks",
    "confident_labels",
    "correlated_regions",
    "correlation_map",
    "cut_boxes",
    "draw_injection",
    "entropy",
    "half_boxes",
    "half_masks",
    "half_mixture",
    "half_of_classes",
    "image_confidence",
    "label_image",
    "masked_percentiles",
    "mixed",
    "object_boxes",
    "object_cutout",
    "on_device",
    "one_hot",
    "own_rows",
    "propagated",
    "region_votes",
    "reversed_within",
    "stability_score",
    "step_generator",
    "step_masks",
    "torch_generator",
    "undropped_images",
    "weakly_active",
]
