from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from band_pictures import CLASSES, bands, numbers, write_fields, write_png, write_tiff
from semiseg.contracts.dataset import Bands
from semiseg.data.bands import band_fill, band_size, bands_of, read_bands
from semiseg.data.display import displayed, from_shown, to_shown
from semiseg.data.folder import Folder
from semiseg.data.picture_files import BadFileError
from semiseg.data.window import Window
from semiseg.errors import UserError

pytest.importorskip("rasterio")


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 10])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_channels_and_types_are_read_as_they_are(tmp_path: Path, channels: int, dtype: str) -> None:
    pixels = numbers(9, 7, channels, dtype)
    for path in (write_tiff(tmp_path / "a.tif", pixels), _npy(tmp_path / "a.npy", pixels)):
        image, valid = read_bands(path, bands(channels, dtype))
        assert (image.dtype, valid) == (np.dtype(dtype), None)
        assert np.array_equal(image, pixels)
        assert band_size(path) == (9, 7)
        assert bands_of(path) == (channels, dtype)


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, "uint16"), (3, "uint16"), (4, "uint16"), (1, "uint8"), (3, "uint8")]
)
def test_png_of_8_and_16_bits(tmp_path: Path, channels: int, dtype: str) -> None:
    pixels = numbers(5, 6, channels, dtype) * (250 if dtype == "uint16" else 1)
    path = write_png(tmp_path / "a.png", pixels)
    image, _ = read_bands(path, bands(channels, dtype))
    assert np.array_equal(image, pixels)
    assert band_size(path) == (5, 6)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [("uint8", "uint16"), ("uint8", "float32"), ("int16", "float32"), ("float64", "float32")],
)
def test_smaller_types_are_converted(tmp_path: Path, stored: str, wanted: str) -> None:
    pixels = numbers(4, 4, 2, stored)
    image, _ = read_bands(write_tiff(tmp_path / "a.tif", pixels), bands(2, wanted))
    assert image.dtype == wanted
    assert np.array_equal(image, pixels)


@pytest.mark.parametrize(
    ("stored", "wanted", "said"),
    [
        ("uint16", "uint8", "16 bits a channel (uint16); expected uint8 (dataset.bands.dtype)"),
        ("float32", "uint16", "32 bits a channel (float32); expected uint16"),
        ("int16", "uint16", "16 bits a channel (int16); expected uint16"),
    ],
)
def test_wider_types_are_refused(tmp_path: Path, stored: str, wanted: str, said: str) -> None:
    path = write_tiff(tmp_path / "a.tif", numbers(4, 4, 2, stored))
    with pytest.raises(BadFileError) as error:
        read_bands(path, bands(2, wanted))
    assert said in error.value.reason


def test_other_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"5 channels; expected 4 \(dataset\.bands\.channels\)"):
        read_bands(write_tiff(tmp_path / "a.tif", numbers(4, 4, 5, "uint8")), bands(4, "uint8"))
    with pytest.raises(BadFileError, match=r"channels last: save numpy\.moveaxis"):
        read_bands(_npy(tmp_path / "b.npy", numbers(4, 50, 60, "uint8")), bands(4, "uint8"))
    with pytest.raises(BadFileError, match="expected \\(height, width\\)"):
        read_bands(_npy(tmp_path / "c.npy", np.zeros((2, 3, 4, 5), np.uint8)), bands(4, "uint8"))


@pytest.mark.parametrize(
    "kind", ["missing.tif", "missing.npy", "empty.tif", "cut.tif", "cut.png", "text.npy", "a.jpg"]
)
def test_unusable_files_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "cut.tif":
        write_tiff(path, numbers(64, 64, 4, "uint8"))
    elif kind == "cut.png":
        write_png(path, numbers(64, 64, 3, "uint16"))
    elif kind == "a.jpg":
        Image.new("RGB", (4, 4)).save(path)
    elif not kind.startswith("missing"):
        path.write_bytes(b"" if kind.startswith("empty") else b"no array")
    if kind.startswith("cut"):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadFileError) as error:
        read_bands(path, bands(4 if kind != "cut.png" else 3, "uint8"))
    assert error.value.file == path


def test_an_array_with_pickled_objects_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([print, print]), allow_pickle=True)
    with pytest.raises(BadFileError, match="no array that numpy can read"):
        read_bands(tmp_path / "a.npy", bands(1, "uint8"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_has_the_mean_and_no_value(tmp_path: Path, value: float) -> None:
    pixels = numbers(6, 5, 3, "float32")
    pixels[2, 3, 1] = value
    for path in (_npy(tmp_path / "a.npy", pixels), write_tiff(tmp_path / "a.tif", pixels)):
        image, valid = read_bands(path, bands(3, "float32"))
        assert valid is not None
        assert np.argwhere(~valid).tolist() == [[2, 3]]
        assert image[2, 3].tolist() == [pixels[2, 3, 0], 100, pixels[2, 3, 2]]


def test_nodata_of_the_file_and_of_the_setting(tmp_path: Path) -> None:
    pixels = numbers(6, 5, 2, "uint16")
    pixels[0, 0], pixels[5, 4, 1] = 0, 65535
    path = write_tiff(tmp_path / "a.tif", pixels, nodata=65535)
    _, valid = read_bands(path, bands(2, "uint16"))
    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[5, 4]]
    _, valid = read_bands(path, bands(2, "uint16", nodata=0))
    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[0, 0]]
    lowest = np.full((3, 3, 1), np.finfo("float32").min, "float32")
    _, valid = read_bands(
        write_tiff(tmp_path / "b.tif", lowest, nodata=float(lowest[0, 0, 0])), bands(1, "float32")
    )
    assert valid is not None
    assert not valid.any()


