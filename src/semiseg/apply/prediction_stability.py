"""How stable the prediction of a picture is, to choose which one to label by hand next."""

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
    """Return the networks that the run kept while it learned, in their order; empty where it kept fewer than two.

    Those of the last step that kept any, such as the teacher's of ST++.
    """
    steps: dict[Path, list[tuple[int, Path]]] = {}
    for path in (run.path / "stages").glob("*/snapshot-*.pt"):
        if number := re.fullmatch(r"snapshot-(\d+)", path.stem):
            steps.setdefault(path.parent, []).append((int(number[1]), path))
    kept = sorted(steps[max(steps)]) if steps else []
    return [path for _, path in kept] if len(kept) > 1 else []


class Stability:
    """Compare a prediction with others of the same picture (``stability_score``).

    Where the run kept at least two networks while it learned, the others are theirs: pictures whose labels
    changed while the network learned come first, as ST++ ranks them. Else the others are those of the same
    network for the mirrored picture and for the picture at 0.75 and 1.25 times its size.

    Args:
        predictor: made the prediction.
        run: the run that its network is of.
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
            image: ``(H, W, 3) uint8`` RGB.
            label: what the predictor made of it, ``(H, W) uint8``.
        """
        others = [each.predict(image).label for each in self._others] or self._views(image)
        return float(stability_score([torch.from_numpy(each) for each in (*others, label)]))

    def _views(self, image: Array) -> list[Array]:
        way, scales = self._predictor, self._predictor.settings.scales
        scaled = [way.applied(scales=[factor * scale for scale in scales]) for factor in VIEW_SCALES]
        mirrored = way.predict(np.ascontiguousarray(image[:, ::-1])).label[:, ::-1]
        return [np.ascontiguousarray(mirrored), *(each.predict(image).label for each in scaled)]
