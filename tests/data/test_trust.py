"""What limits the meaning of a result is found before training: refused, warned of or noted."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.camvid import CamVid
from semiseg.data.file_faults import check_files
from semiseg.data.folder import Folder
from semiseg.data.shapes import Shapes
from semiseg.data.trust import Trust, weigh
from semiseg.errors import UserError
from semiseg.settings import EvaluatorSettings
from semiseg.splits.split import make_split

SIZE = (48, 64)


def scene(number: int) -> np.ndarray[Any, Any]:
    """A picture of its own for each number."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    noise = rng.integers(-6, 7, (*SIZE, 3))
    return (
        (np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC)) + noise)
        .clip(0, 255)
        .astype(np.uint8)
    )


def labels(*present: int) -> np.ndarray[Any, Any]:
    """A mask of equal stripes of some values."""
    return np.asarray(present, np.uint8)[np.arange(SIZE[1]) * len(present) // SIZE[1]][None].repeat(
        SIZE[0], 0
    )


def write(root: Path, name: str, image: Any, mask: Any = None) -> None:
    for folder, array, ending in (("images", image, "png"), ("masks", mask, "png")):
        if array is not None:
            path = root / folder / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            array = array if isinstance(array, Image.Image) else Image.fromarray(array)
            array.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six labeled images a0 to a5 of three classes, of which a4 and a5 are validated on, and two unlabeled ones."""
    for number in range(6):
        write(tmp_path, f"a{number}", scene(number), labels(0, 1, 2))
    for number in range(2):
        write(tmp_path, f"u{number}", scene(100 + number))
    (tmp_path / "val.txt").write_text("a4\na5\n")
    return tmp_path


def weighed(root: Path, split: str = "full", classes: str = "ground,disk,square", **options: Any) -> Trust:
    dataset = Folder(str(root), classes=classes.split(","), **options)
    return weigh(dataset, check_files(dataset, make_split(dataset, split)))


def test_good_data_has_nothing_to_tell(root: Path) -> None:
    found = weighed(root)
    assert found.warnings == found.notes == ()
    assert found.copies == ()
    assert found.labeled_share == 1.0
    assert found.missing_classes == {"labeled": (), "val": ()}


def test_class_that_no_validation_image_holds_is_named(root: Path) -> None:
    for name in ("a4", "a5"):
        write(root, name, scene(int(name[1])), labels(0))
    found = weighed(root)
    assert found.missing_classes["val"] == ("disk", "square")
    assert found.unmeasured == ("no validation image holds disk, square: mIoU is over 1 of 3 classes",)
    assert found.warnings == ()


def test_class_that_no_test_image_holds_is_named(root: Path) -> None:
    write(root, "a3", scene(3), labels(0, 1))
    (root / "test.txt").write_text("a3\n")
    assert weighed(root).unmeasured == ("no test image holds square: mIoU is over 2 of 3 classes",)


@pytest.mark.parametrize(
    ("absent", "counts"),
    [
        ("true_only", "mIoU is over 2 of 3 classes"),
        ("skip", "mIoU is over 2 of 3 classes, and counts it as 0 once it is predicted"),
        ("zero", "mIoU counts it as 0"),
    ],
)
def test_what_a_class_without_pixels_counts_is_said(root: Path, absent: Any, counts: str) -> None:
    for name in ("a4", "a5"):
        write(root, name, scene(int(name[1])), labels(0, 1))
    dataset = Folder(str(root), classes=["ground", "disk", "square"])
    report = check_files(dataset, make_split(dataset, "full"))
    found = weigh(dataset, report, EvaluatorSettings(absent=absent))
    assert found.unmeasured == (f"no validation image holds square: {counts}",)


def test_class_without_labels_is_named_with_the_split(root: Path) -> None:
    for number in range(4):
        write(root, f"a{number}", scene(number), labels(0, 1))
    (warning,) = weighed(root, "1/2").warnings
    assert warning.startswith("no labeled image of split 1/2 (family every, id 0) holds class square")
    assert "dataset.values" not in warning


def test_last_class_missing_everywhere_beside_255_is_refused_with_the_cure(root: Path) -> None:
    for number in range(6):
        write(root, f"a{number}", scene(number), labels(0, 1, 255))
    with pytest.raises(UserError, match=r"If 255 means square, add dataset.values=\[0,1,255\]"):
        weighed(root)
    assert (
        "If 255 means square in your masks, add dataset.values=[0,1,255]" in weighed(root, "1/2").warnings[0]
    )
    assert weighed(root, values=[0, 1, 255]).warnings == ()
    assert "dataset.values" not in weighed(root, void=[255]).warnings[0]


BINARY = {
    "all masks hold it": [(0, 255)] * 6,
    "some masks hold it": [(0, 255), (0,), (0,), (0, 255), (0,), (0, 255)],
    "validation masks do not": [(0, 255)] * 4 + [(0,)] * 2,
    "one labeled mask alone": [(0, 255), (0,), (0,), (0,), (0,), (0,)],
}


@pytest.mark.parametrize("kind", BINARY)
def test_foreground_as_255_is_refused_with_the_cure(root: Path, kind: str) -> None:
    for number, present in enumerate(BINARY[kind]):
        write(root, f"a{number}", scene(number), labels(*present))
    with pytest.raises(UserError, match=r"shows disk: .* If 255 means disk .* add dataset.values=\[0,255\]"):
        weighed(root, classes="ground,disk")
    assert weighed(root, classes="ground,disk", values=[0, 255]).labeled_share == 1.0


def test_one_class_alone_is_refused_without_a_cure_that_does_not_fit(root: Path) -> None:
    for number in range(4):
        write(root, f"a{number}", scene(number), labels(0))
    with pytest.raises(UserError, match="Validation masks show others: label more images") as fault:
        weighed(root, classes="ground,disk,square")
    assert "255" not in str(fault.value)
    for number in (4, 5):
        write(root, f"a{number}", scene(number), labels(0, 255))
    with pytest.raises(UserError, match=r"dataset.values names the value of each class"):
        weighed(root)


def test_nothing_labeled_is_refused(root: Path) -> None:
    for number in range(4):
        write(root, f"a{number}", scene(number), labels(255))
    with pytest.raises(UserError, match="no labeled image of split full has a labeled pixel: all 4 masks"):
        weighed(root)


def test_nothing_to_validate_on_is_refused_with_all_faults(root: Path) -> None:
    for number in range(6):
        write(root, f"a{number}", scene(number), labels(255))
    with pytest.raises(UserError, match=r"(?s)no labeled image .*no validation image .* all 2 masks"):
        weighed(root)


def test_images_without_labels_among_good_ones_are_named(root: Path) -> None:
    write(root, "a2", scene(2), labels(255))
    write(root, "a5", scene(5), labels(255))
    found = weighed(root)
    assert found.without_labels == {"labeled": ("a2",), "val": ("a5",)}
    assert found.warnings == (
        "1 of 4 labeled images has no labeled pixel: a2",
        "1 of 2 validation images has no labeled pixel: a5",
    )
    assert found.labeled_share == pytest.approx(0.75)
    assert found.notes == ("75.0% of the pixels of the labeled images are labeled",)


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(picture: Image.Image) -> Image.Image:
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=quality)
        return Image.open(data).convert("RGB")

    return change


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": jpeg(90),
    "JPEG 40": jpeg(40),
    "half size": lambda picture: picture.resize((32, 24), Image.Resampling.BILINEAR),
    "larger": lambda picture: picture.resize((100, 75), Image.Resampling.LANCZOS),
    "other proportions": lambda picture: picture.resize((60, 60), Image.Resampling.BICUBIC),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    "more contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.15),
    "gray": lambda picture: picture.convert("L").convert("RGB"),
    "one pixel": lambda picture: (picture.putpixel((3, 4), (0, 0, 0)), picture)[1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_nearly_equal(root: Path, change: str) -> None:
    copy = CHANGES[change](Image.fromarray(scene(1)))
    write(root, "a4", copy, Image.fromarray(labels(0, 1, 2)).resize(copy.size, Image.Resampling.NEAREST))
    (found,) = weighed(root).copies
    assert (found.first, found.second, found.equal, found.near) == ("labeled", "val", 0, 1)
    assert found.examples == (("a1", "a4"),)


def test_equal_pictures_on_both_sides_warn_with_their_names(root: Path) -> None:
    write(root, "a4", scene(0), labels(0, 1, 2))
    write(root, "a5", scene(100), labels(0, 1, 2))
    found = weighed(root)
    assert found.warnings == (
        "1 of 2 validation images is equal to labeled ones: a0 and a4",
        "1 of 2 validation images is equal to unlabeled ones: u0 and a5",
    )
    assert [(each.first, each.second, each.equal) for each in found.copies] == [
        ("labeled", "val", 1),
        ("unlabeled", "val", 1),
    ]


def test_copies_among_training_images_are_only_noted(root: Path) -> None:
    write(root, "u1", scene(2))
    found = weighed(root)
    assert found.warnings == ()
    assert found.notes == ("1 of 2 unlabeled images is equal to labeled ones: a2 and u1",)


def test_copies_in_test_images_warn_of_training_and_note_validation(root: Path) -> None:
    write(root, "t0", scene(0), labels(0, 1, 2))
    write(root, "t1", scene(4), labels(0, 1, 2))
    (root / "test.txt").write_text("t0\nt1\n")
    found = weighed(root)
    assert found.warnings == ("1 of 2 test images is equal to labeled ones: a0 and t0",)
    assert found.notes == ("1 of 2 test images is equal to validation ones: a4 and t1",)


def test_equal_pictures_with_other_masks_are_noted(root: Path) -> None:
    write(root, "a3", scene(0), labels(2, 1, 0))
    assert weighed(root).notes == ("equal pictures have masks that differ: a0 and a3",)


def test_labeled_images_used_as_unlabeled_too_are_no_copies(root: Path) -> None:
    dataset = Folder(str(root), classes=["ground", "disk", "square"])
    split = make_split(dataset, "1/2", unlabeled="all")
    assert weigh(dataset, check_files(dataset, split)).copies == ()


def test_images_of_one_color_are_no_copies(root: Path) -> None:
    for number in range(6):
        write(root, f"a{number}", np.full((*SIZE, 3), 0 if number % 2 else 255, np.uint8), labels(0, 1, 2))
    assert weighed(root).copies == ()


def test_groups_on_both_sides_are_named(root: Path) -> None:
    (root / "groups.csv").write_text("id,group\na0,p1\na1,p1\na2,p2\na3,p3\na4,p1\na5,p9\n")
    found = weighed(root, groups="groups.csv")
    assert found.shared_groups == {"p1": {"train": 2, "val": 1}}
    assert found.warnings == ("group p1 is in train (2) and val (1)",)
    assert found.without_group == 2
    assert "2 images have no group (dataset.groups); each counts as a group of its own" in found.notes


def test_groups_in_val_and_test_alone_are_only_noted(root: Path) -> None:
    (root / "test.txt").write_text("a3\n")
    (root / "groups.csv").write_text("a3,p1\na4,p1\n")
    found = weighed(root, groups="groups.csv")
    assert found.warnings == ()
    assert found.notes[0] == "group p1 is in val (1) and test (1)"


def test_drawn_datasets_are_weighed_too() -> None:
    dataset = Shapes(train=8, val=1, test=1, size=32)
    found = weigh(
        dataset, check_files(dataset, make_split(dataset, "1/2")), EvaluatorSettings(primary="mdice")
    )
    assert found.copies == ()
    missing = found.missing_classes["val"]
    assert missing
    assert f"mean Dice is over {7 - len(missing)} of 7 classes" in found.unmeasured[0]


def test_skipped_files_and_plain_values(root: Path) -> None:
    (root / "images" / "a1.png").write_bytes(b"no image")
    found = weighed(root, skip_bad=True).as_dict()
    assert found["skipped_files"] == 1
    assert found["warnings"] == ()
    assert found["copies"] == ()


def test_many_classes_without_labels_stay_a_warning(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for folder, array in ((part, scene), (f"{part}annot", lambda _: labels(0, 1, 5, 255))):
            (tmp_path / folder).mkdir()
            for number in range(count):
                picture = array(number + 10 * len(part))
                Image.fromarray(picture).save(tmp_path / folder / f"{part}-{number}.png")
    dataset = CamVid(str(tmp_path))
    found = weigh(dataset, check_files(dataset, make_split(dataset, "full")))
    info: DatasetInfo = dataset.info
    assert len(found.missing_classes["labeled"]) == info.num_classes - 3
    assert len(found.warnings) == len(found.unmeasured) == 1
    assert "dataset.values" not in found.warnings[0]
