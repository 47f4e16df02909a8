"""Which of several folders or endings ``semiseg init`` takes for the masks, and when it refuses to choose."""

import re
import shlex

import numpy as np
import pytest
import yaml
from scenes import (
    colors,
    depth,
    edges,
    instances,
    mask,
    other_mask,
    overlay,
    photo,
    put,
    scene,
    superpixels,
    write,
)

from semiseg.cli import main
from semiseg.data.folder import Folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMAGES = ("images/{}.jpg", photo)
COUNT = 5


def init(root, capsys, *options):
    """Run the command; return the exit code, the config if one was written, and what was printed."""
    code = main(["init", str(root), "--name", "own", *options])
    shown = capsys.readouterr()
    path = root.parent / "dataset" / "own.yaml"
    return code, yaml.safe_load(path.read_text()) if code == 0 else None, shown.out + shown.err


def drawn(function):
    return lambda image, labels, number: function(labels)


@pytest.mark.parametrize(
    ("taken", "kinds"),
    [
        ("gt", {"a": ("gt/{}.png", mask, 4), "b": ("prediction/{}.png", other_mask)}),
        ("mine", {"a": ("mine/{}.png", mask, 4), "b": ("net_output/{}.png", other_mask)}),
        ("labels", {"a": ("labels/{}.png", mask), "b": ("vis/{}.png", other_mask)}),
        ("masks", {"a": ("masks/{}.png", mask, 3), "b": ("runs/one/labels/{}.png", other_mask)}),
        ("masks", {"a": ("masks/{}.png", mask), "b": ("masks_old/{}.png", other_mask)}),
        ("masks", {"a": ("masks/{}.png", mask), "b": ("masks_aug/{}.png", other_mask)}),
        (
            "SegmentationClass",
            {"a": ("SegmentationClass/{}.png", mask), "b": ("SegmentationObject/{}.png", mask)},
        ),
        ("x", {"a": ("x/{}.png", mask), "b": ("z/{}.png", drawn(depth))}),
        ("x", {"a": ("x/{}.png", mask), "b": ("e/{}.png", drawn(edges))}),
        ("x", {"a": ("x/{}.png", mask), "b": ("areas/{}.png", drawn(superpixels))}),
        ("b", {"a": ("a/{}.png", colors), "b": ("b/{}.png", mask)}),
        (
            "b",
            {
                "a": ("a/{}.png", lambda image, labels, number: instances(labels, number)),
                "b": ("b/{}.png", mask),
            },
        ),
        ("masks", {"a": ("masks/{}.png", mask), "b": ("thumbs/{}.jpg", lambda i, labels, n: i[::2, ::2])}),
    ],
)
def test_masks_are_taken_by_look_then_by_name(here, capsys, taken, kinds):
    root = write(here / "data", COUNT, images=IMAGES, **kinds)
    code, config, text = init(root, capsys)
    assert code == 0, text
    assert (config["images"], config["masks"]) == ("images", taken)
    other = next(path.split("/{}")[0] for path, *_ in kinds.values() if not path.startswith(f"{taken}/"))
    assert f"in {other}" in re.search("^left aside: (.*)$", text, re.MULTILINE)[1]
    if "thumbs" not in other:
        assert re.search(
            rf"other masks of the same images: --images images --masks {other} \(\d pairs\)", text
        )


