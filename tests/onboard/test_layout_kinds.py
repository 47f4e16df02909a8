"""Layouts of folders that ``semiseg init`` finds, names that it matches, and files that it accounts for."""

import re
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image
from scenes import colors, instances, mask, overlay, photo, put, scene, write

from semiseg.cli import main
from semiseg.data.folder import Folder

COUNT = 5


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(root, capsys, *options):
    """Run the command; return the dataset that the written config describes, the config, and what was printed."""
    assert main(["init", str(root), "--name", "own", *options]) == 0, capsys.readouterr().err
    config = yaml.safe_load((root.parent / "dataset" / "own.yaml").read_text(encoding="utf-8"))
    config.pop("defaults")
    return Folder(**config), config, capsys.readouterr().out


def refused(root, capsys, *options):
    assert main(["init", str(root), "--name", "own", *options]) == 2
    return capsys.readouterr().err


def numbered(image, labels, number):
    return instances(labels, number)


def seen(image, labels, number):
    return overlay(image, labels)


CITY = "{folder}/{part}/{city}/{city}_{{0:06d}}_000019_{end}.png"


def city(part, town):
    """Pictures and masks of one town of Cityscapes."""
    kinds = {
        "leftImg8bit": ("leftImg8bit", photo),
        "gtFine_labelIds": ("gtFine", mask),
        "gtFine_instanceIds": ("gtFine", numbered),
        "gtFine_color": ("gtFine", colors),
    }
    return {
        f"{part}{end}": (CITY.format(folder=folder, part=part, city=town, end=end), draw)
        for end, (folder, draw) in kinds.items()
    }


