"""Writing of pseudo-labels, and records about them: what they were made with, and how good they are."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from torch import Tensor

from semiseg.contracts.dataset import IGNORE_INDEX, ids_sha256
from semiseg.contracts.recipe import Thresholds
from semiseg.data.background import WritingBehind
from semiseg.data.pseudo import PseudoLabels, PseudoWriter
from semiseg.engine.predicting import on_host
from semiseg.engine.session import Session


def label_meta(session: Session, step: str, ids: Sequence[str]) -> dict[str, Any]:
    """Return the values that stored labels must agree in, so that labeling may continue from them."""
    return {
        "step": step,
        "settings": session.output.fingerprint,
        "data": session.data.sha256,
        "images": ids_sha256(ids),
    }


def write_labels(
    writer: PseudoWriter,
    results: Generator[tuple[str, tuple[Tensor, Tensor]]],
    thresholds: Thresholds | None,
    most: int,
    progress: Callable[[int], None],
    stop: Callable[[], None],
) -> None:
    """Write labels and confidences in a thread, and find thresholds from them.

    Args:
        writer: store; what it holds already is read once for the thresholds.
        results: id, label and confidence of the images that it lacks; closed at the end.
        thresholds: thresholds to find; ``None`` finds none.
        most: number of images that may be on their way from the device.
        progress: function of the number of labeled images.
        stop: function that is called before each image that is read, and may raise to end it.
    """
    if thresholds is not None:
        for stored in writer.written():
            stop()
            thresholds.add(*stored)

    def write(image_id: str, label: Tensor, confidence: Tensor) -> None:
        arrays = label.numpy(), confidence.numpy()
        writer.write(image_id, *arrays)
        if thresholds is not None:
            thresholds.add(*arrays)

    finished = len(writer.done)
    with WritingBehind(write, 2 * most) as behind, closing(results):
        for image in on_host(results, most):
            behind(*image)
            finished += 1
            progress(finished)


def label_quality(session: Session, labels: PseudoLabels) -> dict[str, float | None]:
    """Return coverage and confidence of the labels, and their scores where there are hidden masks."""
    statistics = labels.statistics
    kept = labels.count()
    values = {
        "pseudo/coverage": (sum(kept) - kept[IGNORE_INDEX]) / max(statistics["pixels"], 1),
        "pseudo/confidence": statistics["mean_confidence"],
    }
    return values | session.label_quality(labels)
