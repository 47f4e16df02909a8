"""Stability of the prediction of a picture, to choose the one to label by hand next."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import torch

from semiseg.contracts.dataset import Array
from semiseg.pseudo import stability_score
from semiseg.runs.predictor import Predictor, of_run
from semiseg.runs.use import FinishedRun

VIEW_SCALES = (0.75, 1.25)


def snapshot_files(run: FinishedRun) -> list[Path]:
    """Return the snapshots of the last step that kept any, such as the teacher's of ST++, in their order.

    The list is empty where the step kept fewer than two.
    """
    steps: dict[Path, list[tuple[int, Path]]] = {}
    for path in (run.path / "stages").glob("*/snapshot-*.pt"):
        if number := re.fullmatch(r"snapshot-(\d+)", path.stem):
            steps.setdefault(path.parent, []).append((int(number[1]), path))
    kept = sorted(steps[max(steps)]) if steps else []
    return [path for _, path in kept] if len(kept) > 1 else []


class Stability:
    """Comparison of a prediction with others of the same picture (``stability_score``).

    Where the run kept at least two networks while it learned, the others are theirs: pictures whose labels
    changed while the network learned come first, as ST++ ranks them. Else the others are those of the same
    network for the mirrored picture and for the picture at 0.75 and 1.25 times its size.

    Args:
        predictor: predictor that made the prediction.
        run: run of its network.
    """

    def __init__(self, predictor: Predictor, run: FinishedRun) -> None:
        files = snapshot_files(run)
        self.source = "snapshots" if files else "views"
        self._predictor = predictor
        networks = [of_run(run, str(path), predictor.device, predictor.settings) for path in files]
        self._others = [dataclasses.replace(each, tiling=predictor.tiling) for each in networks]

    def score(self, image: Array, label: Array) -> float:
        """Return the mean mIoU of the other predictions with this one, 0 to 1.

        Args:
            image: image ``(H, W, 3) uint8`` RGB.
            label: label map ``(H, W) uint8`` that the predictor made of it.
        """
        others = [each.predict(image).label for each in self._others] or self._views(image)
        return float(stability_score([torch.from_numpy(each) for each in (*others, label)]))

    def _views(self, image: Array) -> list[Array]:
        way, scales = self._predictor, self._predictor.settings.scales
        scaled = [way.applied(scales=[factor * scale for scale in scales]) for factor in VIEW_SCALES]
        mirrored = way.predict(np.ascontiguousarray(image[:, ::-1])).label[:, ::-1]
        return [np.ascontiguousarray(mirrored), *(each.predict(image).label for each in scaled)]
