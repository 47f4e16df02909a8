"""Every command of docs/tools, on files as the tools write them."""

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import FILES, labelme, photo, write_json
from PIL import Image

from semiseg.cli import main

PAGES = Path(__file__).parents[2] / "docs" / "tools"


def commands(page):
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    assert blocks
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def place(tmp_path, monkeypatch, varied_run):
    """A working directory with pictures and a finished run."""
    monkeypatch.chdir(tmp_path)
    for stem in "pq":
        photo(Path("photos", f"{stem}.jpg"), (48, 48))
    shutil.copytree(varied_run, "run")
    return tmp_path


def run(page, before=None):
    """Run the commands of a page; ``before`` is called with each, as what a person does in between."""
    for words in commands(page):
        if before is not None:
            before(words)
        if words[0] == "semiseg":
            assert main(words[1:]) == 0, words
        else:
            subprocess.run([str(Path(sys.executable).with_name(words[0])), *words[1:]], check=True)


def copied(words, source, target):
    """Copy what was exported where a command reads what was corrected."""
    if any(word.startswith(target) for word in words) and not Path(target).exists():
        shutil.copytree(source, target)


def test_cvat(place):
    text = (FILES / "cvat.xml").read_text().replace("</annotations>", "")
    image = re.search(r"<image.*</image>", text, re.DOTALL)[0]
    for stem in "pq":
        photo(Path("photos", f"{stem}.jpg"))
    Path("annotations.xml").write_text(text + image.replace("p.jpg", "q.jpg") + "</annotations>")
    with zipfile.ZipFile("masks.zip", "w") as archive:
        Image.fromarray(np.eye(30, 40, dtype=np.uint8) * 128).convert("RGB").save("m.png")
        for stem in "pq":
            archive.write("m.png", f"SegmentationClass/{stem}.png")
        archive.writestr("labelmap.txt", "background:0,0,0::\nline:128,128,128::\n")
    run("cvat", lambda words: copied(words, "for_cvat", "corrected"))
    assert (masks_of("street_2") == predicted()).all()


def test_label_studio(place):
    tasks = json.loads((FILES / "label_studio.json").read_text())[:1]
    tasks.append(json.loads(json.dumps(tasks[0]).replace("1b2c3d4e-p", "5f6a7b8c-q")) | {"id": 2})
    write_json(Path("export.json"), tasks)
    for stem in "pq":
        photo(Path("photos", f"{stem}.jpg"))
    Path("label_config.xml").write_text('<View><B><Label value="disk"/><Label value="blob"/></B></View>')
    Path("brush_pngs").mkdir()
    for number in (1, 2):
        name = "task-1-annotation-7-by-1-tag-blob-0.png"
        shutil.copy(FILES / name, Path("brush_pngs", name.replace("task-1", f"task-{number}")))

    def accept(words):
        if "corrected.json" in words:
            exported = json.loads(Path("for_label_studio/tasks.json").read_text())
            accepted = [{"data": task["data"], "annotations": task["predictions"]} for task in exported]
            write_json(Path("corrected.json"), accepted)

    run("label_studio", accept)
    assert (masks_of("street_2") == predicted()).all()


def test_labelme(place):
    for stem in "pq":
        path = labelme(Path("data"), stem, [("disk", "polygon", [[3, 3], [20, 3], [20, 20]])])
        content = json.loads(path.read_text())
        photo(Path("inside.png"))
        content["imageData"] = base64.b64encode(Path("inside.png").read_bytes()).decode()
        write_json(path, content)
    run("labelme")
    assert Path("photos_of_labelme/p.png").exists()
    assert (masks_of("street_2") == predicted()).mean() > 0.9


def test_gimp_photoshop(place):
    ground = np.zeros((48, 48, 3), np.uint8)
    ground[5:20, 5:20] = (255, 0, 0)
    ground[30:40, 5:20] = (0, 0, 255)
    for stem in "pq":
        photo(Path("painted", "images", f"{stem}.jpg"), (48, 48))
        Path("painted/masks").mkdir(exist_ok=True)
        Image.fromarray(ground).save(f"painted/masks/{stem}.png")

    def edit(words):
        if words[:3] == ["semiseg", "init", "labeled"]:
            for path in Path("labeled/masks").glob("*.png"):
                Image.open(path).convert("RGB").save(path)

    run("gimp_photoshop", edit)


def test_qgis(place):
    rasterio = pytest.importorskip("rasterio", reason="rasterio is in the extra geo")
    pytest.importorskip("click", reason="click is needed by rio")
    from rasterio.transform import from_origin

    Path("fields/images").mkdir(parents=True)
    Path("fields/masks").mkdir()
    for number in (1, 2):
        grid = {"transform": from_origin(500_000 * number, 5_000_000, 2, 2), "crs": "EPSG:32633"}
        shape = {"driver": "GTiff", "height": 48, "width": 64, "count": 3, "dtype": "uint8"}
        with rasterio.open(f"fields/images/tile_{number}.tif", "w", **shape, **grid) as file:
            file.write(np.random.default_rng(number).integers(0, 255, (3, 48, 64), dtype=np.uint8))
        left, top = 500_000 * number, 5_000_000
        write_json(
            Path(f"tile_{number}.geojson"),
            {
                "type": "FeatureCollection",
                "features": [
                    area(0, left, top, 64, 40),
                    area(1, left + 10, top - 10, 20, 20),
                ],
            },
        )
    run("qgis")
    mask = np.array(Image.open("fields/masks/tile_1.tif"))
    assert (mask == 1).sum() == 100
    assert (mask == 0).sum() == 32 * 20 - 100
    assert mask[5, 5] == 1
    areas = json.loads(Path("areas_1.geojson").read_text())["features"]
    assert {each["properties"]["val"] for each in areas} <= set(range(8))
    assert areas[0]["geometry"]["coordinates"][0][0][0] >= 500_000


def area(value, left, top, width, height):
    corners = [
        (left, top),
        (left + width, top),
        (left + width, top - height),
        (left, top - height),
        (left, top),
    ]
    geometry = {"type": "Polygon", "coordinates": [corners]}
    return {"type": "Feature", "properties": {"class": value}, "geometry": geometry}


def masks_of(name):
    return np.array([np.array(Image.open(f"dataset/{name}.masks/{stem}.png")) for stem in "pq"])


def predicted():
    return np.array([np.array(Image.open(f"predicted/labels/{stem}.png")) for stem in "pq"])
