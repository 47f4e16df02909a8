import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import semiseg
from processes import Command
from semiseg.apply.predict_folder import Predictions
from semiseg.cli import main
from semiseg.cli.eval import evaluate_run
from semiseg.data.mask_pixels import read_pixels
from semiseg.data.shapes import Shapes
from semiseg.files import read_json
from semiseg.runs.predictor import Predictor
from semiseg.runs.use import open_run
from semiseg.tasks.metrics import ConfusionMatrix

SHAPES = Shapes(train=16, val=5, test=3, size=48)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working directory with pictures, some in a subfolder, two with the same stem."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/trip").mkdir(parents=True)
    for name, image_id in {"a.png": 0, "b.png": 1, "b.bmp": 2, "trip/a.png": 3}.items():
        Image.fromarray(SHAPES.image(f"train-{image_id:04d}")).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def content(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def told(capsys):
    """What went to standard error: one screen, no traceback."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert len(text.splitlines()) < 25
    return text


def test_labels_are_those_that_eval_counts(varied_run, tmp_path, capsys):
    run = open_run(varied_run)
    dataset, split = run.data()
    for image_id in split.val:
        Image.fromarray(dataset.image(image_id)).save(tmp_path / f"{image_id}.png")
    assert (
        main(["predict", str(varied_run), str(tmp_path), "-o", str(tmp_path / "out"), "--confidence", "8"])
        == 0
    )
    matrix = ConfusionMatrix(dataset.info.num_classes, absent="skip", decimals=None, ignore_index=255)
    for image_id in split.val:
        label = read_pixels(tmp_path / "out/labels" / f"{image_id}.png").codes
        matrix.update(torch.from_numpy(label), torch.from_numpy(dataset.mask(image_id)))
    expected = evaluate_run(run, "reported", "val", run.evaluator(), torch.device("cpu")).result
    assert matrix.compute().as_dict()["confusion"] == expected["confusion"]
    assert "5 images predicted: labels, overlay, confidence in" in capsys.readouterr().out


def test_names_are_kept(varied_run, photos, capsys):
    (photos / "trip" / "c.heic").write_bytes(b"x")
    assert main(["predict", str(varied_run), "photos", "-o", "out"]) == 0
    assert "left aside: 1 heic\n" in capsys.readouterr().out
    names = ["a.png", "b.bmp.png", "b.png.png", "trip/a.png"]
    expected = [f"{kind}/{name}" for kind in ("labels", "overlay") for name in names]
    assert files(photos.parent / "out") == sorted([*expected, "legend.png", "predict.json"])
    record = read_json(photos.parent / "out/predict.json")
    assert record["state"] == "done"
    assert record["images"]["b.bmp"] == {
        "file": str(photos / "b.bmp"), "size": [48, 48], "tiled": False
    }  # fmt: skip
    assert record["classes"] == list(SHAPES.info.classes)
    predicted = semiseg.load(varied_run, device="cpu").predict(photos / "trip/a.png")
    with Image.open("out/labels/trip/a.png") as label:
        assert label.mode == "P"
        np.testing.assert_array_equal(np.array(label), predicted.label)
    with Image.open("out/overlay/trip/a.png") as overlay:
        np.testing.assert_array_equal(np.array(overlay), np.array(predicted.overlay()))


def test_settings_reach_the_network(varied_run, photos):
    options = ["--flip", "--scales", "0.5,1", "--tile", "32", "--confidence", "16", "--no-overlay"]
    assert main(["predict", str(varied_run), "photos/a.png", "-o", "out", *options]) == 0
    assert files(photos.parent / "out") == ["confidence/a.png", "labels/a.png", "legend.png", "predict.json"]
    way = semiseg.load(varied_run, device="cpu").applied(flip=True, scales=[0.5, 1], tile=32)
    predicted = way.predict(photos / "a.png")
    np.testing.assert_array_equal(read_pixels(photos.parent / "out/labels/a.png").codes, predicted.label)
    with Image.open("out/confidence/a.png") as gray:
        np.testing.assert_allclose(np.array(gray) / 65535, predicted.confidence, atol=1e-5)
    record = read_json(photos.parent / "out/predict.json")
    assert record["images"]["a"]["tiled"]
    assert record["tiles"] == {"side": 32, "overlap": 4, "above": 0}
    assert (record["confidence_of_white"], record["overlay"]) == (65535, None)


def test_bad_files_are_listed_at_the_end(varied_run, photos, capsys):
    (photos / "c.jpg").write_bytes(b"no image")
    (photos / "d.png").write_bytes((photos / "a.png").read_bytes()[:200])
    Image.new("I;16", (9, 9)).save(photos / "e.png")
    assert main(["predict", str(varied_run), "photos", "-o", "out"]) == 2
    text = told(capsys)
    assert "3 of 7 images could not be predicted" in text
    assert "c.jpg: not an image" in text
    assert "d.png: " in text
    assert "e.png: 16 bits a channel; expected 8" in text
    record = read_json(photos.parent / "out/predict.json")
    assert len(record["images"]) == 4
    assert len(record["failed"]) == 3


def test_a_picture_too_large_for_the_memory_is_one_of_the_bad(varied_run, photos, capsys, monkeypatch):
    whole = Predictor.predict

    def predict(self, image, between):
        if np.array_equal(image.pixels, SHAPES.image("train-0001")):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, image, between)

    monkeypatch.setattr(Predictor, "predict", predict)
    assert main(["predict", str(varied_run), "photos", "-o", "out"]) == 2
    assert "b.png: 48x48 pixels do not fit into memory; try --tile 1024" in told(capsys)
    assert (photos.parent / "out/labels/trip/a.png").exists()


def test_nothing_is_replaced_unasked(varied_run, photos, capsys):
    command = ["predict", str(varied_run), "photos", "-o", "out"]
    (photos.parent / "out/labels").mkdir(parents=True)
    (photos.parent / "out/labels/a.png").write_text("by hand")
    assert main(command) == 2
    assert "out holds predictions already: labels/a.png.\nAdd --skip-existing" in told(capsys)
    assert files(photos.parent / "out") == ["labels/a.png"]
    assert main([*command, "--force"]) == 0
    first = content(photos.parent / "out")
    assert main(command) == 2
    assert content(photos.parent / "out") == first


def test_what_is_missing_is_made(varied_run, photos, capsys):
    command = ["predict", str(varied_run), "photos", "-o", "out", "--skip-existing"]
    assert main(command) == 0
    first = content(photos.parent / "out")
    (photos.parent / "out/overlay/a.png").unlink()
    (photos.parent / "out/labels/trip/a.png").unlink()
    (photos.parent / "out/labels/b.bmp.png").write_text("by hand")
    assert main(command) == 0
    assert "2 images predicted, 2 were there already" in capsys.readouterr().out
    assert content(photos.parent / "out") == {**first, "labels/b.bmp.png": b"by hand"}
    assert main([*command, "--flip"]) == 2
    assert "made in another way (other evaluator)" in told(capsys)


def test_a_picture_is_never_replaced_by_its_prediction(varied_run, photos, capsys):
    (photos.parent / "out/labels").mkdir(parents=True)
    (photos / "a.png").rename(photos.parent / "out/labels/a.png")
    before = (photos.parent / "out/labels/a.png").read_bytes()
    assert main(["predict", str(varied_run), "out/labels/a.png", "-o", "out", "--force"]) == 2
    assert "replaced by its own prediction" in told(capsys)
    assert (photos.parent / "out/labels/a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "photos", "-o", "out"], "photos holds no run"),
        (["RUN", "foto", "-o", "out"], "foto: there is no such file or folder. Did you mean photos?"),
        (["RUN", "photos"], "required: -o/--output"),
        (["RUN", "photos", "-o", "photos/a.png"], "photos/a.png cannot be written (it is a file)"),
        (["RUN", "photos", "-o", "out", "--confidence", "12"], "invalid choice: 12"),
        (["RUN", "photos", "-o", "out", "--overlay", "2"], "2 is no share between 0 and 1"),
        (["RUN", "photos", "-o", "out", "--tile", "4"], "tiles of 4 pixels"),
        (["RUN", "photos", "-o", "out", "--tile", "big"], "invalid number of pixels, or never value: 'big'"),
        (
            ["RUN", "photos", "-o", "out", "--overlap", "4"],
            "an overlap of 4 pixels goes with the size of a tile",
        ),
        (["RUN", "photos", "-o", "out", "--device", "gpu"], "--device=gpu"),
        (["RUN", "photos", "-o", "out", "--checkpoint", "x.pt"], "There is no checkpoint x.pt"),
        (["RUN", "photos", "-o", "out", "--force", "--skip-existing"], "not allowed with"),
    ],
)
def test_mistakes_take_one_screen(varied_run, photos, capsys, words, message):
    before = content(photos.parent)
    assert main(["predict", *(str(varied_run) if word == "RUN" else word for word in words)]) == 2
    assert message in told(capsys)
    assert content(photos.parent) == before


def test_a_disk_that_refuses_ends_the_work(varied_run, photos, capsys, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("semiseg.pictures.replacing", full)
        assert main(["predict", str(varied_run), "photos", "-o", "out"]) == 2
    assert "cannot be written" in told(capsys)


def test_ctrl_c_leaves_whole_files_and_the_rest_can_follow(varied_run, photos, capsys, monkeypatch):
    write, written = Predictions.write, []

    def interrupted(self, name, *values):
        if not written:
            os.kill(os.getpid(), signal.SIGINT)
        written.append(name)
        write(self, name, *values)

    command = ["predict", str(varied_run), "photos", "-o", "out"]
    with monkeypatch.context() as patch:
        patch.setattr(Predictions, "write", interrupted)
        assert main(command) == 130
    assert "stopped: SIGINT after " in (text := told(capsys))
    assert " of 4 images; the same command with --skip-existing goes on" in text
    out = photos.parent / "out"
    done = read_json(out / "predict.json")
    assert done["state"] == "interrupted"
    assert 1 <= len(done["images"]) < 4
    for path in out.glob("*/**/*.png"):
        Image.open(path).load()
    assert len(files(out)) == 2 + 2 * len(done["images"])
    assert main([*command, "--skip-existing"]) == 0
    record = read_json(out / "predict.json")
    assert (record["state"], len(record["images"])) == ("done", 4)
    assert len(list(out.glob("labels/**/*.png"))) == 4


def test_a_stop_is_heeded_between_tiles(varied_run, photos, monkeypatch):
    Image.new("RGB", (600, 600)).save("large.png")
    seen = []

    def predict(*arguments):
        seen.append(arguments)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return predicted(*arguments)

    predicted = semiseg.tasks.tiles.predict
    monkeypatch.setattr("semiseg.tasks.tiles.predict", predict)
    assert main(["predict", str(varied_run), "large.png", "-o", "out", "--tile", "64"]) == 143
    assert len(seen) == 2
    assert not list((photos.parent / "out/labels").iterdir())


@pytest.mark.slow
def test_as_a_command(varied_run, photos):
    (photos.parent / "empty").mkdir()
    code, output = Command("predict", str(varied_run), "photos", "-o", "out").finish()
    assert (code, "4 images predicted: labels, overlay in out" in output) == (0, True), output
    (photos / "c.jpg").write_bytes(b"no image")
    for words, message in (
        (["photos", "-o", "out"], "holds predictions already"),
        (["photos", "-o", "other"], "1 of 5 images could not be predicted"),
        (["nowhere", "empty", "-o", "new"], "2 of 2 arguments name no image"),
    ):
        code, output = Command("predict", str(varied_run), *words).finish()
        assert (code, message in output, "Traceback" in output) == (2, True, False), output
