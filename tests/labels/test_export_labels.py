"""Label files that are written: what they give when they are read again, and when others read them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_labels import blobs, imported, masks, photo
from PIL import Image

from semiseg.cli import main
from semiseg.contracts.dataset import DatasetInfo
from semiseg.data.picture_files import UPRIGHT
from semiseg.labels.label_formats import FORMATS
from semiseg.labels.label_record import Findings, LabeledPicture, LabeledShape, Outline
from semiseg.labels.mask_shapes import MaskedPicture, Writing
from semiseg.labels.painting import Painting

CLASSES = ("soil", 'a "b", c', "grün")
INFO = DatasetInfo("d", CLASSES, ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
AS_MASKS = [name for name, kind in FORMATS.items() if kind.masks]
AS_OUTLINES = [name for name, kind in FORMATS.items() if kind.outlines]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def label_maps(here):
    """Label maps by the names of their pictures, which are there."""
    generator = np.random.default_rng(0)
    found = {}
    for key in ("a.jpg", "sub/b.png", "sub/c.jpg"):
        size = tuple(generator.integers(20, 60, 2).tolist())
        photo(here / "photos" / key, size)
        found[key] = blobs(size, len(CLASSES), generator)
    return found


def written(name, label_maps, **options):
    """Write label files of a format; returns the arguments with which they are read."""
    settings = {"rest": None, "as_masks": True, "tolerance": 0.0, "reviewed": True, **options}
    writing = Writing(INFO, **settings)
    pictures = [MaskedPicture(key, Path("photos", key).absolute(), each) for key, each in label_maps.items()]
    Path("out").mkdir()
    FORMATS[name].write(Path("out"), writing, pictures)
    rest = settings["rest"]
    covered = ["--no-background"] if rest is None else ["--background", CLASSES[rest]]
    how = [] if FORMATS[name].covers_all and rest is None else covered
    return [name, "out", *how, "--images", "photos", "--classes", 'soil,"a ""b"", c",grün']


def read_again(name, label_maps, **options):
    found, classes = imported(*written(name, label_maps, **options))
    assert tuple(classes) == CLASSES
    return {key: found[key.rpartition(".")[0]] for key in label_maps}


@pytest.mark.parametrize("rest", [None, 0])
@pytest.mark.parametrize("name", AS_MASKS)
def test_masks_survive_a_round_trip_to_the_pixel(label_maps, name, rest):
    for key, mask in read_again(name, label_maps, rest=rest).items():
        assert (mask == label_maps[key]).all()


@pytest.mark.parametrize("rest", [None, 0])
@pytest.mark.parametrize("name", AS_OUTLINES)
def test_outlines_without_tolerance_survive_a_round_trip_to_the_pixel(label_maps, name, rest):
    for key, mask in read_again(name, label_maps, rest=rest, as_masks=False).items():
        assert (mask == label_maps[key]).all()


@pytest.mark.parametrize("tolerance", [0.5, 1.0])
@pytest.mark.parametrize("name", ["labelme", "yolo"])
def test_pixels_that_simplified_outlines_change_lie_at_a_rim(label_maps, name, tolerance):
    changed = 0
    for key, mask in read_again(name, label_maps, as_masks=False, tolerance=tolerance).items():
        differ = mask != label_maps[key]
        changed += differ.sum()
        assert rim_distance(label_maps[key])[differ].max(initial=0) <= tolerance + 1
    assert changed < 0.2 * sum(each.size for each in label_maps.values())


def rim_distance(label_map):
    """Distance of each pixel's center to the nearest of another label, or outside of the picture."""
    distance = np.zeros(label_map.shape, np.float32)
    for label in np.unique(label_map):
        bits = np.pad(label_map == label, 1).astype(np.uint8)
        distance = np.maximum(distance, cv2.distanceTransform(bits, cv2.DIST_L2, 5)[1:-1, 1:-1])
    return distance


def test_random_label_maps_survive_as_outlines_in_both_orders():
    generator = np.random.default_rng(1)
    for number in range(60):
        size = tuple(generator.integers(1, 24, 2).tolist())
        label_map = generator.integers(0, 4, size).astype(np.uint8)
        label_map[label_map == 3] = 255
        for rest, label in ((None, 255), (0, 0)):
            outlines = Writing(INFO, rest, False, 0).outlines(label_map)
            shapes = tuple(LabeledShape(name, (Outline((ring,)),)) for name, ring in outlines)
            labels = {name: place for place, name in enumerate(CLASSES)}
            for order in ("file", "area"):
                picture = LabeledPicture("p", Path("p"), size, shapes)
                assert (
                    Painting(labels, label, order).label_map(picture, size, Findings()) == label_map
                ).all(), number


def test_coco_is_read_by_pycocotools(label_maps):
    pytest.importorskip("pycocotools", reason="pycocotools is in the extra dev")
    from pycocotools.coco import COCO

    written("coco", label_maps)
    coco = COCO("out/instances.json")
    names = {each["id"]: each["name"] for each in coco.loadCats(coco.getCatIds())}
    for image in coco.loadImgs(coco.getImgIds()):
        expected = label_maps[image["file_name"]]
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            bits = coco.annToMask(annotation).astype(bool)
            assert (bits == (expected == CLASSES.index(names[annotation["category_id"]]))).all()
            assert annotation["area"] == bits.sum()


