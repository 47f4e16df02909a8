"""A device that answers late: the host learns of the loss of a step in the next one, and nothing has changed before."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semiseg import assembly
from semiseg.assembly import open_session
from semiseg.cli import main
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Request
from semiseg.config.prepare import checked
from semiseg.contracts.training import LossTerm, Progress, StepOutput
from semiseg.data.epochs import labeled
from semiseg.engine.background_saves import BackgroundSaves
from semiseg.engine.compute import Compute, Readback
from semiseg.engine.loop import Trainer
from semiseg.engine.loss_check import LossNotFinite
from semiseg.engine.signals import StopRequest
from semiseg.errors import Interrupted
from semiseg.methods.supervised import SupervisedLearner
from semiseg.runs.directory import RunDir
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.segmentation import Segmentation

TINY = (
    *(
        "dataset.train=16",
        "dataset.val=4",
        "dataset.test=0",
        "dataset.size=32",
        "dataset.clutter=0",
        "split=1/4",
    ),
    *("backbone=tiny", "backbone.width=4", "model.channels=8", "model.low_channels=4"),
    *("trainer.channels_last=false", "trainer.iterations=6", "trainer.batch_size=4", "trainer.crop_size=32"),
    *("trainer.unlabeled_batch_size=2", "trainer.eval_every=3", "trainer.checkpoint_every=2"),
    *("trainer.log_every=2", "trainer.threads=1", "tracker.mode=disabled"),
)


class LateReadback(Readback):
    """Values that are there only when they are waited for."""

    def __init__(self, values: Tensor, waited: list[int]) -> None:
        super().__init__(values.clone())
        self.waited = waited

    @property
    def late(self) -> bool:
        return True

    def values(self) -> Tensor:
        self.waited[0] += 1
        return super().values()


@dataclasses.dataclass(frozen=True)
class LateCompute(Compute):
    """A CPU whose answers come as late as those of a GPU."""

    waited: list[int] = dataclasses.field(default_factory=lambda: [0])

    def reading(self, values: Tensor) -> Readback:
        return LateReadback(values, self.waited)


class Spoiled(SupervisedLearner):
    """A network with its EMA, whose loss is NaN for one image of one iteration."""

    spoiled = 3

    def forward(self, batch: Any, progress: Progress) -> StepOutput:
        output = super().forward(batch, progress)
        if progress.iteration != self.spoiled or "d" not in batch["labeled"]["id"]:
            return output
        term = output.losses["supervised"]
        return StepOutput({"supervised": LossTerm(term.sum * torch.nan, term.count)}, output.scalars)


def trainer(place: Path, late: bool, *overrides: str) -> Trainer:
    cfg = checked(Request(("method=supervised", f"run_dir={place}", *TINY, *overrides)), Checker())
    task = Segmentation(build.settings(EvaluatorSettings, cfg.evaluator))
    dataset = build.dataset(cfg)
    session, networks = open_session(
        cfg, task, RunDir(place), dataset, build.split(cfg, dataset), StopRequest()
    )
    if late:
        session = dataclasses.replace(session, compute=LateCompute(torch.device("cpu")))
    torch.manual_seed(0)
    learner = Spoiled(networks.fresh("a"), ema_decay=0.9)
    streams = labeled(session.data.split.labeled, session.data.augment.weak, 4, session.training.budget)
    return Trainer(session, "train", place, 0, learner, streams, [])


def batch(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 7, (4, 32, 32), generator=generator)
    return {"labeled": {"image": image, "label": label, "id": ["a", "b", "c", "d"]}}


def changed_by_steps(trainer: Trainer) -> dict[str, Tensor]:
    """All that a step changes but the statistics of the student, which its forward pass makes."""
    state = trainer.learner.state_dict()
    kept = {key: value.clone() for key, value in state.items() if "running" not in key or "average" in key}
    kept = {key: value for key, value in kept.items() if "tracked" not in key or "average" in key}
    for number, held in trainer.optimizer.state_dict()["state"].items():
        kept |= {f"{number}.{key}": value.clone() for key, value in held.items() if value is not None}
    return kept


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("accumulate", "images"), [(1, "labeled: a, b, c, d"), (2, "labeled: c, d")], ids=["whole", "accumulated"]
)
def test_a_step_whose_loss_is_not_finite_changes_nothing(
    tmp_path: Path, late: bool, accumulate: int, images: str
) -> None:
    fit = trainer(tmp_path, late, f"trainer.accumulate={accumulate}", "trainer.clip_grad_norm=1")
    start = changed_by_steps(fit)
    for number in range(3):
        fit.step(batch(number))
    fit.settle()
    before = changed_by_steps(fit)
    assert not equal(start, before)
    if late:
        fit.step(batch(3))
    with pytest.raises(LossNotFinite, match="iteration 3 ") as error:
        fit.step(batch(3 + late))
    assert "(supervised nan)" in str(error.value)
    assert f"Images of this batch: {images}\n" in str(error.value)
    assert equal(before, changed_by_steps(fit))


@pytest.mark.parametrize("outlet", ["save", "evaluate", "report", "finish"])
def test_nothing_leaves_a_fit_before_its_last_loss_is_known(tmp_path: Path, outlet: str) -> None:
    fit = trainer(tmp_path, True, "trainer.log_every=1")
    for number in range(4):
        fit.step(batch(number))
    for _ in range(2):  # the second time too: what is not finite does not become so
        with (
            BackgroundSaves(fit.checkpoints) as saves,
            pytest.raises(LossNotFinite, match="iteration 3 "),
        ):
            getattr(fit, outlet)(*([saves] if outlet == "save" else []))
    assert not list(tmp_path.rglob("*.pt"))


def test_a_late_loss_is_waited_for_in_the_next_step(tmp_path: Path) -> None:
    fit = trainer(tmp_path, True)
    waited = fit.compute.waited  # type: ignore[attr-defined]
    found = []
    for number in range(3):
        fit.step(batch(number))
        found.append(waited[0])
    assert found == [0, 1, 2]


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = dict(torch.load(run / "checkpoints/best.pt", weights_only=True)["state_dict"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # As text, in which NaN equals NaN.
    found["log"] = [
        json.dumps({key: value for key, value in line.items() if not key.startswith("time/")})
        for line in lines
        if "summary" not in line
    ]
    return found


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    logs = first.pop("log") == second.pop("log")
    return logs and equal(first, second)


@pytest.mark.slow
def test_a_late_device_trains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("method=mean_teacher", "optimizer=adamw")

    def stopped(*arguments: Any, **options: Any) -> None:
        raise Interrupted("SIGTERM", 143)

    assert train(tmp_path / "prompt", *overrides) == 0
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "Compute", LateCompute)
        assert train(tmp_path / "late", *overrides) == 0
        with patch.context() as other:
            other.setattr(Trainer, "measure", stopped)
            assert train(tmp_path / "resumed", *overrides) == 143
        assert train(tmp_path / "resumed", *overrides) == 0
    expected = result(tmp_path / "prompt")
    assert same(dict(expected), result(tmp_path / "late"))
    assert same(dict(expected), result(tmp_path / "resumed"))


@pytest.mark.slow
def test_a_run_goes_on_before_the_step_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = SupervisedLearner.forward

    def spoiled(self: SupervisedLearner, batch: Any, progress: Progress) -> StepOutput:
        output = forward(self, batch, progress)
        bad = self.training and progress.iteration == 3 and progress.seed != 3  # the plan has other seeds
        losses = {name: LossTerm(term.sum / (not bad), term.count) for name, term in output.losses.items()}
        return StepOutput(losses, output.scalars)

    assert train(tmp_path / "whole", "method=supervised") == 0
    monkeypatch.setattr(assembly, "Compute", LateCompute)
    with monkeypatch.context() as patch:
        patch.setattr(SupervisedLearner, "forward", spoiled)
        assert train(tmp_path / "run", "method=supervised") == 1
    assert "not finite at iteration 3 (supervised inf)" in capsys.readouterr().err
    state = torch.load(tmp_path / "run/checkpoints/last.pt", weights_only=True)
    assert state["record"]["completed"] == 2
    assert train(tmp_path / "run", "method=supervised") == 0
    assert same(result(tmp_path / "whole"), result(tmp_path / "run"))
