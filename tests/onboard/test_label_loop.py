"""Masks of ``semiseg label`` are corrected in a tool or an editor, and ``semiseg init`` makes a dataset of them."""

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image

from semiseg.apply.label_folder import LabelFolder
from semiseg.apply.mask_coding import mask_coding
from semiseg.cli import main
from semiseg.data.file_faults import check_files
from semiseg.data.folder import Folder
from semiseg.splits.split import make_split

NAMES = {2: ["soil", "weed 2"], 3: ["soil", "weed, wet", "#1 wheat"]}
PHOTOS = ("east", "north", "south", "west")
UNLABELED = 255
SHAPE = (20, 24)


def label_map(number: int, classes: int) -> np.ndarray:
    """Regions of all classes, and a part that is not labeled."""
    label = np.zeros(SHAPE, np.uint8)
    for each in range(1, classes):
        label[4 * each : 4 * each + 3, 2 + number : 14 + number] = each
    label[:, 20:] = UNLABELED
    return label


def picture(values: np.ndarray, palette: Mapping[int, tuple[int, int, int]] | None = None) -> Image.Image:
    made = Image.fromarray(values.astype(np.uint8))
    if palette:
        made.putpalette([channel for index in range(256) for channel in palette.get(index, (9, 9, 9))])
    return made


def gray(*numbers: int) -> Callable[[np.ndarray], Image.Image]:
    return lambda label: picture(np.array(numbers)[label])


def color(*colors: tuple[int, ...]) -> Callable[[np.ndarray], Image.Image]:
    return lambda label: picture(np.array(colors)[label])


