"""``semiseg init --bands``: channels, number type, mean and deviation of images that are not 8-bit RGB."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rasterio.enums import ColorInterp

from band_pictures import numbers, write_fields, write_png, write_tiff
from semiseg.cli import main
from semiseg.contracts.dataset import Bands
from semiseg.onboard.band_survey import BandStatistics


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*words: str) -> dict[str, Any]:
    assert main(["init", *words]) == 0
    found: dict[str, Any] = yaml.safe_load(Path("dataset/fields.yaml").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, "uint8"), (2, "uint16"), (3, "uint16"), (3, "uint8"), (4, "uint8"), (5, "float32"), (10, "uint16")],
)
def test_mean_and_deviation_are_those_of_all_training_pixels(channels: int, dtype: str) -> None:
    write_fields(Path("fields"), channels, dtype)
    found = init("fields", "--bands")["bands"]
    assert (found["channels"], found["dtype"]) == (channels, dtype)
    import rasterio

    pixels = []
    for number in (1, 2, 3, 4):  # f0 is in val.txt
        with rasterio.open(f"fields/images/f{number}.tif") as file:
            pixels.append(file.read().reshape(channels, -1).astype(np.float64))
    joined = np.concatenate(pixels, axis=1)
    assert found["mean"] == pytest.approx(joined.mean(1).tolist(), rel=2e-9)
    assert found["std"] == pytest.approx(joined.std(1).tolist(), rel=2e-9)


def test_pixels_without_a_value_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    write_fields(Path("fields"), 2, "float32", count=3)
    pixels = numbers(64, 80, 2, "float32")
    pixels[:10], pixels[20:30, :, 1], pixels[40, 40, 0] = -9999, np.nan, np.inf
    write_tiff(Path("fields/images/f1.tif"), pixels)
    write_tiff(Path("fields/images/f2.tif"), np.full((64, 80, 2), np.nan, np.float32))
    found = init("fields", "--bands", "--nodata", "-9999")["bands"]
    valid = np.isfinite(pixels).all(-1) & (pixels != -9999).all(-1)
    assert found["nodata"] == -9999
    assert found["mean"] == pytest.approx(pixels[valid].mean(0, dtype=np.float64).tolist(), rel=2e-9)
    assert found["std"] == pytest.approx(pixels[valid].std(0, dtype=np.float64).tolist(), rel=2e-9)
    assert "bands    2 of float32: mean" in capsys.readouterr().out


def test_large_offsets_lose_no_digits() -> None:
    rng = np.random.RandomState(0)
    images = [(1e8 + rng.rand(50, 40, 1)).astype(np.float64) for _ in range(5)]
    statistics = BandStatistics()
    for number, image in enumerate(images):
        statistics.add(str(number), image, None)
    found, _ = statistics.measured(Bands(1, "float32", [0.0], [1.0]), [str(number) for number in range(5)])
    assert found.std[0] == pytest.approx(np.concatenate(images).std(), rel=1e-7)


def test_a_band_of_one_value_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    write_fields(Path("fields"), 2, "uint8", count=3)
    for number in range(3):
        pixels = numbers(64, 80, 2, "uint8", number)
        pixels[..., 1] = 7
        write_tiff(Path(f"fields/images/f{number}.tif"), pixels)
    found = init("fields", "--bands")["bands"]
    assert (found["mean"][1], found["std"][1]) == (7, 1)
    assert "band 2 has one value everywhere" in capsys.readouterr().out


def test_a_fourth_band_marked_as_alpha_is_a_channel_where_it_holds_more(tmp_path: Path) -> None:
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    for folder, alpha in (("fields", False), ("cut", True)):
        write_fields(Path(folder), 4, "uint8", count=3)
        for number in range(3):
            pixels = numbers(64, 80, 4, "uint8", number)
            if alpha:
                pixels[..., 3] = 255
                pixels[:3, :, 3] = 0
            write_tiff(Path(f"{folder}/images/f{number}.tif"), pixels, colorinterp=colors)
        assert init(folder, "--bands", "--name", "fields", "--force")["bands"]["channels"] == (
            3 if alpha else 4
        )


def test_images_of_different_channels_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_fields(Path("fields"), 4, "uint16", count=4)
    write_tiff(Path("fields/images/f2.tif"), numbers(64, 80, 5, "uint16"))
    assert main(["init", "fields", "--bands"]) == 2
    assert "3 of 4 (such as f0.tif), 1 of 5 (such as f2.tif)" in capsys.readouterr().err


def test_arrays_and_png_of_16_bits() -> None:
    for number in range(4):
        mask = np.repeat(np.arange(3, dtype=np.uint8), 8)[:, None, None].repeat(20, 1)
        write_png(Path(f"fields/masks/a{number}.png"), mask)
        pixels = numbers(24, 20, 1, "uint16", number) + mask * np.uint16(3000)
        if number % 2:
            write_png(Path(f"fields/images/a{number}.png"), pixels)
        else:
            Path("fields/images").mkdir(exist_ok=True, parents=True)
            np.save(f"fields/images/a{number}.npy", pixels[..., 0])
    found = init("fields", "--bands", "--val", "0.25")
    assert (found["bands"]["channels"], found["bands"]["dtype"]) == (1, "uint16")


def test_tiles_are_written_and_val_is_drawn_in_blocks() -> None:
    write_fields(Path("fields"), 4, "uint16", count=2, size=(512, 512))
    Path("fields/val.txt").unlink()
    found = init("fields", "--bands", "--tile", "64")
    assert found["tiles"] == {"_target_": "semiseg.data.tile_grid.TileGrid", "size": 64}
    listed = Path("dataset/fields.val.txt").read_text(encoding="utf-8").split()
    assert len(listed) % 16 == 0
    assert main(["splits", "check", "dataset=fields", "split=full"]) == 0


def test_deep_images_are_refused_with_the_way_to_read_them(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        write_png(Path(f"fields/images/a{number}.png"), numbers(24, 20, 3, "uint16", number) * 100)
        write_png(Path(f"fields/masks/a{number}.png"), np.arange(480, dtype=np.uint8).reshape(24, 20, 1) % 3)
    assert main(["init", "fields"]) == 2
    said = capsys.readouterr().err
    assert "16 bits a channel" in said
    assert "semiseg init FOLDER --bands" in said
    assert main(["init", "fields", "--nodata", "0"]) == 2
    assert "add --bands" in capsys.readouterr().err


def test_images_of_several_number_types_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write_fields(Path("fields"), 3, "uint8", count=4)
    write_tiff(Path("fields/images/f1.tif"), numbers(64, 80, 3, "uint16"))
    assert main(["init", "fields", "--bands"]) == 2
    text = capsys.readouterr().err
    assert "1 of uint16 (such as f1.tif)" in text
    assert "3 of uint8 (such as f0.tif)" in text
    assert not Path("dataset").exists()
