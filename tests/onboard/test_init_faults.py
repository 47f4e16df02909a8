"""What ``semiseg init`` refuses, and what it leaves alone."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from own_folder import GENERATOR, GREY, fields, photo, save
from PIL import Image, ImageDraw

from semiseg.cli import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(root, *options):
    assert main(["init", str(root), *options]) == 0


def refused(capsys, root, *options):
    assert main(["init", str(root), *options]) == 2
    text = capsys.readouterr().err
    assert len(text.splitlines()) < 40
    return text


def written():
    return yaml.safe_load(Path("dataset/fields.yaml").read_text(encoding="utf-8"))


def test_an_existing_config_is_kept(here, capsys):
    root = fields(here / "fields")
    init(root)
    before = (here / "dataset/fields.yaml").read_text()
    text = refused(capsys, root, "--classes", "a,b,c")
    assert "dataset/fields.yaml and experiments/fields.yaml exist already: --force replaces them" in text
    assert (here / "dataset/fields.yaml").read_text() == before
    (here / "dataset/fields.yaml").unlink()
    text = refused(capsys, root, "--val", "0.5", "--no-preset")
    assert "fields.val.txt exists already: --force replaces it" in text
    init(root, "--classes", "a,b,c", "--force")
    assert written()["classes"] == ["a", "b", "c"]


def test_bad_files_are_named_together(here, capsys):
    root = fields(here / "fields", unlabeled="xy")
    (root / "images" / "x.jpg").write_bytes(b"no image")
    photo(root / "images" / "b.jpg", (9, 9))
    text = refused(capsys, root)
    assert "x.jpg (id x): not an image" in text
    assert "mask is 8x6, its image 9x9" in text
    assert "--skip-bad" in text
    assert not (here / "dataset").exists()
    init(root, "--skip-bad")
    assert written()["skip_bad"] is True
    assert "left out 2 unusable files" in capsys.readouterr().out
    (root / "masks" / "c.png").write_bytes(b"")
    text = refused(capsys, root, "--force")
    assert "c.png (id c): empty file" in text
    assert "x.jpg (id x): not an image" in text
    assert "bad files: 1" in refused(capsys, root, "--force", "--classes", "a,b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "voc"), "dataset=voc is one of semiseg's own .* --name my_voc"),
        (("--name", "a/b"), "expected letters, digits, - and _"),
        (
            ("--classes", "a,b"),
            r"names 2 classes, but the masks hold 4 values: 0 \(90 pixels, 37.50%, in 5 masks\)",
        ),
        (("--classes", "a"), "expected at least two names"),
        (("--classes", "a,b,a"), "class names occur twice: a"),
        (("--classes", "a=0,b=0,c=2"), "two classes have 0"),
        (("--classes", "a=0,b=1"), r"the masks also hold 2 \(.*--void 2"),
        (("--classes", "a=0,b,c"), "b has no value"),
        (("--classes", "a=red,b=blue"), "'red' is no color"),
        (("--images", "nowhere"), "none has a mask of the folders and names given"),
        (("--mask-suffix", "_x"), "none has a mask of the folders and names given"),
        (("--vla", "0.2"), "--help. shows the options"),
        (("--val", "2"), "dataset.val=2.0: expected a share"),
        (("--val", "list.txt"), "cannot read the id list"),
    ],
)
def test_bad_options(here, capsys, options, message):
    text = refused(capsys, fields(here / "fields"), *options)
    assert re.search(message, text.replace("\n", " "))


def test_folders_that_cannot_be_a_dataset(here, capsys):
    assert "nowhere does not exist" in refused(capsys, here / "nowhere")
    (here / "file").touch()
    assert "file is not a folder" in refused(capsys, here / "file")
    (here / "empty").mkdir()
    assert "no images in" in refused(capsys, here / "empty")
    text = refused(capsys, fields(here / "bare", labeled=""))
    assert "3 images, but none has a mask" in text
    assert "bare/images: 3" in text
    flat = fields(here / "flat", mask=np.zeros_like(GREY))
    assert "masks hold 0 (240 pixels, 100.00%, in 5 masks) and no other value" in refused(capsys, flat)
    one = fields(here / "one", labeled="a")
    assert "no labeled image left for training" in refused(capsys, one)


def test_masks_that_are_smoothed_or_lossy(here, capsys):
    smooth = GENERATOR.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    root = here / "smooth"
    for stem in "ab":
        photo(root / "images" / f"{stem}.jpg", (40, 50))
        save(root / "masks" / f"{stem}.png", smooth)
    text = refused(capsys, root)
    assert re.search("the masks hold [12],[0-9]{3} colors", text)
    assert "without antialiasing" in text
    drawn = here / "drawn"
    for place, stem in enumerate("ab"):
        photo(drawn / "images" / f"{stem}.jpg", (40, 50))
        picture = Image.new("L", (200, 160))
        ImageDraw.Draw(picture).ellipse((20 + place, 20, 120, 130), fill=200)
        save(drawn / "masks" / f"{stem}.png", np.asarray(picture.resize((50, 40))))
    init(drawn)
    text = capsys.readouterr().out
    assert "2 of 2 masks hold" in text
    assert "thin lines at edges" in text
    assert re.search("class_1 +200", text)
    assert "class_2" not in text
    lossy = fields(here / "lossy", masks="masks/{}.jpg")
    assert "JPEG; a mask has to be stored without loss" in refused(capsys, lossy)


def test_a_place_that_cannot_be_written_is_told_before_files_are_read(here, capsys, monkeypatch):
    root = fields(here / "fields")
    (here / "dataset").touch()

    def read(*_):
        raise AssertionError("files were read")

    monkeypatch.setattr("semiseg.cli.init.find_layout", read)
    text = refused(capsys, root)
    assert re.fullmatch(
        r"semiseg: dataset/fields.yaml cannot be written \(.*dataset is a file\)\. Change to .*\n", text
    )
    (here / "dataset").unlink()
    for number, words in ((errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", failing(OSError(number, words)))
            text = refused(capsys, root)
        assert text.startswith(
            f"semiseg: dataset/fields.yaml cannot be written ({words}). Change to a folder"
        )
        assert len(text.splitlines()) == 1
        assert not list(here.glob(".*"))
    assert not (here / "dataset").exists()


def failing(error):
    def fail(*_):
        raise error

    return fail


def test_a_disk_that_gets_full_while_files_are_read(here, capsys, monkeypatch):
    root = fields(here / "fields")
    monkeypatch.setattr(
        "semiseg.onboard.draft.write_text", failing(OSError(errno.ENOSPC, "No space left on device"))
    )
    text = refused(capsys, root)
    assert "dataset/fields.yaml cannot be written (No space left on device)" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(here, capsys):
    root = fields(here / "fields")
    here.chmod(0o500)
    try:
        text = refused(capsys, root)
    finally:
        here.chmod(0o700)
    assert "dataset/fields.yaml cannot be written (Permission denied)" in text


@pytest.mark.parametrize("name", ["val.txt", "test.txt", "train.txt"])
def test_a_list_without_names(here, capsys, name):
    root = fields(here / "fields")
    (root / "val.txt").write_text("a\n")
    (root / name).write_text("\n\n")
    assert f"{root / name} names no image" in refused(capsys, root)


def test_as_a_process(here):
    """As a person meets it: exit codes, one screen without a traceback, and nothing half written."""
    root = fields(here / "fields")
    (root / "images" / "x.jpg").write_bytes((root / "images" / "y.jpg").read_bytes()[:40])

    def run(*words):
        command = [sys.executable, "-m", "semiseg", "init", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for words, message in (
        (("nowhere",), "nowhere does not exist"),
        (("fields",), "x.jpg (id x)"),
        (("fields", "--skip-bad", "--classes", "soil,weed"), "names 2 classes, but the masks hold 4 values"),
    ):
        result = run(*words)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) < 20
        assert not (here / "dataset").exists()
    result = run("fields", "--skip-bad")
    assert (result.returncode, result.stderr) == (0, "")
    assert "written  dataset/fields.yaml" in result.stdout
