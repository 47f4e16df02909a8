from pathlib import Path
from typing import Any

import numpy as np
import pytest

from band_pictures import CLASSES, bands, numbers, write_fields, write_png, write_tiff
from semiseg.contracts.dataset import Bands
from semiseg.data.file_faults import BadFilesError, check_files
from semiseg.data.folder import Folder
from semiseg.data.raster import RasterWriter, grids_differ, raster_grid, read_raster_mask
from semiseg.data.tile_grid import TileGrid
from semiseg.data.window import Window
from semiseg.errors import UserError
from semiseg.splits.split import make_split

rasterio = pytest.importorskip("rasterio")


def affine(*numbers: float) -> Any:
    return rasterio.Affine(*numbers)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, None),
        ({"crs": None}, None),
        ({"crs": None, "transform": affine(1, 0, 0, 0, 1, 0)}, None),
        ({"transform": affine(10, 0, 500_000.05, 0, -10, 5_000_000)}, None),  # half a hundredth of a pixel
        ({"crs": "EPSG:32634"}, "coordinate systems EPSG:32634 and EPSG:32633"),
        ({"crs": "EPSG:4326"}, "coordinate systems EPSG:4326 and EPSG:32633"),
        ({"transform": affine(10, 0, 500_010, 0, -10, 5_000_000)}, "corners up to 1.00 pixels apart"),
        ({"transform": affine(10, 0, 500_000, 0, 10, 5_000_000)}, "pixel sizes 10 10 and 10 -10"),
        ({"transform": affine(5, 0, 500_000, 0, -5, 5_000_000)}, "pixel sizes 5 -5 and 10 -10"),
        ({"transform": affine(9.9, 1, 500_000, 1, -9.9, 5_000_000)}, "pixels apart"),
    ],
)
def test_a_mask_on_another_grid_is_refused(tmp_path: Path, options: dict[str, Any], said: str | None) -> None:
    root = write_fields(tmp_path, 4, "uint16", count=3)
    write_tiff(root / "masks" / "f1.tif", np.ones((64, 80, 1), np.uint8), **options)
    dataset = Folder(str(root), classes=CLASSES, bands=bands(4, "uint16"))
    split = make_split(dataset, "full")
    if said is None:
        assert check_files(dataset, split).split == split
        return
    with pytest.raises(BadFilesError) as error:
        check_files(dataset, split)
    assert [Path(fault.file).name for fault in error.value.faults] == ["f1.tif"]
    assert "lies on another grid than its image f1.tif" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("mask", ["tif", "png"])
def test_a_mask_of_another_size_is_refused(tmp_path: Path, mask: str) -> None:
    root = write_fields(tmp_path, 4, "uint16", count=3)
    pixels = np.ones((64, 96, 1), np.uint8)
    (root / "masks" / "f1.tif").unlink()
    (write_tiff if mask == "tif" else write_png)(root / "masks" / f"f1.{mask}", pixels)
    dataset = Folder(str(root), classes=CLASSES, bands=bands(4, "uint16"))
    with pytest.raises(BadFilesError, match="96x64"):
        check_files(dataset, make_split(dataset, "full"))


def test_the_same_rotated_grid_is_no_fault(tmp_path: Path) -> None:
    turned = affine(8, 6, 500_000, 6, -8, 5_000_000)
    image = write_tiff(tmp_path / "a.tif", numbers(20, 30, 2, "uint8"), transform=turned)
    mask = write_tiff(tmp_path / "b.tif", numbers(20, 30, 1, "uint8"), transform=turned)
    assert grids_differ(raster_grid(mask), raster_grid(image)) is None


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((4, 4, 2), np.uint8), "mask of 2 bands; expected one band"),
        (np.zeros((4, 4, 1), np.float32), "mask of float32; expected whole numbers"),
        (np.full((4, 4, 1), -1, np.int16), "mask value -1; expected numbers from 0 on"),
    ],
)
def test_masks_that_are_none_are_refused(tmp_path: Path, pixels: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_raster_mask(write_tiff(tmp_path / "a.tif", pixels))


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 255), ("uint8", 7), ("int16", -9999), ("uint16", 65535)]
)
def test_nodata_of_a_mask_is_not_labeled(tmp_path: Path, dtype: str, nodata: int) -> None:
    root = write_fields(tmp_path, 1, "uint8", count=3)
    mask = np.ones((64, 80, 1), dtype)
    mask[:2] = nodata
    write_tiff(root / "masks" / "f1.tif", mask, nodata=nodata)
    found = Folder(str(root), classes=CLASSES, bands=bands(1, "uint8")).mask("f1")
    assert found is not None
    assert found.dtype == np.uint8
    assert (found[:2] == 255).all()
    assert (found[2:] == 1).all()


