import csv
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

import semiseg
from processes import Command
from semiseg.apply import labeling_order as labeling
from semiseg.apply.prediction_stability import Stability, snapshot_files
from semiseg.cli import main
from semiseg.data.folder import Folder
from semiseg.data.mask_pixels import read_pixels
from semiseg.data.picture_files import read_image
from semiseg.data.shapes import Shapes
from semiseg.files import read_json
from semiseg.pseudo import above_thresholds, class_balanced_thresholds
from semiseg.runs.use import open_run

SHAPES = Shapes(train=16, val=5, test=3, size=48)
PICTURES = {"a.png": 0, "b.bmp": 1, "trip/a.png": 2, "c.png": 3, "c.jpg": 4}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working directory with pictures, some in a subfolder, two with the same stem."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/trip").mkdir(parents=True)
    for name, number in PICTURES.items():
        Image.fromarray(SHAPES.image(f"train-{number:04d}")).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def out(photos):
    return photos.parent / "out"


@pytest.fixture(scope="module")
def with_snapshots(varied_run, tiny_run, tmp_path_factory):
    """A run that kept three networks while it learned: two of its first step, and the last."""
    folder = tmp_path_factory.mktemp("snapshots") / "run"
    shutil.copytree(varied_run, folder)
    (step,) = (folder / "stages").glob("*-train")
    for number in (2, 10):
        shutil.copy(tiny_run / "checkpoints/best.pt", step / f"snapshot-{number}.pt")
    return folder


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder):
    with (folder / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def told(capsys):
    """What went to standard error: one screen, no traceback."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert len(text.splitlines()) < 25
    return text


def test_the_surest_pixels_of_every_class_are_labeled(varied_run, photos, out):
    assert main(["label", str(varied_run), "photos", "-o", "out", "--keep", "0.3"]) == 0
    predictor = semiseg.load(varied_run, device="cpu")
    sources = {"a": "a.png", "b": "b.bmp", "c.jpg": "c.jpg", "c.png": "c.png", "trip/a": "trip/a.png"}
    made = {name: predictor.predict(photos / file) for name, file in sources.items()}
    pairs = ((made[name].label, made[name].confidence) for name in sources)
    thresholds = class_balanced_thresholds(pairs, 7, 0.3, stride=1)
    for name, each in made.items():
        mask = read_pixels(out / "masks" / f"{name}.png").codes
        np.testing.assert_array_equal(
            mask, above_thresholds(each.label, each.confidence, thresholds.tolist())
        )
    labels = np.concatenate([each.label.ravel() for each in made.values()])
    masks = np.concatenate([read_pixels(out / "masks" / f"{name}.png").codes.ravel() for name in made])
    counts = np.bincount(labels)
    assert sum(counts >= 100) >= 3
    for label in np.flatnonzero(counts >= 100):
        assert (masks[labels == label] == label).mean() == pytest.approx(0.3, abs=1.01 / counts[label])
    record = read_json(out / "label.json")
    assert list(record["thresholds"].values()) == pytest.approx(thresholds.tolist())
    assert not (out / ".unfinished").exists()


def test_the_folder_is_a_dataset(varied_run, photos, out):
    assert main(["label", str(varied_run), "photos", "-o", "out"]) == 0
    dataset = Folder(str(out), classes=SHAPES.info.classes, val=0.2)
    ids = {*dataset.ids("train"), *dataset.ids("val")}
    assert ids == {"a", "b", "c.jpg", "c.png", "trip/a"}
    for image_id in ids:
        mask = dataset.mask(image_id)
        assert mask is not None
        assert mask.shape == (48, 48)
        assert 0 < (mask != 255).mean() < 1
    np.testing.assert_array_equal(dataset.image("b"), read_image(photos / "b.bmp"))
    assert (out / "classes.txt").read_text().splitlines()[:2] == ["background,0,#282828", "disk,1,#e64b3c"]


def test_the_least_sure_picture_comes_first(varied_run, photos, out):
    assert main(["label", str(varied_run), "photos", "-o", "out", "--keep", "1", "--first", "2"]) == 0
    ranking = rows(out)
    assert [int(row["rank"]) for row in ranking] == [1, 2, 3, 4, 5]
    assert {row["labeled"] for row in ranking} == {"1.0000"}
    predictor = semiseg.load(varied_run, device="cpu")
    means = [float(predictor.predict(row["source"]).confidence.mean()) for row in ranking]
    assert means == sorted(means)
    assert [float(row["confidence"]) for row in ranking] == pytest.approx(means, abs=1e-4)
    assert [bool(row["image"]) for row in ranking] == [True, True, False, False, False]
    assert {path.relative_to(out).as_posix() for path in out.glob("masks/**/*.png")} == {
        row["mask"] for row in ranking[:2]
    }


def test_stability_between_networks_of_the_run(with_snapshots, photos, out):
    run = open_run(with_snapshots)
    assert [path.name for path in snapshot_files(run)] == ["snapshot-2.pt", "snapshot-10.pt"]
    assert main(["label", str(with_snapshots), "photos", "-o", "out", "--rank", "stability"]) == 0
    ranking = rows(out)
    scores = [float(row["stability"]) for row in ranking]
    assert scores == sorted(scores)
    assert all(0 <= score < 1 for score in scores)
    predictor = semiseg.load(with_snapshots, device="cpu")
    for row, score in zip(ranking, scores, strict=True):
        label = predictor.predict(row["source"]).label
        background = float((label == 0).mean())  # all that the two other networks see
        assert score == pytest.approx(background / len(set(label.ravel()) | {0}), abs=1e-4)
    assert read_json(out / "label.json")["stability_compared_with"] == "snapshots"


def test_stability_between_views_where_a_run_kept_no_networks(varied_run, photos, out):
    assert main(["label", str(varied_run), "photos", "-o", "out", "--rank", "stability"]) == 0
    assert read_json(out / "label.json")["stability_compared_with"] == "views"
    predictor = semiseg.load(varied_run, device="cpu")
    stability = Stability(predictor, open_run(varied_run))
    flat = np.full((48, 48, 3), 90, np.uint8)
    image = SHAPES.image("train-0000")
    assert stability.score(flat, predictor.predict(flat).label) > stability.score(
        image, predictor.predict(image).label
    )


def test_pictures_can_be_linked(varied_run, photos, out):
    (photos / "scan.scan").write_bytes((photos / "b.bmp").read_bytes())
    command = ["label", str(varied_run), "photos", "photos/scan.scan", "-o", "out", "--link"]
    assert main(command) == 0
    assert (out / "images/a.png").resolve() == photos / "a.png"
    # No dataset would find a file of this extension.
    np.testing.assert_array_equal(read_image(out / "images/scan.scan.png"), read_image(photos / "scan.scan"))
    before = content(photos)
    assert main([*command, "--force"]) == 0
    assert main([*command[:-1], "--force"]) == 0
    assert not (out / "images/a.png").is_symlink()
    assert content(photos) == before


def test_corrections_are_never_lost(varied_run, photos, out, capsys):
    command = ["label", str(varied_run), "photos", "-o", "out"]
    assert main(command) == 0
    (out / "masks/a.png").write_bytes(b"by hand")
    before = content(out)
    assert main(command) == 2
    assert "out holds labels already, perhaps corrected by hand: label.json" in told(capsys)
    assert content(out) == before
    assert main([*command, "--force"]) == 0
    assert read_pixels(out / "masks/a.png").codes.shape == (48, 48)


def test_bad_files_are_listed_at_the_end(varied_run, photos, out, capsys):
    (photos / "d.jpg").write_bytes(b"no image")
    assert main(["label", str(varied_run), "photos", "-o", "out"]) == 2
    assert "1 of 6 images could not be predicted" in (text := told(capsys))
    assert "d.jpg: not an image" in text
    assert len(rows(out)) == 5
    assert len(read_json(out / "label.json")["failed"]) == 1
    assert main(["label", str(varied_run), "photos/d.jpg", "-o", "bad"]) == 2
    assert not (photos.parent / "bad").exists()


@pytest.mark.parametrize("phase", ["predicted", "Stability.score", "LabelFolder.write"])
def test_interrupted_work_is_continued(varied_run, photos, out, capsys, monkeypatch, phase):
    command = ["label", str(varied_run), "photos", "--rank", "stability"]
    assert main([*command, "-o", "whole"]) == 0
    *kind, name = phase.split(".")
    owner = getattr(labeling, kind[0]) if kind else labeling
    original, calls = getattr(owner, name), []

    def counted(*values):
        calls.append(values)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*values)

    monkeypatch.setattr(owner, name, counted)
    assert main([*command, "-o", "out"]) == 130
    assert "stopped: SIGINT; the same command goes on" in told(capsys)
    assert (out / ".unfinished").is_dir()
    assert not (out / "label.json").exists()
    assert main([*command, "-o", "out", "--flip"]) == 2
    assert "unfinished work of `semiseg label` on other images, or with other settings" in told(capsys)
    assert main([*command, "-o", "out"]) == 0
    assert len(calls) in (5, 8)  # writing is done again, what costs time is not
    assert content(out) == content(photos.parent / "whole")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "photos", "-o", "out"], "photos holds no run"),
        (["RUN", "foto", "-o", "out"], "foto: there is no such file or folder. Did you mean photos?"),
        (["RUN", "photos"], "required: -o/--output"),
        (["RUN", "photos", "-o", "photos/a.png"], "photos/a.png cannot be written (it is a file)"),
        (["RUN", "photos", "-o", "out", "--keep", "0"], "0 is no share above 0 and up to 1"),
        (["RUN", "photos", "-o", "out", "--first", "-1"], "-1 is not above 0"),
        (["RUN", "photos", "-o", "out", "--rank", "beauty"], "invalid choice: 'beauty'"),
    ],
)
def test_mistakes_take_one_screen(varied_run, photos, capsys, words, message):
    before = content(photos.parent)
    assert main(["label", *(str(varied_run) if word == "RUN" else word for word in words)]) == 2
    assert message in told(capsys)
    assert content(photos.parent) == before


def test_a_full_disk_is_told(varied_run, photos, capsys, monkeypatch):
    def full(self, found):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(labeling.Labeling, "predict", full)
    assert main(["label", str(varied_run), "photos", "-o", "out"]) == 2
    assert "out cannot be written (No space left on device)" in told(capsys)


@pytest.mark.slow
def test_as_a_command(varied_run, photos):
    code, output = Command("label", str(varied_run), "photos", "-o", "out", "--first", "2").finish()
    assert (code, "2 images with masks, and ranking.csv of 5, in out" in output) == (0, True), output
    for words, message in (
        (["photos", "-o", "out"], "holds labels already, perhaps corrected by hand"),
        (["nowhere", "-o", "new"], "nowhere: there is no such file or folder"),
    ):
        code, output = Command("label", str(varied_run), *words).finish()
        assert (code, message in output, "Traceback" in output) == (2, True, False), output
