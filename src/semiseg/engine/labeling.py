"""What labels images, and what is recorded about the labels that it gives."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from semiseg.data.dataset import IGNORE_INDEX
from semiseg.data.pseudo import PseudoLabels
from semiseg.engine.evaluate import pseudo_label_quality
from semiseg.engine.session import Session
from semiseg.models.segmodel import SegModel
from semiseg.splits.lists import ids_sha256


class LabelPolicy(Protocol):
    """How a network labels an image."""

    def __call__(self, network: SegModel, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn ``(1, 3, H, W) uint8`` into ``(H, W) uint8`` labels and ``(H, W) float32`` confidence."""
        ...


@runtime_checkable
class SelectivePolicy(LabelPolicy, Protocol):
    """A policy that drops labels of low confidence, once all images are labeled."""

    def thresholds(self, labels: PseudoLabels, num_classes: int) -> Sequence[float]:
        """Return the smallest confidence of each class, from the stored labels and confidences."""
        ...


def label_meta(session: Session, step: str, ids: Sequence[str]) -> dict[str, Any]:
    """Return what stored labels have to agree in to be gone on with."""
    return {
        "step": step,
        "settings": session.fingerprint,
        "data": session.data_sha256,
        "images": ids_sha256(ids),
    }


def label_quality(session: Session, labels: PseudoLabels) -> dict[str, float | None]:
    """Return coverage and confidence of the labels, and mIoU and accuracy where hidden masks tell them."""
    statistics = labels.statistics
    kept = labels.count()
    values = {
        "pseudo/coverage": (sum(kept) - kept[IGNORE_INDEX]) / max(statistics["pixels"], 1),
        "pseudo/confidence": statistics["mean_confidence"],
    }
    quality = pseudo_label_quality(
        labels, session.dataset, session.quality_ids, session.evaluator, session.device
    )
    if quality is not None:
        values |= {"pseudo/miou": quality.miou, "pseudo/accuracy": quality.accuracy}
    return values
