"""Which calls the times of a plan are those of."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.assembly import open_session
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Request
from semiseg.config.prepare import checked
from semiseg.engine.compute import Compute, Module
from semiseg.engine.plan import PlanLab
from semiseg.engine.session import Session
from semiseg.engine.signals import StopRequest
from semiseg.runs.directory import RunDir
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.segmentation import Segmentation

START = 0.3
"""Seconds that the first evaluation takes beyond the others."""


@dataclasses.dataclass(frozen=True)
class Unmoved(Compute):
    """A device that need not be there, since nothing is moved to it."""

    def place(self, module: Module) -> Module:
        return module


@pytest.mark.parametrize(("device", "calls"), [("cuda", 2), ("cpu", 1)])
def test_a_gpu_is_timed_when_it_is_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, calls: int
) -> None:
    cfg = checked(
        Request(("method=supervised", "dataset.train=16", "dataset.val=4", "dataset.test=2")), Checker()
    )
    task, dataset = Segmentation(build.settings(EvaluatorSettings, cfg.evaluator)), build.dataset(cfg)
    split = build.split(cfg, dataset)
    session, networks = open_session(cfg, task, RunDir(tmp_path), dataset, split, StopRequest())
    seen: list[Any] = []

    def evaluate(self: Session, network: Any, ids: Any) -> None:
        time.sleep(0 if seen else START)
        seen.append(ids)

    monkeypatch.setattr(Session, "evaluate", evaluate)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    lab = PlanLab(dataclasses.replace(session, compute=Unmoved(torch.device(device))), networks)
    lab.report(networks.fresh("a"))
    assert len(seen) == calls
    assert (lab.steps[-1].seconds > START) == (device == "cpu")
