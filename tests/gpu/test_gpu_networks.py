"""Evaluation and labeling on a GPU: their rates, with and without the choice of convolutions for each size."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_machine import config, opened

from semiseg.benchmark.step_times import SyntheticImages, info_of
from semiseg.contracts.dataset import Array, DatasetInfo
from semiseg.engine.lab import RunLab
from semiseg.engine.step import Meter
from semiseg.methods.dmt import ClassBalanced
from semiseg.seeding import seed_everything
from semiseg.tasks.evaluate import evaluate
from semiseg.tasks.inference import predict

Figure = Callable[[str, object], None]


class ManySizes(SyntheticImages):
    """Images of 40 sizes, as those of VOC differ."""

    def __init__(self, info: DatasetInfo, longest: int) -> None:
        super().__init__(info, (longest, longest))
        self.longest = longest

    def _cut(self, pixels: Array, image_id: str) -> Array:
        side = self.longest - int(image_id.lstrip("trainvl")) * 7 % 40 * self.longest // 160
        return np.ascontiguousarray(pixels[:side])

    def image(self, image_id: str) -> Array:
        return self._cut(super().image(image_id), image_id)

    def mask(self, image_id: str) -> Array:
        mask = super().mask(image_id)
        assert mask is not None
        return self._cut(mask, image_id)


@pytest.fixture
def ids(machine: Any) -> list[str]:
    return [f"train{number}" for number in range(300 if machine.real else 3)]


@pytest.mark.parametrize("autotune", [True, False])
def test_rate_of_evaluation(
    machine: Any, figure: Figure, ids: list[str], autotune: bool, tmp_path: Path
) -> None:
    cfg = config(machine.words("stpp_voc", "trainer.precision=bf16"))
    dataset = ManySizes(info_of(cfg), 500 if machine.real else 40)
    with (
        opened(cfg, tmp_path, dataset) as (session, networks),
        torch.backends.cudnn.flags(benchmark=autotune),
    ):
        network = session.compute.place(networks.build("none"))
        settings, device = session.training.evaluator, session.compute.device
        for attempt in ("first", "second"):
            began = time.perf_counter()
            found = evaluate(network, dataset, ids, settings, device, precision="bf16")
            seconds = time.perf_counter() - began
            figure(f"autotune {autotune}, {attempt} time", f"{len(ids) / seconds:.1f} images/s")
    assert 0 <= found.primary <= 1


def test_rate_of_labeling(machine: Any, figure: Figure, ids: list[str], tmp_path: Path) -> None:
    cfg = config(machine.words("dmt_voc_1of20", "trainer.precision=bf16"))
    dataset = ManySizes(info_of(cfg), 500 if machine.real else 40)
    wanted = ids[: len(dataset.ids("train"))]
    with opened(cfg, tmp_path, dataset) as (session, networks):
        lab = RunLab(session, networks)
        network = networks.build("none")
        began = time.perf_counter()
        labels = lab.label("label", network, wanted, ClassBalanced(0.5, lab.evaluator, "bf16"))
        seconds = time.perf_counter() - began
    assert labels.ids == tuple(wanted)
    figure("labeling", f"{len(wanted) / seconds:.1f} images/s with their files")


def test_bf16_predicts_what_fp32_predicts(
    machine: Any, figure: Figure, trainers: Any, tmp_path: Path
) -> None:
    steps = 200 if machine.real else 2
    losses = {}
    for precision in ("fp32", "bf16"):
        # Both begin with the same weights.
        seed_everything(0)
        trainer, batch = trainers("supervised_cps_voc", f"trainer.precision={precision}")[0]
        trainer.record.completed = 0
        for _ in range(steps // 2):
            trainer.step(batch)
        trainer.meter = Meter(machine.device)
        for _ in range(steps - steps // 2):
            trainer.step(batch)
        trainer.settle()
        losses[precision] = trainer.meter.read()["train/loss"]
    figure("mean loss of the later half", losses)
    network = trainer.predictor.eval()
    images = batch["labeled"]["image"]
    with torch.inference_mode():
        settings = trainer.training.evaluator
        labels = [predict(network, images, settings, each).argmax(1) for each in ("fp32", "bf16")]
    agreement = float((labels[0] == labels[1]).float().mean())
    figure("pixels with the same label", f"{agreement:.4f}")
    if machine.real:
        assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.01)
        assert agreement > 0.99
