"""Contract of tasks: what a network learns to predict, and how that is checked, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from semiseg.contracts.dataset import DatasetInfo, SegDataset
from semiseg.contracts.score_names import ScoreNames
from semiseg.contracts.tracking import Sample
from semiseg.contracts.training import Network, StoredLabels
from semiseg.settings import EvaluatorSettings


class Scores(Protocol):
    """How well a network does on some images, or how well labels fit their masks."""

    @property
    def primary(self) -> float:
        """The primary score; NaN where nothing was counted."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Plain values under the keys of ``ScoreNames``, and others that belong into a step's result.

        Those of the classes are a list in the order of the classes, ``None`` for one without a score.
        """
        ...


class Task(Protocol):
    """What a network learns to predict; ``semiseg.tasks.segmentation.Segmentation``.

    A label is a map ``(h, w) uint8`` of classes, for which a network gives logits ``(N, K, h, w)``; the one of a whole
    image is a map of one pixel, see ``DatasetInfo.label_of``.
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
            network: what is evaluated, on ``device``.
            dataset: images and masks.
            ids: images to count; each must have a mask.
            settings: how the network is applied.
            device: where to compute.
            precision: "fp32", or "bf16" for autocast.
            stop: called before each batch; may raise to leave.

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
        """Compare predictions or stored labels with hidden masks; ``None`` where there are none that can be used.

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
        """Draw a PNG per sample into ``folder`` and return the files; the same sample has the same name again."""
        ...
