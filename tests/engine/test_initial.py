"""``init_from``: networks that begin as one of another run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semiseg.cli import main

TINY = (
    "debug=smoke",
    "split=1/4",
    "dataset.train=16",
    "dataset.val=5",
    "dataset.test=0",
    "dataset.size=48",
    "trainer.crop_size=32",
    "trainer.iterations=1",
    "trainer.threads=1",
    "trainer.device=cpu",
)
STILL = ("optimizer.lr=1e-12", "method=supervised")
"""A training that moves no weight, so that the result tells the first weights."""
RENAMED = """
from dataclasses import replace
from semiseg.data.shapes import Shapes

class Renamed(Shapes):
    def __init__(self, **options):
        super().__init__(**options)
        self.info = replace(self.info, classes=("ground", *self.info.classes[1:]))
"""


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


def stored(file: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def parts_alike(one: Path, other: Path) -> dict[str, bool]:
    """Whether trained weights of the parts of two networks are the same."""
    first, second = stored(one), stored(other)
    alike = dict.fromkeys(("backbone", "decoder", "classifier"), True)
    for key in first:
        if "running" not in key and "num_batches" not in key and "heads" not in key:
            alike[key.split(".")[0]] &= torch.allclose(first[key], second[key], atol=1e-6)
    return alike


@pytest.fixture
def source(tiny_run: Path) -> Path:
    """The network of a run on the same images, whose labels are those of this file's runs too."""
    return tiny_run


@pytest.mark.slow
def test_a_run_begins_as_the_network_of_another(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, f"init_from={source}", *STILL) == 0
    assert all(parts_alike(run / "checkpoints/best.pt", source / "checkpoints/best.pt").values())
    assert f"init_from: {source}" in (run / "run.yaml").read_text()
    last = source / "stages/00-train/last.pt"
    assert train(tmp_path / "last", f"init_from={last}", *STILL) == 0
    assert all(parts_alike(tmp_path / "last/checkpoints/best.pt", last).values())


def test_other_classes_get_a_fresh_classifier(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "renamed_shapes.py").write_text(RENAMED)
    run = tmp_path / "run"
    options = (f"init_from={source}", "dataset._target_=renamed_shapes.Renamed", "dataset.name=renamed")
    assert train(run, *options, *STILL) == 0
    alike = parts_alike(run / "checkpoints/best.pt", source / "checkpoints/best.pt")
    assert alike == {"backbone": True, "decoder": True, "classifier": False}
    assert "because classes differ" in (run / "run.log").read_text()


def test_two_networks_do_not_begin_equal(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, f"init_from={source}", "optimizer.lr=1e-12", "method=cps") == 0
    learner = torch.load(run / "checkpoints/last.pt", weights_only=True)["learner"]
    first, second = (
        {key.removeprefix(f"{branch}."): value for key, value in learner.items() if key.startswith(branch)}
        for branch in ("branch_1", "branch_2")
    )
    assert first.keys() == second.keys() != set()
    differ = {key for key in first if not torch.allclose(first[key], second[key], atol=1e-3)}
    assert {key.split(".")[0] for key in differ if "running" not in key} == {"classifier"}
    assert (run / "run.log").read_text().count("must not begin equal") == 1