@pytest.mark.parametrize(("value", "dtype"), [(9, "uint8"), (300, "uint16")])
def test_a_value_that_is_no_class_is_named(tmp_path: Path, value: int, dtype: str) -> None:
    root = write_fields(tmp_path, 1, "uint8", count=3)
    write_tiff(root / "masks" / "f1.tif", np.full((64, 80, 1), value, dtype))
    with pytest.raises(UserError, match=f"label {value} "):
        Folder(str(root), classes=CLASSES, bands=bands(1, "uint8")).mask("f1")


@pytest.mark.parametrize(
    ("length", "size", "stride", "expected"),
    [
        (64, 64, 64, [(0, 64)]),
        (40, 64, 64, [(0, 40)]),
        (95, 64, 64, [(0, 95)]),
        (96, 64, 64, [(0, 64), (64, 96)]),
        (128, 64, 64, [(0, 64), (64, 128)]),
        (150, 64, 64, [(0, 64), (64, 150)]),
        (200, 64, 64, [(0, 64), (64, 128), (128, 200)]),
        (128, 64, 32, [(0, 64), (32, 96), (64, 128)]),
        (300, 64, 128, [(0, 64), (128, 192), (256, 300)]),
        (1, 64, 64, [(0, 1)]),
    ],
)
def test_tiles_of_any_length_leave_no_sliver(
    length: int, size: int, stride: int, expected: list[tuple[int, int]]
) -> None:
    windows = list(TileGrid(size, stride).windows(length, size, overlapping=True))
    assert [(window.top, window.bottom) for window in windows] == expected


def test_tiles_are_parts_of_pictures_and_masks(tmp_path: Path) -> None:
    root = write_fields(tmp_path, 4, "uint16", size=(96, 112))
    whole = Folder(str(root), classes=CLASSES, bands=bands(4, "uint16"))
    tiled = Folder(str(root), classes=CLASSES, bands=bands(4, "uint16"), tiles=TileGrid(32))
    assert tiled.ids("val") == tuple(
        f"f0@{row},{column}" for row in (0, 32, 64) for column in (0, 32, 64, 96)
    )
    assert len(tiled.ids("train")) == 3 * 12
    assert {image_id[:2] for image_id in tiled.ids("unlabeled")} == {"f4"}
    image, mask = tiled.image("f2@64,96"), tiled.mask("f2@64,96")
    label = whole.mask("f2")
    assert label is not None
    assert mask is not None
    assert np.array_equal(image, whole.image("f2")[64:96, 96:112])
    assert np.array_equal(mask, label[64:96, 96:112])
    check_files(tiled, make_split(tiled, "full"))


def test_tiles_whose_mask_says_nothing_are_unlabeled(tmp_path: Path) -> None:
    root = write_fields(tmp_path, 2, "uint8", count=2, size=(64, 128))
    mask = np.full((64, 128, 1), 255, np.uint8)
    mask[40, 100] = 1
    write_tiff(root / "images" / "f2.tif", numbers(64, 128, 2, "uint8"))
    write_tiff(root / "masks" / "f2.tif", mask, nodata=0)
    dataset = Folder(str(root), classes=CLASSES, bands=bands(2, "uint8"), tiles=TileGrid(32), void=(3,))
    assert dataset.ids("train") == ("f2@32,96",)
    assert len([image_id for image_id in dataset.ids("unlabeled") if image_id.startswith("f2@")]) == 7


def test_unlabeled_pictures_may_overlap_and_labeled_ones_do_not(tmp_path: Path) -> None:
    root = write_fields(tmp_path, 2, "uint8", count=3, size=(64, 64))
    write_tiff(tmp_path / "pool" / "g.tif", numbers(64, 64, 2, "uint8"))
    dataset = Folder(
        str(root), classes=CLASSES, bands=bands(2, "uint8"), tiles=TileGrid(32, stride=16), unlabeled="pool"
    )
    assert len(dataset.ids("train")) == 4
    pool = [image_id for image_id in dataset.ids("unlabeled") if image_id.startswith("pool/g@")]
    assert len(pool) == 9
    assert dataset.image("pool/g@16,32").shape == (32, 32, 2)


