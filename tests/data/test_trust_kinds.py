"""Kinds of labels that mean little or nothing: refused with the cure, warned of, or trained on without a word."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semiseg.data.file_faults import check_files
from semiseg.data.folder import Folder
from semiseg.data.trust import Trust, weigh
from semiseg.errors import UserError
from semiseg.splits.split import make_split

NO_DISK = "no validation image holds disk: mIoU is over 1 of 2 classes"
NO_GROUND = "no validation image holds ground: mIoU is over 1 of 2 classes"

Masks = Sequence[Sequence[int]]
"""Values of the masks of six images, of which the last two are validated on; each fills a stripe of its own."""


def weighed(
    root: Path, masks: Masks, classes: str, mode: str = "L", split: str = "full", **options: Any
) -> Trust:
    for number, values in enumerate(masks):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
        stripes = np.asarray(values, np.uint8)[np.arange(24) * len(values) // 24][None].repeat(16, 0)
        mask = Image.fromarray(stripes)
        if mode == "P":
            mask = mask.convert("P")
            mask.putpalette(list(range(256)) * 3)
        elif mode == "LA":
            mask.putalpha(Image.fromarray(np.uint8(255) * (stripes > 0)))
        elif mode == "1":
            mask = Image.fromarray(stripes > 0)
        for folder, picture in (("images", coarse.resize((24, 16))), ("masks", mask)):
            (root / folder).mkdir(exist_ok=True)
            picture.save(root / folder / f"a{number}.png")
    (root / "val.txt").write_text("a4\na5\n")
    dataset = Folder(str(root), classes=classes.split(), **options)
    return weigh(dataset, check_files(dataset, make_split(dataset, split)))


CURE = r"If 255 means disk in your masks, add dataset.values=\[0,255\]"
TWO_WAYS = r"written in two ways.* dataset.values=\[0,\[1,255\]\]; .* add dataset.void=\[255\]"
REFUSED: dict[str, tuple[Masks, str, dict[str, Any], str]] = {
    "all masks 0 and 255": ([(0, 255)] * 6, "ground disk", {}, CURE),
    "palette masks of 0 and 255": ([(0, 255)] * 6, "ground disk", {"mode": "P"}, CURE),
    "few masks hold 255": ([(0, 255), (0,), (0,), (0,), (0,), (0,)], "ground disk", {}, CURE),
    "validation masks hold 0 alone": ([(0, 255)] * 4 + [(0,)] * 2, "ground disk", {}, CURE),
    "a split of half of them": ([(0, 255)] * 6, "ground disk", {"split": "1/2"}, CURE),
    "255 nearly everywhere": ([(255,) * 11 + (0,)] * 6, "ground disk", {}, CURE),
    "thin lines of 255": ([(0,) * 11 + (255,)] * 6, "ground disk", {}, CURE),
    "a test part too": ([(0, 255)] * 6, "ground disk", {"test": 0.2}, CURE),
    "255 given as void": ([(0, 255)] * 6, "ground disk", {"void": [255]}, "names the value of each class"),
    "the other class missing": ([(1, 255)] * 6, "ground disk", {}, "shows ground: .* names the value of each class"),
    "three classes": ([(0, 255)] * 6, "ground disk square", {}, "no labeled pixel .* shows disk, square"),
    "zero means void": ([(0, 1)] * 6, "disk ring", {"values": [1, 2], "void": [0]}, "shows ring: all are disk"),
    "no 255 at all": ([(0,)] * 6, "ground disk", {}, "shows disk: all are ground"),
    "labeled half shows one": (
        [(0,), (0, 1), (0,), (0, 1), (0, 1), (1,)], "ground disk", {"split": "1/2"}, "Validation masks show others",
    ),
    "all labeled masks 255": ([(255,)] * 4 + [(0, 1)] * 2, "ground disk", {}, "all 4 masks are 255"),
    "all validation masks 255": ([(0, 1)] * 4 + [(255,)] * 2, "ground disk", {}, "no validation image .* all 2"),
    "everything 255": ([(255,)] * 6, "ground disk", {}, "(?s)no labeled image .*no validation image"),
    "everything void by a number": ([(7,)] * 6, "ground disk", {"void": [7]}, "no labeled image .* all 4 masks"),
    "labeled half 255": (
        [(255,), (0, 1), (255,), (0, 1), (0, 1), (0, 1)], "ground disk", {"split": "1/2"}, "all 2 masks are 255",
    ),
    "one labeled mask, and that 255": (
        [(255,), (0, 1), (0, 1), (0, 1), (0, 1), (0, 1)], "ground disk", {"split": "1"},
        "its mask is 255 .* that of a0",
    ),
    "1 in some masks, 255 in others": ([(0, 1), (0, 1), (0, 255), (0,), (0, 1), (0, 255)], "ground disk", {}, TWO_WAYS),
    "255 in one mask": ([(0, 1)] * 3 + [(0, 255)] + [(0, 1)] * 2, "ground disk", {}, TWO_WAYS),
    "255 in validation masks": ([(0, 1)] * 4 + [(0, 255)] * 2, "ground disk", {}, TWO_WAYS),
    "two ways of three classes": (
        [(0, 1, 2)] * 5 + [(0, 1, 255)] * 5, "a b c", {},
        r"2 \(c\) and no 255 in 5 of them, .* of a0; .* in 5, .* of a6.* dataset.values=\[0,1,\[2,255\]\]",
    ),
    "the last of three classes as 255": (
        [(0, 1, 255)] * 6, "a b c", {}, r"no mask shows c, .* add dataset.values=\[0,1,255\]; .* dataset.void=\[255\]",
    ),
    "a transparent ground": (
        [(0, 1, 2)] * 6, "a b c", {"mode": "LA"},
        r"no mask shows a, .* transparent means a, add dataset.values=\[transparent,1,2\]; .* dataset.void=\[transp",
    ),
    "a transparent ground of two classes": (
        [(0, 1)] * 6, "ground disk", {"mode": "LA"}, r"transparent means ground, add dataset.values=\[transparent,1\];",
    ),
    "palette masks all 255": ([(255,)] * 6, "ground disk", {"mode": "P"}, "has a labeled pixel"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_result_can_come_from_is_refused(tmp_path: Path, kind: str) -> None:
    masks, classes, options, message = REFUSED[kind]
    with pytest.raises(UserError, match=message) as fault:
        weighed(tmp_path, masks, classes, **options)
    if message != CURE:
        assert "dataset.values=[0,255]" not in str(fault.value)


TOLD: dict[str, tuple[Masks, str, dict[str, Any], Sequence[str]]] = {
    "0 and 255 with values": ([(0, 255)] * 6, "ground disk", {"values": [0, 255]}, ()),
    "white of one bit": ([(0, 255)] * 6, "ground disk", {"mode": "1", "values": [0, 255]}, ()),
    "void beside both classes": ([(0, 1, 255)] * 6, "ground disk", {}, ()),
    "no disk to validate on": (
        [(0, 1)] * 4 + [(0,)] * 2, "ground disk", {}, [NO_DISK],
    ),
    "no ground to validate on": (
        [(0, 1)] * 4 + [(1,)] * 2, "ground disk", {}, [NO_GROUND],
    ),
    "one of two validation masks holds it": ([(0, 1)] * 4 + [(0,), (0, 1)], "ground disk", {}, ()),
    "void where it would be": (
        [(0, 1)] * 4 + [(0, 255)] * 2, "ground disk", {"void": [255]}, [NO_DISK],
    ),
    "two ways of one class": ([(0, 1)] * 3 + [(0, 255)] * 3, "ground disk", {"values": [0, [1, 255]]}, ()),
    "two ways, by a format": (
        [(0, 1)] * 4 + [(0, 255)] * 2, "ground disk", {"mask_format": {"kind": "gray"}}, [NO_DISK],
    ),
    "255 void, the last of three classes missing": (
        [(0, 1, 255)] * 6, "a b c", {"void": [255]},
        ["no labeled image of split full (family every, id 0) holds class c; it cannot be learned",
         "no validation image holds c: mIoU is over 2 of 3 classes"],
    ),
    "void, and two classes missing": (
        [(0, 1, 255)] * 6, "a b c d", {},
        ["no labeled image of split full (family every, id 0) holds class c, d; it cannot be learned",
         "no validation image holds c, d: mIoU is over 2 of 4 classes"],
    ),
    "void beside the last class once": (
        [(0, 1)] * 2 + [(0, 255)] + [(0, 1)] * 2 + [(0, 1, 255)], "ground disk", {}, (),
    ),
    "void where the last class is rare": (
        [(0, 1, 2)] + [(0, 1, 255)] * 3 + [(0, 1, 2), (0, 1)], "a b c", {}, (),
    ),
    "two of four missing": (
        [(0, 1, 2, 3)] * 4 + [(0, 2)] * 2, "a b c d", {},
        ["no validation image holds b, d: mIoU is over 2 of 4 classes"],
    ),
    "each validation mask holds another": ([(0, 1, 2)] * 4 + [(0, 1), (2,)], "a b c", {}, ()),
    "merged values": ([(0, 1, 2)] * 4 + [(0, 2)] * 2, "ground disk", {"values": [0, [1, 2]]}, ()),
    "none in the labeled half": (
        [(0, 1), (0, 1, 2)] * 2 + [(0, 1, 2)] * 2, "a b c", {"split": "1/2"},
        ["no labeled image of split 1/2 (family every, id 0) holds class c; it cannot be learned"],
    ),
    "a class in the middle nowhere": (
        [(0, 2, 255)] * 6, "a b c", {},
        ["no labeled image of split full (family every, id 0) holds class b; it cannot be learned",
         "no validation image holds b: mIoU is over 2 of 3 classes"],
    ),
    "one labeled mask is void": (
        [(255,), *[(0, 1)] * 5], "ground disk", {}, ["1 of 4 labeled images has no labeled pixel: a0"],
    ),
    "two labeled masks are void": (
        [(255,), (0, 1), (255,), *[(0, 1)] * 3], "ground disk", {},
        ["2 of 4 labeled images have no labeled pixel: a0, a2"],
    ),
    "one validation mask is void": (
        [*[(0, 1)] * 5, (255,)], "ground disk", {}, ["1 of 2 validation images has no labeled pixel: a5"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOLD)
def test_what_limits_a_result_is_told_and_nothing_else(tmp_path: Path, kind: str) -> None:
    masks, classes, options, expected = TOLD[kind]
    found = weighed(tmp_path, masks, classes, **options)
    assert [*found.warnings, *found.unmeasured] == list(expected)


def test_few_pixels_of_a_class_beside_much_of_255_are_refused(tmp_path: Path) -> None:
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 256, (40, 100, 3), np.uint8)
        mask = np.zeros((40, 100), np.uint8)
        mask[:8] = 255
        mask[-1, : 3 if number == 1 else 0] = 1
        write(tmp_path, number, image, mask)

    def found(**options: Any) -> Trust:
        dataset = Folder(str(tmp_path), classes=["ground", "disk"], val=0.2, **options)
        return weigh(dataset, check_files(dataset, make_split(dataset, "full")))

    with pytest.raises(UserError, match=r"disk has 3 pixels .* in 6 of 6 masks.* dataset.values=\[0,255\]"):
        found()
    found(void=[255])
    mask[-1] = 1
    write(tmp_path, 5, image, mask)
    found()


def write(root: Path, number: int, image: Any, mask: Any) -> None:
    for folder, picture in (("images", image), ("masks", mask)):
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(picture).save(root / folder / f"a{number}.png")
