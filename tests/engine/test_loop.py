"""The loop answers requests to stop without losing a step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from semiseg.cli import main
from semiseg.engine import loop
from semiseg.errors import Interrupted

TINY = (
    "method=supervised",
    "dataset.train=16",
    "dataset.val=4",
    "dataset.test=0",
    "dataset.size=32",
    "split=1/4",
    "trainer.iterations=4",
    "trainer.batch_size=2",
    "trainer.crop_size=32",
    "trainer.eval_every=3",
    "trainer.checkpoint_every=1000",
    "trainer.log_every=1",
    "trainer.threads=1",
    "tracker.mode=disabled",
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/best.pt", weights_only=True)["state_dict"]
    return state


@pytest.mark.slow
def test_a_stop_inside_an_evaluation_saves_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any, **options: Any) -> None:
        raise Interrupted("SIGTERM", 143)

    whole, run = tmp_path / "whole", tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "measure", stopped)
        assert main(["train", f"run_dir={run}", *TINY]) == 143
    record = torch.load(run / "checkpoints/last.pt", weights_only=True)["record"]
    assert (record["completed"], record["evaluated"]) == (3, 0)
    assert main(["train", f"run_dir={run}", *TINY]) == 0
    assert main(["train", f"run_dir={whole}", *TINY]) == 0
    first, second = weights(run), weights(whole)
    assert all(torch.equal(first[name], second[name]) for name in first)
    journals = [(path / "metrics.jsonl").read_bytes().count(b"\n") for path in (run, whole)]
    assert journals[0] == journals[1]
