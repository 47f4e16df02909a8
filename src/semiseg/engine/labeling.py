"""What labels images, and what is recorded about the labels that it gives."""

from collections.abc import Sequence
from typing import Any

from semiseg.contracts.dataset import IGNORE_INDEX, ids_sha256
from semiseg.data.pseudo import PseudoLabels
from semiseg.engine.session import Session


def label_meta(session: Session, step: str, ids: Sequence[str]) -> dict[str, Any]:
    """Return what stored labels have to agree in to be gone on with."""
    return {
        "step": step,
        "settings": session.output.fingerprint,
        "data": session.data.sha256,
        "images": ids_sha256(ids),
    }


def label_quality(session: Session, labels: PseudoLabels) -> dict[str, float | None]:
    """Return coverage and confidence of the labels, and their scores where hidden masks tell them."""
    statistics = labels.statistics
    kept = labels.count()
    values = {
        "pseudo/coverage": (sum(kept) - kept[IGNORE_INDEX]) / max(statistics["pixels"], 1),
        "pseudo/confidence": statistics["mean_confidence"],
    }
    return values | session.label_quality(labels)