def test_labelme_files_name_their_pictures_by_relative_paths(label_maps):
    written("labelme", label_maps)
    content = json.loads(Path("out/sub/b.json").read_text())
    assert Path("out/sub", content["imagePath"]).resolve() == Path("photos/sub/b.png").resolve()
    assert content["imageHeight"], content["imageWidth"] == label_maps["sub/b.png"].shape


def test_label_studio_keeps_labels_of_networks_apart(label_maps):
    written("label-studio", label_maps, reviewed=False, address="/data/local-files/?d=photos/")
    task = json.loads(Path("out/tasks.json").read_text())[0]
    assert task["data"]["image"] == "/data/local-files/?d=photos/a.jpg"
    assert task["predictions"][0]["model_version"] == "semiseg"
    assert "annotations" not in task
    assert FORMATS["label-studio"].read([Path("out")], Findings()).classes == CLASSES


# The command


@pytest.fixture
def dataset(label_maps):
    """A dataset of the label maps, written by ``semiseg init``."""
    for key, label_map in label_maps.items():
        path = Path("fields/masks", key).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label_map).save(path)
        target = Path("fields/images", key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path("photos", key).read_bytes())
    assert main(["init", "fields", "--classes", "soil,weed,crop"]) == 0
    return label_maps


def test_masks_of_a_dataset_go_to_a_tool_and_back(dataset, capsys):
    assert main(["export-labels", "cvat", "dataset=fields", "-o", "out"]) == 0
    words = (
        capsys.readouterr().out.splitlines()[-1].partition("semiseg ")[2].replace("FOLDER", "fields/images")
    )
    found, classes = imported(*words.split()[1:])
    assert classes == ["soil", "weed", "crop"]
    assert all((found[key.rpartition(".")[0]] == each).all() for key, each in dataset.items())


def test_predictions_go_to_a_tool(varied_run, label_maps, capsys):
    assert main(["predict", str(varied_run), "photos", "-o", "predicted", "--no-overlay"]) == 0
    capsys.readouterr()
    assert main(["export-labels", "coco", "predicted", "-o", "out"]) == 0
    assert "3 pictures as masks in out" in capsys.readouterr().out
    imported("coco", "out", "--no-background", "--images", "photos")
    for key, mask in masks().items():
        assert (mask == np.array(Image.open(f"predicted/labels/{key}.png"))).all()


def test_labeled_pictures_go_to_a_tool(varied_run, label_maps):
    assert main(["label", str(varied_run), "photos", "-o", "labeled"]) == 0
    assert main(["export-labels", "labelme", "labeled", "-o", "out", "--tolerance", "0"]) == 0
    imported("labelme", "out", "--no-background", "--images", "labeled/images")
    for key, mask in masks().items():
        assert (mask == np.array(Image.open(f"labeled/masks/{key}.png"))).all()


@pytest.mark.parametrize("orientation", [3, 6])
def test_labels_of_stored_pictures_are_turned_as_tools_show_them(here, orientation):
    for stem in "abcdef":
        photo(Path("f/images", f"{stem}.jpg"), (20, 30), orientation)
        mask = np.zeros((20, 30), np.uint8)
        mask[:6, :9] = 1
        Path("f/masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(f"f/masks/{stem}.png")
    assert main(["init", "f", "--classes", "soil,weed", "--exif", "ignore"]) == 0
    assert main(["export-labels", "coco", "dataset=f", "-o", "out"]) == 0
    found, _ = imported("coco", "out", "--no-background", "--images", "f/images")
    shown = Image.fromarray(mask).transpose(UPRIGHT[orientation])
    assert (found["a"] == np.array(shown)).all()


def test_pictures_that_differ_in_the_extension_alone_are_refused(varied_run, here, capsys):
    photo(Path("photos/a.jpg"), (48, 48))
    photo(Path("photos/a.png"), (48, 48))
    assert main(["predict", str(varied_run), "photos", "-o", "predicted", "--no-overlay"]) == 0
    assert main(["export-labels", "labelme", "predicted", "-o", "out"]) == 2
    assert "differ only in the extension: a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("yolo", "dataset=fields", "--shapes", "mask"), "yolo holds no masks"),
        (("voc", "dataset=fields", "--shapes", "outline"), "voc holds no outlines"),
        (("coco", "dataset=fields", "--background", "sol"), "did you mean soil?"),
        (("coco", "fields"), "expected the folder that `semiseg predict`"),
        (("coco", "nothing"), "does not exist"),
        (("coco", "dataset=shapes"), "draws its images"),
        (("coco", "dataset=fields", "--tolerance", "-1"), "is below 0"),
    ],
)
def test_what_cannot_be_written_is_refused(dataset, capsys, words, reason):
    assert main(["export-labels", *words, "-o", "out"]) == 2
    assert reason in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_folder_that_exists_is_refused_without_force(dataset, capsys):
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    assert main(["export-labels", "coco", "dataset=fields", "-o", "out"]) == 2
    assert Path("out/mine.txt").exists()
    assert main(["export-labels", "coco", "dataset=fields", "-o", "out", "--force"]) == 0
    assert Path("out/instances.json").exists()
