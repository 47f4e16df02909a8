"""Contract of tasks: the kind of prediction that networks learn, and how it is measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from semiseg.contracts.dataset import DatasetInfo, SegDataset
from semiseg.contracts.feeding import StoredLabels
from semiseg.contracts.score_names import ScoreNames
from semiseg.contracts.tracking import Sample
from semiseg.contracts.training import Network
from semiseg.settings import EvaluatorSettings


class Scores(Protocol):
    """Scores of a network on some images, or of labels against their masks."""

    @property
    def primary(self) -> float:
        """The primary score; NaN where nothing was counted."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the keys of ``ScoreNames``, and others that belong in the result of a step.

        The scores of the classes are a list in the order of the classes, ``None`` for a class without a score.
        """
        ...


class Task(Protocol):
    """Kind of prediction that networks learn; ``semiseg.tasks.segmentation.Segmentation``.

    A label is a map ``(h, w) uint8`` of classes, for which a network gives logits ``(N, K, h, w)``; the label of a
    whole image is a map of one pixel, see ``DatasetInfo.label_of``.
    """

    @property
    def names(self) -> ScoreNames:
        """Names of the scores."""
        ...

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
    ) -> Scores:
        """Compare a network's predictions with the masks of some images; its mode is restored.

        Args:
            network: network to evaluate, on ``device``.
            dataset: images and masks.
            ids: images to count; each must have a mask.
            settings: settings by which the network is applied.
            device: device of the computation.
            precision: ``trainer.precision`` of the run.
            stop: function that is called before each batch and may raise to end the evaluation; ``None`` calls nothing.

        Raises:
            UserError: an image without a mask, or with one of another size.
        """
        ...

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
    ) -> Scores | None:
        """Compare predictions or stored labels with hidden masks; return ``None`` where no mask can be used.

        Hidden masks never stop a run. Arguments as for ``evaluate``; images without a mask are left out.
        """
        ...

    def samples(
        self,
        network: Network,
        dataset: SegDataset,
        ids: Sequence[str],
        settings: EvaluatorSettings,
        device: torch.device,
        precision: str = "fp32",
    ) -> list[Sample]:
        """Predict a few images for pictures; arguments as for ``evaluate``, masks may be absent."""
        ...

    def write_samples(self, folder: Path, samples: Sequence[Sample], info: DatasetInfo) -> list[Path]:
        """Draw a PNG of each sample into ``folder`` and return the files; a sample always has the same file name."""
        ...