@pytest.mark.parametrize(
    "kinds",
    [
        {"a": ("masks_v1/{}.png", mask), "b": ("masks_v2/{}.png", other_mask)},
        {"a": ("annotator1/{}.png", mask), "b": ("annotator2/{}.png", other_mask)},
        {"a": ("masks/{}.png", mask), "b": ("masks_new/{}.png", other_mask, 3)},
        {"a": ("labels/{}.png", mask), "b": ("truth/{}.png", other_mask)},
        {"a": ("a/{}.png", mask), "b": ("b/{}.png", drawn(lambda labels: (labels > 0).astype(np.uint8)))},
        {"a": ("masks/{}_anna.png", mask), "b": ("masks/{}_otto.png", other_mask)},
    ],
)
def test_two_equal_kinds_are_not_chosen_between(here, capsys, kinds):
    root = write(here / "data", COUNT, images=IMAGES, **kinds)
    code, _, text = init(root, capsys)
    assert code == 2
    assert "2 kinds of masks may be meant" in text
    assert not (here / "dataset").exists()
    lines = re.findall(r"(\d) pairs  semiseg init (.+)", text)
    assert len(lines) == 2
    chosen = []
    for count, words in lines:
        code, config, text = init(root, capsys, *shlex.split(words)[1:], "--force")
        assert code == 0, text
        assert f"{count} have a mask" in text
        chosen.append((config["masks"], config.get("mask_suffix")))
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize(
    ("images", "kinds"),
    [
        ("left", {"a": ("left/{}.png", photo), "b": ("right/{}.png", lambda i, labels, n: np.roll(i, 2, 1))}),
        ("rgb", {"a": ("rgb/{}.png", photo), "b": ("nir/{}.png", lambda i, labels, n: i[..., 0])}),
        ("images", {"a": IMAGES, "b": ("images_small/{}.jpg", lambda i, labels, n: i[::2, ::2])}),
        ("images", {"a": IMAGES, "b": ("overlays/{}.jpg", lambda i, labels, n: overlay(i, labels))}),
        ("images", {"a": IMAGES, "b": ("images_aug/{}.jpg", lambda i, labels, n: i[:, ::-1].copy())}),
    ],
)
def test_images_are_taken_by_size_then_by_name(here, capsys, images, kinds):
    root = write(here / "data", COUNT, masks=("gt/{}.png", mask), **kinds)
    code, config, text = init(root, capsys)
    assert code == 0, text
    assert (config["images"], config["masks"]) == (images, "gt")


def test_two_equal_folders_of_images_are_not_chosen_between(here, capsys):
    root = write(here / "data", COUNT, a=("a/{}.png", photo), b=("b/{}.png", photo), c=("gt/{}.png", mask))
    code, _, text = init(root, capsys)
    assert code == 2
    assert "2 kinds of images may be meant" in text
    assert init(root, capsys, "--images", "b")[1]["images"] == "b"


def test_images_that_look_like_masks_are_never_taken(here, capsys):
    """As brush labels of one PNG a label, whose names do not hold those of the photographs."""
    root = here / "data"
    for number in range(COUNT):
        image, labels = scene(number)
        put(root / "images" / f"{number * 7919:08x}-photo_{number}.jpg", image)
        for label, name in ((1, "disk"), (2, "square")):
            put(
                root / "masks" / f"task-{number}-annotation-{number + 7}-tag-{name}-0.png",
                (labels == label) * np.uint8(255),
            )
    code, _, text = init(root, capsys)
    assert code == 2
    assert "images: 5 jpg" in text
    assert "masks: 10 png, which look like masks" in text
    assert re.search(r"images/\S+-photo_\d\.jpg and masks/task-\S+\.png do not match by name", text)
    assert "Names decide" in text


def test_masks_that_look_like_none_are_taken_only_where_named(here, capsys):
    root = write(here / "data", COUNT, images=IMAGES, depth=("depth/{}.png", drawn(depth)))
    code, _, text = init(root, capsys)
    assert code == 2
    assert "do not look like masks" in text
    assert "--images images --masks depth" in text
    assert "do not look like masks" not in init(root, capsys, "--masks", "depth")[2]


def test_a_folder_named_like_predictions_is_said(here, capsys):
    root = write(here / "data", COUNT, images=IMAGES, masks=("pred/{}.png", mask))
    code, _, text = init(root, capsys)
    assert code == 0
    assert "pred is named like predictions" in text


