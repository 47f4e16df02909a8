"""Prediction of GeoTIFF in windows, by runs on bands and by ordinary ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semiseg
from band_pictures import numbers, write_fields, write_png, write_tiff
from semiseg.cli import main
from semiseg.contracts.dataset import Bands
from semiseg.data.bands import read_bands

rasterio = pytest.importorskip("rasterio")
SETTINGS = (
    *("method=supervised", "backbone=tiny", "backbone.width=4", "model=pspnet", "augment=standard"),
    *("trainer.iterations=3", "trainer.batch_size=2", "trainer.crop_size=32", "trainer.device=cpu"),
    *("trainer.num_workers=0", "trainer.threads=1", "trainer.channels_last=false", "tracker.samples=1"),
)


@pytest.fixture(scope="module")
def bands_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on four bands of 16 bits, whose dataset ``semiseg init`` has measured."""
    folder = tmp_path_factory.mktemp("bands")
    write_fields(folder / "fields", 4, "uint16")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "fields", "--bands", "--classes", "soil,crop,water"]) == 0
        assert main(["train", "dataset=fields", f"run_dir={folder / 'run'}", *SETTINGS]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def rgb_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rgb") / "run"
    shapes = ("dataset=shapes", "dataset.train=4", "dataset.val=2", "dataset.test=1", "dataset.size=48")
    assert main(["train", *shapes, "split=1/2", f"run_dir={folder}", *SETTINGS]) == 0
    return folder


def test_labels_lie_where_the_picture_lies(bands_run: Path, tmp_path: Path) -> None:
    pixels = numbers(90, 70, 4, "uint16")
    pixels[:7, :9] = 0
    place = {"crs": "EPSG:25832", "transform": rasterio.Affine(8, 6, 500_000, 6, -8, 5_000_000)}
    path = write_tiff(tmp_path / "in" / "a.tif", pixels, nodata=0, **place)
    assert (
        main(["predict", str(bands_run), str(path), "-o", str(tmp_path / "out"), "--confidence", "16"]) == 0
    )
    expected = semiseg.load(bands_run, device="cpu").predict(path)
    with rasterio.open(tmp_path / "out" / "labels" / "a.tif") as labels:
        assert labels.crs.to_string() == "EPSG:25832"
        assert labels.transform == place["transform"]
        assert (labels.count, labels.dtypes, labels.nodata) == (1, ("uint8",), 255)
        assert np.array_equal(labels.read(1), expected.label)
        assert (labels.read(1)[:7, :9] == 255).all()
        assert labels.colormap(1)[1][:3] == expected.palette[1]
    with rasterio.open(tmp_path / "out" / "confidence" / "a.tif") as shares:
        found = shares.read(1)
        assert (found[:7, :9] == 0).all()
        assert np.abs(found / 65535 - expected.confidence).max() < 1e-4
    with Image.open(tmp_path / "out" / "overlay" / "a.png") as overlay:
        assert np.array_equal(np.asarray(overlay), np.asarray(expected.overlay()))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (150, 97), (33, 200), (1, 90), (90, 1), (257, 131)])
def test_windows_give_what_the_whole_picture_gives(
    bands_run: Path, tmp_path: Path, height: int, width: int
) -> None:
    path = write_tiff(tmp_path / "a.tif", numbers(height, width, 4, "uint16"))
    out = str(tmp_path / "out")
    assert main(["predict", str(bands_run), str(path), "-o", out, "--tile", "48", "--overlap", "9"]) == 0
    predictor = semiseg.load(bands_run, device="cpu").applied(tile=48, overlap=9)
    with rasterio.open(tmp_path / "out" / "labels" / "a.tif") as labels:
        assert np.array_equal(labels.read(1), predictor.predict(path).label)


