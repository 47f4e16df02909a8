"""``semiseg init`` keeps copies of a picture, and images of a group, on one side of the validation list."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from semiseg.cli import main

NAMES = [f"p{patient}_{number}" for patient in range(5) for number in range(2)]


def picture(number: int) -> Image.Image:
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)


def saved_again(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.resize((48, 36)).save(data, "JPEG", quality=60)
    return Image.open(data)


def write(root: Path, name: str, image: Image.Image) -> None:
    mask = Image.fromarray((np.indices((48, 64))[1] // 22).astype(np.uint8))
    for folder, array in (("images", image), ("masks", mask.resize(image.size, Image.Resampling.NEAREST))):
        (root / folder).mkdir(parents=True, exist_ok=True)
        array.save(root / folder / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        write(tmp_path / "data", name, picture(number))
    return tmp_path / "data"


def init(*words: str) -> set[str]:
    """Run the command and return the validation images."""
    assert main(["init", "data", "--name", "made", *words]) == 0
    return set(Path("dataset/made.val.txt").read_text().split())


def test_copies_are_drawn_to_one_side(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(NAMES):
        copy = picture(number)
        write(root, f"copy_{name}", copy if number % 2 else saved_again(copy))
    val = init()
    assert len(val) == 4
    assert {name.removeprefix("copy_") for name in val} == {name for name in val if name in NAMES}
    told = capsys.readouterr().out
    assert "labeled images show the same, 5 equal and 5 nearly equal pairs: " in told
    assert "such images are kept on one side" in told
    assert "16 labeled to learn from, 4 to validate on" in told
    assert main(["splits", "check", "dataset=made", "split=full"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_copies_in_a_list_of_ones_own_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, "copy", picture(0))
    (root / "val.txt").write_text("copy\np1_0\n")
    assert main(["init", "data", "--name", "made"]) == 0
    sentence = "1 of 2 validation images is equal to labeled ones: p0_0 and copy"
    assert f"note     {sentence}" in capsys.readouterr().out
    assert main(["splits", "check", "dataset=made", "split=full"]) == 0
    assert f"warning: {sentence}" in capsys.readouterr().out
    assert main(["splits", "check", "dataset=made", "split=full", "--no-masks"]) == 0
    assert sentence not in capsys.readouterr().out


def test_groups_by_pattern_stay_on_one_side(root: Path) -> None:
    val = init("--groups", "^(p[0-9]+)_")
    assert val in [{f"p{patient}_0", f"p{patient}_1"} for patient in range(5)]
    assert yaml.safe_load(Path("dataset/made.yaml").read_text())["groups"] == "^(p[0-9]+)_"


def test_groups_by_table_and_copies_hang_together(root: Path, tmp_path: Path) -> None:
    write(root, "copy", picture(4))  # of p2_0
    rows = [f"{name},{'north' if name < 'p3' else name[:2]}" for name in NAMES]
    Path("who.csv").write_text("id,group\n" + "\n".join(rows) + "\n")
    val = init("--groups", "who.csv")
    config = yaml.safe_load(Path("dataset/made.yaml").read_text())
    assert config["groups"] == str(tmp_path / "who.csv")
    north = {name for name in NAMES if name < "p3"} | {"copy"}
    assert val & north in (set(), north)
    assert val


def test_copies_that_all_hang_together_are_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        write(root, name, picture(1))
    init()
    told = capsys.readouterr().out
    assert "all hang together" in told
    assert "2 of 2 validation images are equal to labeled ones" in told


def test_what_no_run_would_start_on_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "val.txt").write_text("p0_0\n")
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(root / "masks" / "p0_0.png")
    assert main(["init", "data", "--name", "made", "--images", "images", "--masks", "masks"]) == 0
    assert "no run would start: no validation image" in capsys.readouterr().out
    assert main(["splits", "check", "dataset=made", "split=full"]) == 2
    assert "no validation image of split full has a labeled pixel" in capsys.readouterr().err
