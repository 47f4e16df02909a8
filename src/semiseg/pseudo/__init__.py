"""Pure functions of learning from unlabeled images: labels, thresholds, CutMix masks, stability of predictions."""

from semiseg.data.pseudo import PseudoLabels, PseudoWriter, above_thresholds
from semiseg.pseudo.class_balanced import class_balanced_thresholds, confident_labels, label_image
from semiseg.pseudo.cutmix import box_masks
from semiseg.pseudo.draws import own_rows, step_generator, torch_generator
from semiseg.pseudo.stability import stability_score

__all__ = [
    "PseudoLabels",
    "PseudoWriter",
    "above_thresholds",
    "box_masks",
    "class_balanced_thresholds",
    "confident_labels",
    "label_image",
    "own_rows",
    "stability_score",
    "step_generator",
    "torch_generator",
]
