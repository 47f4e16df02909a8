"""Methods with two different networks, through the command line: what they train, store, resume and report."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import semiseg
from processes import Command
from semiseg.cli import main

TINY = (
    *("dataset.train=16", "dataset.val=4", "dataset.test=0", "dataset.size=32", "split=1/4"),
    *("trainer.iterations=2", "trainer.batch_size=2", "trainer.unlabeled_batch_size=2"),
    *("trainer.crop_size=32", "trainer.eval_every=1", "trainer.log_every=1", "trainer.threads=1"),
    *("trainer.device=cpu", "tracker.mode=disabled", "seed=3"),
)
OTHER = ("backbone.width=8", "model=pspnet", "optimizer=adamw", "optimizer.lr=0.002")


def other(role: str) -> tuple[str, ...]:
    """A network of another structure and another class of optimizer."""
    return tuple(f"method.{role}.{word}" for word in OTHER)


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def stored(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = torch.load(file, weights_only=True)
    return values


def kind(file: Path) -> tuple[Any, ...]:
    """What a stored network says about its structure."""
    values = stored(file)
    config = values["config"]
    return values.get("role"), config["backbone"]["width"], config["model"]["name"]


def step(run: Path, name: str) -> Path:
    (found,) = run.glob(f"stages/*-{name}")
    return found


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def logged(run: Path) -> set[str]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {key for line in lines for key in json.loads(line)}


OWN, SECOND = (None, 16, "deeplabv3plus"), (8, "pspnet")


@pytest.fixture(scope="module")
def cps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("cps") / "run"
    assert train(run, "method=cps", "method.report=better", *other("partner")) == 0
    return run


def test_cps_trains_both_by_their_own_optimizers(cps: Path) -> None:
    learner = stored(cps / "checkpoints/last.pt")
    assert {key.split(".")[0] for key in learner["learner"]} == {"branch_1", "branch_2"}
    own, second = learner["optimizer"]["parts"]
    assert {"momentum_buffer"} == {name for values in own["state"].values() for name in values}
    assert {"exp_avg", "exp_avg_sq", "step"} == {
        name for values in second["state"].values() for name in values
    }
    assert {"lr/backbone", "lr/head", "lr/partner_backbone", "lr/partner_head"} <= logged(cps)
    record = summary(cps)
    file = cps / record["checkpoint"]
    assert kind(file) in (OWN, ("partner", *SECOND))
    assert record["model"] == kind(file)[2]
    assert record.get("network") == kind(file)[0]


def test_every_file_holds_its_own_network(cps: Path) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    for file in step(cps, "train").glob("*.pt"):
        assert semiseg.load(cps, checkpoint=str(file)).predict(image).label.shape == (40, 50)
        assert main(["eval", str(cps), "--checkpoint", str(file)]) == 0


def test_the_plan_names_both_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", *TINY, "method=cps", "--plan")
    assert main([*words, f"run_dir={tmp_path / 'run'}", *other("partner")]) == 0
    lines = capsys.readouterr().out.splitlines()
    own, second = (line for line in lines if "parameters trained" in line)
    assert "1 network of tiny deeplabv3plus: 0.3 M" in own
    assert "1 network of tiny pspnet (method.partner): 0.1 M" in second
    assert not (tmp_path / "run").exists()
    assert main(list(words)) == 0
    assert "2 networks of tiny deeplabv3plus: 0.7 M" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_never_was(cps: Path, tmp_path: Path) -> None:
    words = ("train", *TINY, "method=cps", "method.report=better", *other("partner"))
    run = tmp_path / "run"
    settings = ("trainer.checkpoint_every=1", f"run_dir={run}")
    process = Command(*words, *settings)
    deadline = time.monotonic() + 100
    while process.poll() is None and not (run / "checkpoints/last.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send(signal.SIGKILL)
    process.finish(60)
    assert main(["train", f"run_dir={run}"]) == 0
    for name in ("best.pt", "last.pt"):
        straight, resumed = (stored(step(each, "train") / name)["state_dict"] for each in (cps, run))
        assert straight.keys() == resumed.keys()
        assert all(torch.equal(value, resumed[key]) for key, value in straight.items())


def test_a_run_goes_on_with_the_same_partner_alone(cps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(cps, "method=cps", "method.report=better", *other("partner")) == 0
    capsys.readouterr()
    assert main(["train", f"run_dir={cps}", "method.partner.backbone.width=12"]) == 2
    assert "method.partner.backbone.width: 8 there, 12 now" in capsys.readouterr().err


@pytest.mark.slow
def test_dmt_alternates_between_both_and_takes_their_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, words = tmp_path / "dmt", ("method=dmt", "method.ratios=[0.5]", *other("partner"))
    assert train(run, *words, "method.report=b", "method.baseline_lr=0.025") == 0
    for name, expected in (("baseline-a", OWN), ("phase-1-a", OWN)):
        assert kind(step(run, name) / "best.pt") == expected
        assert kind(step(run, name.replace("-a", "-b")) / "best.pt") == ("partner", *SECOND)
    assert summary(run)["network"] == "partner"
    # Runs of each network by itself are their baselines, and are refused for the other one.
    alone = tmp_path / "alone"
    both = ("trainer.batch_size=4", "method=supervised")
    assert (
        train(alone, *both, "backbone.width=8", "model=pspnet", "optimizer=adamw", "optimizer.lr=0.002") == 0
    )
    again = tmp_path / "again"
    assert train(again, *words, f"method.baseline=[{run},{alone}]") == 0
    assert kind(step(again, "baseline-b") / "best.pt") == (None, *SECOND)
    assert kind(step(again, "phase-1-b") / "best.pt") == ("partner", *SECOND)
    capsys.readouterr()
    assert train(tmp_path / "wrong", *words, f"method.baseline=[{alone},{run}]") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is no baseline of this run: backbone.width 8 there and 16 here" in said


def test_another_student_in_self_training(tmp_path: Path) -> None:
    run = tmp_path / "stpp"
    assert train(run, "method=stpp", *other("student")) == 0
    assert kind(step(run, "teacher") / "best.pt") == OWN
    for name in ("student-reliable", "student"):
        assert kind(step(run, name) / "best.pt") == ("student", *SECOND)
    assert (summary(run)["model"], summary(run)["network"]) == ("pspnet", "student")
    assert kind(run / "checkpoints/best.pt") == ("student", *SECOND)
    assert semiseg.load(run).predict(np.zeros((32, 32, 3), np.uint8)).label.shape == (32, 32)


def test_a_network_of_another_run_is_for_its_own_structure(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    same_images = ("debug=smoke", "dataset.val=5", "dataset.size=48")
    still = (*same_images, f"init_from={tiny_run}", "optimizer.lr=1e-12", "method.partner.optimizer.lr=1e-12")
    assert train(run, *still, "method=cps", *other("partner")[:3], "trainer.iterations=1") == 0
    log = (run / "run.log").read_text()
    assert "is no beginning for the network of method.partner" in log
    assert "must not begin equal" not in log
    learner, source = stored(run / "checkpoints/last.pt")["learner"], stored(tiny_run / "checkpoints/best.pt")
    first = "backbone.stem.0.weight" if "backbone.stem.0.weight" in source["state_dict"] else None
    key = first or next(key for key, value in source["state_dict"].items() if value.ndim == 4)
    assert torch.allclose(learner[f"branch_1.{key}"], source["state_dict"][key], atol=1e-6)
    # A partner that differs in its optimizer alone begins as the network too, apart from its classifier.
    again = tmp_path / "again"
    assert train(again, *still, "method=cps", "trainer.iterations=1") == 0
    assert "must not begin equal" in (again / "run.log").read_text()
    learner = stored(again / "checkpoints/last.pt")["learner"]
    assert torch.allclose(learner[f"branch_2.{key}"], source["state_dict"][key], atol=1e-6)


@pytest.mark.slow
def test_a_residual_network_and_a_small_one_teach_each_other(tmp_path: Path) -> None:
    words = ("backbone=resnet18", "backbone.weights=none", "model=pspnet", "optimizer=adamw")
    partner = tuple(f"method.partner.{word}" for word in words)
    for method in ("cps", "dmtc"):
        run = tmp_path / method
        more = ("method.ratios=[0.5]",) if method == "dmtc" else ("method.merge=true",)
        assert train(run, f"method={method}", *partner, *more, "trainer.accumulate=1") == 0
