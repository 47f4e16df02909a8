"""Segmentation: a class for every pixel, measured by mean IoU or another score of the confusion matrix."""

from semiseg.contracts.score_names import ScoreNames, segmentation_scores
from semiseg.settings import EvaluatorSettings
from semiseg.tasks import evaluate as measuring
from semiseg.tasks import samples as pictures


class Segmentation:
    """The task of giving every pixel a class; see ``semiseg.contracts.task.Task``.

    Args:
        settings: settings of the evaluation, which choose the scores.
    """

    def __init__(self, settings: EvaluatorSettings) -> None:
        self.names: ScoreNames = segmentation_scores(settings)

    evaluate = staticmethod(measuring.evaluate)
    label_quality = staticmethod(measuring.pseudo_label_quality)
    samples = staticmethod(measuring.take_samples)
    write_samples = staticmethod(pictures.write_samples)
