"""Roots and other paths of a run: the same folders from every directory, moved only on purpose."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Request, as_yaml, render_run_yaml
from semiseg.config.literals import literal, literals
from semiseg.config.overrides import parse
from semiseg.config.places import began_in, with_places
from semiseg.config.prepare import checked, settle
from semiseg.config.resume import for_resume
from semiseg.config.stored import plain
from semiseg.errors import UserError
from semiseg.runs.use import FinishedRun, open_run

FOLDER = ("dataset=folder", "dataset.classes=[a,b]", "dataset.val=0.5", "split=full", "method=supervised")


def pictures(root: Path, count: int = 4, value: int = 1) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"images/p{number}.png")
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(root / f"masks/p{number}.png")
    return root


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory "one", with data; "two" beside it has data of the same names."""
    pictures(tmp_path / "one/data", value=1)
    pictures(tmp_path / "two/data", value=0)
    monkeypatch.chdir(tmp_path / "one")
    monkeypatch.delenv("SEMISEG_DATA", raising=False)
    return tmp_path / "one"


def new(*words: str) -> Any:
    return settle(checked(Request(words), Checker(), settings_only=True))


def stored(run: Path, *words: str, **changed: Any) -> Path:
    """Store the config of a run as training does; ``changed`` writes values as an earlier version did."""
    cfg = new(*FOLDER, *words)
    cfg.run_dir = literal(str(run))
    for key, value in changed.items():
        cfg.dataset[key] = value
    run.mkdir(parents=True)
    (run / "run.yaml").write_text(render_run_yaml(cfg))
    (run / "config.resolved.yaml").write_text(as_yaml(cfg))
    (run / "summary.json").write_text("{}")
    (run / "status.json").write_text('{"state": "done"}')
    return run


def first_mask(run: FinishedRun) -> int:
    dataset, split = run.data()
    mask = dataset.mask(split.val[0])
    assert mask is not None
    return int(mask[0, 0])


def resumed(*words: str) -> Any:
    return settle(checked(for_resume(Request(words)), Checker(), settings_only=True))


def test_a_relative_root_is_stored_absolute(project: Path) -> None:
    cfg = new(*FOLDER, "dataset.root=data", "data_roots.camvid=../CamVid")
    assert cfg.dataset.root == str(project / "data")
    assert cfg.data_roots.camvid == str(project.parent / "CamVid")


