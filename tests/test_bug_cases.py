"""Inputs on which systems of this field fall short, each with the outcome that its ``expected.md`` demands.

The cases are drawn by scripts outside of the repository; without them these tests are skipped.
"""

import json
import os
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from processes import Command
from semiseg.cli import main
from semiseg.data.folder import Folder

BY_HAND = ("dataset=folder", "dataset.root=data")
SHORT = (
    *("split=full", "method=supervised", "trainer.crop_size=32", "trainer.batch_size=2"),
    *("trainer.threads=1", "trainer.device=cpu", "trainer.num_workers=0", "tracker.mode=disabled"),
)
FEW = (*SHORT, "trainer.iterations=4", "trainer.eval_every=2")
THREE = "dataset.classes=[ground,disk,square]"


@dataclass
class Case:
    """A working directory with the files of one case, and the command line in it.

    Args:
        make: script that draws the files.
        output: function that returns, and forgets, what was printed since the last call.
    """

    make: Path
    output: Callable[[], str]

    def draw(self, *words: str) -> None:
        """Draw the files into ``data``, in this process: a new one would spend its time on imports."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(self.make), "data", *words])
            # A script may lift the limit, which is not what the command has to see.
            patch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            runpy.run_path(str(self.make), run_name="__main__")

    def run(self, *words: str) -> tuple[int, str]:
        """Return exit code and output of a command."""
        self.output()
        try:
            code = main(list(words))
        except SystemExit as end:
            code = int(end.code or 0)
        return code, self.output()

    def accepted(self, *words: str) -> str:
        """Return the output of a command that has to succeed."""
        code, text = self.run(*words)
        assert code == 0, text
        return text

    def refused(self, *words: str) -> str:
        """Return the output of a command that has to be refused without a traceback."""
        code, text = self.run(*words)
        assert code == 2, text
        assert "Traceback" not in text
        return text

    def init(self, folder: str = "data", name: str = "case", *words: str) -> str:
        """Return the output of ``semiseg init``, which has to succeed."""
        return self.accepted("init", folder, "--name", name, *words)


def config(name: str = "case") -> dict[str, Any]:
    """Return what ``init`` wrote."""
    found: dict[str, Any] = yaml.safe_load((Path("dataset") / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def dataset(name: str = "case", **changes: Any) -> Folder:
    """Return the dataset that ``init`` wrote a config of."""
    values = {key: value for key, value in config(name).items() if key not in ("defaults", "_target_")}
    values["root"] = values["root"].replace("\\${", "${")
    return Folder(**(values | changes))


def labeled(data: Folder) -> tuple[str, ...]:
    """Return the ids of all images with a mask."""
    return (*data.ids("train"), *data.ids("val"), *data.ids("test"))


def shares(data: Folder) -> dict[str, float]:
    """Return the share of all pixels of each class, in percent; of 255 as "void"."""
    masks = [data.mask(image_id) for image_id in labeled(data)]
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks if mask is not None)
    names = dict(enumerate(data.info.classes)) | {255: "void"}
    total = int(np.sum(counts))
    return {
        name: round(100 * int(counts[label]) / total, 1) for label, name in names.items() if counts[label]
    }


def score(text: str) -> float:
    """Return the mIoU that a command printed."""
    found = re.search(r"mIoU\s+(\d+\.\d+)", text)
    assert found, text
    return float(found[1])


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    shared_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Case:
    """Give the case of a test, in an empty working directory, by the number in the test's name."""
    number = re.search(r"test_(\d\d)_", request.node.name)
    assert number
    (folder,) = shared_data("bug_cases").glob(f"{number[1]}-*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMISEG_DATA", raising=False)

    def output() -> str:
        found = capfd.readouterr()
        return found.out + found.err

    made = Case(folder / "make.py", output)
    if number[1] not in ("29", "36"):
        made.draw()
    return made