def test_a_share_is_drawn_in_blocks(tmp_path: Path) -> None:
    root = write_fields(tmp_path, 1, "uint8", count=2, size=(256, 256))
    (root / "val.txt").unlink()
    dataset = Folder(
        str(root), classes=CLASSES, bands=bands(1, "uint8"), tiles=TileGrid(32, block=128), val=0.25
    )
    assert len(dataset.ids("val")) == 16
    blocks = {dataset.group(tile) for tile in dataset.ids("val")}
    assert len(blocks) == 1
    assert not blocks & {dataset.group(tile) for tile in (*dataset.ids("train"), *dataset.ids("unlabeled"))}
    with pytest.raises(UserError, match=r"dataset\.tiles\.block"):
        Folder(str(root), classes=CLASSES, bands=bands(1, "uint8"), tiles=TileGrid(32, block=512), val=0.25)


def test_faults_of_tiles_are_named(tmp_path: Path) -> None:
    root = write_fields(tmp_path, 1, "uint8", count=3, size=(64, 64))
    with pytest.raises(UserError, match=r"dataset\.tiles.*dataset\.bands"):
        Folder(str(root), classes=CLASSES, tiles=TileGrid(32))
    with pytest.raises(UserError, match="multiple of size=64"):
        TileGrid(64, block=100)
    with pytest.raises(UserError, match="size=8"):
        TileGrid(8)
    write_png(root / "images" / "g.png", numbers(100, 100, 1, "uint8"))
    with pytest.raises(UserError, match=r"g\.png.*tiled GeoTIFF or as \.npy"):
        Folder(str(root), classes=CLASSES, bands=bands(1, "uint8"), tiles=TileGrid(32))


def test_without_rasterio_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_fields(tmp_path, 1, "uint8", count=3)
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    dataset = Folder(str(root), classes=CLASSES, bands=bands(1, "uint8"))
    with pytest.raises(UserError, match=r'pip install "semiseg\[geo\]"'):
        dataset.image("f1")


def test_a_written_raster_has_the_place_of_another(tmp_path: Path) -> None:
    turned = affine(8, 6, 500_000, 6, -8, 5_000_000)
    source = write_tiff(
        tmp_path / "a.tif", numbers(700, 530, 3, "uint16"), transform=turned, crs="EPSG:25832"
    )
    values = np.random.RandomState(0).randint(0, 3, (700, 530)).astype(np.uint8)
    with RasterWriter(tmp_path / "b.tif", raster_grid(source), "uint8", 255, {0: (1, 2, 3)}) as writer:
        for top in range(0, 700, 90):
            writer.write(values[top : top + 90])
        assert not (tmp_path / "b.tif").exists()
    with rasterio.open(source) as before, rasterio.open(tmp_path / "b.tif") as after:
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        assert after.nodata == 255
        assert after.colormap(1)[0][:3] == (1, 2, 3)
        assert np.array_equal(after.read(1), values)
        assert after.block_shapes == [(512, 512)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_an_unfinished_raster_leaves_nothing(tmp_path: Path) -> None:
    grid = raster_grid(write_tiff(tmp_path / "a.tif", numbers(20, 30, 1, "uint8")))

    def stopped() -> None:
        with RasterWriter(tmp_path / "b.tif", grid, "uint8") as writer:
            writer.write(np.zeros((10, 30), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_only_the_blocks_of_a_window_are_read(tmp_path: Path) -> None:
    """A file whose later blocks are damaged is read up to them."""
    pixels = numbers(1024, 1024, 1, "uint8")
    path = write_tiff(
        tmp_path / "a.tif", pixels, tiled=True, blockxsize=256, blockysize=256, compress="deflate"
    )
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as file:
        last = int(file.tags(ns="TIFF", bidx=1).get("BLOCK_OFFSET_3_3", 0) or _offset(file))
    data[last + 5 : last + 400] = bytes(395)
    path.write_bytes(data)
    from semiseg.data.bands import read_bands

    image, _ = read_bands(path, Bands(1, "uint8", [1.0], [1.0]), Window(0, 0, 256, 256))
    assert np.array_equal(image, pixels[:256, :256])
    with pytest.raises(UserError, match="damaged, cut off"):
        read_bands(path, Bands(1, "uint8", [1.0], [1.0]), Window(768, 768, 1024, 1024))


def _offset(file: Any) -> int:
    return int(file.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
