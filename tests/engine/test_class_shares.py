"""Shares of the classes among labeled pixels: counted in a run, from the labeled images alone."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semiseg.cli import main
from semiseg.methods.supervised import Supervised

TINY = (
    *("dataset=camvid", "split=1/2", "method=supervised", "augment=none", "backbone.width=4"),
    *("trainer.iterations=1", "trainer.batch_size=2", "trainer.crop_size=32", "trainer.eval_every=1"),
    *("trainer.threads=1", "trainer.device=cpu", "tracker.mode=disabled"),
)
IGNORED = 11
"""Value of ignored pixels in the masks of CamVid, whose classes are 0 to 10."""


@pytest.fixture
def masks(tmp_path: Path) -> dict[str, Any]:
    """Masks of a CamVid tree in the working directory, each of three values, one in five pixels ignored."""
    generator, found = np.random.default_rng(0), {}
    for part, count in (("train", 4), ("val", 1)):
        for folder in (part, f"{part}annot"):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
        for number in range(count):
            mask = generator.choice([number, 2 * number + 1, 9, IGNORED], (32, 32), p=[0.6, 0.1, 0.1, 0.2])
            image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"camvid/{part}/{part}-{number}.png"), image)
            cv2.imwrite(str(tmp_path / f"camvid/{part}annot/{part}-{number}.png"), mask.astype(np.uint8))
            found[f"{part}-{number}"] = mask
    return found


@pytest.mark.parametrize("strength", [0, 1])
def test_a_run_counts_labeled_pixels_where_it_needs_them(
    strength: int, masks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    make = Supervised.labeled_loss

    def watched(method: Supervised, lab: Any) -> Any:
        kind, reads = type(lab.dataset), []
        read = kind.mask

        def mask(dataset: Any, image_id: str) -> Any:
            reads.append(image_id)
            return read(dataset, image_id)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "mask", mask)
            loss = make(method, lab)
        found.append((lab.split.labeled, loss.adjustment, reads))
        return loss

    monkeypatch.setattr(Supervised, "labeled_loss", watched)
    run = [f"run_dir={tmp_path / 'run'}", f"dataset.root={tmp_path / 'camvid'}"]
    assert main(["train", *run, *TINY, f"method.logit_adjustment={strength}"]) == 0
    (labeled, _, in_plan), (_, adjustment, in_run) = found
    assert in_plan == []
    if not strength:
        assert in_run == []
        assert adjustment is None
        return
    assert in_run == list(labeled)
    assert len(labeled) == 2
    counts = 1 + sum(np.bincount(masks[image_id].ravel(), minlength=12)[:IGNORED] for image_id in labeled)
    np.testing.assert_allclose(adjustment.exp().cpu(), counts / counts.sum(), rtol=1e-5)