def test_01_masks_of_0_and_255_by_hand(case: Case) -> None:
    two = (*BY_HAND, "dataset.classes=[ground,disk]", "dataset.val=0.2", *FEW)
    text = case.refused("train", *two, "run_dir=run")
    assert "dataset.values=[0,255]" in text.replace(", ", ",")
    case.accepted("train", *two, "dataset.values=[0,255]", "run_dir=run2")
    data = Folder("data", classes=["ground", "disk"], values=[0, 255], val=0.2)
    masks = [np.asarray(Image.open(path)) for path in sorted(Path("data/masks").iterdir())]
    white = round(100 * float(np.mean([mask == 255 for mask in masks])), 1)
    assert shares(data) == {"ground": round(100 - white, 1), "disk": white}


def test_02_some_masks_have_one_bit(case: Case) -> None:
    case.init()
    masks = [np.asarray(Image.open(path).convert("L")) for path in sorted(Path("data/masks").iterdir())]
    white = round(100 * float(np.mean([mask == 255 for mask in masks])), 1)
    found = shares(dataset())
    assert sorted(found.values()) == sorted([white, round(100 - white, 1)])
    by_hand = (*BY_HAND, "dataset.classes=[a,b]", "dataset.val=0.2", "dataset.values=[0,255]")
    case.accepted("splits", "check", *by_hand, "split=full")


@pytest.mark.parametrize("command", ["train", "splits check"])
def test_03_palettes_in_another_order(case: Case, command: str) -> None:
    more = FEW if command == "train" else ("split=full",)
    run = ("run_dir=run",) if command == "train" else ()
    text = case.refused(*command.split(), *BY_HAND, THREE, "dataset.val=0.2", *more, *run)
    assert "dataset.values" in text or "semiseg init" in text
    assert re.search(r"i0[0-5]\.png", text)
    assert re.search(r"i(0[6-9]|1[01])\.png", text)
    case.init()
    assert sorted(shares(dataset()).values()) == [6.1, 9.4, 84.5] or sorted(shares(dataset()).values())[0] < 7


def test_04_first_line_of_labelme_is_void(case: Case) -> None:
    text = case.init()
    assert shares(dataset()) == {"_background_": 84.6, "disk": 9.0, "square": 6.4}
    assert "__ignore__" in text


def test_05_transparent_ground_is_one_class(case: Case) -> None:
    case.init()
    assert sorted(shares(dataset()).values()) == [6.4, 9.0, 84.6]


def test_06_images_of_16_bits(case: Case) -> None:
    text = case.refused("init", "data", "--name", "case")
    assert "16 bits a channel" in text
    text = case.refused("train", *BY_HAND, THREE, "dataset.val=0.2", *FEW, "run_dir=run")
    assert "16 bits a channel" in text


def test_07_photos_with_a_turn(case: Case) -> None:
    turned = ("i01", "i04", "i07", "i08", "i09")
    text = case.refused("init", "data", "--name", "case")
    assert all(name in text for name in turned)
    case.init("data", "case", "--skip-bad")
    code, text = case.run("splits", "check", "dataset=case", "split=full")
    assert all(name in text for name in turned), (code, text)
    straight = Folder("data", classes=["a", "b", "c"], val=0.2, exif="ignore")
    for image_id in labeled(straight):
        mask = straight.mask(image_id)
        assert mask is not None
        assert straight.image(image_id).shape[:2] == mask.shape


def test_08_predictions_beside_masks(case: Case) -> None:
    code, text = case.run("init", "data", "--name", "case")
    assert "prediction" in text
    if code:
        assert code == 2
        assert "gt" in text
        case.init("data", "case", "--masks", "gt")
    data = dataset()
    assert config()["masks"] == "gt"
    assert (len(data.ids("train")), len(data.ids("val")), len(data.ids("unlabeled"))) == (5, 1, 6)


def test_09_instances_beside_semantic(case: Case) -> None:
    text = case.init()
    assert config()["mask_suffix"] == "_semantic"
    assert len(config()["classes"]) == 3
    assert "_instance" in text


