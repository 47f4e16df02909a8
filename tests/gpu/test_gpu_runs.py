"""Whole runs on a GPU: equal bits where they are promised, and two runs at once."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import Command
from semiseg.cli import main
from semiseg.engine.checkpoint import load_bundle
from semiseg.engine.loop import Trainer
from semiseg.errors import Interrupted

TINY = (
    *("dataset.train=24", "dataset.val=4", "dataset.test=0", "dataset.size=32", "split=1/4", "seed=3"),
    *(
        "trainer.crop_size=32",
        "trainer.iterations=8",
        "trainer.batch_size=2",
        "trainer.unlabeled_batch_size=2",
    ),
    *("trainer.checkpoint_every=2", "trainer.eval_every=4", "trainer.threads=1", "tracker.mode=disabled"),
)
METHODS = ("supervised", "cps", "stpp", "dmt", "dmtc", "cac", "cct", "adv_semiseg", "s4gan")


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_bundle(run / "checkpoints/best.pt")["state_dict"]
    return found


def unequal(one: Path, other: Path) -> list[str]:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return [name for name, value in first.items() if not torch.equal(value, second[name])]


@pytest.mark.parametrize("method", METHODS)
def test_deterministic_runs_are_equal(
    machine: Any, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read when the first product of matrices is made.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    words = [f"method={method}", *TINY, f"trainer.device={machine.name}", "trainer.deterministic=true"]
    once, again, resumed = (tmp_path / name for name in ("once", "again", "resumed"))
    try:
        for run in (once, again):
            assert main(["train", f"run_dir={run}", *words]) == 0
        step, count = Trainer.step, 0

        def interrupted(trainer: Trainer, batch: Any) -> None:
            nonlocal count
            count += 1
            if count == 6:
                raise Interrupted("stopped by the test", 130)
            step(trainer, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", interrupted)
            assert main(["train", f"run_dir={resumed}", *words]) == 130
        assert main(["train", f"run_dir={resumed}", *words]) == 0
    finally:
        torch.use_deterministic_algorithms(False)
    assert unequal(once, again) == []
    assert unequal(once, resumed) == []


def test_two_runs_at_once(machine: Any, figure: Callable[[str, object], None], tmp_path: Path) -> None:
    length = "trainer.iterations=200" if machine.real else "trainer.iterations=4"
    words = (*TINY, "method=cps", f"trainer.device={machine.name}", length)

    def seconds(*names: str) -> float:
        began = time.perf_counter()
        runs = [Command("train", f"run_dir={tmp_path / name}", *words) for name in names]
        ended = [run.finish(600) for run in runs]
        assert [code for code, _ in ended] == [0] * len(runs), ended
        return time.perf_counter() - began

    seconds("first")  # Starts the server of processes.
    alone = seconds("alone")
    figure("two runs at once", f"{seconds('one', 'other') / alone:.2f} times as long as one")
