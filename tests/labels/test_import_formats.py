"""What each format of label files becomes."""

import base64
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import (
    FILES,
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


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def two(write, *arguments, **options):
    """The same labels for two pictures, since a dataset needs one to validate on."""
    return [write(stem, *arguments, **options) for stem in "ab"]


# COCO


def test_coco_polygons_runs_and_the_order_of_categories(here):
    bits = np.zeros((HEIGHT, WIDTH), bool)
    bits[20:26, 30:38] = True
    counted = [
        int(n) for n in np.diff(np.flatnonzero(np.diff(np.r_[False, bits.ravel("F"), False])), prepend=0)
    ]
    runs = {"size": [HEIGHT, WIDTH], "counts": [*counted, bits.size - sum(counted)]}
    path = coco(
        here / "c" / "instances.json",
        [
            {"image_id": image, "category_id": category, "segmentation": area}
            for image in (0, 1)
            for category, area in ((8, [square(2, 3, 10)]), (7, runs))
        ],
        categories=("zebra", "ant"),
    )
    found, classes = imported("coco", path)
    assert classes == ["background", "zebra", "ant"]
    assert counts(found["a"]) == {0: 1200 - 100 - 48, 1: 48, 2: 100}
    assert (found["a"][20:26, 30:38] == 1).all()
    assert (found["a"][3:13, 2:12] == 2).all()


def test_coco_crowds_lie_below_all_else_and_are_void_or_a_class(here, capsys):
    crowd = {"segmentation": [square(0, 0, 20)], "category_id": 7, "iscrowd": 1}
    own = {"segmentation": [square(5, 5, 10)], "category_id": 8}
    path = coco(
        here / "c" / "i.json", [{**each, "image_id": image} for image in (0, 1) for each in (own, crowd)]
    )
    assert counts(imported("coco", path)[0]["a"]) == {0: 800, 2: 100, 255: 300}
    assert "2 crowds are not labeled" in capsys.readouterr().out
    assert counts(imported("coco", path, "--crowd", "class", name="e")[0]["a"]) == {0: 800, 1: 300, 2: 100}


def test_coco_smaller_areas_cover_larger_ones_unless_the_order_is_that_of_the_file(here):
    small, large = ({"segmentation": [square(5, 5, side)], "category_id": n} for side, n in ((4, 7), (9, 8)))
    path = coco(
        here / "c" / "i.json", [{**each, "image_id": image} for image in (0, 1) for each in (small, large)]
    )
    assert counts(imported("coco", path)[0]["a"])[1] == 16
    assert 1 not in counts(imported("coco", path, "--order", "file", name="e")[0]["a"])


def test_coco_parts_of_one_object_are_united(here):
    parts = {"segmentation": [square(0, 0, 10), square(5, 5, 10)], "category_id": 7}
    path = coco(here / "c" / "i.json", [{**parts, "image_id": image} for image in (0, 1)])
    assert counts(imported("coco", path)[0]["a"])[1] == 175


def test_coco_files_of_parts_choose_the_validation_images(here, capsys):
    each = {"segmentation": [square(0, 0, 10)], "category_id": 7, "image_id": 0}
    for part, image in (("train", "a.jpg"), ("val", "b.jpg")):
        coco(here / "c" / f"instances_{part}2017.json", [each], images=(image,))
    imported("coco", here / "c")
    assert Path("dataset/d.val.txt").read_text() == "b\n"


def test_coco_boxes_and_keypoints_are_counted_and_named(here, capsys):
    marks = [
        {"image_id": 0, "category_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 0, "category_id": 7, "keypoints": [1, 2, 2]},
        {"image_id": 0, "category_id": 7, "segmentation": [[1, 2, 3, 4]]},
        *({"image_id": image, "category_id": 7, "segmentation": [square(0, 0, 9)]} for image in (0, 1)),
    ]
    imported("coco", coco(here / "c" / "i.json", marks))
    text = capsys.readouterr().out
    for line in ("1 boxes without an outline", "1 keypoints", "1 polygons of fewer than 3 points"):
        assert f"left out: {line}" in text


def coco_with(here, key, number, **changes):
    """COCO's file of two labeled pictures with a changed entry of a list."""
    annotations = [{"image_id": 0, "category_id": 7, "segmentation": [square(4, 4, 10)]}]
    path = here / "data" / "labels.json"
    coco(path, annotations)
    content = json.loads(path.read_text())
    content[key][number].update(changes)
    write_json(path, content)


def test_coco_ids_that_stand_for_two_pictures_or_names_are_refused(here, capsys):
    coco_with(here, "images", 1, id=0)
    assert main(["import", "coco", "data"]) == 2
    assert "image id 0 stands for a.jpg and b.jpg" in capsys.readouterr().err
    coco_with(here, "categories", 1, id=7)
    assert main(["import", "coco", "data"]) == 2
    assert "category id 7 stands for disk and box" in capsys.readouterr().err


def test_coco_categories_of_one_name_are_noted(here, capsys):
    coco_with(here, "categories", 1, name="disk")
    assert main(["import", "coco", "data", "--empty", "background"]) == 0
    assert "categories 7, 8 of labels.json are all called disk" in capsys.readouterr().out


def test_coco_of_datumaro(here):
    photo(here / "c" / "images" / "train" / "p.jpg")
    photo(here / "c" / "images" / "q.jpg")
    content = json.loads((FILES / "coco.json").read_text())
    content["images"].append({**content["images"][0], "id": 2, "file_name": "q.jpg"})
    content["annotations"].append({**content["annotations"][0], "id": 9, "image_id": 2})
    found, classes = imported(
        "coco", write_json(here / "c" / "annotations" / "all.json", content), "--crowd", "class"
    )
    assert classes == ["background", "disk", "blob", "box"]
    assert 100 < counts(found["train/p"])[2] < 190  # crowds lie below the polygon
    assert found["train/p"][17, 24] == 0


# labelme


def test_labelme_shapes(here, capsys):
    shapes = [
        ("disk", "polygon", SQUARE),
        ("box", "rectangle", [[30, 20], [20, 10]]),
        ("box", "circle", [[30, 25], [30, 28]]),
        ("disk", "point", [[1, 1]]),
        ("disk", "linestrip", [[1, 1], [4, 4], [6, 8]]),
        ("tilted", "oriented_rectangle", [[34, 2], [38, 2], [38, 8], [34, 8]]),
    ]
    two(lambda stem: labelme(here / "data", stem, shapes))
    found, classes = imported("labelme", "data")
    assert classes == ["background", "box", "disk", "tilted"]
    assert counts(found["a"])[2] == 100
    assert counts(found["a"])[1] == 100 + 32  # a circle of radius 3 around a corner of four pixels
    assert counts(found["a"])[3] == 24
    text = capsys.readouterr().out
    assert "left out: 2 shapes of the kind point" in text
    assert "left out: 2 shapes of the kind linestrip" in text


def test_labelme_later_shapes_cover_earlier_ones_and_ignore_is_void(here):
    shapes = [("a", "rectangle", [[0, 0], [10, 10]]), ("__ignore__", "rectangle", [[5, 5], [10, 10]])]
    two(lambda stem: labelme(here / "data", stem, shapes))
    assert counts(imported("labelme", "data")[0]["a"]) == {0: 1100, 1: 75, 255: 25}


def test_labelme_files_that_were_renamed_with_their_pictures(here):
    for stem in "ab":
        labelme(here / "data", stem, [("ant", "polygon", SQUARE)], imagePath="..\\camera\\IMG_1.jpg")
    assert sorted(imported("labelme", "data")[0]) == ["a", "b"]


def test_labelme_files_in_a_folder_of_their_own(here):
    for stem in "ab":
        path = labelme(here / "data" / "images", stem, [("ant", "polygon", SQUARE)])
        (here / "data" / "json").mkdir(exist_ok=True)
        path.rename(here / "data" / "json" / path.name)
    assert sorted(imported("labelme", "data/json")[0]) == ["a", "b"]


def test_labelme_order_of_labels_txt(here):
    two(lambda stem: labelme(here / "data", stem, [("ant", "polygon", SQUARE)]))
    (here / "data" / "labels.txt").write_text("__ignore__\n_background_\nzebra\nant\n")
    found, classes = imported("labelme", "data")
    assert classes == ["_background_", "zebra", "ant"]
    assert counts(found["a"]) == {0: 1100, 2: 100}


def test_labelme_images_that_stand_in_the_files(here, capsys):
    for stem in "ab":
        path = labelme(here / "data", stem, [("ant", "polygon", SQUARE)])
        content = json.loads(path.read_text())
        content["imageData"] = base64.b64encode((here / "data" / f"{stem}.jpg").read_bytes()).decode()
        write_json(path, content)
        (here / "data" / f"{stem}.jpg").unlink()
    assert main(["import", "labelme", "data"]) == 2
    assert "image a.jpg is not there" in capsys.readouterr().err
    imported("labelme", "data", "--extract-images", "photos")
    assert sorted(path.name for path in Path("photos").iterdir()) == ["a.jpg", "b.jpg"]
    assert config()["root"] == str(here / "photos")


def test_labelme_as_its_own_library_writes_it(here):
    for stem in "pq":
        photo(here / "data" / f"{stem}.jpg")
        text = (FILES / "labelme.json").read_text().replace("p.jpg", f"{stem}.jpg")
        (here / "data" / f"{stem}.json").write_text(text)
    found, _ = imported("labelme", "data")
    theirs = np.array(Image.open(FILES / "labelme.png"))
    assert_same_but_rims(found["p"], theirs)


def assert_same_but_rims(ours, theirs):
    """labelme fills the rim pixels too; all that differs has another class of its own next to it."""
    padded = np.pad(theirs, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*theirs.shape, 9)
    assert ((windows == ours[..., None]).any(-1)).all()
    assert (ours == theirs).mean() > 0.95


# CVAT

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <meta><task><labels>
    <label><name>zebra</name><color>#ff0000</color></label>
    <label><name>ant &amp; bee, "3"</name><color>#00ff00</color></label>
  </labels></task></meta>
  {images}
</annotations>"""
IMAGE = """<image id="{id}" name="{name}" width="40" height="30" {more}>
  <polygon label="zebra" points="4,4;14,4;14,14;4,14" z_order="2"/>
  <box label="ant &amp; bee, &quot;3&quot;" xtl="0" ytl="0" xbr="20" ybr="20" z_order="1"/>
  <ellipse label="zebra" cx="30" cy="10" rx="5" ry="4"/>
  <mask label="zebra" rle="1, 2, 1" left="30" top="25" width="2" height="2"/>
  <points label="zebra" points="1,1"/><polyline label="zebra" points="1,1;2,2"/>
  <skeleton label="zebra"><points label="1" points="1,1"/></skeleton><tag label="zebra"/>
</image>"""


def cvat(here, text=None, more=("", "")):
    for name in ("a.jpg", "sub/b.jpg"):
        photo(here / "photos" / name)
    images = "".join(
        IMAGE.format(id=number, name=name, more=more[number])
        for number, name in enumerate(("a.jpg", "sub/b.jpg"))
    )
    path = here / "annotations.xml"
    path.write_text(text or CVAT.format(images=images), encoding="utf-8")
    return path


def test_cvat_shapes_layers_and_labels(here, capsys):
    found, classes = imported("cvat", cvat(here), "--images", "photos")
    assert classes == ["background", "zebra", 'ant & bee, "3"']
    assert config()["palette"] == [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    mask = found["sub/b"]
    assert counts(mask)[2] == 300
    assert (mask[4:14, 4:14] == 1).all()
    assert mask[25:27, 30:32].tolist() == [[0, 1], [1, 0]]
    assert 55 < (mask[:20, 22:] == 1).sum() < 70
    text = capsys.readouterr().out
    for kind in ("points", "polyline", "skeleton"):
        assert f"left out: 2 marks of the kind {kind}" in text


def test_cvat_order_of_the_file_is_another(here):
    found, _ = imported("cvat", cvat(here), "--images", "photos", "--order", "file")
    assert counts(found["a"])[2] == 400


def test_cvat_subsets_choose_the_parts(here):
    imported("cvat", cvat(here, more=('subset="Train"', 'subset="Validation"')), "--images", "photos")
    assert Path("dataset/d.val.txt").read_text() == "sub/b\n"


def test_cvat_turned_boxes(here):
    box = '<box label="zebra" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'
    images = "".join(
        f'<image name="{name}" width="40" height="30">{box}</image>' for name in ("a.jpg", "sub/b.jpg")
    )
    found, _ = imported("cvat", cvat(here, CVAT.format(images=images)), "--images", "photos")
    assert (found["a"][7:17, 13:17] == 1).all()
    assert counts(found["a"])[1] == 40


def test_cvat_tracks_of_a_video_are_refused_with_advice(here, capsys):
    cvat(here, '<annotations><track label="zebra"/></annotations>')
    assert main(["import", "cvat", "annotations.xml"]) == 2
    assert "CVAT for images 1.1" in capsys.readouterr().err


def test_cvat_of_datumaro(here):
    for name in ("p", "q"):
        photo(here / "c" / "images" / f"{name}.jpg")
        (here / "c" / f"{name}.xml").write_text(
            (FILES / "cvat.xml").read_text().replace("p.jpg", f"{name}.jpg")
        )
    found, classes = imported("cvat", "c")
    assert classes == ["background", "disk", "blob", "box"]
    assert counts(found["p"])[2] == 190
    assert (found["p"][2:8, 30:34] == 3).all()


def test_cvat_archive_of_masks(here):
    colors = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], np.uint8)
    label_map = np.arange(1200).reshape(30, 40).astype(np.uint8) % 3
    with zipfile.ZipFile("masks.zip", "w") as archive:
        for stem in "ab":
            photo(here / "photos" / f"{stem}.jpg")
            file = io.BytesIO()
            Image.fromarray(colors[label_map]).save(file, "PNG")
            archive.writestr(f"SegmentationClass/{stem}.png", file.getvalue())
        head = "# label:color_rgb:parts:actions\n"
        archive.writestr("labelmap.txt", f"{head}background:0,0,0::\nlane: 1:250,50,83::\n#2:51,221,255::\n")
    for kind in ("voc", "cvat"):
        found, classes = imported(kind, "masks.zip", "--images", "photos", name=kind + "_d")
        assert classes == ["background", "lane: 1", "#2"]
        assert (found["a"] == label_map).all()


# Label Studio


def task(number, result, **more):
    answer = {"id": number, "result": result, "was_cancelled": False, **more}
    return {
        "id": number,
        "data": {"image": f"/data/upload/1/0a1b2c3d-p{number}.jpg"},
        "annotations": [answer],
    }


def region(kind, label, **value):
    shared = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {
        "id": f"{kind}-{label}",
        "type": kind,
        "value": {**value, **({kind: [label]} if label else {})},
        **shared,
    }


REGIONS = [
    region("polygonlabels", "disk", points=[[10, 10], [35, 10], [35, 50], [10, 50]]),
    region("rectanglelabels", "box", x=50, y=0, width=25, height=50, rotation=0),
    region("ellipselabels", "box", x=75, y=80, radiusX=10, radiusY=10, rotation=0),
    region("keypointlabels", "box", x=1, y=1, width=0.5),
]


def label_studio(here, results=(REGIONS, REGIONS), name="export.json"):
    tasks = []
    for number, result in enumerate(results):
        photo(here / "photos" / f"p{number}.jpg")
        tasks.append(task(number, result))
    return write_json(here / name, tasks)


def test_label_studio_names_of_uploads_match_pictures_with_spaces_and_signs(here, capsys):
    path = label_studio(here)
    tasks = path.read_text().replace("p0.jpg", "my_photo_1.jpg")
    path.write_text(tasks)
    (here / "photos" / "p0.jpg").rename(here / "photos" / "my photo (1).jpg")
    found, _ = imported("label-studio", path, "--images", "photos")
    assert sorted(found) == ["my photo (1)", "p1"]
    photo(here / "photos" / "my photo [1].jpg")
    assert main(["import", "label-studio", str(path), "--images", "photos", "--name", "e"]) == 2
    assert "my_photo_1.jpg may be " in capsys.readouterr().err


def test_label_studio_regions(here, capsys):
    found, classes = imported("label-studio", label_studio(here), "--images", "photos")
    assert classes == ["background", "box", "disk"]
    assert (found["p0"][3:15, 4:14] == 2).all()
    assert (found["p0"][0:15, 20:30] == 1).all()
    assert counts(found["p0"])[2] == 120
    assert "left out: 2 regions of the kind keypointlabels" in capsys.readouterr().out


def test_label_studio_brush_of_its_own_library_and_order_of_the_interface(here):
    for name in ("p", "1b2c3d4e-q"):
        photo(here / "photos" / f"{name}.jpg")
    (first,) = json.loads((FILES / "label_studio.json").read_text())[:1]
    second = json.loads(json.dumps(first).replace("1b2c3d4e-p", "1b2c3d4e-q"))
    write_json(here / "e.json", [first, second])
    (here / "label_config.xml").write_text('<View><L><Label value="disk"/><Label value="blob"/></L></View>')
    found, classes = imported("label-studio", "e.json", "label_config.xml", "--images", "photos")
    assert classes == ["background", "disk", "blob"]
    assert found["p"][14, 30] == 2
    assert (found["1b2c3d4e-q"] == found["p"]).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"original_width": None}, "original_width"),
        ({"image_rotation": 90}, "turned by 90 degrees"),
        ({"original_width": 80}, "labels for 80x30 pixels, but the image has 40x30"),
        ({"value": {"points": [[1, 1], [2, 2]], "polygonlabels": ["disk"]}}, "2 points"),
        (
            {"value": {**REGIONS[0]["value"], "polygonlabels": ["disk", "box"]}},
            "labels disk, box; expected one",
        ),
        ({"value": {"points": REGIONS[0]["value"]["points"]}}, "no label"),
    ],
)
def test_label_studio_faulty_regions_are_named(here, capsys, change, reason):
    region = {key: value for key, value in {**REGIONS[0], **change}.items() if value is not None}
    label_studio(here, ([region], REGIONS))
    assert main(["import", "label-studio", "export.json", "--images", "photos"]) == 2
    assert reason in capsys.readouterr().err


def test_label_studio_newest_annotation_counts_and_predictions_do_not(here, capsys):
    path = label_studio(here, (REGIONS[:1], REGIONS[1:2]))
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"] += [
        {"result": REGIONS[1:2], "updated_at": "2026-02-01"},
        {"result": REGIONS[:2], "updated_at": "2026-03-01", "was_cancelled": True},
    ]
    photo(here / "photos" / "p2.jpg")
    tasks.append(
        {"id": 2, "data": {"image": "p2.jpg"}, "annotations": [], "predictions": [{"result": REGIONS}]}
    )
    write_json(path, tasks)
    found, classes = imported("label-studio", path, "--images", "photos")
    assert classes == ["background", "box"]
    assert sorted(found) == ["p0", "p1"]
    text = capsys.readouterr().out
    assert "1 older annotations of a task that has several" in text
    assert "1 tasks with predictions alone" in text


def test_label_studio_short_json(here):
    tasks = []
    for number in (0, 1):
        photo(here / "photos" / f"p{number}.jpg")
        value = {"points": [[10, 10], [35, 10], [35, 50], [10, 50]], "polygonlabels": ["disk"]}
        tasks.append(
            {
                "image": f"p{number}.jpg",
                "id": 1,
                "tag": [{**value, "original_width": 40, "original_height": 30}],
            }
        )
    assert (
        counts(imported("label-studio", write_json(here / "m.json", tasks), "--images", "photos")[0]["p0"])[1]
        == 120
    )


def test_label_studio_labels_that_stand_beside_their_region(here):
    plain = region("polygon", None, points=[[10, 10], [35, 10], [35, 50], [10, 50]])
    beside = {**region("labels", "disk", points=plain["value"]["points"]), "id": plain["id"]}
    found, classes = imported(
        "label-studio", label_studio(here, ([plain, beside],) * 2), "--images", "photos"
    )
    assert classes == ["background", "disk"]
    assert counts(found["p0"])[1] == 120


def test_label_studio_pngs_need_the_tasks(here, capsys):
    for number in (1, 2):
        photo(here / "photos" / f"0000{number}abc-photo_{number}.jpg")
        for value, name in ((5, "disk"), (20, "my-square")):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[value : value + 6, 3:9] = 255
            path = here / "pngs" / f"task-{number}-annotation-{number + 7}-by-1-tag-{name}-0.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(path)
    assert main(["import", "label-studio", "pngs", "--images", "photos"]) == 2
    assert "Export the project as JSON too" in capsys.readouterr().err
    shutil.copytree("photos", "all/photos")
    shutil.copytree("pngs", "all/pngs")
    assert main(["init", "all"]) == 2
    assert f"semiseg import label-studio {here / 'all' / 'pngs'} tasks.json" in capsys.readouterr().err
    write_json(
        here / "tasks.json",
        [{"id": n, "data": {"image": f"/data/upload/1/0000{n}abc-photo_{n}.jpg"}} for n in (1, 2)],
    )
    found, classes = imported("label-studio", "pngs", "tasks.json", "--images", "photos")
    assert classes == ["background", "disk", "my-square"]
    assert counts(found["00001abc-photo_1"]) == {0: 1200 - 72, 1: 36, 2: 36}


# PASCAL VOC


def test_voc_numbers_lists_and_void(here):
    label_map = np.full((HEIGHT, WIDTH), 15, np.uint8)
    label_map[:5] = 255
    for stem in "ab":
        photo(here / "v" / "JPEGImages" / f"{stem}.jpg")
        path = here / "v" / "SegmentationClass" / f"{stem}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(label_map).save(path)
    lists = here / "v" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n")
    found, classes = imported("voc", "v")
    assert len(classes) == 21
    assert (found["a"] == label_map).all()
    assert Path("dataset/d.val.txt").read_text() == "b\n"


# YOLO


def yolo(here, lines, names="names: [zebra, ant]"):
    for part, stem in (("train", "a"), ("val", "b")):
        photo(here / "y" / "images" / part / f"{stem}.jpg")
        path = here / "y" / "labels" / part / f"{stem}.txt"
        path.parent.mkdir(parents=True)
        path.write_text(lines)
    (here / "y" / "data.yaml").write_text(
        f"path: /elsewhere\ntrain: images/train\nval: images/val\n{names}\n"
    )
    return here / "y" / "data.yaml"


def test_yolo_polygons_boxes_names_and_parts(here, capsys):
    lines = "1 0.1 0.1 0.35 0.1 0.35 0.5 0.1 0.5\n0 0.5 0.5 0.1 0.1\n0 0 0 1 0 1 1 0 1\n"
    found, classes = imported("yolo", yolo(here, lines, "names: {1: ant, 0: zebra}"))
    assert classes == ["background", "zebra", "ant"]
    assert counts(found["train/a"]) == {1: 1080, 2: 120}  # the smaller over the larger
    assert "left out: 2 boxes without an outline" in capsys.readouterr().out
    assert Path("dataset/d.val.txt").read_text() == "val/b\n"


def test_yolo_names_in_classes_txt_and_labels_beside_their_pictures(here):
    for stem in "ab":
        photo(here / "flat" / f"{stem}.jpg")
        (here / "flat" / f"{stem}.txt").write_text("1 0.1 0.1 0.35 0.1 0.35 0.5 0.1 0.5\n")
    (here / "flat" / "classes.txt").write_text("zebra\nant\n")
    found, classes = imported("yolo", "flat")
    assert classes == ["background", "zebra", "ant"]
    assert counts(found["a"]) == {0: 1080, 2: 120}


def test_yolo_is_found_from_its_folder_of_labels(here):
    yolo(here, "1 0.1 0.1 0.35 0.1 0.35 0.5 0.1 0.5\n")
    assert counts(imported("yolo", "y/labels/train")[0]["train/a"]) == {0: 1080, 2: 120}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("5 0 0 1 0 1 1", "class 5; expected 0 to 1"),
        ("0 0 0 1 0 1 1 1", "7 numbers after the class"),
        ("0 0 0 40 0 40 30", "outside of 0 to 1"),
        ("0 0 0 x 0 1 1", "could not convert"),
    ],
)
def test_yolo_faulty_lines_are_named(here, capsys, line, reason):
    assert main(["import", "yolo", str(yolo(here, line))]) == 2
    text = capsys.readouterr().err
    assert reason in text
    assert "a.txt" in text
    assert "b.txt" in text


# Cityscapes


def cityscapes(here, objects=None):
    source = FILES / "town_000000_000001_gtFine_polygons.json"
    for part in ("train", "val"):
        name = f"town_000000_00000{part[0] == 'v':d}"
        photo(here / "c" / "leftImg8bit" / part / "town" / f"{name}_leftImg8bit.png", (40, 60))
        content = json.loads(source.read_text())
        content["objects"] = objects or content["objects"]
        write_json(here / "c" / "gtFine" / part / "town" / f"{name}_gtFine_polygons.json", content)
    return here / "c"


def test_cityscapes_masks_are_those_of_its_own_scripts(here):
    found, classes = imported("cityscapes", cityscapes(here))
    theirs = np.array(Image.open(FILES / "town_000000_000001_gtFine_labelTrainIds.png"))
    assert len(classes) == 19
    assert (found["train/town/town_000000_000000_leftImg8bit"] == theirs).all()
    assert Path("dataset/d.val.txt").read_text() == "val/town/town_000000_000001_leftImg8bit\n"


def test_cityscapes_of_other_classes(here):
    objects = [{"label": label, "polygon": SQUARE} for label in ("boatgroup", "boat", "out of roi")]
    objects += [{"label": "lake", "polygon": [[20, 20], [30, 20], [30, 30]]}]
    _, classes = imported("cityscapes", cityscapes(here, objects))
    assert classes == ["boat", "lake"]
    assert counts(next(iter(masks().values()))).keys() == {1, 255}
