"""Records about stored pseudo-labels: what they were made with, and how good they are."""

from collections.abc import Sequence
from typing import Any

from semiseg.contracts.dataset import IGNORE_INDEX, ids_sha256
from semiseg.data.pseudo import PseudoLabels
from semiseg.engine.session import Session


def label_meta(session: Session, step: str, ids: Sequence[str]) -> dict[str, Any]:
    """Return the values that stored labels must agree in, so that labeling may continue from them."""
    return {
        "step": step,
        "settings": session.output.fingerprint,
        "data": session.data.sha256,
        "images": ids_sha256(ids),
    }


def label_quality(session: Session, labels: PseudoLabels) -> dict[str, float | None]:
    """Return coverage and confidence of the labels, and their scores where there are hidden masks."""
    statistics = labels.statistics
    kept = labels.count()
    values = {
        "pseudo/coverage": (sum(kept) - kept[IGNORE_INDEX]) / max(statistics["pixels"], 1),
        "pseudo/confidence": statistics["mean_confidence"],
    }
    return values | session.label_quality(labels)
