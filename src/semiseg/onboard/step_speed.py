"""Time of a run's parts on this machine, measured with drawn pictures of the typical size of a dataset."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from semiseg.assembly import open_session
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Composed, Request
from semiseg.config.prepare import checked, settle
from semiseg.contracts.dataset import Array, DatasetInfo, Part, Split
from semiseg.engine.failures import explained
from semiseg.engine.plan import make_plan
from semiseg.engine.plan_text import PlannedStep
from semiseg.engine.signals import StopRequest
from semiseg.onboard.training_choice import Facts
from semiseg.onboard.training_length import Speed
from semiseg.runs.directory import RunDir
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.segmentation import Segmentation

ROUNDS = 2
"""Plans that are made; the mean of their times counts, since other processes slow down a moment."""

ITERATIONS = 100


class NoisePictures:
    """A dataset of one picture of noise under many names; reading it takes no time.

    Args:
        info: classes and channels.
        size: height and width of the picture.
        split: names of the images.
    """

    def __init__(self, info: DatasetInfo, size: tuple[int, int], split: Split) -> None:
        self.info = info
        self._split = split
        random = np.random.default_rng(0)
        if info.bands is None:
            self._image: Array = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        else:
            values = random.normal(info.bands.mean, info.bands.std, (*size, info.channels))
            self._image = values.clip(0).astype(info.bands.dtype)
        self._mask = random.integers(0, info.num_classes, size, dtype=np.uint8)

    def ids(self, part: Part) -> tuple[str, ...]:
        """Ids of one part."""
        names = {"train": self._split.labeled, "val": self._split.val, "test": self._split.test}
        return names.get(part, self._split.unlabeled)

    def image(self, image_id: str) -> Array:
        """Return the picture."""
        return self._image.copy()

    def mask(self, image_id: str) -> Array | None:
        """Return a label map of noise; ``None`` for unlabeled images."""
        return None if image_id.startswith("unlabeled") else self._mask.copy()


def measure_speed(overrides: Sequence[str], info: DatasetInfo, facts: Facts, size: tuple[int, int]) -> Speed:
    """Time a few steps and evaluations of a run, with random weights unless a file of weights is given.

    Args:
        overrides: overrides of the run, without dataset, split and length.
        info: classes and channels of the dataset.
        facts: numbers of its images, and the file of weights.
        size: height and width of a typical picture.

    Raises:
        UserError: the network can't be built.
        RunFailed: the steps take more memory than there is.
        Interrupted: a stop was requested.
    """
    fetched = facts.weights is None and any(each.startswith("backbone.weights=") for each in overrides)
    weights = ["backbone.weights=none"] if fetched else []
    length = [f"trainer.iterations={ITERATIONS}", f"trainer.eval_every={ITERATIONS}"]
    # Another dataset's name does no harm: images and classes are given to the session.
    request = Request(("dataset=shapes", *overrides, *weights, *length, "tracker.mode=disabled"))
    cfg = settle(checked(request, Checker()))
    counts = {"labeled": facts.labeled, "unlabeled": facts.unlabeled, "val": facts.val, "test": facts.test}
    names = {part: tuple(f"{part}{number}" for number in range(count)) for part, count in counts.items()}
    split = Split(names["labeled"], names["unlabeled"], names["val"], names["test"])
    plans = [_plan(cfg, NoisePictures(info, size, split), split) for _ in range(ROUNDS)]
    return _speed(plans)


def _speed(plans: Sequence[Sequence[PlannedStep]]) -> Speed:
    """Return the mean time of each part."""
    step = fmean(sum(each.step_seconds for each in plan) for plan in plans)
    evaluation = fmean(sum(each.evaluation_seconds for each in plan) for plan in plans)
    whole = fmean(sum(each.seconds for each in plan) for plan in plans)
    # Each fit was planned with one evaluation; what is left comes once: a probe, test images, pictures.
    return Speed(step, evaluation, max(whole - ITERATIONS * step - evaluation, 0.0))


def _plan(cfg: Composed, dataset: NoisePictures, split: Split) -> list[PlannedStep]:
    place = RunDir(Path(cfg.run_dir))  # nothing is written there
    task = Segmentation(build.settings(EvaluatorSettings, cfg.evaluator))
    with StopRequest() as stop, _threads(cfg.trainer.threads), explained(place.path):
        session, networks = open_session(cfg, task, place, dataset, split, stop)
        return make_plan(build.method(cfg), session, networks)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with as many threads as a run."""
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