def test_an_overlay_of_a_large_picture_is_reduced(
    bands_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semiseg.apply.raster_prediction.LONGEST", 50)
    path = write_tiff(tmp_path / "a.tif", numbers(90, 121, 4, "uint16"))
    assert main(["predict", str(bands_run), str(path), "-o", str(tmp_path / "out"), "--tile", "48"]) == 0
    whole = semiseg.load(bands_run, device="cpu").applied(tile=48).predict(path).overlay()
    with Image.open(tmp_path / "out" / "overlay" / "a.png") as overlay:
        assert np.array_equal(np.asarray(overlay), np.asarray(whole)[::3, ::3])


def test_arrays_and_png_of_bands_give_png(bands_run: Path, tmp_path: Path) -> None:
    pixels = numbers(40, 50, 4, "uint16")
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", pixels)
    write_png(tmp_path / "in" / "b.png", pixels)
    assert main(["predict", str(bands_run), str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    expected = semiseg.load(bands_run, device="cpu").predict(pixels).label
    for name in ("a", "b"):
        with Image.open(tmp_path / "out" / "labels" / f"{name}.png") as labels:
            assert np.array_equal(np.asarray(labels), expected)


def test_pictures_that_do_not_fit_are_named_and_others_are_predicted(
    bands_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiff(tmp_path / "in" / "good.tif", numbers(40, 50, 4, "uint16"))
    write_tiff(tmp_path / "in" / "three.tif", numbers(40, 50, 3, "uint16"))
    write_tiff(tmp_path / "in" / "wide.tif", numbers(40, 50, 4, "float32"))
    cut = write_tiff(tmp_path / "in" / "cut.tif", numbers(40, 50, 4, "uint16"))
    cut.write_bytes(cut.read_bytes()[:1000])
    assert main(["predict", str(bands_run), str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "3 channels; expected 4" in said
    assert "float32" in said
    assert "damaged, cut off" in said
    assert [path.name for path in (tmp_path / "out" / "labels").iterdir()] == ["good.tif"]


def test_python_refuses_arrays_of_other_kinds(bands_run: Path) -> None:
    predictor = semiseg.load(bands_run, device="cpu")
    for wrong in (numbers(8, 8, 3, "uint16"), numbers(8, 8, 4, "float32"), np.zeros((0, 8, 4), np.uint16)):
        with pytest.raises(
            semiseg.errors.UserError, match=r"expected a path, or an array \(H, W, 4\) uint16"
        ):
            predictor.predict(wrong)
    assert predictor.info.bands is not None
    assert predictor.info.bands.channels == 4


def test_the_network_normalizes_by_what_init_measured(bands_run: Path) -> None:
    predictor = semiseg.load(bands_run, device="cpu")
    images = [bands_run.parent / "fields" / "images" / f"f{number}.tif" for number in (1, 2, 3, 4)]
    pixels = np.concatenate(
        [read_bands(path, Bands(4, "uint16", [0.0] * 4, [1.0] * 4))[0].reshape(-1, 4) for path in images]
    )
    assert predictor.network.channels == 4
    assert np.allclose(predictor.network.convention.mean, pixels.mean(0, dtype=np.float64), rtol=1e-8)
    assert np.allclose(predictor.network.convention.std, pixels.std(0, dtype=np.float64), rtol=1e-8)


def test_an_ordinary_run_predicts_orthophotos_in_windows(rgb_run: Path, tmp_path: Path) -> None:
    from rasterio.enums import ColorInterp

    pixels = numbers(90, 70, 4, "uint8")
    pixels[..., 3] = 255
    pixels[:5, :5, 3] = 0
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write_tiff(tmp_path / "a.tif", pixels, colorinterp=colors)
    out = str(tmp_path / "out")
    assert main(["predict", str(rgb_run), str(path), "-o", out, "--geotiff", "--tile", "48"]) == 0
    expected = (
        semiseg.load(rgb_run, device="cpu").applied(tile=48).predict(np.ascontiguousarray(pixels[..., :3]))
    )
    with rasterio.open(tmp_path / "out" / "labels" / "a.tif") as labels:
        found = labels.read(1)
    assert (found[:5, :5] == 255).all()
    inside = found != 255
    assert np.array_equal(found[inside], expected.label[inside])
    assert inside.sum() == 90 * 70 - 25
    assert main(["predict", str(rgb_run), str(path), "-o", str(tmp_path / "plain")]) == 0
    assert (tmp_path / "plain" / "labels" / "a.png").is_file()


def test_label_takes_pictures_of_bands(bands_run: Path, tmp_path: Path) -> None:
    pixels = numbers(40, 50, 4, "uint16")
    pixels[:5] = 0
    write_tiff(tmp_path / "in" / "a.tif", pixels, nodata=0)
    assert (
        main(["label", str(bands_run), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--keep", "1"]) == 0
    )
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert (np.asarray(mask)[:5] == 255).all()
    assert (tmp_path / "out" / "images" / "a.tif").read_bytes() == (tmp_path / "in" / "a.tif").read_bytes()


def test_eval_refuses_other_kinds_of_images(
    bands_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(bands_run), "-o", str(tmp_path)]) == 0
    config = tmp_path / "dataset" / "five.yaml"
    write_fields(tmp_path / "five", 5, "uint16")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["init", "five", "--bands", "--classes", "soil,crop,water"]) == 0
        assert config.is_file()
        capsys.readouterr()
        assert main(["eval", str(bands_run), "dataset=five", "-o", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "takes images of 4 bands of uint16, the dataset has images of 5 bands of uint16" in said


def test_a_run_goes_on_only_from_a_network_of_the_same_channels(
    bands_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fields(tmp_path / "fields", 4, "uint16")
    write_fields(tmp_path / "five", 5, "uint16")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name, code in (("fields", 0), ("five", 2)):
            assert main(["init", name, "--bands", "--classes", "soil,crop,water"]) == 0
            run = ("train", f"dataset={name}", f"run_dir={tmp_path / name}-run", f"init_from={bands_run}")
            capsys.readouterr()
            assert main([*run, *SETTINGS]) == code
    said = " ".join(capsys.readouterr().err.split())
    assert "its network takes images of 4 channels; those of this run have 5" in said
