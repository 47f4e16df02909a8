"""Plans of presets on small trees of made files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.cli import main

HERE = ("trainer.device=cpu", "trainer.threads=1", "trainer.epochs=1", "backbone.weights=none")
"""Overrides that make a preset fit a small machine; networks, method and evaluation stay."""


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A tree of VOC: 16 training images and one for validation."""
    base, names = tmp_path / "VOC2012", [f"2007_{number:06d}" for number in range(17)]
    lists = base / "ImageSets" / "Segmentation"
    for folder in (base / "JPEGImages", base / "SegmentationClassAug", lists):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        pixels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
        labels = (np.indices((90, 120)).sum(0) // 9 + int(name[-2:])) % 21
        Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(labels.astype(np.uint8)).save(base / "SegmentationClassAug" / f"{name}.png")
    (lists / "trainaug.txt").write_text("\n".join(names[1:]))
    (lists / "val.txt").write_text(names[0])
    return base


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "network", "crop", "trained", "more"),
    [
        # Two images in each group, each other's partners.
        ("unimatch_v2_voc", "dinov2_small", 70, 24.7, ["method.groups=2"]),
        ("augseg_voc", "resnet50s", 65, 40.5, []),
    ],
)
def test_a_preset_is_planned(
    voc: Path,
    preset: str,
    network: str,
    crop: int,
    trained: float,
    more: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [f"experiments={preset}", f"dataset.root={voc}", f"backbone={network}", *HERE, *more]
    sizes = [f"trainer.crop_size={crop}", "trainer.batch_size=4", "trainer.unlabeled_batch_size=4"]
    assert main(["train", "--plan", *words, *sizes, "split=1/2", "split_family=every"]) == 0
    shown = capsys.readouterr().out
    # Eight unlabeled images, four a step.
    assert "2 iterations" in shown
    # A student and its EMA teacher.
    assert f"2 networks of {network}" in shown
    assert f"{trained} M parameters trained" in shown
    assert "of weights, gradients and optimizer" in shown
    assert not list(Path().glob("runs/**/summary.json"))
