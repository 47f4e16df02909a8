"""Images of a group stay on one side of the parts that a dataset draws; wrong settings are answered."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.folder import Folder
from semiseg.data.image_groups import draw_share, joined, read_groups
from semiseg.errors import UserError

IDS = [f"p{patient:02d}_{number}" for patient in range(1, 6) for number in range(4)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty labeled images of five patients, and two unlabeled ones of each."""
    for image_id in (*IDS, *(f"p{patient:02d}_u{number}" for patient in range(1, 6) for number in range(2))):
        for folder in ("images", "masks"):
            if folder == "images" or "u" not in image_id:
                path = tmp_path / folder / f"{image_id}.png"
                path.parent.mkdir(exist_ok=True)
                shape = (8, 8, 3) if folder == "images" else (8, 8)
                Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    return tmp_path


def folder(root: Path, **options: object) -> Folder:
    given: dict[str, object] = {"classes": ["ground", "disk"], "val": 0.2, "test": None} | options
    return Folder(str(root), **given)  # type: ignore[arg-type]


def patients(ids: tuple[str, ...]) -> set[str]:
    return {image_id[:3] for image_id in ids}


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4, 0.5, 0.8])
def test_a_share_draws_whole_groups(root: Path, share: float) -> None:
    dataset = folder(root, groups="^(p[0-9]+)_", val=share)
    train, val = dataset.ids("train"), dataset.ids("val")
    assert not patients(train) & patients(val)
    assert len(train) + len(val) == 20
    assert len(val) == max(4, 4 * round(share * 5))


def test_val_and_test_are_drawn_apart_too(root: Path) -> None:
    dataset = folder(root, groups="^(p[0-9]+)_", val=0.2, test=0.25)
    parts = [patients(dataset.ids(part)) for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [3, 1, 1]
    assert len(set.union(*parts)) == 5


def test_unlabeled_images_of_held_groups_are_left_out_and_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = folder(root, groups="^(p[0-9]+)_")
    held = patients(dataset.ids("val"))
    assert len(dataset.ids("unlabeled")) == 8
    assert not patients(dataset.ids("unlabeled")) & held
    assert "left out 2 unlabeled images of groups that are in val or test" in caplog.text


def test_without_groups_a_share_is_drawn_as_before(root: Path) -> None:
    assert (
        folder(root).ids("val") == ("p01_0", "p02_1", "p03_2", "p04_3") or len(folder(root).ids("val")) == 4
    )
    assert folder(root).ids("val") == tuple(sorted(IDS)[index * 20 // 4] for index in range(4))
    assert len(folder(root).ids("unlabeled")) == 10


TABLES = {
    "two columns": "p01_0,a\np01_1,a\np02_0,b\n",
    "with a head": "id,group\np01_0,a\np01_1,a\np02_0,b\n",
    "file names": "filename,group\np01_0.png,a\np01_1.png,a\np02_0.png,b\n",
    "paths": "images/p01_0.png,a\nimages\\p01_1.png,a\nimages/p02_0.png,b\n",
    "semicolons": "p01_0;a\np01_1;a\np02_0;b\n",
    "tabs": "p01_0\ta\np01_1\ta\np02_0\tb\n",
    "quotes and blanks": '"p01_0", "a"\n"p01_1", "a"\n"p02_0", "b"\n',
    "more columns": "age,group,image\n30,a,p01_0\n30,a,p01_1\n41,b,p02_0\n",
    "group first": "a,p01_0\na,p01_1\nb,p02_0\n",
    "other case": "P01_0,a\nP01_1,a\nP02_0,b\n",
    "images that are not there": "p01_0,a\np01_1,a\np02_0,b\nx99,c\n",
    "Windows": "\ufeffid,group\r\np01_0,a\r\np01_1,a\r\np02_0,b\r\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_as_people_write_them(tmp_path: Path, kind: str) -> None:
    (tmp_path / "groups.csv").write_text(TABLES[kind], encoding="utf-8", newline="")
    expected = {"p01_0": "a", "p01_1": "a", "p02_0": "b"}
    assert read_groups("groups.csv", tmp_path, IDS) == expected
    (tmp_path / "groups.csv").write_bytes(TABLES[kind].removeprefix("\ufeff").encode("utf-16"))
    assert read_groups("groups.csv", tmp_path, IDS) == expected
    assert read_groups(str(tmp_path / "groups.csv"), Path("/"), IDS) == expected


def test_patterns(tmp_path: Path) -> None:
    ids = ["north/a_1", "north/b_2", "south/a_1"]
    assert read_groups("^([^/]+)/", tmp_path, ids) == {ids[0]: "north", ids[1]: "north", ids[2]: "south"}
    assert read_groups("^(.+)/(.)_", tmp_path, ids) == {
        ids[0]: "north/a",
        ids[1]: "north/b",
        ids[2]: "south/a",
    }
    assert read_groups("^(north)/|^(so)", tmp_path, ids) == {ids[0]: "north", ids[1]: "north", ids[2]: "so"}
    assert read_groups("/(b)", tmp_path, ids) == {ids[1]: "b"}
    assert read_groups(None, tmp_path, ids) == {}


FAULTS = {
    "(p[0-9": "no regular expression",
    "^p[0-9]+": "expected parentheses around the part of an id that names its group",
    "^(q[0-9]+)": "matches none of 20 ids, such as p01_0",
    "absent.csv": "cannot read",
    "empty.csv": "names none of the 20 images",
    "foreign.csv": "names none of the 20 images, such as p01_0.*; its first line is x1,a",
    "one.csv": "line 2 has one field",
    "twice.csv": "p01_0 is in the groups a and b",
    "wide.csv": "names the columns id and group; it has 3 columns: p01_0, a, b",
}


@pytest.mark.parametrize("setting", FAULTS)
def test_wrong_settings_are_answered(tmp_path: Path, setting: str) -> None:
    for name, text in {
        "empty": "",
        "foreign": "x1,a\nx2,b\n",
        "one": "p01_0,a\np01_1\n",
        "twice": "p01_0,a\np01_0,b\n",
        "wide": "p01_0,a,b\n",
    }.items():
        (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(UserError, match=FAULTS[setting]):
        read_groups(setting, tmp_path, IDS)


def test_one_group_alone_cannot_be_divided(root: Path) -> None:
    with pytest.raises(UserError, match="all 20 labeled images are of one group"):
        folder(root, groups="^(p)")


@pytest.mark.parametrize("sizes", [[1] * 10, [5, 1, 1, 1, 1, 1], [8, 1, 1], [1, 8, 1], [3, 3, 4], [9, 1]])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5])
def test_drawn_groups_are_whole_and_near_the_share(sizes: list[int], share: float) -> None:
    groups = {f"{group}_{index}": str(group) for group, size in enumerate(sizes) for index in range(size)}
    drawn = draw_share(sorted(groups), share, groups)
    assert 0 < len(drawn) < len(groups)
    assert {groups[each] for each in drawn}.isdisjoint({groups[each] for each in groups if each not in drawn})
    assert abs(len(drawn) - share * len(groups)) <= max(max(sizes) / 2, 1)


def test_pairs_and_groups_are_joined_along_chains() -> None:
    found = joined({"a": "g", "b": "g", "x": "h"}, [("b", "c"), ("d", "c"), ("y", "z")])
    assert found == {"a": "a", "b": "a", "c": "a", "d": "a", "x": "x", "y": "y", "z": "y"}
    assert joined({}, []) == {}
