"""The loop answers requests to stop without losing a step, and refuses what it would not train."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from semiseg.cli import main
from semiseg.config.stored import read_config, settings_that_matter
from semiseg.contracts.training import Learner
from semiseg.engine import loop
from semiseg.engine.loop import complete_groups
from semiseg.engine.optim import SGD
from semiseg.errors import Interrupted, UserError
from semiseg.files import read_json, write_json
from semiseg.models.bundle import segmentation_model
from semiseg.models.deeplabv3plus import DeepLabV3Plus
from semiseg.models.segmodel import SegModel
from semiseg.models.tiny import Tiny
from semiseg.runs.directory import fingerprint

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


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_with_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config lacks a setting that was added since, and its steps carry the fingerprint of that config."""

    def stopped(*arguments: Any, **options: Any) -> None:
        raise Interrupted("SIGTERM", 143)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "measure", stopped)
        assert main(["train", f"run_dir={run}", *TINY]) == 143
    for name in ("run.yaml", "config.resolved.yaml"):
        text = (run / name).read_text()
        assert "  absent: true_only\n" in text
        (run / name).write_text(text.replace("  absent: true_only\n", ""))
    step = run / "stages/00-train/step.json"
    stored = read_json(step)
    earlier = fingerprint(settings_that_matter(read_config(run / "config.resolved.yaml")))
    assert earlier != stored["fingerprint"]
    write_json(step, stored | {"fingerprint": earlier})
    assert main(["train", f"run_dir={run}"]) == 0


class TwoParts(Learner):
    """A learner with networks in a ``ModuleDict``, and perhaps a layer beside them."""

    def __init__(self, beside: nn.Module | None = None) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({"a": tiny_network(), "b": tiny_network()})
        self.beside = beside


def tiny_network() -> SegModel:
    return segmentation_model(Tiny(width=4), DeepLabV3Plus, 2)


def test_networks_inside_of_other_modules_are_trained() -> None:
    learner = TwoParts()
    groups = complete_groups(learner, SGD(lr=0.1))
    held = {id(each) for group in groups for each in group["params"]}
    assert held == {id(each) for each in learner.parameters() if each.requires_grad}
    frozen = nn.Linear(2, 2).requires_grad_(False)
    assert len(complete_groups(TwoParts(frozen), SGD(lr=0.1))) == len(groups)


def test_a_parameter_in_no_group_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"TwoParts: its parameter 'beside\.weight' \(and 1 more\)") as error:
        complete_groups(TwoParts(nn.Linear(2, 2)), SGD(lr=0.1))
    assert "Learner.param_groups" in str(error.value)