OWN = {(200, 30, 30): 1, (30, 200, 30): 2, (250, 250, 250): 0}
KINDS: dict[str, tuple[int, Callable[[np.ndarray], Image.Image]]] = {
    "0 and 255": (2, gray(0, 255)),
    "0 and 1": (2, gray(0, 1)),
    "one bit": (2, lambda label: picture(label * 255).convert("1")),
    "many": (3, gray(0, 1, 2)),
    "255 as a class": (3, gray(0, 128, 255)),
    "spread": (3, gray(10, 7, 200)),
    "own palette": (3, lambda label: picture(label, {value: rgb for rgb, value in OWN.items()})),
    "colors": (3, color((0, 0, 0), (255, 0, 0), (0, 0, 255))),
    "white as a class": (2, color((40, 40, 40), (255, 255, 255))),
    "transparent ground": (3, color((0, 0, 0, 0), (255, 0, 0, 255), (0, 255, 0, 255))),
    "16 bits": (2, lambda label: Image.fromarray(np.array([0, 1000], np.uint16)[label])),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(name: str) -> dict[str, Any]:
    content = yaml.safe_load(Path(f"dataset/{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key != "defaults"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Datasets of own masks by kind: the config that ``semiseg init`` writes for each."""
    base = tmp_path_factory.mktemp("own")

    @cache
    def made(kind: str) -> dict[str, Any]:
        classes, draw = KINDS[kind]
        root = base / str(list(KINDS).index(kind))
        for number in range(4):
            label = label_map(number, classes)
            label[label == UNLABELED] = 0
            for folder in ("images", "masks"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            noise(number).save(root / f"images/{number}.jpg")
            draw(label).save(root / f"masks/{number}.png")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            assert main(["init", ".", "--name", "own"]) == 0
            return config("own")

    return made


def noise(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8))


def labeled(settings: dict[str, Any], classes: int) -> None:
    """Write what ``semiseg label`` writes for a run that was trained on a dataset."""
    names = NAMES[classes]
    info = Folder(**{**settings, "classes": names}).info
    sources = {}
    Path("photos").mkdir()
    for number, name in enumerate(PHOTOS):
        sources[name] = Path(f"photos/{name}.png").absolute()
        noise(100 + number).save(sources[name])
    folder = LabelFolder(Path("next"), sources, mask_coding({**settings, "classes": names}, info), link=False)
    folder.open(False, "origin")
    for number, name in enumerate(sources):
        folder.write(name, label_map(number, classes), np.ones(SHAPE, np.float32))
    folder.close([], list(sources), info, {})


def same_up_to_names(found: Folder, image_id: str, names: list[str], expected: np.ndarray) -> None:
    """Compare labels by the names of their classes."""
    order = [found.info.classes.index(name) for name in names]
    mask = found.mask(image_id)
    assert mask is not None
    np.testing.assert_array_equal(mask, np.array([*order, *range(len(order), 255), 255])[expected])


EDITORS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "unchanged": lambda mask: mask,
    "RGB": lambda mask: mask.convert("RGBA").convert("RGB"),
    "RGBA": lambda mask: mask.convert("RGBA"),
    "other palette": lambda mask: mask.convert("RGB").quantize(16),
    "grey": lambda mask: mask.convert("RGB").convert("L"),
}


def edited(editor: str, masks: slice) -> None:
    for path in sorted(Path("next/masks").iterdir())[masks]:
        EDITORS[editor](Image.open(path)).save(path)


ALL, ONE = slice(None), slice(1)
PAIRS = [(kind, editor, ALL) for kind in KINDS for editor in EDITORS]
PAIRS += [(kind, editor, ONE) for kind in ("0 and 255", "own palette", "colors") for editor in EDITORS]
LOSSES = ("RGB", "other palette", "grey")
"""Editors that lose transparency; and all but the first lose numbers of 16 bits."""


@pytest.mark.parametrize(("kind", "editor", "masks"), PAIRS)
def test_corrected_masks_become_a_dataset(
    own: Callable[[str], dict[str, Any]],
    kind: str,
    editor: str,
    masks: slice,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if (kind == "16 bits" and editor != "unchanged") or (kind == "transparent ground" and editor in LOSSES):
        return
    classes, _ = KINDS[kind]
    labeled(own(kind), classes)
    edited(editor, masks)
    if editor == "grey" and masks == ONE:
        assert main(["init", "next"]) == 2
        assert "east.png" in capsys.readouterr().err
        return
    assert main(["init", "next"]) == 0
    found = Folder(**config("next"))
    assert sorted(found.info.classes) == sorted(NAMES[classes])
    for number, name in enumerate(PHOTOS):
        same_up_to_names(found, name, NAMES[classes], label_map(number, classes))


def test_photos_stay_unturned_where_label_read_them_so(
    own: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**own("0 and 255"), "classes": NAMES[2]}
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 3
    Path("photos").mkdir()
    sources = {name: Path(f"photos/{name}.jpg").absolute() for name in PHOTOS}
    for number, path in enumerate(sources.values()):
        noise(number).save(path, exif=tags)
    info = Folder(**settings).info
    folder = LabelFolder(Path("next"), sources, mask_coding(settings, info), False, "ignore")
    folder.open(False, "origin")
    for number, name in enumerate(sources):
        folder.write(name, label_map(number, 2), np.ones(SHAPE, np.float32))
    folder.close([], list(sources), info, {"exif": "ignore"})
    assert main(["init", "next"]) == 0
    assert (
        "label.json says that the labels are those of pictures as they are stored" in capsys.readouterr().out
    )
    assert config("next")["exif"] == "ignore"
    assert main(["init", "next", "--exif", "apply", "--force"]) == 0
    assert "exif" not in config("next") or config("next")["exif"] == "apply"


@pytest.mark.parametrize("kind", KINDS)
def test_masks_can_be_put_beside_those_of_the_run(own: Callable[[str], dict[str, Any]], kind: str) -> None:
    classes, _ = KINDS[kind]
    settings = {**own(kind), "root": str(Path("own").absolute())}
    shutil.copytree(own(kind)["root"], "own")
    labeled(settings, classes)
    for folder in ("images", "masks"):
        for path in Path("next", folder).iterdir():
            path.rename(Path("own", folder, path.name))
    for how in (settings, {key: value for key, value in settings.items() if key != "mask_format"}):
        found = Folder(**how)
        report = check_files(found, make_split(found, "full"))
        assert report.skipped == ()
        for number, name in enumerate(PHOTOS):
            mask = found.mask(name)
            np.testing.assert_array_equal(mask, label_map(number, classes))
    assert main(["init", "own"]) == 0
