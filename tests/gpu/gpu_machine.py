"""What the tests of a GPU share: the machine, and sessions on images that are made."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semiseg.assembly import open_session
from semiseg.benchmark.bare_passes import RecordedFit
from semiseg.benchmark.step_times import MARGIN, SyntheticImages, info_of
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Composed, Request
from semiseg.config.prepare import checked
from semiseg.config.searchpath import options
from semiseg.engine.loop import Trainer
from semiseg.engine.session import Networks, Session
from semiseg.engine.signals import StopRequest
from semiseg.engine.step import to_device
from semiseg.runs.directory import RunDir
from semiseg.settings import EvaluatorSettings
from semiseg.splits.split import make_split
from semiseg.tasks.segmentation import Segmentation

SMALL = (
    *("dataset=shapes", "backbone=tiny", "model=deeplabv3plus", "trainer.crop_size=32"),
    *("trainer.batch_size=2", "trainer.unlabeled_batch_size=2"),
)


@dataclass(frozen=True)
class Machine:
    """Where the tests run.

    Args:
        name: "cuda" or "cpu".
    """

    name: str

    @property
    def device(self) -> torch.device:
        """The device."""
        return torch.device(self.name)

    @property
    def real(self) -> bool:
        """Whether there is a GPU, so that real networks are used and figures mean something."""
        return self.name == "cuda"

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.real:
            torch.cuda.synchronize()

    def words(self, preset: str, *more: str) -> tuple[str, ...]:
        """Overrides of a preset on this machine; without a GPU, of its method on a tiny network."""
        own = (f"experiments={preset}",)
        if not self.real:
            method = max(filter(preset.startswith, options("method")), key=len)
            own = (f"method={method}", *SMALL)
        return (*own, f"trainer.device={self.name}", "trainer.threads=1", *more)


@contextmanager
def opened(cfg: Composed, folder: Path, dataset: Any = None) -> Iterator[tuple[Session, Networks]]:
    """Open a session on images that are made."""
    crop = cfg.trainer.crop_size
    height, width = (crop, crop) if isinstance(crop, int) else crop
    images = dataset or SyntheticImages(info_of(cfg), (height + MARGIN, width + MARGIN))
    task = Segmentation(build.settings(EvaluatorSettings, cfg.evaluator))
    with StopRequest() as stop:
        yield open_session(cfg, task, RunDir(folder), images, make_split(images, "1/4"), stop)


def config(words: tuple[str, ...]) -> Composed:
    """Compose a run whose data need not be there."""
    return checked(Request(words), Checker(), settings_only=True)


def trainer_of(fit: RecordedFit, folder: Path) -> tuple[Trainer, Any]:
    session, total = fit.session, fit.streams.iterations
    trainer = Trainer(session, fit.name, folder, 0, fit.learner, fit.streams, [])
    trainer.record.completed = min(total * 3 // 4, max(total - 50, 0))
    batch = fit.streams.batch(session.data.dataset, session.training.seed, fit.name, trainer.record.completed)
    return trainer, to_device(batch, session.compute.device, session.compute.memory_format)
