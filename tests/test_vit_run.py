"""A plain transformer through everything: training, evaluation, prediction of odd sizes, export."""

from pathlib import Path

import numpy as np
import pytest

import semiseg
from semiseg.cli import main

pytest.importorskip("timm")

SMALL = (
    "debug=smoke",
    "method=supervised",
    "split=1/4",
    "dataset.train=16",
    "dataset.val=5",
    "dataset.test=3",
    "dataset.size=48",
    "trainer.crop_size=32",
    "trainer.threads=1",
    "trainer.device=cpu",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit") / "run"
    choice = ("backbone=tiny_vit", "model=dpt", "optimizer=adamw", "evaluator=unimatch_v2")
    saving = ("backbone.checkpoint=true", "backbone.drop_path=0.1")
    assert main(["train", *SMALL, *choice, *saving, f"run_dir={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_it_is_evaluated_as_it_was_in_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run)]) == 0
    assert "resized to the nearest multiple" in capsys.readouterr().out
    windows = ["--mode", "slide", "--window", "24"]
    assert main(["eval", str(run), *windows]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [(37, 45), (1, 1), (3, 50), (48, 48)])
def test_sizes_that_are_no_multiples_are_predicted(run: Path, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = semiseg.load(run).predict(picture)
    assert found.label.shape == size
    assert np.isfinite(found.confidence).all()


@pytest.mark.slow
def test_a_file_for_one_size(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "network.onnx"
    assert main(["export", str(run), "--size", "37", "45", "-o", str(file)]) == 0
    session = onnxruntime.InferenceSession(file)
    assert session.get_inputs()[0].shape[1:] == [37, 45, 3]
    picture = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    (label,) = session.run(["label"], {"images": picture[None]})
    assert (label[0] == semiseg.load(run).predict(picture).label).mean() > 0.999
    about = session.get_modelmeta().custom_metadata_map
    assert (about["height"], about["width"]) == ("37", "45")
