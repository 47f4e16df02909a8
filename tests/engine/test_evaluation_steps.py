"""When a fit is evaluated, with the interval and the learning rate of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from semiseg.contracts.training import OptimizerSpec
from semiseg.data.epochs import labeled
from semiseg.engine.moments import is_candidate
from semiseg.engine.optim import SGD, AdamW
from semiseg.errors import UserError
from semiseg.methods.supervised import SupervisedLearner


def candidates(total: int, every: int, early: bool) -> list[int]:
    return [step for step in range(total + 1) if is_candidate(step, total, every, early)]


def test_each_multiple_and_the_last_step() -> None:
    assert candidates(10, 4, early=False) == [4, 8, 10]
    assert candidates(3, 10, early=False) == [3]


def test_early_is_one_step_before_each_multiple_and_before_the_last() -> None:
    found = candidates(8978, 220, early=True)
    assert found[:2] == [219, 439]
    assert found[-2:] == [8799, 8977]
    assert candidates(12, 4, early=True) == [3, 7, 11]
    assert candidates(5, 10, early=True) == [4]
    assert candidates(1, 10, early=True) == [1]
    assert candidates(3, 1, early=True) == [1, 2, 3]


@pytest.mark.parametrize("spec", [SGD(lr=0.1, head_multiplier=10), AdamW(lr=0.1, weight_decay=0.2)])
def test_another_rate_changes_nothing_else(spec: OptimizerSpec) -> None:
    other = spec.with_lr(0.02)
    assert vars(other) == vars(spec) | {"lr": 0.02}
    with pytest.raises(UserError, match="lr"):
        spec.with_lr(-1.0)


class TwoRates:
    """Two fits of one network, the second with a rate and an interval of its own."""

    name = "two_rates"
    needs_unlabeled = False

    def run(self, lab: Any) -> Any:
        streams = labeled(lab.split.labeled, lab.augment.weak, 2, lab.budget)
        first = lab.fit("first", SupervisedLearner(lab.network("a")), streams)
        return lab.fit("second", SupervisedLearner(first.best), streams, lr=0.004, eval_every=2).selected


def test_a_fit_has_its_own_rate_and_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semiseg import app as train
    from semiseg.cli import main

    monkeypatch.setattr(train.build, "method", lambda cfg: TwoRates())
    settings = [
        *("method=supervised", "dataset.train=16", "dataset.val=2", "dataset.test=0", "dataset.size=32"),
        *("split=1/4", "trainer.iterations=5", "trainer.batch_size=2", "trainer.crop_size=32"),
        *("trainer.eval_every=3", "trainer.eval_early=true", "trainer.log_every=1", "optimizer.lr=0.04"),
        *("trainer.threads=1", "tracker.mode=disabled", "schedule.power=0"),
    ]
    assert main(["train", f"run_dir={tmp_path}", *settings]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    def logged(stage: str, key: str) -> list[tuple[int, float]]:
        return [
            (line["iteration"], line[key]) for line in lines if line.get("stage") == stage and key in line
        ]

    assert logged("first", "lr/head") == [(step, 0.04) for step in range(1, 6)]
    assert logged("second", "lr/head") == [(step, 0.004) for step in range(6, 11)]
    assert [step for step, _ in logged("first", "val/miou")] == [2, 4, 5]
    assert [step for step, _ in logged("second", "val/miou")] == [6, 8, 9, 10]
    fits = json.loads((tmp_path / "summary.json").read_text())["fits"]
    assert fits["first"]["best_iteration"] in (2, 4)
    assert fits["second"]["best_iteration"] in (1, 3, 4)
