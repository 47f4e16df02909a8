"""Segmentation: a class for every pixel, measured by mean IoU."""

from semiseg.contracts.score_names import MEAN_IOU
from semiseg.tasks import evaluate as measuring
from semiseg.tasks import samples as pictures


class Segmentation:
    """The task of giving every pixel a class; see ``semiseg.contracts.task.Task``."""

    names = MEAN_IOU
    evaluate = staticmethod(measuring.evaluate)
    label_quality = staticmethod(measuring.pseudo_label_quality)
    samples = staticmethod(measuring.take_samples)
    write_samples = staticmethod(pictures.write_samples)
