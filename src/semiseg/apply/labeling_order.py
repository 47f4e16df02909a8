"""Labeling of pictures into a folder, in passes that can be interrupted and continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.apply.label_folder import LabelFolder, Rank
from semiseg.apply.many_pictures import predicted
from semiseg.apply.prediction_stability import Stability
from semiseg.contracts.dataset import IGNORE_INDEX, Array, Confidence
from semiseg.data.pseudo_files import INDEX
from semiseg.files import read_json, write_json
from semiseg.progress_bar import progress
from semiseg.pseudo import PseudoLabels, PseudoWriter, class_balanced_thresholds
from semiseg.runs.predictor import Predictor
from semiseg.runs.use import FinishedRun

PIXELS, FAILED, SCORES = "labels", "failed.json", "stability.jsonl"
MOST_SAMPLES = 2**24
"""Largest number of pixels that thresholds are chosen by; each takes four bytes of memory."""


class Labeling:
    """Labels pictures with a network; each pass goes on where an earlier, interrupted one ended.

    Args:
        run: run of the network.
        predictor: predictor of the labels.
        folder: folder that is written.
        stop: function called before each picture and tile; it may raise to leave.
    """

    def __init__(
        self, run: FinishedRun, predictor: Predictor, folder: LabelFolder, stop: Callable[[], None]
    ) -> None:
        self._run, self._predictor, self._folder, self._stop = run, predictor, folder, stop
        self.failed: dict[str, str] = {}
        self.compared_with: str | None = None
        self.labels = PseudoLabels(folder.store / PIXELS)

    def predict(self, found: Mapping[str, Path]) -> None:
        """Store label and confidence of every picture; those that fail are noted in ``failed``."""
        notes = self._folder.store / FAILED
        if (self.labels.path / INDEX).is_file():
            self.failed = read_json(notes)
            return
        with PseudoWriter(self.labels.path) as writer, progress("label", len(found)) as advance:
            done = set(writer.done)
            for name, path in found.items():
                if name not in done:
                    self._stop()
                    prediction = predicted(self._predictor, path, self._stop, self.failed)
                    if prediction is not None:
                        writer.write(name, prediction.label, prediction.confidence)
                advance()
            write_json(notes, self.failed)
            writer.seal()

    def scores(self, found: Mapping[str, Path]) -> dict[str, float]:
        """Return the stability of every stored label."""
        journal = self._folder.store / SCORES
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
        scores = {name: score for name, score in map(_score, lines) if name is not None}
        stability = Stability(self._predictor, self._run)
        self.compared_with = stability.source
        with (
            journal.open("w", encoding="utf-8") as file,
            progress("stability", len(self.labels.ids)) as advance,
        ):
            for name in self.labels.ids:
                if name not in scores:
                    self._stop()
                    scores[name] = stability.score(
                        self._predictor.read(found[name]).pixels, self.labels.label(name)
                    )
                file.write(json.dumps([name, scores[name]]) + "\n")
                file.flush()
                advance()
        return scores

    def write(
        self, keep: float, first: int | None, scores: Mapping[str, float] | None, origin: Mapping[str, Any]
    ) -> None:
        """Write masks with class-balanced thresholds, the pictures, and the ranking.

        Args:
            keep: share of the pixels of every predicted class that keep their label.
            first: number of pictures to write, the first of the ranking; ``None`` writes all.
            scores: stability by name, to rank by; ``None`` ranks by confidence.
            origin: origin of the labels, for the record.
        """
        info, names = self._predictor.info, self.labels.ids
        thresholds = self._thresholds(keep) if keep < 1 else None
        labels = PseudoLabels(self.labels.path, thresholds=thresholds)
        ranks = sorted((self._rank(labels, name, scores) for name in names), key=_first)
        written = [rank.name for rank in ranks[:first]]
        with progress("write", len(written)) as advance:
            for name in written:
                self._stop()
                label, confidence = _both(labels, name)
                self._folder.write(name, label, confidence)
                advance()
        record = {
            **origin,
            "keep": keep,
            "thresholds": dict(zip(info.classes, thresholds or [0.0] * info.num_classes, strict=True)),
            "ranked_by": "confidence" if scores is None else "stability",
            "stability_compared_with": self.compared_with,
            "failed": self.failed,
        }
        self._folder.close(ranks, written, info, record)

    def _thresholds(self, keep: float) -> list[float]:
        pixels = (_both(self.labels, name) for name in self.labels.ids)
        # Odd, so that samples do not lie in the same columns of every row where a width is a multiple of it.
        stride = -(-self.labels.statistics["pixels"] // MOST_SAMPLES) | 1
        classes = self._predictor.info.num_classes
        return [float(each) for each in class_balanced_thresholds(pixels, classes, keep, stride)]

    def _rank(self, labels: PseudoLabels, name: str, scores: Mapping[str, float] | None) -> Rank:
        self._stop()
        label, confidence = _both(labels, name)
        mean = float(confidence.mean(dtype=np.float64))
        labeled = np.count_nonzero(label != IGNORE_INDEX) / label.size
        return Rank(name, mean, None if scores is None else scores[name], labeled)


def _both(labels: PseudoLabels, name: str) -> tuple[Array, Confidence]:
    label, confidence = labels.read(name)
    assert confidence is not None  # the writer of these keeps it
    return label, confidence


def _first(rank: Rank) -> tuple[float, float, str]:
    """The order of the ranking: the least stable or sure picture first."""
    return (rank.confidence if rank.stability is None else rank.stability, rank.confidence, rank.name)


def _score(line: str) -> tuple[str | None, float]:
    """Read a line of the journal; the name is ``None`` where a kill has left only a part of it."""
    try:
        name, score = json.loads(line)
    except ValueError:
        return None, 0.0
    return name, score
