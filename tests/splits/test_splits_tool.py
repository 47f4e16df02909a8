"""``semiseg splits``: what it lists, makes, imports, checks and refuses."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.cli import main
from semiseg.data.voc import CLASSES
from semiseg.splits.lists import read_stems
from semiseg.splits.rules import shuffled

COUNTED = 4
"""Classes that the generated masks hold."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))


def run(capsys, *words):
    """Return exit code, output and the message for people."""
    code = main(["splits", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def linked(sources, targets):
    """Hard links of few files at many places, in turn."""
    for index, target in enumerate(targets):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(sources[index % len(sources)], target)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A tiny image, and masks of one class each."""
    folder = tmp_path_factory.mktemp("pixels")
    Image.new("RGB", (6, 4)).save(folder / "image.jpg")
    Image.new("RGB", (6, 4)).save(folder / "image.png")
    for label in range(COUNTED):
        Image.fromarray(np.full((4, 6), label, np.uint8)).save(folder / f"{label}.png")
    return folder


@pytest.fixture(scope="module")
def voc(published, pixels, tmp_path_factory):
    """The real ids of VOC with trainaug, in the layout of its development kit."""
    root = tmp_path_factory.mktemp("voc") / "VOC2012"
    pascal = published / "stpp/pascal"
    val = read_stems(pascal / "val.txt")
    train = [
        stem for part in ("labeled", "unlabeled") for stem in read_stems(pascal / f"1_8/split_0/{part}.txt")
    ]
    masks = [pixels / f"{label}.png" for label in range(COUNTED)]
    linked([pixels / "image.jpg"], [root / "JPEGImages" / f"{stem}.jpg" for stem in (*train, *val)])
    linked(masks, [root / "SegmentationClassAug" / f"{stem}.png" for stem in sorted((*train, *val))])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, stems in {
        "val": val,
        "trainaug": train,
        "train": read_stems(pascal / "1.4k/labeled.txt"),
    }.items():
        (lists / f"{name}.txt").write_text("\n".join(stems) + "\n")
    return root


@pytest.fixture(scope="module")
def cityscapes(published, pixels, tmp_path_factory):
    """The real ids of Cityscapes."""
    root = tmp_path_factory.mktemp("cityscapes")
    for part in ("train", "val"):
        stems = read_stems(published / f"cps/city/config_new/{part}.txt")
        names = [f"{part}/{stem.split('_')[0]}/{stem}" for stem in stems]
        linked([pixels / "image.png"], [root / "leftImg8bit" / f"{name}_leftImg8bit.png" for name in names])
        masks = [pixels / f"{label}.png" for label in range(COUNTED)]
        linked(masks, [root / "gtFine" / f"{name}_gtFine_labelTrainIds.png" for name in names])
    return root


def test_list_shows_counts_state_and_equal_partitions(capsys):
    code, out, _ = run(capsys, "list", "--dataset", "voc")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["1/8", "0", "1,323", "9,259", "193", "rule", "cps", "1/8", "0,", "unimatch", "1/8", "0"] in lines
    assert ["1/8", "2", "1,323", "9,259", "205", "to", "import", "stpp", "1/8", "2"] in lines
    assert "split_family=u2pl" in out
    assert "known fault: Each pair of files shares one id" in out
    assert "dataset=cityscapes" not in out


def test_list_of_one_family(capsys):
    code, out, _ = run(capsys, "list", "--family", "dmtc")
    assert code == 0
    assert out.count("dataset=") == 1
    assert "license none" in out
    assert run(capsys, "list", "--family", "dmtc", "--dataset", "voc")[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "cac", "--from", "nowhere"], "--from=nowhere: no such folder. Give a clone"),
        (
            ["import", "cac", "--from", "."],
            "none of the lists of cac is there, such as dataloaders/voc_splits0/662",
        ),
        (["import", "every", "--from", "."], "every needs no import"),
        (
            ["import", "stpp", "--from", ".", "--dataset", "voc"],
            "git clone https://github.com/LiheYoung/ST-PlusPlus",
        ),
        (
            ["import", "shuffled", "--from", "."],
            "git clone --branch dst-cbc https://github.com/voldemortX/DST-CBC",
        ),
        (
            ["list", "--dataset", "voc", "--family", "dmtc"],
            "--family dmtc has no partitions of voc; --dataset cityscapes has some",
        ),
        (["make", "split=1/8", "split_family=cac", "-o", "x"], "its lists are of dataset=voc and cityscapes"),
        (["check", "split=1/8", "--overlap", "a:b:c:d"], "--overlap=a:b:c:d: expected FAMILY:SPLIT:ID"),
        (["check", "split=1/8", "--overlap", "evry"], "nearest: every"),
        (["check", "splt=1/8"], "Did you mean split?"),
    ],
)
def test_mistakes_are_answered(capsys, words, message):
    code, _, told = run(capsys, *words)
    assert code == 2
    assert message in " ".join(told.split())


@pytest.mark.parametrize("words", [[], ["import", "cac"], ["lst"], ["import", "cak", "--from", "."]])
def test_wrong_options_exit_with_2(capsys, words):
    assert run(capsys, *words)[0] == 2


def test_make_writes_a_rule_for_own_images(capsys):
    words = ["make", "split=1/8", "split_family=shuffled", "split_id=1", "-o", "mine"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "60 labeled and 420 unlabeled ids written in mine" in out
    assert len(Path("mine/labeled.txt").read_text().split()) == 60
    assert (
        "were already in mine"
        in run(capsys, "make", "split=1/8", "split_family=shuffled", "split_id=1", "-o", "mine")[1]
    )
    code, _, told = run(capsys, "make", "split=1/4", "-o", "mine")
    assert (code, "holds other ids" in told) == (2, True)
    code, out, _ = run(
        capsys, "check", "split=full", "split_family=list", "split_lists=mine", "--overlap", "shuffled:1/8:1"
    )
    assert code == 0
    assert [line.split()[-3:] for line in out.splitlines() if line.split()[1:2] == ["shuffled:1/8:1"]] == [
        ["60", "100.0%", "100.0%"]
    ]


def test_check_of_any_dataset(capsys):
    code, out, _ = run(capsys, "check", "split=1/8")
    assert code == 0
    assert "60 labeled, 420 unlabeled, 96 val, 96 test" in out
    assert "no class is missing" in out
    assert "every:1/8:0" in out
    assert "shuffled:1/8:2" in out


def test_check_names_leaks(capsys, tmp_path):
    assert run(capsys, "make", "split=1/8", "-o", "mine")[0] == 0
    first = Path("mine/labeled.txt").read_text().split()[0]
    with Path("mine/unlabeled.txt").open("a") as file:
        file.write(f"{first}\n")
    code, _, told = run(capsys, "check", "split=full", "split_family=list", "split_lists=mine")
    assert code == 2
    assert f"1 ids both in labeled and in unlabeled: {first}" in told


@pytest.mark.slow
def test_check_of_voc_with_its_real_ids(capsys, voc, published):
    for family, origin in {"cac": "cac", "u2pl": "u2pl", "clean": "stpp"}.items():
        assert run(capsys, "import", family, "--from", published / origin)[0] == 0
    data = ["dataset=voc", f"dataset.root={voc}"]
    code, out, _ = run(capsys, "check", *data, "split=1/8", "split_family=cac", "split_id=0")
    assert code == 0
    assert "1,323 labeled, 9,259 unlabeled, 1,449 val" in out
    assert "labeled images as published in: cac 1/8 0, stpp 1/8 0" in out
    assert f"it cannot be learned: {', '.join(CLASSES[COUNTED:])}" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["cac:1/8:0", "every:1/8:0", "163", "12.3%", "12.3%"] in rows
    assert [row[1] for row in rows if row and row[0] == "cac:1/8:0"] == [
        *("every:1/8:0", "shuffled:1/8:0", "shuffled:1/8:1", "shuffled:1/8:2"),
        *("cac:1/8:1", "cac:1/8:2", "u2pl:1/8:0"),
    ]
    images = sum(int(row[1].replace(",", "")) for row in rows if row and row[0] in CLASSES)
    assert images == 1323
    overlaps = [f"--overlap={spec}" for spec in ("clean:732", "u2pl:1/2", "every:1/16")]
    code, out, _ = run(capsys, "check", *data, "split=1464", "split_family=sbd", "--no-masks", *overlaps)
    rows = [line.split() for line in out.splitlines()]
    assert ["sbd:1464:0", "u2pl:1/2", "1,464", "100.0%", "27.7%"] in rows
    assert ["sbd:1464:0", "every:1/16", "93", "6.4%", "14.0%"] in rows
    assert ["clean:732", "u2pl:1/2", "732", "100.0%", "13.8%"] in rows


@pytest.mark.slow
def test_check_of_cityscapes_with_its_real_ids(capsys, cityscapes, published):
    for family in ("cps", "stpp", "u2pl"):
        assert run(capsys, "import", family, "--from", published / family)[0] == 0
    data = ["dataset=cityscapes", f"dataset.root={cityscapes}"]
    code, out, _ = run(capsys, "check", *data, "split=1/8", "split_family=u2pl")
    assert code == 0
    assert "labeled images as published in: cac 1/8 0, stpp 1/8 0, u2pl 1/8 0" in out
    code, out, _ = run(capsys, "check", *data, "split=1/16", "split_family=cps", "val_subset=valtiny")
    assert "186 labeled, 2,789 unlabeled, 19 val" in out
    assert "as published in: cps 1/16 0" in out
    code, out, _ = run(capsys, "check", *data, "split=1/8")
    assert "no published partition has these labeled images" in out


@pytest.mark.slow
def test_check_names_files_that_are_missing(capsys, published, tmp_path, pixels):
    root = tmp_path / "city"
    names = [f"aachen/aachen_{index:06d}_000019" for index in range(6)]
    linked([pixels / "image.png"], [root / "leftImg8bit/train" / f"{name}_leftImg8bit.png" for name in names])
    linked(
        [pixels / "0.png"], [root / "gtFine/train" / f"{name}_gtFine_labelTrainIds.png" for name in names[1:]]
    )
    code, out, told = run(capsys, "check", "dataset=cityscapes", f"dataset.root={root}", "split=1/2")
    assert code == 2
    assert "classes in the masks of 2 labeled images" in out
    assert "1 files are missing:" in told
    assert "aachen_000000_000019_gtFine_labelTrainIds.png" in told


def test_a_dataset_with_other_images_has_not_the_published_partition(capsys, tmp_path, pixels):
    names = [f"aachen/aachen_{index:06d}_000019" for index in range(6)]
    linked(
        [pixels / "image.png"], [tmp_path / "leftImg8bit/train" / f"{name}_leftImg8bit.png" for name in names]
    )
    linked(
        [pixels / "0.png"], [tmp_path / "gtFine/train" / f"{name}_gtFine_labelTrainIds.png" for name in names]
    )
    words = ["dataset=cityscapes", f"dataset.root={tmp_path}", "split=1/2", "split_family=shuffled"]
    assert (
        "NOT the published partition of this name (1,487 labeled images)" in run(capsys, "check", *words)[1]
    )


def test_import_twice_and_over_other_lists(capsys, published):
    words = ["import", "cps_clean", "--from", published / "cps"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "known fault: Each pair of files shares one id" in out
    assert "4 partitions written to data_splits" in out
    unlabeled = Path("data_splits/voc/cps_clean/92/0/unlabeled.txt")
    assert "2008_004822" not in unlabeled.read_text()
    assert "license MIT" in Path("data_splits/voc/cps_clean/ORIGIN.txt").read_text()
    assert "4 partitions were in data_splits already" in run(capsys, *words)[1]
    unlabeled.write_text("2008_004822\n")
    shutil.rmtree("data_splits/voc/cps_clean/183")
    code, _, told = run(capsys, *words)
    assert (code, "unlabeled.txt holds other ids" in told) == (2, True)
    assert not Path("data_splits/voc/cps_clean/183").exists()
    assert "4 partitions written" in run(capsys, *words, "--to", "cache")[1]
    assert Path("cache/splits/voc/cps_clean/732/0/labeled.txt").is_file()


def test_import_finds_the_lists_at_any_depth_of_a_clone(capsys, published):
    clone = Path("clone/data/splits")
    shutil.copytree(published / "u2pl" / "cityscapes", clone / "cityscapes")
    for index, source in enumerate(("clone", "clone/data", "clone/data/splits")):
        code, out, _ = run(
            capsys, "import", "u2pl", "--from", source, "--dataset", "cityscapes", "--to", f"to{index}"
        )
        assert (code, "4 partitions written" in out) == (0, True)
    # 1/8 is the list of ST++ and lies under its name.
    assert Path("to0/cityscapes/stpp/1of8/0/labeled.txt").is_file()


def test_import_names_lists_at_fault_and_takes_the_others(capsys, published):
    shutil.copytree(published / "stpp", "clone")
    Path("clone").chmod(0o755)
    broken = {"pascal/92/split_1/labeled.txt": "", "pascal/92/split_2/labeled.txt": None}
    for name, text in broken.items():
        file = Path("clone", name)
        file.parent.chmod(0o755)
        file.chmod(0o644)
        if text is None:
            lines = file.read_text().split("\n")
            text = "\n".join([lines[1], lines[0], *lines[2:]])
        file.write_text(text)
    gone = Path("clone/pascal/183/split_0/unlabeled.txt")
    gone.parent.chmod(0o755)
    gone.unlink()
    code, _, told = run(capsys, "import", "clean", "--from", "clone")
    assert code == 2
    assert "4 partitions written" in told
    assert "3 lists of clean could not be imported" in told
    assert "92/split_1/labeled.txt is not the published list of clean 92 1: 0 ids, expected 92" in told
    assert (
        "92/split_2/labeled.txt is not the published list of clean 92 2: 92 ids, expected 92 with another"
        in told
    )
    assert "cannot read the id list clone/pascal/183/split_0/unlabeled.txt" in told
    assert "in the clone: git checkout f4e7a571fe" in told


def dmt_clone(root, ids, ratios, folder):
    """Lists as DMT publishes them."""
    (root / folder).mkdir(parents=True)
    for name, split in ratios.items():
        for number in range(3):
            labeled, rest = shuffled(ids, split, number)
            (root / folder / f"{name}_labeled_{number}.txt").write_text("".join(f"{i}\n" for i in labeled))
            if rest:
                (root / folder / f"{name}_unlabeled_{number}.txt").write_text("".join(f"{i}\n" for i in rest))


def test_import_of_a_rule_compares_the_published_lists(capsys, published):
    stems = read_stems(published / "cps/city/config_new/train.txt")
    ids = sorted(f"{stem.split('_')[0]}/{stem}" for stem in stems)
    ratios = {"1": "full", "4": "1/4", "8": "1/8", "30": "1/30"}
    dmt_clone(Path("clone/data_splits"), ids, ratios, "Cityscapes")
    code, out, _ = run(capsys, "import", "shuffled", "--from", "clone", "--dataset", "cityscapes")
    assert code == 0
    assert "12 partitions are as their rule makes them: cityscapes 1/30 0" in out
    assert not Path("data_splits").exists()


def test_import_without_hashes_verifies_counts_and_drops_shared_ids(capsys):
    ids = [f"aachen/aachen_{index:06d}_000019" for index in range(2975)]
    folder = Path("clone/dataset/cityscapes/data_lists")
    folder.mkdir(parents=True)
    for name, count in {"148.75": 20, "29.75": 100, "8": 372}.items():
        shared = 5 if count == 372 else 0
        (folder / f"{name}_lowest_occurrence_labeled_0.txt").write_text("\n".join(ids[:count]))
        (folder / f"{name}_lowest_occurrence_unlabeled_0.txt").write_text("\n".join(ids[count - shared :]))
    code, out, _ = run(capsys, "import", "dmtc", "--from", "clone")
    assert code == 0
    assert "only the counts were verified, no hash is known: cityscapes 20 0, 100 0, 372 0" in out
    unlabeled = Path("data_splits/cityscapes/dmtc/372/0/unlabeled.txt").read_text().split()
    assert (len(unlabeled), unlabeled[0]) == (2603, ids[372])
