"""``method.baseline``: the first fit of a method, taken from another run."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from semiseg.cli import main

TINY = (
    "debug=smoke",
    "split=1/4",
    "dataset.train=12",
    "dataset.val=3",
    "dataset.test=0",
    "dataset.size=32",
    "trainer.crop_size=32",
    "trainer.iterations=3",
    "trainer.threads=1",
    "trainer.device=cpu",
)
SNAPSHOTS = "method.snapshots=[0.3333333333333333,0.6666666666666666,1.0]"
CHOICES = {
    "supervised": ("method=supervised", SNAPSHOTS),
    "other": ("method=supervised", "seed=1", "method.augment=strong", "method.bn_group_size=2"),
    "st": ("method=st", "method.scales=[1.0]"),
    "stpp": ("method=stpp", "method.scales=[1.0]"),
    "dmt": ("method=dmt", "method.ratios=[1.0]"),
    "dmtc": ("method=dmtc", "method.ratios=[1.0]", "method.contrast.channels=6"),
    "cps": ("method=cps",),
}


def train(run: Path, *overrides: str) -> int:
    return main(["train", f"run_dir={run}", *TINY, *overrides])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Finished runs by the keys of CHOICES, each made once."""
    root = tmp_path_factory.mktemp("made")

    def make(name: str) -> Path:
        if not (root / name).exists():
            assert train(root / name, *CHOICES[name]) == 0
        return root / name

    return make


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/best.pt", weights_only=True)["state_dict"]
    return state


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def summary(run: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((run / "summary.json").read_text())
    return values


@pytest.mark.slow
def test_the_baselines_of_an_equal_run_lead_to_the_same_weights(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train(run, *CHOICES["dmt"], f"method.baseline={made('dmt')}") == 0
    assert same(run, made("dmt"))
    assert list(summary(run)["fits"]) == ["phase-1-a", "phase-1-b"]
    assert summary(run)["iterations"] == 6


def test_a_run_knows_the_files_that_it_began_with(made: Callable[[str], Path], tmp_path: Path) -> None:
    run, source = tmp_path / "run", made("supervised")
    assert train(run, *CHOICES["stpp"], f"method.baseline={source}") == 0
    taken = summary(run)["taken"]["teacher"]
    assert {key: taken[key] for key in ("run", "step", "method", "seed")} == {
        "run": str(source),
        "step": "train",
        "method": "supervised",
        "seed": 0,
    }
    assert list(taken["sha256"]) == ["best.pt", "last.pt", "snapshot-1.pt", "snapshot-2.pt", "snapshot-3.pt"]
    for name, digest in taken["sha256"].items():
        for folder in (source / "stages/00-train", run / "stages/00-teacher"):
            assert sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_a_run_goes_on_without_the_run_that_it_began_with(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(made("st"), source)
    assert train(run, *CHOICES["st"], f"method.baseline={source}", "keep_pseudo_labels=true") == 0
    assert same(run, made("st"))
    shutil.rmtree(source)
    # As if the run had been killed in its second fit.
    for name in ("summary.json", "status.json"):
        (run / name).unlink()
    for step in ("02-student", "03-report"):
        shutil.rmtree(run / "stages" / step)
    shutil.rmtree(run / "checkpoints")
    assert main(["train", f"run_dir={run}"]) == 0
    assert same(run, made("st"))


@pytest.mark.slow
def test_two_runs_for_two_networks_and_a_word_about_other_training(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pair = f"[{made('supervised')},{made('other')}]"
    assert train(run, *CHOICES["dmt"], f"method.baseline={pair}") == 0
    assert {name: fit["seed"] for name, fit in summary(run)["taken"].items()} == {
        "baseline-a": 0,
        "baseline-b": 1,
    }
    told = (run / "run.log").read_text()
    assert told.count("was trained otherwise") == 1
    assert "was trained otherwise: seed 1 there and 0 here; " in told
    assert "; method.bn_group_size 2 there and null here" in told
    assert "; method.teacher_augment strong there and weak here" in told


def test_settings_that_an_earlier_version_did_not_write_have_their_defaults(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(made("supervised"), source)
    config = source / "config.resolved.yaml"
    text = config.read_text()
    for line in (
        "  absent: true_only\n",
        "  clutter: 1\n",
        "  channels_last: true\n",
        "  ohem_threshold: 0.7\n",
    ):
        assert line in text
        text = text.replace(line, "")
    config.write_text(text)
    assert train(run, *CHOICES["dmt"], f"method.baseline=[{source},{made('other')}]") == 0
    words = (run / "run.log").read_text()
    assert words.count("was trained otherwise") == 1  # by the seed of the other
    assert f"{source} was trained otherwise" not in words


def test_the_plan_names_what_is_taken(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = made("supervised")
    capsys.readouterr()
    assert train(tmp_path / "run", *CHOICES["st"], f"method.baseline={source}", "--plan") == 0
    assert f"1. teacher take 'train' of {source}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("source", "overrides", "words"),
    [
        ("suprvised", CHOICES["st"], ["no run is there", "Did you mean", "supervised"]),
        (
            "supervised",
            (*CHOICES["st"], "split=1/2"),
            ["labeled images are others", "split 1/4 there and 1/2"],
        ),
        ("supervised", (*CHOICES["st"], "dataset.val=2"), ["dataset.val 3 there and 2 here"]),
        ("supervised", (*CHOICES["st"], "dataset.size=40"), ["dataset.size 32 there and 40 here"]),
        ("supervised", (*CHOICES["st"], "model=pspnet"), ["model.name deeplabv3plus there and pspnet here"]),
        ("supervised", (*CHOICES["st"], "backbone.width=8"), ["backbone.width 16 there and 8 here"]),
        ("other", (*CHOICES["stpp"], "seed=1"), ["kept on its way", "kept none", "method=stpp"]),
        ("supervised", CHOICES["dmt"], ["the same one", "method.baseline=[RUN_A,RUN_B]"]),
        ("supervised", (*CHOICES["dmt"], "method.difference=data"), ["has the steps train", "method=dmt"]),
        ("supervised", ("method=dmtc",), ["has the steps train", "method=dmtc"]),
        ("dmtc", CHOICES["dmt"], ["method.contrast.channels 6 there and null here"]),
        (
            "cps",
            CHOICES["st"],
            ["a run of method=cps and has the steps train", "method=supervised, st or stpp"],
        ),
    ],
)
def test_a_run_that_does_not_suit_is_refused(
    source: str,
    overrides: tuple[str, ...],
    words: list[str],
    made: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = made(source) if source in CHOICES else made("supervised").with_name(source)
    assert train(tmp_path / "run", *overrides, f"method.baseline={place}") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "method.baseline=" in shown
    assert all(word in shown for word in words), shown
    assert not (tmp_path / "run").exists()


def test_an_unfinished_or_damaged_baseline_is_refused(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(made("supervised"), source)
    network = source / "stages/00-train/best.pt"
    content = network.read_bytes()
    network.write_bytes(content[:-1])
    assert train(tmp_path / "run", *CHOICES["st"], f"method.baseline={source}") == 2
    assert "is damaged" in " ".join(capsys.readouterr().err.split())
    step = source / "stages/00-train/step.json"
    stored = json.loads(step.read_text())
    step.write_text(json.dumps({key: value for key, value in stored.items() if key != "data"}))
    assert train(tmp_path / "run", *CHOICES["st"], f"method.baseline={source}") == 2
    assert "from which images it has learned" in " ".join(capsys.readouterr().err.split())
    step.write_text(json.dumps(stored | {"state": "running"}))
    assert train(tmp_path / "run", *CHOICES["st"], f"method.baseline={source}") == 2
    assert "has not finished" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("method=dmt", "method.baseline=[one]"), "one for each of the 2 networks"),
        (
            ("method=supervised", "method.snapshots=[0,1]"),
            "expected a list [a number above 0 and at most 1, ...] or null",
        ),
    ],
)
def test_values_out_of_range_are_refused(
    overrides: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *overrides) == 2
    assert words in " ".join(capsys.readouterr().err.split())