def test_what_is_made_of_images_is_no_image(here, capsys):
    kinds = {
        "image": ("{}.jpg", photo),
        "gt": ("{}_gt.png", mask, 4),
        "pred": ("{}_pred.png", other_mask),
        "vis": ("{}_vis.jpg", lambda image, labels, number: overlay(image, labels)),
        "small": ("previews/{}.jpg", lambda image, labels, number: image[::2, ::2]),
    }
    root = write(here / "data", COUNT, **kinds)
    code, config, text = init(root, capsys)
    assert code == 0, text
    assert "images   5 in .: 5 jpg; 4 have a mask" in text
    assert "left aside: 5 jpg in ., 5 png in ., 5 jpg in previews" in text
    assert set(config["leave_out"]) == {"*_pred", "*_vis", "previews/*"}
    config.pop("defaults")
    assert Folder(**config).ids("unlabeled") == ("4",)


def test_photos_with_counting_names_and_sides_are_all_images(here, capsys):
    # 1_2_s lies and 1_21_s stands: by name and size, one may be made of the other.
    root = here / "data"
    for first in range(1, 9):
        for second in (1, 2, 21):
            image, labels = scene(30 * first + second)
            turn = np.rot90 if second == 21 else np.asarray
            put(root / f"images/{first}_{second}_s.jpg", np.ascontiguousarray(turn(image)))
            if second == 1 or first < 3:
                put(root / f"masks/{first}_{second}_s.png", np.ascontiguousarray(turn(labels)))
    code, config, text = init(root, capsys)
    assert code == 0, text
    assert "images   24 in images: 24 jpg; 12 have a mask" in text
    assert "leave_out" not in config


def test_equal_labels_in_colors_and_numbers_are_no_rivals(here, capsys):
    root = write(here / "data", COUNT, images=IMAGES, a=("labels/{}.png", colors), b=("masks/{}.png", mask))
    code, config, text = init(root, capsys)
    assert code == 0, text
    assert config["masks"] == "masks"


def test_another_dataset_in_the_folder_is_not_chosen_or_said(here, capsys):
    kinds = {
        "a": ("one/images/{}.png", photo),
        "b": ("one/masks/{}.png", mask),
        "c": ("two/rgb/t{}.png", photo),
        "d": ("two/gt/t{}.png", mask),
    }
    code, _, text = init(write(here / "data", COUNT, **kinds), capsys)
    assert code == 2
    assert "--images one/images --masks one/masks" in text
    assert "--images two/rgb --masks two/gt" in text
    kinds["c"], kinds["d"] = (*kinds["c"], 2), (*kinds["d"], 2)
    code, config, text = init(write(here / "more", COUNT, **kinds), capsys)
    assert (code, config["images"]) == (0, "one/images")
    assert "other images with masks: --images two/rgb --masks two/gt (2 pairs)" in text


def test_few_files_are_opened_to_choose(here, monkeypatch):
    from semiseg.onboard import looks
    from semiseg.onboard.layout import KnownLayout
    from semiseg.onboard.search import find_layout

    root = write(here / "data", 60, images=IMAGES, a=("gt/{}.png", mask), b=("old/{}.png", other_mask))
    opened = []
    original = looks.Image.open
    monkeypatch.setattr(looks.Image, "open", lambda path: opened.append(path) or original(path))
    assert find_layout(root, KnownLayout()).layout.masks == "gt"
    assert 0 < len(set(opened)) <= 10 * looks.SAMPLES


def test_what_semiseg_predicted_is_never_preferred(here, capsys):
    kinds = {"a": ("labels/{}.png", mask, 3), "b": ("exp7/labels/{}.png", other_mask)}
    root = write(here / "data", COUNT, images=IMAGES, **kinds)
    (root / "exp7" / "predict.json").write_text("{}")
    code, config, text = init(root, capsys)
    assert (code, config["masks"]) == (0, "labels"), text


def test_pictures_that_may_be_unlabeled_images_are_said(here, capsys):
    kinds = {"a": ("masks/{}.png", mask), "b": ("raw/u{}.jpg", photo), "c": ("previews/p{}.jpg", photo)}
    code, _, text = init(write(here / "data", COUNT, images=IMAGES, **kinds), capsys)
    assert code == 0, text
    assert (
        "5 pictures in raw are not used; if they are unlabeled images, add `unlabeled: raw` to the config"
        in text
    )
    assert "pictures in previews" not in text
