"""Names of classes in the files of labeling tools and datasets; nothing is cut off a name."""

from pathlib import Path

import pytest

from semiseg.errors import UserError
from semiseg.onboard.class_files import find_names
from semiseg.onboard.names import Named

CVAT = "# label:color_rgb:parts:actions\n"
PLAIN = [("ground", None, None), ("type 1", None, None), ("type 2", None, None)]
NUMBERED = [("ground", 0, None), ("type 1", 1, None), ("type 2", 2, None)]
COLORED = [("soil", None, "#000000"), ("wheat 2", None, "#804000")]
TWO = [("cat", 0, None), ("dog", 1, None)]


def read(base: Path, file: str, text: str | bytes, encoding: str = "utf-8") -> Named:
    path = base / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    found = find_names(base)
    assert found is not None
    return found


def entries(found: Named) -> list[tuple[str, int | None, str | None]]:
    return [(entry.name, entry.number, entry.color) for entry in found.entries]


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("labelmap.txt", CVAT + "lane 1:250,50,83::\nlane 2:51,221,255::\n",
         [("lane 1", None, "#fa3253"), ("lane 2", None, "#33ddff")]),
        ("labelmap.txt", CVAT + "grade 3 tumor:1,2,3:head,tail:run\nsquare #1:4,5,6::walk\n",
         [("grade 3 tumor", None, "#010203"), ("square #1", None, "#040506")]),
        ("labelmap.txt", "a:b:1,2,3::\nc, d:4,5,6::\n", [("a:b", None, "#010203"), ("c, d", None, "#040506")]),
        ("labelmap.txt", "lane 1:250,50,83\nlane 2:51,221,255\n",
         [("lane 1", None, "#fa3253"), ("lane 2", None, "#33ddff")]),
        ("labelmap.txt", "lane 1:250,50,83:\nlane 2:51,221,255:left\n",
         [("lane 1", None, "#fa3253"), ("lane 2", None, "#33ddff")]),
        ("labelmap.txt", "lane 1:::\nlane 2::left:\n", [("lane 1", None, None), ("lane 2", None, None)]),
        ("classes.txt", "ground\ntype 1\ntype 2\n", PLAIN),
        ("classes.txt", "0 ground\n1 type 1\n2 type 2\n", NUMBERED),
        ("classes.txt", "ground 0\ntype 1 1\ntype 2 2\n", NUMBERED),
        ("classes.txt", "0: ground\n1: type 1\n2: type 2\n", NUMBERED),
        ("classes.txt", "0. ground\n1. type 1\n2. type 2\n", NUMBERED),
        ("classes.txt", "ground=0\ntype 1=1\ntype 2=2\n", NUMBERED),
        ("classes.txt", "type 1\ntype 2\ntype 3\n", [(f"type {n}", None, None) for n in (1, 2, 3)]),
        ("classes.txt", "1 lane\n2 lanes\n3 lanes\n",
         [("1 lane", None, None), ("2 lanes", None, None), ("3 lanes", None, None)]),
        ("classes.txt", "#1 lane\n#2 lane\n", [("#1 lane", None, None), ("#2 lane", None, None)]),
        ("classes.txt", "# names\nground\n// more\ntype 1\ntype 2\n", PLAIN),
        ("classes.txt", "wall, brick\nsky\n", [("wall, brick", None, None), ("sky", None, None)]),
        ("classes.txt", "soil,wheat,weed\n", [(name, None, None) for name in ("soil", "wheat", "weed")]),
        ("classes.txt", "soil,0,#000000\nwheat 2,1,#804000\n(not labeled),255,#ffffff\n",
         [("soil", 0, "#000000"), ("wheat 2", 1, "#804000"), ("(not labeled)", 255, "#ffffff")]),
        ("classes.txt", "0,0,#000000\n1,7,#804000\n", [("0", 0, "#000000"), ("1", 7, "#804000")]),
        ("Classes.TXT", "ground\ntype 1\ntype 2\n", PLAIN),
        ("names.txt", "soil #000000\nwheat 2 #804000\n", COLORED),
        ("label_colors.txt", "0 0 0\tsoil\n128 64 0\t\twheat 2\n", COLORED),
        ("label_colors.txt", "0 0 0 soil\n128 64 0 wheat 2\n", COLORED),
        ("class_dict.csv", "name,r,g,b\nsoil,0,0,0\nwheat 2,128,64,0\n", COLORED),
        ("class_dict.csv", "name;r;g;b\nsoil;0;0;0\nwheat 2;128;64;0\n", COLORED),
        ("classes.csv", 'name,color\n"soil",#000000\n"wheat 2","(128, 64, 0)"\n', COLORED),
        ("classes.csv", "Idx,Ratio,Train,Val,Stuff,Name\n0,0.85,10,2,1,cat\n1,0.09,10,2,0,dog\n", TWO),
        ("objectInfo150.txt", "Idx\tRatio\tName\n1\t0.2\twall;brick\n2\t0.1\tbuilding, edifice\n",
         [("wall;brick", 1, None), ("building, edifice", 2, None)]),
        ("train/_classes.csv", "Pixel Value, Class\n0, cat\n1, dog\n", TWO),
        ("_classes.csv", "Pixel Value, Class\n0, cat\n1, dog, small\n", [("cat", 0, None), ("dog, small", 1, None)]),
        ("classes.csv", "name\ncat\ndog\n", [("cat", None, None), ("dog", None, None)]),
        ("classes.csv", 'class,label\ncat,0\n"dog",1\n', TWO),
        ("classes.tsv", "Klasse\tWert\ncat\t0\ndog\t1\n", TWO),
        ("classes.csv", "id,name,trainId,color\n0,cat,255,\"(0,0,0)\"\n1,dog,0,\"(1,2,3)\"\n-1,plate,-1,\"(4,5,6)\"\n",
         [("cat", 0, "#000000"), ("dog", 1, "#010203")]),
        ("classes.yaml", "names: [no, yes, '3']\n", [("no", None, None), ("yes", None, None), ("3", None, None)]),
        ("data.yaml", "train: x\nnc: 2\nnames:\n  0: cat\n  1: dog\n", TWO),
        ("dataset.json", '{"labels": {"cat": 0, "dog": 1}, "name": "x"}', TWO),
        ("dataset.json", '{"labels": {"0": "cat", "1": "dog"}, "name": "x"}', TWO),
        ("categories.json", '{"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}', TWO),
        ("meta.json", '{"classes": [{"title": "soil", "color": "#000000"}, {"title": "wheat 2", "color": "#804000"}]}',
         COLORED),
        ("labels.json", '[{"name": "soil", "id": 3412, "color": "#000000"}, {"name": "wheat 2", "color": "#804000"}]',
         COLORED),
        ("classes.json", '{"soil": [0, 0, 0], "wheat 2": [128, 64, 0]}', COLORED),
        ("classes.json", '["soil", "wheat 2"]', [("soil", None, None), ("wheat 2", None, None)]),
    ],
)  # fmt: skip
def test_names_numbers_and_colors(
    tmp_path: Path, file: str, text: str, expected: list[tuple[str, int | None, str | None]]
) -> None:
    assert entries(read(tmp_path, file, text)) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_encodings(tmp_path: Path, encoding: str, ends: str) -> None:
    found = read(tmp_path, "classes.txt", ends.join(["Straße", "Grün 2", ""]), encoding)
    assert found.names == ("Straße", "Grün 2")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.csv", "Klasse,Art,Wert,Zahl\na,x,0,3\nb,y,7,5\n", "2 columns of text, 2 of numbers.*Klasse"),
        ("classes.csv", b"id,name\n0,Stra\xdfe\n1,b\n", "no UTF-8 or UTF-16 text .byte 14"),
        ("classes.csv", "Value,Name,Group\n0,a,x\n1,b,y,z\n", "more cells than the titles"),
        ("classes.txt", "soil\nwheat\nsoil\nwheat\n", "class names occur twice: soil, wheat"),
        ("classes.txt", "soil,0\nwheat,0\n", "two classes have 0: soil, wheat"),
        ("classes.json", '{"cat": 0,', "no valid YAML or JSON .line 1"),
        ("classes.yaml", "names: [a\n", "no valid YAML or JSON .line 2"),
    ],
)  # fmt: skip
def test_files_that_are_not_understood(tmp_path: Path, file: str, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"(?s)classes.*{message}"):
        read(tmp_path, file, text)


def test_what_was_not_read_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, "classes.csv", "Idx,Ratio,Name\n0,0.5,cat\n1,0.5,dog\n")
    assert any("columns that were not read: ratio" in note for note in found.notes)
    found = read(tmp_path, "labelmap.txt", "cat:1,2,3::\ndog:4,5,6::\n")
    assert any("not read: labelmap.txt" in note for note in found.notes)


def test_lists_of_images_and_other_files_are_no_names(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a.png\nb.png\n")
    (tmp_path / "data.yaml").write_text("train: x\nnc: 2\n")
    assert find_names(tmp_path) is None
