"""What tests of all parts use."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semiseg.cli import main
from semiseg.contracts.dataset import DatasetInfo
from semiseg.contracts.tracking import Sample

TEST_DATA = "SEMISEG_TEST_DATA"

TINY = (
    "debug=smoke",
    "method=supervised",
    "split=1/4",
    "seed=0",
    "dataset.train=16",
    "dataset.val=5",
    "dataset.test=3",
    "dataset.size=48",
    "trainer.crop_size=32",
    "trainer.threads=1",
    "trainer.device=cpu",
)
"""Overrides of ``tiny_run``: a few seconds through everything."""


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what tests decode apart from the caches of the person who runs them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMISEG_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Leave out what makes files survive a power cut: each run does it dozens of times, and no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def real_step_times() -> Iterator[Callable[..., Any]]:
    """Spare ``semiseg init`` in tests the time of real steps; give the function that measures them."""
    from semiseg.onboard import step_speed
    from semiseg.onboard.training_length import Speed

    real = step_speed.measure_speed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_speed, "measure_speed", lambda *given: Speed(0.5, 0.1, 1.0))
        yield real


@pytest.fixture(autouse=True)
def screens_of_one_test() -> Iterator[None]:
    """Take away what a command of the test has set up to log with: its screen is closed with the test."""
    root = logging.getLogger()
    former = list(root.handlers)
    yield
    for handler in [*root.handlers]:
        if type(handler) is logging.StreamHandler and handler not in former:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Give the path of data that is not in the repository, or skip the test where it is absent.

    The data lie in the folder that the environment variable SEMISEG_TEST_DATA names, else in ``shared`` beside
    the repository.
    """
    root = Path(os.environ.get(TEST_DATA) or Path(__file__).resolve().parents[2] / "shared")

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"needs {path}; {TEST_DATA} names another folder that holds {name}")
        return path

    return find


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """Give the directory of a finished supervised run on shapes; a test that writes into it takes a copy."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    assert main(["train", f"run_dir={folder}", *TINY]) == 0
    return folder


@pytest.fixture(scope="session")
def varied_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of ``tiny_run`` whose reported network has a random classifier and predicts several classes."""
    import torch

    from semiseg.engine.checkpoint import load_bundle, save_bundle

    folder = tmp_path_factory.mktemp("varied") / "run"
    shutil.copytree(tiny_run, folder)
    path = folder / "checkpoints/best.pt"
    values = load_bundle(path)
    weight = values["state_dict"]["classifier.weight"]
    weight.copy_(2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    values["state_dict"]["classifier.bias"].zero_()
    save_bundle(path, values)
    return folder


@pytest.fixture
def info() -> DatasetInfo:
    """Two classes."""
    return DatasetInfo("toy", ("sky", "road"), ((10, 20, 30), (200, 100, 50)))


@pytest.fixture
def sample() -> Sample:
    """An image with its truth, part of which is ignored, and a prediction."""
    truth = np.zeros((40, 50), np.uint8)
    truth[:10] = 255
    prediction = np.zeros((40, 50), np.uint8)
    prediction[:, 25:] = 1
    image = np.full((40, 50, 3), 77, np.uint8)
    return Sample(
        "val/a 1", image, truth, prediction, np.linspace(0, 1, 2000, dtype=np.float32).reshape(40, 50)
    )