def test_a_root_of_the_environment_is_stored_as_the_folder_that_it_meant(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMISEG_DATA", ".")
    assert new(*FOLDER, "dataset.name=data").dataset.root == str(project / "data")
    (project / "VOCdevkit").mkdir()
    assert new("dataset=voc", "split=full", "method=supervised").dataset.root == str(project / "VOCdevkit")


def test_lists_weights_and_other_runs_are_stored_absolute(project: Path) -> None:
    (project / "lists").mkdir()
    (project / "lists/labeled.txt").touch()
    (project / "net.pth").touch()
    (project / "imagenet").mkdir()
    cfg = new(
        *FOLDER, "split_family=list", "split_lists=lists", "backbone=resnet18", "backbone.weights=net.pth"
    )
    assert (cfg.split_lists, cfg.backbone.weights) == (str(project / "lists"), str(project / "net.pth"))
    assert new(*FOLDER, "backbone=resnet18", "backbone.weights=imagenet").backbone.weights == "imagenet"


def test_a_run_reads_its_data_from_any_directory(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stored(project / "run", "dataset.root=data")
    for place in ("one", "two", "."):
        monkeypatch.chdir(project.parent / place)
        assert first_mask(open_run(run)) == 1
        assert resumed(f"run_dir={run}").dataset.root == str(project / "data")


def test_the_weights_of_a_second_network_are_found_from_the_directory_of_the_run(project: Path) -> None:
    (project / "net.pth").touch()
    second = ("method.partner.backbone=resnet18", "method.partner.backbone.weights=net.pth")
    config = plain(new(*FOLDER[:3], "split=1/2", "method=cps", *second))
    weights = str(project / "net.pth")
    assert config["method"]["partner"]["backbone"]["weights"] == weights
    opened, _ = with_places(config, project / "run")
    assert opened == config
    backbone = config["method"]["partner"]["backbone"]
    earlier = {**config, "method": {"partner": {"backbone": {**backbone, "weights": "net.pth"}}}}
    opened, _ = with_places(earlier, project / "run")
    assert opened["method"]["partner"]["backbone"]["weights"] == weights
    assert earlier["method"]["partner"]["backbone"]["weights"] == "net.pth"


@pytest.mark.parametrize("recorded", [True, False])
def test_an_earlier_run_means_the_directory_that_it_began_in(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recorded: bool
) -> None:
    run = stored(Path("runs/first"), root="data")
    if recorded:
        (run / "env.json").write_text(json.dumps({"directory": str(project)}))
    monkeypatch.chdir(project.parent / "two")
    run = Path("../one/runs/first")
    assert first_mask(open_run(run)) == 1
    assert resumed(f"run_dir={run}").dataset.root == str(project / "data")
    assert caplog.messages == []


def test_an_earlier_run_that_records_no_directory_says_what_it_takes(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = stored(project / "run", root="data")
    monkeypatch.chdir(project.parent / "two")
    assert first_mask(open_run(run)) == 0
    assert "does not record where it began: its dataset.root=data is taken from the current" in caplog.text


def test_where_a_run_began_follows_from_its_directory(tmp_path: Path) -> None:
    assert began_in(tmp_path / "runs/a", {"run_dir": "runs/a"}) == tmp_path
    for run_dir in ("runs/b", "/runs/a", "../runs/a", None):
        assert began_in(tmp_path / "runs/a", {"run_dir": run_dir}) is None


def test_local_yaml_moves_a_dataset(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = stored(project / "run", "dataset.root=data", "dataset.name=fields")
    monkeypatch.chdir(project.parent / "two")
    Path("local.yaml").write_text("data_roots: {fields: data}\n")
    assert first_mask(open_run(run)) == 0
    moved = str(project.parent / "two/data")
    assert f"Dataset fields is read from {moved} (data_roots.fields of local.yaml), not from" in caplog.text
    assert resumed(f"run_dir={run}").dataset.root == moved
    Path("local.yaml").unlink()
    assert resumed(f"run_dir={run}", f"data_roots.fields={moved}").dataset.root == moved


def test_an_entry_that_the_run_began_with_moves_nothing(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("local.yaml").write_text("data_roots: {fields: ../two/data}\n")
    assert first_mask(open_run(stored(project / "b", "dataset.name=fields"))) == 0
    assert first_mask(open_run(stored(project / "a", "dataset.root=data", "dataset.name=fields"))) == 1
    assert caplog.messages == []


def test_the_environment_helps_where_the_folder_is_gone(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = stored(project / "run", "dataset.root=data", "dataset.name=fields")
    (project / "data").rename(project.parent / "fields")
    with pytest.raises(UserError, match=str(project / "data")):
        open_run(run).data()
    monkeypatch.setenv("SEMISEG_DATA", str(project.parent))
    assert first_mask(open_run(run)) == 1
    assert "SEMISEG_DATA" in caplog.text


def test_another_root_may_not_be_typed_for_a_run(project: Path) -> None:
    run = stored(project / "run", "dataset.root=data")
    assert resumed(f"run_dir={run}", "dataset.root=data").dataset.root == str(project / "data")
    with pytest.raises(UserError, match=r"(?s)two/data now\n.*data_roots\.NAME=PATH"):
        resumed(f"run_dir={run}", "dataset.root=../two/data")


NAMES = [
    "cost ${x}",
    "a*b",
    "a[b]",
    "[ab]",
    "a{b}",
    "a(b)",
    "a,b",
    "a=b",
    "it's",
    "a#b",
    "a\\b",
    "x\\${y}",
    "2024",
    "1e3",
    "true",
    "日本",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_folder_is_taken_as_it_is(project: Path, name: str) -> None:
    (project / "odd" / name).mkdir(parents=True)
    ((given,), faults) = parse([f"dataset.root=odd/{name}"])
    assert faults == []
    assert given.value == f"odd/{name}"
    assert OmegaConf.create({"root": given.parsed.value()}).root == f"odd/{name}"


@pytest.mark.parametrize("name", ["cost ${x}", "a[b]", "x\\${y}"])
def test_a_run_keeps_the_name_of_a_folder(project: Path, name: str) -> None:
    pictures(project / "odd" / name, count=2)
    run = stored(project / "runs" / name, f"dataset.root=odd/{name}")
    assert plain(resumed(f"run_dir={run}"))["dataset"]["root"] == str(project / "odd" / name)
    dataset, split = open_run(run).data()
    assert sum(split.counts.values()) == 2
    assert dataset.image(split.val[0]).shape == (8, 8, 3)


def test_other_keys_mean_what_hydra_says(project: Path) -> None:
    assert parse(["dataset.root=${split}"])[0][0].is_interpolation
    assert parse(["split=1/8"])[0][0].value == "1/8"
    assert build.dataset(new(*FOLDER, f"dataset.root='{literal('data')}'")).info.name == "folder"


def test_a_class_may_be_called_as_a_reference_looks(project: Path) -> None:
    classes = literals(["a", "rest of ${x}", "${y"])
    Path("dataset").mkdir()
    text = f"defaults: [folder, _self_]\nname: odd\nroot: data\nclasses: {json.dumps(classes)}\nval: 0.5\n"
    Path("dataset/odd.yaml").write_text(text, encoding="utf-8")
    dataset = build.dataset(new("dataset=odd"))
    assert dataset.info.classes == ("a", "rest of ${x}", "${y")
