"""Segmentation: a class for every pixel, measured by mean IoU."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from semiseg.contracts.dataset import DatasetInfo, SegDataset
from semiseg.contracts.score_names import MEAN_IOU
from semiseg.contracts.tracking import Sample
from semiseg.contracts.training import Network, StoredLabels
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.evaluate import evaluate, pseudo_label_quality, take_samples
from semiseg.tasks.metrics import Metrics
from semiseg.tasks.samples import write_samples


class Segmentation:
    """The task of giving every pixel a class; see ``semiseg.contracts.task.Task``."""

    names = MEAN_IOU

    def evaluate(
        self,
        network: Network,
        dataset: SegDataset,
        ids: Sequence[str],
        settings: EvaluatorSettings,
        device: torch.device,
        *,
        precision: str = "fp32",
        stop: Callable[[], None] | None = None,
    ) -> Metrics:
        """Count predictions and masks in one confusion matrix; see ``semiseg.tasks.evaluate.evaluate``."""
        return evaluate(network, dataset, ids, settings, device, precision=precision, stop=stop)

    def label_quality(
        self,
        source: Network | StoredLabels,
        dataset: SegDataset,
        ids: Sequence[str],
        settings: EvaluatorSettings,
        device: torch.device,
        *,
        precision: str = "fp32",
        stop: Callable[[], None] | None = None,
    ) -> Metrics | None:
        """Count labels and hidden masks in one confusion matrix; see ``pseudo_label_quality``."""
        return pseudo_label_quality(source, dataset, ids, settings, device, precision=precision, stop=stop)

    def samples(
        self,
        network: Network,
        dataset: SegDataset,
        ids: Sequence[str],
        settings: EvaluatorSettings,
        device: torch.device,
        precision: str = "fp32",
    ) -> list[Sample]:
        """Predict a few images; see ``take_samples``."""
        return take_samples(network, dataset, ids, settings, device, precision)

    def write_samples(self, folder: Path, samples: Sequence[Sample], info: DatasetInfo) -> list[Path]:
        """Draw image, truth, prediction and confidence side by side."""
        return write_samples(folder, samples, info)
