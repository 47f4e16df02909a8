"""Small pictures and label files, drawn for the tests."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from semiseg.cli import main

FILES = Path(__file__).parents[1] / "fixtures" / "labels"
HEIGHT, WIDTH = 30, 40
GENERATOR = np.random.default_rng(0)


def photo(path, size=(HEIGHT, WIDTH), orientation=1):
    """A picture of noise, turned by EXIF where asked for; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(GENERATOR.integers(0, 256, (*size, 3), dtype=np.uint8))
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    picture.save(path, exif=exif)
    return path


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def imported(*words, name="d"):
    """Import label files; the masks by id and the classes of the config."""
    assert main(["import", *map(str, words), "--name", name]) == 0
    return masks(name), config(name)["classes"]


def masks(name="d"):
    folder = Path("dataset") / f"{name}.masks"
    paths = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))
    }
    return {image_id: np.array(Image.open(path)) for image_id, path in paths.items()}


def config(name="d"):
    return yaml.safe_load(Path(f"dataset/{name}.yaml").read_text(encoding="utf-8"))


def counts(mask):
    """Number of pixels of each value."""
    return dict(Counter(mask.ravel().tolist()))


def labelme(folder, stem, shapes, size=(HEIGHT, WIDTH), **more):
    """A picture and its JSON of labelme; a shape is a label, a kind and points."""
    photo(folder / f"{stem}.jpg", size)
    entries = [{"label": label, "shape_type": kind, "points": points} for label, kind, points in shapes]
    content = {"shapes": entries, "imagePath": f"{stem}.jpg", "imageHeight": size[0], "imageWidth": size[1]}
    return write_json(folder / f"{stem}.json", {**content, **more})


def coco(path, annotations, categories=("disk", "box"), images=("a.jpg", "b.jpg"), size=(HEIGHT, WIDTH)):
    """A JSON of COCO, whose categories have the numbers 7, 8, ...; pictures are drawn beside it."""
    for name in images:
        photo(path.parent / name, size)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": size[0], "width": size[1]}
            for number, name in enumerate(images)
        ],
        "categories": [{"id": 7 + number, "name": name} for number, name in enumerate(categories)],
        "annotations": [{"id": number, "iscrowd": 0, **each} for number, each in enumerate(annotations)],
    }
    return write_json(path, content)


def square(left, top, side):
    """Corners of a square as COCO writes them."""
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def blobs(size, classes, generator):
    """A label map of large areas with holes, some of it not labeled."""
    coarse = generator.integers(0, classes + 1, (max(size[0] // 5, 2), max(size[1] // 5, 2)))
    rows = np.arange(size[0]) * coarse.shape[0] // size[0]
    columns = np.arange(size[1]) * coarse.shape[1] // size[1]
    label_map = coarse[rows][:, columns].astype(np.uint8)
    label_map[generator.random(size) < 0.03] = 0
    label_map[label_map == classes] = 255
    return label_map
