"""The command that reads label files: what it refuses, what it says, what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import (
    HEIGHT,
    WIDTH,
    coco,
    config,
    counts,
    imported,
    labelme,
    masks,
    photo,
    square,
    write_json,
)
from PIL import Image

from semiseg.cli import main

SQUARE = [[4, 4], [14, 4], [14, 14], [4, 14]]
TRIANGLE = [[3, 3], [20, 3], [20, 20]]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def two(here, shapes=(("disk", "polygon", SQUARE),), stems="ab", **more):
    for stem in stems:
        labelme(here / "data", stem, shapes, **more)


def refused(capsys, *words):
    assert main(["import", *map(str, words)]) == 2
    assert not Path("dataset/data.yaml").exists()
    assert not list(Path("dataset").glob("*.masks")) if Path("dataset").exists() else True
    return capsys.readouterr().err


def test_import_writes_masks_and_a_config_that_trains(here, capsys):
    two(here, [("disk", "polygon", TRIANGLE)], "abcdef")
    photo(here / "data" / "unlabeled.jpg")
    before = {path: path.stat().st_mtime_ns for path in sorted((here / "data").iterdir())}
    assert main(["import", "labelme", "data"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in sorted((here / "data").iterdir())}
    written = config("data")
    assert written["classes"] == ["background", "disk"]
    assert written["root"] == str(here / "data")
    assert written["masks"] == str(here / "dataset" / "data.masks")
    mask = masks("data")["a"]
    assert mask[10, 18] == 1
    assert mask[18, 5] == 0
    assert counts(mask)[1] == pytest.approx(17 * 17 / 2, abs=10)
    text = capsys.readouterr().out
    assert "images that no label file names count as unlabeled: 1 in" in text
    assert main(["splits", "check", "dataset=data", "split=full"]) == 0
    assert "5 labeled, 1 unlabeled, 1 val" in capsys.readouterr().out


def test_nothing_is_replaced_without_force(here, capsys):
    two(here)
    imported("labelme", "data", name="data")
    (here / "dataset" / "data.masks" / "a.png").write_bytes(b"corrected by hand")
    assert main(["import", "labelme", "data"]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert (here / "dataset" / "data.masks" / "a.png").read_bytes() == b"corrected by hand"
    assert main(["import", "labelme", "data", "--force"]) == 0
    assert counts(masks("data")["a"]) == {0: 1100, 1: 100}


def test_a_failed_import_leaves_what_was_there(here, capsys):
    two(here)
    imported("labelme", "data", name="data")
    (here / "data" / "a.jpg").write_bytes(b"damaged")
    assert main(["import", "labelme", "data", "--force"]) == 2
    assert counts(masks("data")["a"]) == {0: 1100, 1: 100}
    assert sorted(path.name for path in Path("dataset").iterdir()) == [
        "data.masks",
        "data.val.txt",
        "data.yaml",
    ]


def test_all_faults_are_named_at_once_and_can_be_left_out(here, capsys):
    two(here, stems="abcdefg")
    (here / "data" / "a.jpg").unlink()
    photo(here / "data" / "b.jpg", (10, 10))
    (here / "data" / "c.json").write_text('{"shapes": [')
    labelme(here / "data", "d", [("disk", "polygon", [[1, 1], [2, 2]]), ("disk", "polygon", SQUARE)])
    labelme(here / "data", "e", [("disk", "mask", [[1, 1], [2, 2]])])
    text = refused(capsys, "labelme", "data")
    for words in (
        "image a.jpg is not there",
        "labels for 40x30 pixels, but the image has 10x10",
        "c.json (id c): no JSON",
        "shape 1 (disk): 2 points; expected at least three",
        "e.jpg, shape 1: 'mask'",
        "--skip-bad",
    ):
        assert words in text
    imported("labelme", "data", "--skip-bad")
    assert sorted(masks()) == ["f", "g"]
    assert "left out: " in capsys.readouterr().out


def test_shapes_outside_of_their_picture_are_counted_and_label_nothing_alone(here, capsys):
    outside = ("disk", "polygon", [[100, 4], [110, 4], [110, 14]])
    two(here, [("disk", "polygon", SQUARE), outside], "ab")
    assert main(["import", "labelme", "data", "--name", "d"]) == 0
    assert "left out: 2 shapes outside of their picture" in capsys.readouterr().out
    labelme(here / "data", "c", [outside])
    assert main(["import", "labelme", "data", "--name", "e"]) == 2
    assert "all shapes (1) lie outside of the picture of 40x30" in capsys.readouterr().err
    imported("labelme", "data", "--skip-bad", "--force")
    assert sorted(masks()) == ["a", "b"]


def test_faults_are_named_before_the_classes_that_they_leave(here, capsys):
    two(here, [("disk", "polygon", [[1, 1], [2, 2]])])
    text = refused(capsys, "labelme", "data", "--no-background")
    assert "2 points; expected at least three" in text


def test_pictures_that_are_not_there_are_named_where_nothing_is_left(here, capsys):
    two(here)
    for stem in "ab":
        (here / "data" / f"{stem}.jpg").unlink()
    text = refused(capsys, "labelme", "data", "--skip-bad")
    assert "image a.jpg is not there" in text
    assert "no shapes" not in text


def test_a_class_called_background_in_another_case_gets_no_second_one(here):
    two(here, [("Background", "polygon", TRIANGLE), ("disk", "polygon", SQUARE)])
    imported("labelme", "data")
    assert config()["classes"] == ["Background", "disk"]


def test_spaces_around_names_and_names_that_differ_in_case_are_noted(here, capsys):
    shapes = [(name, "polygon", SQUARE) for name in ("disk ", "disk", "Disk")]
    two(here, [*shapes, ("box", "polygon", TRIANGLE)])
    assert main(["import", "labelme", "data", "--name", "d"]) == 0
    assert sorted(config()["classes"]) == ["Disk", "background", "box", "disk"]
    text = capsys.readouterr().out
    assert "spaces around names are left out: 'disk '" in text
    assert "names that differ in case only are classes of their own: Disk, disk" in text


@pytest.mark.parametrize("name", ["", "  "])
def test_a_class_without_a_name_is_refused(here, capsys, name):
    two(here, [(name, "polygon", SQUARE)])
    assert "give it a name" in refused(capsys, "labelme", "data")


def test_classes_are_ordered_chosen_and_void(here, capsys):
    two(
        here,
        [
            ("ant", "polygon", SQUARE),
            ("a, b", "rectangle", [[20, 20], [30, 30]]),
            ("cow", "polygon", TRIANGLE),
        ],
    )
    text = refused(capsys, "labelme", "data", "--classes", "cow,ant")
    assert "--classes leaves out a, b" in text
    assert "did you mean cow?" in refused(capsys, "labelme", "data", "--classes", "cows,ant")
    found, classes = imported(
        "labelme", "data", "--classes", 'cow,"a, b"', "--void", "ant", "--background", "soil"
    )
    assert classes == ["soil", "cow", "a, b"]
    assert counts(found["a"])[2] == 100
    assert counts(found["a"])[255] > 0


def test_uncovered_pixels_are_background_void_or_a_class_of_the_file(here, capsys):
    two(here, [("soil", "polygon", SQUARE), ("cow", "rectangle", [[20, 20], [30, 30]])])
    assert counts(imported("labelme", "data", name="a")[0]["a"]) == {0: 1000, 1: 100, 2: 100}
    assert counts(imported("labelme", "data", "--no-background", name="b")[0]["a"]) == {
        255: 1000,
        0: 100,
        1: 100,
    }
    assert counts(imported("labelme", "data", "--background", "soil", name="c")[0]["a"]) == {1: 1100, 0: 100}
    assert "what no shape covers is class background" in capsys.readouterr().out


def test_pictures_without_shapes_are_unlabeled_unless_asked_for(here, capsys):
    two(here)
    labelme(here / "data", "c", [])
    assert sorted(imported("labelme", "data")[0]) == ["a", "b"]
    assert "1 pictures have no shape and count as unlabeled" in capsys.readouterr().out
    assert counts(imported("labelme", "data", "--empty", "background", name="e")[0]["c"]) == {0: 1200}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["shown", "stored"])
def test_labels_on_turned_pictures(here, capsys, orientation, frame):
    for name in ("a.jpg", "b.jpg"):
        photo(here / "c" / name, (HEIGHT, WIDTH), orientation)
    turned = frame == "shown" and orientation >= 5
    height, width = (WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH)
    content = json.loads(coco(here / "other" / "c.json", []).read_text())
    for image in content["images"]:
        image.update(height=height, width=width)
    content["annotations"] = [
        {"id": n, "image_id": n, "category_id": 7, "segmentation": [square(0, 0, 8)]} for n in (0, 1)
    ]
    path = write_json(here / "c" / "i.json", content)
    found, _ = imported("coco", path, *(() if turned or orientation >= 5 else ("--frame", frame)))
    label_map = np.zeros((height, width), np.uint8)
    label_map[:8, :8] = 1
    picture = Image.fromarray(label_map)
    if frame == "stored":
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save("turned.png", exif=exif)
        from PIL import ImageOps

        picture = ImageOps.exif_transpose(Image.open("turned.png"))
    assert (found["a"] == np.array(picture)).all()
    assert ("EXIF turns 2 pictures" in capsys.readouterr().out) == (orientation > 1)


def test_names_match_by_the_end_of_their_paths_in_any_case(here):
    for folder in ("one", "two"):
        photo(here / "p" / folder / "A.JPG")
    path = coco(
        here / "labels" / "i.json",
        [{"image_id": n, "category_id": 7, "segmentation": [square(0, 0, 8 + n)]} for n in (0, 1)],
        images=("one/a.jpg", "two/a.jpg"),
    )
    found, _ = imported("coco", path, "--images", "p")
    assert counts(found["one/A"])[1] == 64
    assert counts(found["two/A"])[1] == 81


def test_a_name_that_may_be_two_files_is_refused(here, capsys):
    for folder in ("one", "two"):
        photo(here / "p" / folder / "a.jpg")
    path = coco(
        here / "labels" / "i.json", [{"image_id": 0, "category_id": 7, "segmentation": [square(0, 0, 8)]}]
    )
    assert "a.jpg may be" in refused(capsys, "coco", path, "--images", "p")


def test_a_picture_with_two_label_files_is_refused(here, capsys):
    two(here)
    (here / "data" / "copy.json").write_text((here / "data" / "a.json").read_text())
    assert "has labels in" in refused(capsys, "labelme", "data")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("coco", "data"), "as files of labelme have"),
        (("labelme", "nothing"), "nothing does not exist"),
        (("cvat", "data"), "holds no *.xml"),
        (("yolo", "data"), "expected the data.yaml"),
        (("voc", "data"), "no folder SegmentationClass"),
        (("cityscapes", "data"), "holds no *_polygons.json"),
        (("label-studio", "data"), "names no picture"),
        (("pascal", "data"), "invalid choice"),
        (("labelme", "data", "--background", "x", "--no-background"), "not allowed with"),
    ],
)
def test_other_files_and_formats_are_refused_with_what_is_expected(here, capsys, words, reason):
    two(here)
    assert reason in refused(capsys, *words)


def test_annotations_that_name_nothing_are_named(here, capsys):
    path = coco(
        here / "c" / "i.json",
        [
            {"image_id": 5, "category_id": 7, "segmentation": [square(0, 0, 8)]},
            {"image_id": 0, "category_id": 99, "segmentation": [square(0, 0, 8)]},
            {"image_id": 0, "category_id": 7, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [3]}},
            {"image_id": 0, "category_id": 7, "segmentation": [[1, 1, 2, 2, 3, 3, 4]]},
        ],
    )
    text = refused(capsys, "coco", path)
    for words in (
        "annotation 0): image 5 is not listed",
        "annotation 1: category 99 is not listed",
        "annotation 2: runs of 3 pixels in all",
        "annotation 3: a polygon of 7 numbers",
    ):
        assert words in text


def test_the_command_is_shown_with_its_formats(capsys):
    assert main(["import", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("coco", "labelme", "cvat", "label-studio", "voc", "yolo", "cityscapes"):
        assert name in text
