"""Runs know their data: going on, evaluating, comparing and reporting tell other data from the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.cli import main

OPTIONS = (
    "dataset=folder",
    "dataset.classes=[ground,disk]",
    "dataset.val=0.25",
    "split=full",
    "method=supervised",
    "trainer.iterations=1",
    "trainer.batch_size=2",
    "trainer.crop_size=16",
    "trainer.threads=1",
    "tracker.mode=disabled",
)


def draw(root: Path, turned: bool = False, count: int = 8) -> Path:
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = np.zeros((16, 16), np.uint8)
        mask[number : number + 6, 3:12] = 1
        image = generator.integers(0, 90, (16, 16, 3), np.uint8) + mask[..., None] * np.uint8(120)
        Image.fromarray(image).save(root / f"images/p{number}.png")
        Image.fromarray(1 - mask if turned else mask).save(root / f"masks/p{number}.png")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two projects with data of the same names, and a run in the first one."""
    base = tmp_path_factory.mktemp("projects")
    draw(base / "one/data")
    draw(base / "two/data", turned=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base / "one")
        patch.delenv("SEMISEG_DATA", raising=False)
        assert main(["train", *OPTIONS, "dataset.root=data", "run_dir=run"]) == 0
    return base


@pytest.fixture
def base(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the projects, in which the run's dataset has been moved to the copy of its data."""
    copied = Path(shutil.copytree(made, tmp_path / "projects"))
    monkeypatch.chdir(copied / "one")
    Path("local.yaml").write_text(f"data_roots: {{folder: {copied / 'one/data'}}}\n")
    return copied


def evaluated(run: str, output: str, *words: str) -> tuple[str, dict[str, object]]:
    assert main(["eval", run, "-o", output, "--worst", "0", *words]) == 0
    (path,) = Path(output).glob("eval-*.json")
    return path.name, json.loads(path.read_text())


def forget_files(run: Path) -> None:
    """Let a run look unfinished."""
    (run / "status.json").write_text('{"state": "interrupted"}')


def test_evaluation_is_the_same_from_every_directory(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, here = evaluated("run", "here")
    monkeypatch.chdir(base / "two")
    other_name, there = evaluated("../one/run", "there")
    assert (name, here) == (other_name, there)
    assert here["data"] == {**here["data"], "as_trained": True, "differences": []}  # type: ignore[dict-item]


def test_other_masks_give_a_result_of_their_own(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluated("run", "run")
    before = (base / "one/run/eval-val-reported.json").read_bytes()
    draw(base / "one/data", turned=True)
    name, found = evaluated("run", "changed")
    assert name.startswith("eval-val-reported-other-data-")
    assert found["data"]["as_trained"] is False  # type: ignore[index]
    assert "val: 2 with another mask (p" in caplog.text
    assert main(["eval", "run", "--worst", "0"]) == 0
    assert (base / "one/run/eval-val-reported.json").read_bytes() == before


def test_a_chosen_root_is_compared_too(base: Path) -> None:
    name, found = evaluated("run", "moved", "--root", "../two/data")
    assert "other-data" in name
    assert found["data"]["differences"]  # type: ignore[index]


def test_going_on_with_other_data_is_refused(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget_files(base / "one/run")
    draw(base / "one/data", turned=True)
    assert main(["train", "run_dir=run"]) == 2
    screen = capsys.readouterr().err
    assert (
        "The data of run are others than those that it began with:\n  labeled: 6 with another mask" in screen
    )
    assert "run_dir=NEW" in screen


def test_going_on_with_the_same_data_elsewhere(base: Path) -> None:
    forget_files(base / "one/run")
    (base / "one/data").rename(base / "moved")
    assert main(["train", "run_dir=run", f"data_roots.folder={base / 'moved'}"]) == 0


def test_a_run_without_fingerprint_stays_usable(base: Path) -> None:
    (base / "one/run/data.json").unlink()
    _, found = evaluated("run", "old")
    assert found["data"]["as_trained"] is None  # type: ignore[index]
    forget_files(base / "one/run")
    assert main(["train", "run_dir=run"]) == 0


def test_compare_and_report_name_other_data(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(base / "one/run", base / "one/other"))
    stored = json.loads((other / "data.json").read_text())
    for part in ("labeled", "val"):
        first = next(iter(stored["images"][part].values()))
        first[1] = "0" * 16
    (other / "data.json").write_text(json.dumps(stored))
    assert main(["compare", "run", "other", "--no-images"]) == 0
    assert "Trained or measured on other data: 2 images have another mask" in capsys.readouterr().out
    assert main(["report", "run", "other", "-o", "report"]) == 0
    text = Path("report/report.md").read_text()
    assert "was trained or measured on other data than" in text
    assert "sizes and masks of the validation images" in text


CONFIG = """name: {name}
_target_: semiseg.data.folder.Folder
root: {root}
classes: {classes}
placeholder_names: true
val: 0.25
"""


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a dataset whose class names were made up, and another such dataset."""
    monkeypatch.chdir(tmp_path)
    Path("dataset").mkdir()
    for name in ("one", "two"):
        root = draw(tmp_path / f"data/{name}", turned=name == "two")
        text = CONFIG.format(name=name, root=root, classes="[class_0, class_1]")
        Path(f"dataset/{name}.yaml").write_text(text)
    own = [word for word in OPTIONS if not word.startswith("dataset")]
    assert main(["train", "dataset=one", *own, "run_dir=run"]) == 0
    return tmp_path


@pytest.mark.slow
def test_made_up_names_of_another_dataset(made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", "run", "dataset=two"]) == 2
    assert "equal ones do not prove that the classes are the same" in capsys.readouterr().err
    assert main(["eval", "run", "dataset=one", "--worst", "0"]) == 0
    assert main(["eval", "run", "dataset=two", "dataset.placeholder_names=false", "--worst", "0"]) == 0
    own = [word for word in OPTIONS if not word.startswith("dataset")]
    for name, kept in (("one", False), ("two", True)):
        capsys.readouterr()
        assert main(["train", f"dataset={name}", *own, "init_from=run", f"run_dir=from-{name}"]) == 0
        said = Path(f"from-{name}/summary.json").read_text()
        assert ("the classifier keeps its random weights" in said) == kept
    assert main(["compare", "run", "from-two", "--no-images"]) == 0
    assert "Of other datasets: class_0, class_1 are made-up names" in capsys.readouterr().out
