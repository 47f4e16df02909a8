"""Runs whose pretrained backbone is tuned, through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import semiseg
from semiseg.cli import main
from semiseg.config.check import Checker
from semiseg.config.compose import Request, complete_components, draft
from semiseg.models.bundle import from_bundle
from semiseg.models.lora import is_low_rank, merge_low_rank

TINY = (
    "debug=smoke",
    "split=1/4",
    "dataset.train=16",
    "dataset.val=4",
    "dataset.test=0",
    "dataset.size=48",
    "trainer.crop_size=32",
    "trainer.iterations=2",
    "trainer.threads=1",
    "trainer.device=cpu",
    "method=supervised",
)
VIT = ("backbone=timm", "backbone.name=test_vit", "backbone.weights=none", "model=pspnet")
LOW_RANK = ("backbone.lora.rank=2", "backbone.lora.targets=[qkv,fc1]", "backbone.freeze=1")


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def stored(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/best.pt", weights_only=True)["state_dict"]
    return state


@pytest.mark.slow
def test_a_frozen_backbone_is_trained_around(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    rates = ("optimizer=adam", "optimizer.layer_decay=0.5", "optimizer.multipliers={classifier: 4}")
    assert train(run, "backbone.freeze=3", "backbone.freeze_norm=true", *rates) == 0
    shown = capsys.readouterr().out
    sizes = json.loads((run / "plan.json").read_text())[0]["sizes"]
    assert [size["name"] for size in sizes] == ["model"]
    assert sizes[0]["trained"]["backbone"] + sizes[0]["frozen"]["backbone"] == 228_624
    assert sizes[0]["frozen"].keys() == {"backbone"}
    assert f"backbone {sizes[0]['trained']['backbone']:,} trained and" in shown
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = next(line for line in lines if "lr/head" in line)
    assert logged["lr/classifier"] == pytest.approx(4 * logged["lr/head"])
    assert logged["lr/backbone.c4"] == pytest.approx(0.5 * logged["lr/head"])
    assert logged["lr/backbone.c3"] == pytest.approx(0.25 * logged["lr/head"])
    assert "lr/backbone.c2" not in logged
    # A network may go on in a run that tunes it otherwise, and a run with recomputation switched on.
    assert train(tmp_path / "next", f"init_from={run}", "backbone.freeze=all") == 0
    before, after = stored(run), stored(tmp_path / "next")
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("backbone."))
    (run / "summary.json").unlink()
    assert main(["train", f"run_dir={run}", "backbone.checkpoint=true"]) == 0
    capsys.readouterr()
    assert main(["train", f"run_dir={run}", "backbone.freeze=1"]) == 2
    assert "backbone.freeze: 3 there, 1 now" in capsys.readouterr().err


@pytest.mark.slow
def test_low_rank_matrices_go_through_all_commands(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    first, run, other = tmp_path / "first", tmp_path / "run", tmp_path / "other"
    still = ("optimizer.lr=1e-12",)
    assert train(first, *VIT, *still) == 0
    assert (
        train(run, *VIT, *LOW_RANK, "backbone.checkpoint=true", f"init_from={first}", "optimizer.lr=1") == 0
    )
    before, after = stored(first), stored(run)
    added = set(after) - set(before)
    assert added
    assert all(map(is_low_rank, added))
    frozen = [key for key in before if key.startswith("backbone.")]
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in frozen)
    assert any(after[key].abs().max() > 0 for key in added if key.endswith("lora_up"))
    # The weights themselves take over what the matrices have learned.
    assert train(other, *VIT, *still, f"init_from={run}") == 0
    bundle = torch.load(run / "checkpoints/best.pt", weights_only=True)
    merged, taken = merge_low_rank(from_bundle(bundle)).state_dict(), stored(other)
    assert taken.keys() == before.keys() == merged.keys()
    assert all(torch.allclose(taken[key], merged[key], atol=1e-6) for key in frozen)
    assert any(not torch.allclose(taken[key], before[key], atol=1e-3) for key in frozen)
    photo = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    assert semiseg.load(run).predict(photo).label.shape == (48, 48)
    assert main(["export", str(run), "--format", "torch", "-o", str(tmp_path / "network.pt2")]) == 0
    assert main(["eval", str(run)]) == 0


@pytest.mark.parametrize(
    ("override", "key", "said"),
    [
        ("backbone.lora.rnk=2", "backbone.lora.rnk", "rank"),
        ("backbone.lora.rank=half", "backbone.lora.rank", "a whole number"),
        ("backbone.lora={rank: 2, alpha: 0}", "backbone.lora.alpha", "above 0"),
        ("backbone.lora=2", "backbone.lora", "rank: 8"),
        ("backbone.freeze=-1", "backbone.freeze", "a number of stages"),
        ("backbone.freeze=true", "backbone.freeze", "a number of stages"),
        ("backbone.freeze=6", "backbone.freeze", "stem, c1, c2, c3, c4"),
        ("backbone.freez=1", "backbone.freez", "freeze"),
    ],
)
def test_faults_of_tuning_are_found_before_training(override: str, key: str, said: str) -> None:
    faults = Checker().everything(draft(Request(overrides=(*TINY, override))))
    assert [fault.key for fault in faults] == [key]
    assert said in str(faults[0].expected) + str(faults[0].near)


def test_every_setting_has_its_default_in_the_config() -> None:
    found = draft(Request(overrides=(*TINY, "backbone.lora.rank=2")))
    assert found.cfg is not None
    complete_components(found.cfg)
    node = found.cfg.backbone
    assert node.lora == {"_target_": "semiseg.models.lora.LoRA", "rank": 2, "alpha": None, "targets": None}
    assert (node.freeze, node.freeze_norm, node.checkpoint) == (None, False, False)