LAYOUTS = {
    "one folder a picture": (
        {"i": ("case{:02d}/image.png", photo), "m": ("case{:02d}/mask.png", mask, 4)},
        {"image_suffix": "/image", "mask_suffix": "/mask"},
        ("case01", 4, 1),
    ),
    "labelme's folders": (
        {
            "i": ("x{}_json/img.png", photo),
            "m": ("x{}_json/label.png", mask),
            "v": ("x{}_json/label_viz.png", seen),
        },
        {"image_suffix": "/img", "mask_suffix": "/label"},
        ("x1_json", 5, 0),
    ),
    "beginnings": (
        {"i": ("img_{:03d}.jpg", photo), "m": ("mask_{:03d}.png", mask, 4)},
        {"image_prefix": "img_", "mask_prefix": "mask_"},
        ("001", 4, 1),
    ),
    "beginnings without separators": (
        {"i": ("images/img{:03d}.jpg", photo), "m": ("masks/gt{:03d}.png", mask, 4)},
        {"image_prefix": "img", "mask_prefix": "gt"},
        ("001", 4, 1),
    ),
    "a beginning and an ending": (
        {"i": ("img_{:03d}.jpg", photo), "m": ("{:03d}_label.png", mask, 4)},
        {"image_prefix": "img_", "mask_suffix": "_label"},
        ("001", 4, 1),
    ),
    "both around one id": (
        {"i": ("scan_{:03d}_rgb.png", photo), "m": ("label_{:03d}_seg.png", mask, 4)},
        {"image_prefix": "scan_", "image_suffix": "_rgb", "mask_prefix": "label_", "mask_suffix": "_seg"},
        ("001", 4, 1),
    ),
    "repeated extension": (
        {"i": ("images/{}.jpg", photo), "m": ("masks/{}.jpg.png", mask, 4)},
        {"masks": "masks"},
        ("1", 4, 1),
    ),
    "VOC": (
        {
            "i": ("JPEGImages/2007_{:06d}.jpg", photo),
            "m": ("SegmentationClass/2007_{:06d}.png", mask, 4),
            "o": ("SegmentationObject/2007_{:06d}.png", numbered, 4),
        },
        {"images": "JPEGImages", "masks": "SegmentationClass"},
        ("2007_000001", 4, 1),
    ),
    "Cityscapes": (
        city("train", "aachen") | city("val", "ulm"),
        {
            "images": "leftImg8bit",
            "masks": "gtFine",
            "image_suffix": "_leftImg8bit",
            "mask_suffix": "_gtFine_labelIds",
            "val": "val",
        },
        ("train/aachen/aachen_000001_000019", 10, 0),
    ),
    "KITTI": (
        {
            "i": ("training/image_2/{:06d}_10.png", photo),
            "m": ("training/semantic/{:06d}_10.png", mask),
            "c": ("training/semantic_rgb/{:06d}_10.png", colors),
            "o": ("training/instance/{:06d}_10.png", numbered),
            "t": ("testing/image_2/{:06d}_10.png", photo),
        },
        {"images": "*/image_2", "masks": "*/semantic"},
        ("training/000001_10", 5, 5),
    ),
    "ADE20K": (
        {
            "i": ("images/training/t{}.jpg", photo),
            "m": ("annotations/training/t{}.png", mask),
            "v": ("images/validation/v{}.jpg", photo),
            "w": ("annotations/validation/v{}.png", mask),
        },
        {"images": "images", "masks": "annotations", "val": "validation"},
        ("training/t1", 10, 0),
    ),
    "COCO": (
        {
            "i": ("train2017/t{}.jpg", photo),
            "m": ("annotations/train2017/t{}.png", mask),
            "v": ("val2017/v{}.jpg", photo),
            "w": ("annotations/val2017/v{}.png", mask),
        },
        {"val": "val2017"},
        ("train2017/t1", 10, 0),
    ),
    "nested": (
        {
            "i": ("Train/Rural/images_png/{}.png", photo),
            "m": ("Train/Rural/masks_png/{}.png", mask),
            "j": ("Train/Urban/images_png/{}.png", photo),
            "n": ("Train/Urban/masks_png/{}.png", mask),
            "v": ("Val/Rural/images_png/{}.png", photo),
            "w": ("Val/Rural/masks_png/{}.png", mask),
        },
        {"images": "*/*/images_png", "masks": "*/*/masks_png", "val": "Val"},
        ("Train/Rural/1", 15, 0),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_the_field(here, capsys, name):
    kinds, settings, (image_id, labeled, unlabeled) = LAYOUTS[name]
    found, config, text = init(write(here / "data", COUNT, **kinds), capsys)
    assert {key: config.get(key) for key in settings} == settings, text
    assert len(found.ids("train")) + len(found.ids("val")) == labeled
    assert len(found.ids("unlabeled")) == unlabeled
    number = int(
        "".join(filter(str.isdigit, image_id.split("/")[-1].removesuffix("_000019").removesuffix("_10")))[-3:]
    )
    image, labels = scene(number)
    np.testing.assert_array_equal(found.mask(image_id), labels)
    assert np.abs(found.image(image_id).astype(int) - image).mean() < 25


def test_the_list_of_voc_says_what_to_validate_on(here, capsys):
    kinds = {"i": ("JPEGImages/p{}.jpg", photo), "m": ("SegmentationClass/p{}.png", mask)}
    root = write(here / "data", COUNT, **kinds)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("p1\np3\n")
    (lists / "train.txt").write_text("p0\np2\np4\n")
    found, config, _ = init(root, capsys)
    assert config["val"] == "ImageSets/Segmentation/val.txt"
    assert found.ids("val") == ("p1", "p3")


@pytest.mark.parametrize(
    ("file", "separator", "title", "encoding", "root"),
    [
        ("pairs.csv", ",", "image,mask\n", "utf-8", ""),
        ("pairs.tsv", "\t", "", "utf-8-sig", "./"),
        ("list.txt", " ", "", "utf-8", ""),
        ("list.txt", "  ", "", "utf-8", "/elsewhere/data/"),
        ("liste.csv", ";", "Bild;Maske\n", "utf-16", ""),
        ("pairs.csv", ",", "", "utf-8", "C:\\data\\"),
    ],
)
def test_lists_of_pairs(here, capsys, file, separator, title, encoding, root):
    data = here / "data"
    rows = []
    for number in range(COUNT):
        image, labels = scene(number)
        put(data / "shots" / f"photo {number * 37}.jpg", image)
        if number < 4:
            put(data / "drawn" / f"lab{number * number}x.png", labels)
            rows.append(
                f"{root}shots/photo {number * 37}.jpg{separator}{root}drawn/lab{number * number}x.png"
            )
    text = "\n".join(rows) + "\n"
    text = text.replace("/", "\\").replace("\n", "\r\n") if "\\" in root else text
    (data / file).write_bytes((title + text).encode(encoding))
    found, config, shown = init(data, capsys)
    assert (config["images"], config["pairs"], config.get("masks")) == ("shots", [file], None)
    assert "left aside" not in shown
    assert found.ids("unlabeled") == ("photo 148",)
    np.testing.assert_array_equal(found.mask("photo 74"), scene(2)[1])


def test_titles_say_which_column_holds_the_masks(here, capsys):
    root = write(here / "data", COUNT, i=("shots/p{}.jpg", photo), m=("drawn/{}.png", mask))
    for number in range(COUNT):
        (root / "drawn" / f"{number}.png").rename(root / "drawn" / f"x{number**2}y.png")
    rows = [f"{n},drawn/x{n**2}y.png,shots/p{n}.jpg,train" for n in range(COUNT)]
    (root / "pairs.csv").write_text("\n".join(["id,mask_path,image_path,split", *rows]))
    found, config, _ = init(root, capsys)
    assert (config["images"], config["pairs"]) == ("shots", ["pairs.csv"])
    np.testing.assert_array_equal(found.mask("p2"), scene(2)[1])


def test_a_list_decides_between_masks(here, capsys):
    kinds = {"i": ("images/{}.jpg", photo), "a": ("masks_v1/{}.png", mask), "b": ("masks_v2/{}.png", mask)}
    root = write(here / "data", COUNT, **kinds)
    put(root / "masks_v2" / "1.png", np.roll(scene(1)[1], 5, 1))
    put(root / "masks_v2" / "2.png", np.roll(scene(2)[1], 5, 1))
    (root / "train.txt").write_text("".join(f"images/{n}.jpg masks_v2/{n}.png\n" for n in range(COUNT)))
    found, config, _ = init(root, capsys)
    assert found.files("1")[1] == root / "masks_v2" / "1.png"
    assert config["images"] == "images"


def test_faulty_lists_of_pairs(here, capsys):
    root = write(here / "data", COUNT, i=("images/{}.jpg", photo), m=("drawn/x{}y.png", mask))
    (root / "pairs.csv").write_text("images/0.jpg,drawn/x0y.png\nimages/1.jpg,drawn/x99y.png\n")
    assert "pairs.csv: 1 files are not there: drawn/x99y.png" in refused(root, capsys, "--pairs", "pairs.csv")
    (root / "pairs.csv").write_text("images/0.jpg,drawn/x0y.png\nimages/0.jpg,drawn/x1y.png\n")
    assert "different partners" in refused(root, capsys, "--pairs", "pairs.csv")
    (root / "pairs.csv").write_text("nothing\n")
    assert "names no pair" in refused(root, capsys, "--pairs", "pairs.csv")


@pytest.mark.parametrize(
    ("image", "drawing"),
    [
        ("IMG_{}.JPG", "img_{}.png"),
        ("Feld {}.jpg", "FELD {}.png"),
        ("K\u00e4fer {}.jpg", unicodedata.normalize("NFD", "K\u00e4fer {}.png")),
        (unicodedata.normalize("NFD", "\u00c4hre_{}.jpg"), "\u00e4hre_{}.png"),
        ("Stra\u00dfe{}.jpg", "STRASSE{}.png"),
    ],
)
def test_names_that_differ_in_case_or_unicode_form_alone(here, capsys, image, drawing):
    root = here / "data"
    for number in range(COUNT):
        pixels, labels = scene(number)
        (root / "images").mkdir(parents=True, exist_ok=True)
        put(root / "images" / image.format(number), pixels, format="JPEG")
        put(
            root / "masks" / (drawing if number % 2 else image[: image.rindex(".")] + ".png").format(number),
            labels,
        )
    found, _, text = init(root, capsys)
    assert "5 have a mask" in text
    assert "2 masks are matched though their names differ" in text
    name = image[: image.rindex(".")].format(3)
    np.testing.assert_array_equal(found.mask(name), scene(3)[1])


def test_two_masks_of_one_image_are_refused(here, capsys):
    root = write(here / "data", COUNT, i=("images/IMG_{}.jpg", photo), m=("masks/IMG_{}.png", mask))
    put(root / "masks" / "img_1.png", scene(1)[1])
    text = refused(root, capsys)
    assert "IMG_1 and img_1 both belong to the image IMG_1: they differ in case alone" in text


def test_the_nearest_names_are_shown(here, capsys):
    root = write(here / "data", COUNT, i=("images/i{:02d}.jpg", photo), m=("masks/i{}_mask.png", mask))
    text = refused(root, capsys)
    assert "images: 5 jpg" in text
    assert "masks: 5 png, which look like masks" in text
    assert "images/i00.jpg and masks/i0_mask.png do not match by name; these two are nearest" in text


def test_an_image_of_an_ending_that_is_not_read_is_named(here, capsys):
    root = write(here / "data", COUNT, i=("images/i{:02d}.jpg", photo), m=("masks/i{:02d}.png", mask))
    (root / "images" / "i03.jpg").rename(root / "images" / "i03.xyz")
    (root / "images" / "i02.jpg").rename(root / "images" / "i02b.jpg")
    text = refused(root, capsys)
    assert "i03.xyz is there, but .xyz is not among .jpg" in text
    assert "none is named as i02.png; nearest is i02b.jpg" in text


def test_every_file_is_accounted_for(here, capsys):
    kinds = {
        "i": ("images/{}.jpg", photo),
        "m": ("masks/{}.png", mask),
        "s": ("screenshots/s{}.png", photo, 2),
    }
    root = write(here / "data", COUNT, **kinds)
    for name in ("images/a.heic", "images/B.HEIC", "images/c.CR2", "notes.md", "LICENSE", "images/1.json"):
        (root / name).write_text("{}")
    hidden = (
        "Thumbs.db",
        ".DS_Store",
        "images/Thumbs.db",
        "images/._1.jpg",
        "desktop.ini",
        "images/.cache/1.jpg",
    )
    for name in (*hidden, "__MACOSX/images/1.jpg", "images/@eaDir/1.jpg", ".git/x.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "val.txt").write_text("1\n")
    (root / "classes.txt").write_text("ground\ndisk\nsquare\n")
    found, _, text = init(root, capsys)
    assert "left aside: 2 heic, 1 cr2, 1 json, 1 md, 1 without ending, 2 png in screenshots\n" in text
    assert "5 in images: 5 jpg; 5 have a mask" in text
    assert found.ids("unlabeled") == ()


def test_files_of_labeling_tools_are_named(here, capsys):
    root = write(here / "data", COUNT, i=("images/i{}.jpg", photo))
    for number in range(COUNT):
        (root / "images" / f"i{number}.json").write_text('{"version": "5", "shapes": [{"label": "disk"}]}')
    text = refused(root, capsys)
    assert f"5 labelme files: semiseg reads masks; `semiseg import labelme {root}` makes them" in text


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        (
            "instances.json",
            '{"images": [], "annotations": [], "categories": []}',
            "1 COCO file: .*semiseg import coco",
        ),
        (
            "annotations.xml",
            "<?xml version='1.0'?>\n<annotations><version>1.1</version>",
            "1 CVAT file: .*import cvat",
        ),
        (
            "export.json",
            '[{"data": {}, "annotations": [{"result": []}]}]',
            "1 Label Studio file: .*import label-studio",
        ),
        ("labels/i0.txt", "0 0.1 0.1 0.4 0.1 0.4 0.4\n", "1 YOLO file: .*import yolo"),
        ("i0.xml", "<annotation><object/></annotation>", "1 VOC file: semiseg reads masks; export masks"),
        (
            "i0_polygons.json",
            '{"imgHeight": 4, "imgWidth": 4, "objects": []}',
            "1 cityscapes file: .*import cityscapes",
        ),
        ("via.json", '{"_via_settings": {}}', "1 VIA file: semiseg reads masks; export masks"),
        ("masks/i0.npy", "x", r"masks holds 1 npy named as the images, but \.npy is not among \.png"),
    ],
)
def test_what_lies_in_place_of_masks_is_named(here, capsys, name, content, answer):
    root = write(here / "data", COUNT, i=("images/i{}.jpg", photo))
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(content)
    text = refused(root, capsys)
    assert re.search(answer, text), text


ROOTS = [
    "a b",
    "a#b",
    "a'b",
    'a"b',
    "a[1]",
    "a?b",
    "a,b",
    "a{b}",
    "$HOME",
    "a*b",
    "cost ${x}",
    "a\\${x}",
    "~x",
    "100%",
    "- x",
]


@pytest.mark.parametrize("name", ROOTS)
def test_names_of_roots_are_taken_as_they_are(here, capsys, name):
    kinds = {"i": ("images/{}.jpg", photo), "m": ("masks/{}.png", mask)}
    root = write(here / name, 3, **kinds)
    write(here / "a1b", 4, **kinds)
    assert main(["init", str(root), "--name", "own"]) == 0
    assert "images   3 in images" in capsys.readouterr().out
    assert OmegaConf.load(here / "dataset" / "own.yaml")["root"] == str(root)


def test_a_run_reads_a_root_that_looks_like_a_reference(here, capsys):
    root = write(here / "cost ${x} \\${y}", 3, i=("images/{}.jpg", photo), m=("masks/{}.png", mask))
    assert main(["init", str(root), "--name", "own"]) == 0
    assert main(["splits", "check", "dataset=own", "split=full"]) == 0
    assert "2 labeled, 1 val" in capsys.readouterr().out


def test_prefixes_and_whole_names_as_options(here, capsys):
    root = write(
        here / "data", COUNT, i=("c{}/image.png", photo), m=("c{}/mask.png", mask), o=("c{}/old.png", mask)
    )
    found, config, _ = init(root, capsys, "--image-suffix", "image", "--mask-suffix", "mask")
    assert (config["image_suffix"], config["mask_suffix"]) == ("/image", "/mask")
    by_hand = Folder(**{**config, "image_suffix": "image", "mask_suffix": "mask"})
    assert by_hand.ids("val") == found.ids("val")
    assert Path(by_hand.files("c1")[1]) == root / "c1" / "mask.png"


@pytest.mark.parametrize(("values", "drawn"), [(1, 255), (255, 200)])
def test_drawn_images_are_taken_by_the_command_that_the_refusal_prints(capsys, values, drawn):
    for number in range(5):
        drawing = np.zeros((24, 32), np.uint8)
        drawing[4 + number : 16, 5:20] = drawn
        for folder, pixels in (("scans", drawing), ("masks", np.uint8(values) * (drawing > 0))):
            Path("own data", folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(Path("own data", folder, f"{number}.png"))
    assert main(["init", "own data"]) == 2
    command = re.search("If they are images: semiseg (.*)", capsys.readouterr().err)
    assert command is not None
    assert command[1].endswith(" --images scans --masks masks")
    assert main(shlex.split(command[1])) == 0