@pytest.mark.slow
def test_a_resumed_run_knows_the_network_wherever_it_lies(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(source, place)
    assert train(run, f"init_from={place}", *STILL) == 0
    whole = stored(run / "checkpoints/best.pt")
    # As if the run had been killed in its first step.
    for name in ("summary.json", "status.json"):
        (run / name).unlink()
    for folder in ("stages", "checkpoints"):
        shutil.rmtree(run / folder)
    shutil.copy(source / "stages/00-train/last.pt", place / "checkpoints/best.pt")
    (place / "checkpoints/best.pt.sha256").unlink()
    assert main(["train", f"run_dir={run}"]) == 2
    assert "another network than this run began with" in " ".join(capsys.readouterr().err.split())
    assert train(run, f"init_from={place}", *STILL) == 2
    assert "another network than this run began with" in " ".join(capsys.readouterr().err.split())
    assert main(["train", f"run_dir={run}", f"init_from={source}"]) == 0
    assert all(torch.equal(whole[key], value) for key, value in stored(run / "checkpoints/best.pt").items())
    shutil.rmtree(place)
    capsys.readouterr()
    assert train(run, f"init_from={place}", *STILL) == 0
    assert "mIoU" in capsys.readouterr().out


@pytest.fixture
def lists(tmp_path: Path) -> Callable[..., str]:
    def write(labeled: list[str], val: list[str]) -> str:
        folder = tmp_path / f"lists-{val[0]}"
        folder.mkdir()
        (folder / "labeled.txt").write_text("\n".join(labeled))
        (folder / "val.txt").write_text("\n".join(val))
        return f"split_lists={folder}"

    return write


@pytest.mark.slow
def test_images_that_the_network_has_learned_are_not_for_measuring(
    lists: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaky = lists(["train-0000", "val-0000"], ["val-0001"])
    assert train(tmp_path / "source", "split_family=list", leaky, "method=supervised") == 0
    assert train(tmp_path / "run", f"init_from={tmp_path / 'source'}", *STILL) == 2
    learned = "has learned from 1 images that this run measures its result on, for example val-0000"
    assert learned in " ".join(capsys.readouterr().err.split())
    between = ("split_family=list", lists(["train-0001"], ["val-0002"]), f"init_from={tmp_path / 'source'}")
    assert train(tmp_path / "between", *between, *STILL) == 0
    assert train(tmp_path / "run", f"init_from={tmp_path / 'between'}", *STILL) == 2
    assert learned in " ".join(capsys.readouterr().err.split())


def test_labels_that_a_run_does_not_have_are_told(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, f"init_from={source}", *STILL, "split=1/8") == 0
    assert "learned the labels of 2 images that are unlabeled in this run" in (run / "run.log").read_text()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("backbone.width=8",), ["backbone.width 16 there and 8 here"]),
        (("model=pspnet",), ["model.name deeplabv3plus there and pspnet here"]),
        (("method=dmt", "method.weights_b=none"), ["backbone.weights=none", "network 'b'"]),
        (("init_sha256=0000",), ["another network than this run began with"]),
    ],
)
def test_a_network_that_does_not_suit_is_refused(
    overrides: tuple[str, ...],
    words: list[str],
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(tmp_path / "run", f"init_from={source}", *overrides) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "init_from=" in shown
    assert all(word in shown for word in words), shown


def test_a_place_without_a_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", f"init_from={tmp_path / 'nothing'}") == 2
    assert "holds no run" in " ".join(capsys.readouterr().err.split())
    file = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(1)}, file)
    assert train(tmp_path / "run", f"init_from={file}") == 2
    assert "holds no network of semiseg" in " ".join(capsys.readouterr().err.split())
    assert train(tmp_path / "run", "init_sha256=0") == 2
    assert "which is not given" in capsys.readouterr().err


def test_weights_that_give_no_finite_loss_are_named_before_anything_is_trained(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = torch.load(source / "checkpoints/best.pt", weights_only=True)
    for key, value in values["state_dict"].items():
        if value.is_floating_point():
            value.fill_(3e38 if key.startswith("classifier") else 1.0)
    torch.save(values, tmp_path / "huge.pt")
    assert train(tmp_path / "run", f"init_from={tmp_path / 'huge.pt'}", *STILL) == 1
    said = capsys.readouterr().err
    assert "in the trial that times the plan, before anything was trained" in said
    assert "backbone.weights or init_from" in said
    assert "Look at these images" not in said


def test_weights_that_are_not_finite_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = torch.load(source / "checkpoints/best.pt", weights_only=True)
    key = next(key for key, value in values["state_dict"].items() if value.is_floating_point())
    values["state_dict"][key].select(0, 0).select(0, 0)[0, :2] = float("nan")
    torch.save(values, tmp_path / "broken.pt")
    assert train(tmp_path / "run", f"init_from={tmp_path / 'broken.pt'}", *STILL) == 2
    assert f"{key} holds 2 values" in " ".join(capsys.readouterr().err.split())
    assert main(["eval", str(source), "--checkpoint", str(tmp_path / "broken.pt")]) == 2
    assert f"{key} holds 2 values that are not finite" in capsys.readouterr().err