def test_an_alpha_band_says_where_the_picture_is(tmp_path: Path) -> None:
    from rasterio.enums import ColorInterp

    pixels = numbers(6, 5, 4, "uint8")
    pixels[..., 3] = 255
    pixels[1, 1, 3] = 0
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    for path in (
        write_tiff(tmp_path / "a.tif", pixels, colorinterp=colors),
        write_png(tmp_path / "a.png", pixels),
    ):
        image, valid = read_bands(path, bands(3, "uint8"))
        assert valid is not None
        assert np.argwhere(~valid).tolist() == [[1, 1]]
        assert image[1, 1].tolist() == [100, 100, 100]
        assert bands_of(path) == (3, "uint8")
        assert read_bands(path, bands(4, "uint8"))[1] is None


def test_windows_are_parts_of_the_whole(tmp_path: Path) -> None:
    pixels = numbers(40, 50, 4, "uint16")
    window = Window(7, 11, 29, 50)
    for path in (
        write_tiff(tmp_path / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=16),
        _npy(tmp_path / "a.npy", pixels),
        write_png(tmp_path / "a.png", pixels),
    ):
        image, _ = read_bands(path, bands(4, "uint16"), window)
        assert np.array_equal(image, pixels[7:29, 11:50])


def test_a_mean_of_whole_numbers_is_rounded() -> None:
    assert band_fill(Bands(2, "uint8", [0.6, 300.0], [1, 1])) == (1, 255)
    assert band_fill(Bands(2, "float32", [0.5, -3.25], [1, 1])) == (0.5, -3.25)


def test_bands_are_shown_within_two_deviations_of_the_mean() -> None:
    pixels = np.float32([[[0, 0, 0, 100], [100, 100, 100, 100], [200, 200, 200, 0], [1e9, -1e9, np.nan, 0]]])
    shown = displayed(pixels, bands(4, "float32"))
    assert shown.tolist() == [[[0, 0, 0], [128, 128, 128], [255, 255, 255], [255, 0, 0]]]
    gray = displayed(pixels, bands(4, "float32", display=[4]))
    assert gray[0, :2].tolist() == [[128, 128, 128], [128, 128, 128]]
    assert displayed(pixels[..., :1], bands(1, "float32")).shape == (1, 4, 3)
    rgb = np.zeros((2, 2, 3), np.uint8)
    assert displayed(rgb, None) is rgb
    inside = numbers(4, 4, 2, "uint16")
    assert np.array_equal(from_shown(to_shown(inside, bands(2, "uint16")), bands(2, "uint16")), inside)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"channels": 0}, "channels=0"),
        ({"dtype": "int16"}, "one of: uint8, uint16, float32"),
        ({"mean": [1.0]}, "1 numbers for 2 channels"),
        ({"std": [1.0, 0.0]}, "above 0"),
        ({"display": [1, 2]}, "one or three channels from 1 to 2"),
        ({"display": [3]}, "one or three channels from 1 to 2"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Bands(**{"channels": 2, "dtype": "uint8", "mean": [1.0, 1.0], "std": [1.0, 1.0], **options})


def test_no_label_where_there_is_no_value(tmp_path: Path) -> None:
    root = write_fields(tmp_path, 2, "float32")
    pixels = numbers(64, 80, 2, "float32")
    pixels[3:5, 6:9, 0] = np.nan
    write_tiff(root / "images" / "f1.tif", pixels)
    dataset = Folder(str(root), classes=CLASSES, bands=bands(2, "float32"))
    for _ in range(2):  # with and without the image read before
        mask = dataset.mask("f1")
        assert mask is not None
        assert (mask == 255).sum() == 6
        assert (mask[3:5, 6:9] == 255).all()
        dataset.image("f1")
    assert dataset.info.channels == 2
    assert not dataset.cache


def test_masks_may_be_png_beside_pictures_of_any_kind(tmp_path: Path) -> None:
    for number in range(3):
        _npy(tmp_path / "images" / f"a{number}.npy", numbers(8, 9, 5, "float32", number))
        if number < 2:
            write_png(tmp_path / "masks" / f"a{number}.png", np.full((8, 9, 1), number, np.uint8))
    dataset = Folder(str(tmp_path), classes=CLASSES, bands=bands(5, "float32"), val=0.5)
    assert (dataset.ids("train"), dataset.ids("val"), dataset.ids("unlabeled")) == (("a1",), ("a0",), ("a2",))
    assert dataset.image("a1").shape == (8, 9, 5)
    mask = dataset.mask("a1")
    assert mask is not None
    assert (mask == 1).all()


def _npy(path: Path, array: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path