def test_10_masks_that_match_no_image(case: Case) -> None:
    text = case.refused("init", "data", "--name", "case")
    assert re.search(r"task-\d+-annotation", text)
    assert re.search(r"photo_\d+\.jpg", text)
    assert "name" in text
    assert not Path("dataset").exists()


@pytest.mark.slow
def test_11_relative_root_from_elsewhere(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Path.cwd()
    monkeypatch.chdir(start / "data" / "one")
    classes = (*BY_HAND, "dataset.classes=[a,b,c]", "dataset.val=0.2")
    case.accepted("train", *classes, *SHORT, "trainer.iterations=40", "trainer.eval_every=20", "run_dir=run")
    here = case.accepted("eval", "run", "-o", "here")
    monkeypatch.chdir(start / "data" / "two")
    there = case.accepted("eval", "../one/run", "-o", "there")
    assert score(here) == score(there)
    monkeypatch.chdir(start)
    assert score(case.accepted("eval", "data/one/run", "-o", "elsewhere")) == score(here)
    text = case.run("eval", "data/one/run", f"dataset.root={start / 'data' / 'two' / 'data'}", "-o", "other")[
        1
    ]
    assert "other" in text or "differ" in text


def test_12_copies_on_both_sides(case: Case) -> None:
    case.init()
    data = dataset()
    val = set(data.ids("val"))
    assert {i.removesuffix(" (1)") for i in val}.isdisjoint(
        i.removesuffix(" (1)") for i in data.ids("train")
    ), val
    Path("val.txt").write_text("i00\ni03\ni06\ni07 (1)\n")
    text = case.run(
        "splits", "check", *BY_HAND, THREE, f"dataset.val={Path('val.txt').resolve()}", "split=full"
    )[1]
    assert "i00 (1)" in text
    assert re.search(r"\b4\b", text)


@pytest.mark.slow
def test_13_images_in_other_formats(case: Case) -> None:
    text = case.init()
    data = dataset()
    assert "left aside: 1 heic" in text
    assert len(labeled(data)) == 6
    assert len(data.ids("unlabeled")) in (5, 6)
    assert {"i07", "i08", "i09"} <= set(data.ids("unlabeled"))
    case.accepted("train", "dataset=case", *FEW, "run_dir=run")
    assert "1 heic" in case.accepted("predict", "run", "data/images", "-o", "out")


@pytest.mark.slow
def test_14_validation_without_foreground(case: Case) -> None:
    two = (*BY_HAND, "dataset.classes=[ground,disk]", *FEW)
    text = case.accepted("train", *two, "run_dir=run")
    assert len(re.findall(r"disk", text)) >= 2
    assert re.search(r"mIoU is over 1 of 2 classes", text)
    assert "disk" in json.dumps(json.loads(Path("run/summary.json").read_text())["trust"])
    case.accepted("report", "run", "-o", "page")
    pages = "".join(path.read_text() for path in Path("page").rglob("*.html"))
    assert "over 1 of 2 classes" in pages


def test_15_nothing_labeled(case: Case) -> None:
    text = case.refused("train", *BY_HAND, THREE, *FEW, "run_dir=run")
    assert "no labeled pixel" in text.lower() or "not labeled" in text.lower()


@pytest.mark.slow
def test_16_placeholder_names(case: Case) -> None:
    case.init("data/one", "one")
    case.init("data/two", "two")
    few = (*SHORT, "trainer.iterations=10", "trainer.eval_every=10")
    case.accepted("train", "dataset=one", *few, "run_dir=run")
    code, text = case.run("eval", "run", "dataset=two", "-o", "b")
    assert "placeholder" in text, (code, text)
    case.init("data/one", "named_one", "--classes", "ground,disk,square")
    colors = "ground=#000000,disk=#ff0000,square=#00ff00"
    case.init("data/two", "named_two", "--classes", colors)
    case.accepted("train", "dataset=named_one", *few, "run_dir=named")
    first = case.accepted("eval", "named", "-o", "c")
    second = case.accepted("eval", "named", "dataset=named_two", "-o", "d")
    assert score(first) == score(second)


def test_17_replaced_files_of_equal_size_and_time(case: Case) -> None:
    case.init()
    case.accepted("cache", "dataset=case")
    case.draw("again")
    code, text = Command("cache", "dataset=case").finish()
    assert code == 0, text
    assert "Decoding 8 images" in text
    assert "equal to the files" in case.accepted("cache", "dataset=case", "--verify")


def test_18_class_names_with_numbers(case: Case) -> None:
    expected = {
        "lanes": {"background", "lane 1", "lane 2"},
        "cut": {"background", "grade 3 tumor", "square #1"},
        "plain": {"ground", "type 1", "type 2"},
    }
    for name, names in expected.items():
        case.init(f"data/{name}", name)
        assert set(config(name)["classes"]) == names


def test_19_table_of_classes(case: Case) -> None:
    case.init()
    assert shares(dataset()) == {"ground": 84.6, "disk": 9.0, "square": 6.4}


def test_20_init_cannot_write(case: Case) -> None:
    Path("dataset").write_text("x")
    text = case.refused("init", "data", "--name", "case")
    assert "dataset" in text
    assert "masks" not in text.split("dataset")[0]
    Path("dataset").unlink()
    if os.geteuid() != 0:
        Path.cwd().chmod(0o555)
        try:
            case.refused("init", "data", "--name", "case")
        finally:
            Path.cwd().chmod(0o755)


@pytest.mark.slow
def test_21_narrow_validation_image(case: Case) -> None:
    case.accepted("train", *BY_HAND, THREE, *FEW, "run_dir=run")
    for path in Path("run/samples").iterdir():
        with Image.open(path) as picture:
            assert max(picture.size) <= 30_000, (path, picture.size)
            assert picture.size[0] * picture.size[1] <= 20_000_000


def test_22_names_differ_in_case(case: Case) -> None:
    for name in ("all", "some"):
        text = case.init(f"data/{name}", name)
        assert len(labeled(dataset(name))) == 12
        assert "case" in text


def test_23_list_in_other_encodings(case: Case) -> None:
    for name in ("utf16", "decomposed"):
        case.init(f"data/{name}", name)
        assert len(dataset(name).ids("val")) == 2
    assert "UTF-8" in case.refused("init", "data/latin1", "--name", "latin1")


def test_24_empty_list(case: Case) -> None:
    assert re.search(r"val\.txt names no image", case.refused("init", "data", "--name", "case"))


def test_25_images_of_which_some_are_jfif(case: Case) -> None:
    case.init()
    assert len(labeled(dataset())) == 12


def test_26_masks_are_gif(case: Case) -> None:
    case.init()
    data = dataset()
    assert len(labeled(data)) == 12
    assert len(shares(data)) == 2


def test_27_polygons_in_json(case: Case) -> None:
    text = case.refused("init", "data", "--name", "case")
    assert "6 labelme" in text
    found = re.search(r"semiseg import[^\n`]*", text)
    assert found, text
    words = found[0].replace("NAME", "case").split()[1:]
    case.accepted(*words)
    (written,) = Path("dataset").glob("*.yaml")
    data = dataset(written.stem)
    found_shares = shares(data)
    assert "disk" in found_shares
    assert 4 < found_shares["disk"] < 7  # a triangle of 153 to 171 of 3,072 pixels
    assert len(labeled(data)) == 6


def test_28_one_folder_a_case(case: Case) -> None:
    case.init()
    data = dataset()
    assert len(labeled(data)) == 12
    assert {"case000", "case011"} <= set(labeled(data))


@pytest.mark.slow
def test_29_large_training_image(case: Case) -> None:
    # The script of the case draws such pictures too, and takes most of the time for it.
    for folder in ("images", "masks"):
        Path("data", folder).mkdir(parents=True)
    for number in range(6):
        photo = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(photo).save(f"data/images/i{number}.jpg")
        Image.fromarray(np.indices((48, 64))[0].astype(np.uint8) // 16).save(f"data/masks/i{number}.png")
    Image.new("L", (13_500, 13_500)).save("data/images/large.png", compress_level=1)
    Image.new("L", (13_500, 13_500), 1).save("data/masks/large.png", compress_level=1)
    code, text = case.run("init", "data", "--name", "case")
    assert "bomb" not in text
    assert "damaged" not in text
    assert code in (0, 2)


@pytest.mark.slow
def test_30_label_loop_with_0_and_255(case: Case) -> None:
    case.init()
    case.accepted("train", "dataset=case", *FEW, "run_dir=run")
    case.accepted("label", "run", "data/images", "-o", "next", "--keep", "0.5", "--first", "3")
    case.init("next", "next")
    assert len(config("next")["classes"]) == 2
    assert "void" in shares(dataset("next")) or len(shares(dataset("next"))) <= 2


@pytest.mark.slow
def test_31_resume_of_nothing(case: Case) -> None:
    code, text = Command("train", "run_dir=runs/typo").finish(timeout=30)
    assert code == 2, text
    assert "no run" in text.lower()
    assert not Path("runs/typo").exists()
    three = (*BY_HAND, "dataset.classes=[a,b,c]", "dataset.val=0.2", *FEW)
    case.accepted("train", *three, "run_dir=run")
    text = case.run("train", "run_dir=run", "optimizer.lr=0.02")[1]
    assert "optimizer.lr" in text
    assert "dataset.classes" not in text
    assert "trainer.crop_size" not in text.split("config", 1)[0]


@pytest.mark.slow
def test_32_weights_that_are_none(case: Case) -> None:
    def words(name: str) -> tuple[str, ...]:
        net = ("backbone=resnet18", f"backbone.weights=data/{name}.pth")
        return (*BY_HAND, "dataset.classes=[a,b,c]", "dataset.val=0.2", *net, *FEW, f"run_dir=run_{name}")

    text = case.refused("train", *words("page"))
    assert "HTML" in text
    assert "weights_only" not in text
    text = case.refused("train", *words("nan"))
    assert "layer1.0.conv1.weight" in text
    assert "finite" in text
    code, text = case.run("train", *words("peer"))
    assert code == 0 or ("numpy" in text and "best" in text)


def test_33_patterns_in_the_path(case: Case) -> None:
    case.init("data/cost ${x}", "dollar")
    case.accepted("splits", "check", "dataset=dollar", "split=full")
    case.init("data/a*b", "star")
    assert len(labeled(dataset("star"))) == 6


def test_34_few_smoothed_masks(case: Case) -> None:
    code, text = case.run("init", "data", "--name", "case")
    assert "i03" in text
    assert "i08" in text
    if code == 0:
        assert len(config()["classes"]) == 2


def test_35_masks_resized_with_interpolation(case: Case) -> None:
    text = case.init()
    assert re.search(r"interpol|lines of one pixel|resized|rim", text)
    assert re.search(r"i\d\d", text)
    text = case.run("splits", "check", "dataset=case", "split=full")[1]
    assert re.search(r"interpol|lines of one pixel|resized|rim", text)


@pytest.mark.slow
def test_36_narrow_convolutions_with_avx2(case: Case) -> None:
    words = (
        *("train", "method=supervised", "dataset.train=16", "dataset.val=2", "dataset.test=0"),
        *("dataset.size=32", "trainer.crop_size=32", "split=1/4", "debug=smoke", "trainer.iterations=2"),
        *("backbone.width=4", "tracker.mode=disabled", "run_dir=run"),
    )
    command = Command(*words, environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    code, text = command.finish()
    assert code == 0, text
