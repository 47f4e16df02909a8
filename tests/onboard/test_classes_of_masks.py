"""Classes and formats that ``semiseg init`` decides on from all masks: depth, transparency, edges and artifacts."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw, ImageFilter
from scenes import scene

from semiseg.cli import main
from semiseg.data.folder import Folder

Draw = Callable[[np.ndarray, int], Image.Image]
COLORS = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 200)], np.uint8)
COUNT = 8
FEW = (3, 6)


def gray(*values: int) -> Draw:
    return lambda label, number: Image.fromarray(np.array(values, np.uint8)[label])


def color(label: np.ndarray, number: int = 0) -> Image.Image:
    return Image.fromarray(COLORS[label])


def palette(*colors: tuple[int, int, int]) -> Draw:
    def draw(label: np.ndarray, number: int) -> Image.Image:
        made = Image.fromarray(label)
        made.putpalette([channel for each in colors for channel in each])
        return made

    return draw


def jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=75)
    return Image.open(io.BytesIO(file.getvalue())).copy()


def smooth(picture: Image.Image) -> Image.Image:
    size = picture.size
    large = picture.resize((4 * size[0], 4 * size[1]), Image.Resampling.NEAREST)
    return large.filter(ImageFilter.GaussianBlur(2)).resize(size, Image.Resampling.BOX)


def blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(6))


def scaled(picture: Image.Image) -> Image.Image:
    small = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST)
    return small.resize(picture.size, Image.Resampling.BILINEAR)


def few(draw: Draw, how: Callable[[Image.Image], Image.Image]) -> Draw:
    return lambda label, number: how(draw(label, number)) if number in FEW else draw(label, number)


def every(draw: Draw, how: Callable[[Image.Image], Image.Image]) -> Draw:
    return lambda label, number: how(draw(label, number))


def mixed(even: Draw, odd: Draw) -> Draw:
    return lambda label, number: (odd if number % 2 else even)(label, number)


def one_bit(label: np.ndarray, number: int) -> Image.Image:
    return Image.fromarray((label == 1).astype(np.uint8) * 255).convert("1")


def moved(label: np.ndarray, number: int) -> Image.Image:
    colors = np.zeros((10, 3), np.uint8)
    colors[[0, 5, 9]] = COLORS
    return palette(*map(tuple, colors.tolist()))(np.array([0, 5, 9], np.uint8)[label], number)


def deep(label: np.ndarray, number: int) -> Image.Image:
    return Image.fromarray((label == 1).astype(np.uint16) * 65535)


def clear_ground(label: np.ndarray, number: int) -> Image.Image:
    hidden = (255, 255, 255) if number % 2 else (0, 0, 0)
    colors = np.array([(*hidden, 0), (200, 0, 0, 255), (0, 0, 200, 255)], np.uint8)
    return Image.fromarray(colors[label])


def white_ground(mask: Image.Image) -> Image.Image:
    pixels = np.array(mask)
    pixels[pixels[..., 3] == 0] = 255
    return Image.fromarray(pixels)


def clear_number(label: np.ndarray, number: int) -> Image.Image:
    return Image.fromarray(np.stack([label, (label > 0) * np.uint8(255)], axis=2))


def clear_index(label: np.ndarray, number: int) -> Image.Image:
    made = palette((9, 9, 9), (255, 0, 0), (0, 255, 0))(label, number)
    made.info["transparency"] = bytes([0, 255, 255])
    return made


def outline(value: int, where: Callable[[int], bool] = lambda number: True, width: int = 1) -> Draw:
    """The disk is 255 with an outline of some pixels."""

    def draw(label: np.ndarray, number: int) -> Image.Image:
        disk = label == 1
        inner = disk.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                for pixels in range(1, width + 1):
                    inner &= np.roll(disk, step * pixels, axis)
        found = disk.astype(np.uint8) * 255
        found[disk & ~inner & where(number)] = value
        return Image.fromarray(found)

    return draw


def strays(label: np.ndarray, number: int) -> Image.Image:
    found = label.copy()
    if number == 3:
        found[1, 1] = found[30, 2] = 7
    return Image.fromarray(found)


def lines(classes: int) -> Draw:
    """Lines of one pixel, as cracks and vessels are drawn."""

    def draw(label: np.ndarray, number: int) -> Image.Image:
        made = Image.new("L", label.shape[::-1])
        rng = np.random.default_rng(number)
        for value in range(1, classes + 1):
            points = [tuple(rng.integers(0, 40, 2).tolist()) for _ in range(4)]
            ImageDraw.Draw(made).line(points, fill=value)
        return made

    return draw


def objects(label: np.ndarray, number: int) -> Image.Image:
    values = np.random.default_rng(number).integers(1, 250, 2)
    return Image.fromarray(np.array([0, *values], np.uint8)[label])


def numbered(label: np.ndarray, number: int) -> Image.Image:
    found = np.zeros_like(label)
    for value in range(1, 4 + number):
        found[3 * value : 3 * value + 2, 5:25] = value
    return Image.fromarray(found)


def write(root: Path, draw: Draw) -> Path:
    for number in range(COUNT):
        image, label = scene(number)
        for folder, picture in (("images", Image.fromarray(image)), ("masks", draw(label, number))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            picture.save(root / folder / f"i{number}.png")
    return root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written() -> dict[str, Any]:
    content = yaml.safe_load(Path("dataset/own.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key != "defaults"}


FILES = r"i3\.png, i6\.png"
BINARY = [0, 255]
RED, BLUE, BLACK = "#c80000", "#0000c8", "#000000"


@pytest.mark.parametrize(
    ("draw", "values", "note"),
    [
        pytest.param(gray(0, 255, 0), BINARY, "255 counts as a class", id="0 and 255"),
        pytest.param(gray(0, 1, 255), [0, 1], None, id="0, 1 and void"),
        pytest.param(gray(0, 128, 255), [0, 128, 255], "255 counts as a class", id="128 as half"),
        pytest.param(gray(1, 2, 255), [1, 2], '255 means "not labeled"', id="1, 2 and void"),
        pytest.param(mixed(gray(0, 255, 0), one_bit), BINARY, "white is read as 255: i1.png", id="one bit, 255"),
        pytest.param(mixed(gray(0, 1, 0), one_bit), [0, 1], "white is read as 1: i1.png", id="one bit, 1"),
        pytest.param(mixed(gray(0, 0, 0), one_bit), BINARY, "white is read as 255", id="one bit, empty"),
        pytest.param(one_bit, [0, 1], None, id="one bit"),
        pytest.param(clear_ground, ["transparent", BLUE, RED], "transparent counts as a class", id="transparent"),
        pytest.param(clear_index, ["transparent", 1, 2], "transparent counts as a class", id="clear index"),
        pytest.param(few(gray(0, 255, 0), smooth), BINARY, FILES, id="few smoothed"),
        pytest.param(every(gray(0, 255, 0), smooth), BINARY, "8 of 8 masks", id="all smoothed"),
        pytest.param(few(gray(0, 255, 0), jpeg), BINARY, FILES, id="few from JPEG"),
        pytest.param(every(gray(0, 255, 0), jpeg), BINARY, "8 of 8 masks", id="all from JPEG"),
        pytest.param(few(gray(0, 100, 200), jpeg), [0, 100, 200], FILES, id="three classes from JPEG"),
        pytest.param(outline(128, lambda number: number in FEW), BINARY, FILES, id="half at few edges"),
        pytest.param(outline(128, lambda number: number in FEW, 2), BINARY, FILES, id="bands at few edges"),
        pytest.param(outline(128), [0, 128, 255], "stands in thin lines", id="outlines everywhere"),
        pytest.param(few(gray(0, 2, 2), scaled), [0, 2], FILES, id="between 0 and 2"),
        pytest.param(strays, [0, 1, 2], r"hold 7 \(2 pixels, 0\.01%, in i3\.png\)", id="stray pixels"),
        pytest.param(lines(1), [0, 1], None, id="cracks"),
        pytest.param(lines(3), [0, 1, 2, 3], None, id="vessels"),
        pytest.param(objects, None, "values are in one mask alone, as numbers of objects", id="objects"),
        pytest.param(numbered, None, "each mask numbers its regions from 1 on", id="numbered objects"),
        pytest.param(mixed(gray(0, 200, 100), color), [BLACK, BLUE, "#646464", RED, "#c8c8c8"], "different ways",
                     id="grey and color"),
        pytest.param(mixed(gray(0, 1, 2), every(gray(0, 1, 2), lambda each: each.convert("RGB"))), [0, 1, 2], None,
                     id="grey as RGB"),
        pytest.param(mixed(palette((0, 0, 0), (200, 0, 0), (0, 0, 200)), color), [BLACK, BLUE, RED], "different ways",
                     id="palette and color"),
        pytest.param(mixed(palette((0, 0, 0), (200, 0, 0), (0, 0, 200)), palette((0, 0, 0), (0, 0, 200), (200, 0, 0))),
                     [BLACK, BLUE, RED], None, id="two palettes"),
        pytest.param(mixed(palette((0, 0, 0), (200, 0, 0), (0, 0, 200)), moved), [BLACK, BLUE, RED], None,
                     id="other indices"),
        pytest.param(mixed(palette((0, 0, 0), (200, 0, 0), (0, 0, 200)), gray(0, 1, 2)), [0, 1, 2],
                     "read by their numbers", id="palette and grey"),
        pytest.param(mixed(palette((0, 0, 0), (255, 255, 255), (9, 9, 9)), gray(0, 255, 9)),
                     [BLACK, "#090909", "#ffffff"], "different ways", id="palette and its greys"),
    ],
)  # fmt: skip
def test_classes_and_notes(
    here: Path, capsys: pytest.CaptureFixture[str], draw: Draw, values: list[Any] | None, note: str | None
) -> None:
    assert main(["init", str(write(here / "own", draw))]) == 0
    text = capsys.readouterr().out
    settings = written()
    if values is not None:
        assert (settings.get("values") or list(range(len(settings["classes"])))) == values
    if note is not None:
        assert re.search(note, text)
    else:
        assert "masks hold" not in text
    found = Folder(**settings)
    assert {found.mask(f"i{number}").shape for number in range(COUNT)} == {(40, 48)}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (mixed(gray(0, 1, 255), one_bit), r"4 masks have one bit.*white may be either: i1\.png, i3\.png"),
        (every(gray(0, 255, 0), blurred), "8 of 8 .*maps of probabilities"),
        (few(gray(0, 255, 0), blurred), f"2 of 8 masks.*{FILES}"),
        (mixed(gray(0, 1, 2), color), r"these are grey and hold 0, 1, 2, .* i0\.png, i2\.png"),
        (few(color, jpeg), f"only at edges, in 2 of 8 masks: {FILES}"),
        (every(color, smooth), "only at edges, in 8 of 8 masks"),
        (mixed(palette((0, 0, 0), (200, 0, 0), (0, 0, 200)), every(color, lambda each: each.convert("L"))),
         "Grey values may be indices, or shades of colors.*i1.png"),
        (mixed(gray(0, 1, 0), gray(0, 255, 0)), r"4 hold 1: i0.*4 hold 255: i1.*\[0,\[1,255\]\].*--void 255"),
        (few(gray(0, 1, 0), lambda mask: mask.point(lambda value: 255 * value)), f"6 hold 1: i0.*2 hold 255: {FILES}"),
        (mixed(gray(0, 1, 2), gray(0, 128, 255)), r"4 hold 1, 2: i0.*4 hold 128, 255: i1.*\[1,128\],\[2,255\]"),
        (mixed(gray(0, 255, 0), deep), "4 hold 255: i0.*4 hold 65535: i1"),
        (mixed(one_bit, deep), "4 hold 255: i0.*4 hold 65535: i1"),
        (mixed(gray(0, 1, 2), palette((0, 0, 0), (0, 128, 0), (128, 0, 0))), "Grey values may be indices.*i0.png"),
        (mixed(color, clear_ground), "4 hold transparent: i1.*4 hold #000000: i0.*--void transparent"),
        (few(clear_ground, white_ground), f"6 hold transparent: i0.*2 hold #ffffff: {FILES}"),
        (mixed(gray(0, 1, 2), clear_number), "4 hold transparent: i1.*4 hold 0: i0"),
        (gray(7, 7, 7), r"hold 7 \(15,360 pixels, 100\.00%"),
    ],
)  # fmt: skip
def test_masks_that_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], draw: Draw, message: str
) -> None:
    root = write(here / "own", draw)
    assert main(["init", str(root), "--images", "images", "--masks", "masks"]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["--void", "255"], [0, 1]),
        (["--classes", "ground=0,disk=1,square=255"], [0, 1, 255]),
    ],
)
def test_two_scales_that_are_explained(here: Path, options: list[str], values: list[int]) -> None:
    root = write(here / "own", mixed(gray(0, 1, 0), gray(0, 255, 0)))
    assert main(["init", str(root), *options]) == 0
    assert (written().get("values") or list(range(len(written()["classes"])))) == values


def test_255_beside_1_in_one_mask_is_void(here: Path) -> None:
    def draw(label: np.ndarray, number: int) -> Image.Image:
        return gray(0, 1, 255)(label if number == 0 else np.where(label == number % 2 + 1, label, 0), number)

    assert main(["init", str(write(here / "own", draw))]) == 0
    assert len(written()["classes"]) == 2


def test_a_folder_of_one_bit_masks_grows(here: Path) -> None:
    root = write(here / "own", mixed(gray(0, 255, 0), one_bit))
    assert main(["init", str(root)]) == 0
    assert written()["mask_format"] == {"kind": "gray", "white": 255}
    found = Folder(**written())
    for number in range(COUNT):
        _, label = scene(number)
        np.testing.assert_array_equal(found.mask(f"i{number}"), label == 1)


NAMES = "ground\ndisk\nsquare\n"


@pytest.mark.parametrize(
    ("draw", "text", "names", "void", "note"),
    [
        (gray(0, 1, 2), "__ignore__\nground\ndisk\nsquare\n", None, None, '"__ignore__" is taken for "not labeled"'),
        (gray(0, 1, 2), "void\nground\ndisk\nsquare\n", None, None, '"void" is taken for "not labeled"'),
        (gray(0, 1, 2), "ground\ndisk\nsquare\nunlabeled\n", None, None, '"unlabeled" is taken for "not labeled"'),
        (gray(1, 2, 3), "unlabeled\nground\ndisk\nsquare\n", None, None, None),
        (gray(0, 1, 2), "ground\ndisk\nvoid\n", ["ground", "disk"], [2], "void .2, .* as its name"),
        (gray(0, 1, 2), "unlabeled\ndisk\nsquare\n", ["unlabeled", "disk", "square"], None, "is taken for a class"),
        (gray(0, 1, 2), "ground 66\ndisk 1\nsquare 5\n", ["ground 66", "disk 1", "square 5"], None, None),
        (gray(0, 1, 2), "ground 0\ndisk 1\nsquare 2\n", None, None, "the numbers in .* are taken for the values"),
        (gray(0, 1, 255), "void,0,#000000\ndisk,1,#800000\n(not labeled),255,#ffffff\n", ["void", "disk"], None, None),
        (few(gray(0, 2, 2), scaled), "ground\ndisk\nsquare\n", ["ground", "disk", "square"], None, None),
        (gray(0, 255, 9), "ground,0\ndisk,255\nsquare,9\n", None, None, None),
        (gray(0, 255, 254), "ground,0\ndisk,255\n(not labeled),254\n", ["ground", "disk"], [254], None),
        (gray(0, 255, 0), "ground\ndisk\n", ["ground", "disk"], None, "255 counts as the class disk"),
        (gray(0, 1, 255), NAMES, None, None, "255 counts as the class square"),
        (color, "square,#0000c8\ndisk,#c80000\nground,#000000\n", None, None, None),
        (color, NAMES, ["ground", "disk", "square"], None, "given to the colors in the order of this table"),
        (palette((0, 0, 0), (200, 0, 0), (0, 0, 200)), "square:0,0,200::\ndisk:200,0,0::\nground:0,0,0::\n", None, None,
         None),
        (palette((0, 0, 0), (200, 0, 0), (0, 0, 200)),
         "square:0,0,200::\ndisk:200,0,0::\nground:0,0,0::\ncross:9,9,9::\n", ["ground", "disk", "square"], None,
         r"colors no mask has; they are left out: cross \(#090909\)"),
        (gray(0, 1, 2), "name,id,trainId\nego,1,255\nground,7,0\ndisk,26,1\nsquare,24,2\n",
         ["ground", "disk", "square"], None, "numbers of the column trainid of .* left out: ego"),
        (gray(7, 26, 24), "name,id,trainId\nground,7,0\ndisk,26,1\nsquare,24,2\n", None, None, None),
        (clear_ground, "ground,transparent\ndisk,#c80000\nsquare,#0000c8\n", None, None, None),
        (few(gray(0, 255, 0), smooth), "ground\ndisk\n", ["ground", "disk"], None, FILES),
        (few(gray(0, 255, 0), smooth), "ground,0\ndisk,255\n", ["ground", "disk"], None, FILES),
    ],
)  # fmt: skip
def test_names_meet_values(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    draw: Draw,
    text: str,
    names: list[str] | None,
    void: list[int] | None,
    note: str | None,
) -> None:
    root = write(here / "own", draw)
    (root / ("labelmap.txt" if "::" in text else "classes.txt")).write_text(text)
    assert main(["init", str(root)]) == 0
    shown = capsys.readouterr().out
    settings = written()
    assert sorted(settings["classes"]) == sorted(names or ["ground", "disk", "square"])
    assert void is None or settings["void"] == void
    assert note is None or re.search(note, shown)
    assert "placeholder_names" not in settings
    found = Folder(**settings)
    _, label = scene(1)
    mask = found.mask("i1")
    assert mask is not None
    for value, name in enumerate(("ground", "disk", "square")):
        if name in found.info.classes and names is None:
            assert ((mask == found.info.classes.index(name)) == (label == value)).all()


@pytest.mark.parametrize(
    ("draw", "text", "message"),
    [
        (gray(0, 1, 2), "ground\ndisk\n", r"names 2 classes, but the masks hold 3 values: 0 .*%, in 8 masks"),
        (gray(0, 1, 2), "disk\nsquare\n", r"all but 0, name that too: --classes background,disk,square "),
        (gray(0, 255, 0), "disk\n", r"--classes background=0,disk=255\n"),
        (gray(0, 1, 0), "disk\n", r"--classes background,disk\n"),
        (gray(0, 7, 9), "disk\nsquare\n", r"too: --classes background=0,disk=7,square=9 "),
        (gray(0, 7, 9), "the disk\nsquare\n", r"too: --classes 'background=0,the disk=7,square=9' "),
        (gray(1, 2, 3), "name,id,trainId\na,1,0\nb,2,1\nc,3,2\nd,4,3\n", "give to different classes, trainid too"),
        (gray(0, 7, 2), "ground,0\ndisk,7\n", r"also hold 2 \([\d,]+ pixels, \d+\.\d\d%, in 8 masks\).*--void 2"),
        (color, "ground,0\ndisk,1\n", "gives numbers, but the masks are color-coded"),
        (gray(2, 1, 0), "unlabeled,0\nvoid,1\ndisk,2\n", r"not labeled. .0, 1. it names 1 classes"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit(
    here: Path, capsys: pytest.CaptureFixture[str], draw: Draw, text: str, message: str
) -> None:
    root = write(here / "own", draw)
    (root / "classes.txt").write_text(text)
    code = main(["init", str(root)])
    output = capsys.readouterr()
    assert (code, bool(re.search(message, output.err))) == (2, True), output.err or output.out
