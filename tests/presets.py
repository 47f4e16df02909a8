"""Walks through the recipe of a preset with networks that have no memory and images that are never read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from semiseg.config import build
from semiseg.config.compose import Request, compose, draft
from semiseg.contracts.dataset import DatasetInfo, Split
from semiseg.contracts.feeding import Budget
from semiseg.data.pseudo import PseudoLabels
from semiseg.data.streams import Stream
from semiseg.settings import EvaluatorSettings, TrainerSettings

POOLS = {
    "voc": (10582, 1449, 21),
    "cityscapes": (2975, 500, 19),
    "ade20k": (20210, 2000, 150),
    "coco": (118287, 5000, 81),
}
"""Training images, validation images and classes of each dataset."""


@dataclass(frozen=True)
class Fit:
    """What a recipe asks of one fit."""

    name: str
    iterations: int
    per_epoch: int
    batch: dict[str, int]
    lr: list[float]
    groups: list[dict[str, Any]]
    eval_every: int | None
    streams: dict[str, Stream]


class RecordingLab:
    """Offers a recipe what ``Lab`` offers and records its fits and labelings."""

    def __init__(self, cfg: Any, split: Split, info: DatasetInfo) -> None:
        self.split, self.info, self.seed = split, info, 0
        self.dataset = SimpleNamespace(
            info=info, ids=lambda part: tuple(sorted({*split.labeled, *split.unlabeled}))
        )
        self.augment = build.augment(cfg)
        self.trainer, self.evaluator = (
            build.settings(TrainerSettings, cfg.trainer),
            build.settings(EvaluatorSettings, cfg.evaluator),
        )
        self.budget = Budget(iterations=self.trainer.iterations, epochs=self.trainer.epochs)
        self.optimizer, self.schedule = build.optimizer(cfg), build.schedule(cfg)
        self.factory = build.network_factory(cfg, info)
        self.fits: list[Fit] = []
        self.weights: list[str | None] = []
        self.labelings: list[tuple[str, int]] = []

    def network(
        self,
        tag: str,
        weights: str | None = None,
        *,
        differs_from: str | None = None,
        role: str | None = None,
        probe_rounds: int = 0,
    ) -> Any:
        self.weights.append(weights)
        with torch.device("meta"):
            return self.factory("none")

    def fit(
        self,
        name: str,
        learner: Any,
        streams: Any,
        snapshots: Sequence[float] = (),
        *,
        lr: float | None = None,
        eval_every: int | None = None,
    ) -> Any:
        spec = self.optimizer if lr is None else self.optimizer.with_lr(lr)
        groups, total = learner.param_groups(spec), streams.iterations
        rates = [spec.lr * self.schedule.factor(step, total) for step in (0, total // 2, total - 1)]
        batch = {key: stream.batch_size for key, stream in streams.streams.items()}
        every = self.trainer.eval_every if eval_every is None else eval_every
        self.fits.append(
            Fit(name, total, streams.iterations_per_epoch, batch, rates, groups, every, dict(streams.streams))
        )
        model = next(iter(learner.predictors().values()))
        return SimpleNamespace(
            best=model, last=model, selected=model, snapshots=[model for _ in snapshots], score=0.0
        )

    def label(self, name: str, network: Any, ids: Sequence[str], policy: Any, **_: Any) -> PseudoLabels:
        self.labelings.append((name, len(ids)))
        return PseudoLabels(Path(), ids)

    def memo(self, name: str, compute: Callable[[], Any], planned: Callable[[], Any]) -> Any:
        return planned()

    def predict(self, network: Any, ids: Sequence[str], policy: Any) -> Any:
        return ((image_id, torch.tensor(0.0)) for image_id in ids)

    def release(self, labels: PseudoLabels) -> None:
        pass


def stand_in_split(dataset: str, labeled: int, name: str, pool: int | None = None) -> Split:
    """As many ids as the published partition has."""
    images, val, _ = POOLS[dataset]
    ids = tuple(f"image-{index:05d}" for index in range(pool or images))
    return Split(ids[:labeled], ids[labeled:], tuple(f"val-{index}" for index in range(val)), name=name)


def walk(overrides: str, labeled: int, pool: int | None = None) -> tuple[Any, RecordingLab]:
    """Compose a preset, build it and walk through its recipe.

    Args:
        overrides: of the command line, divided by blanks.
        labeled: number of labeled images.
        pool: number of training images; None: all of the dataset's.
    """
    request = Request(tuple(overrides.split()))
    assert draft(request).faults == []
    cfg = compose(request)
    classes = POOLS[cfg.dataset.name][2]
    info = DatasetInfo(cfg.dataset.name, tuple(map(str, range(classes))), ((0, 0, 0),) * classes)
    lab = RecordingLab(cfg, stand_in_split(cfg.dataset.name, labeled, str(cfg.split), pool), info)
    build.method(cfg).run(lab)  # type: ignore[arg-type]
    return cfg, lab
