"""Masks that were resized with interpolation show classes as thin lines between others."""

import logging

import cv2
import numpy as np
import pytest
from picture_writing import save

from semiseg.data.file_faults import check_files
from semiseg.data.folder import Folder
from semiseg.data.rims import interpolated, rims
from semiseg.splits.inspection import inspect_split
from semiseg.splits.split import make_split


def drawn(number: int) -> np.ndarray:
    """A ground (0), a disk (1) and a square (2)."""
    labels = np.zeros((40, 60), np.uint8)
    cv2.circle(labels, (15 + number, 20), 8, 1, -1)
    cv2.rectangle(labels, (30 + number, 8), (44 + number, 30), 2, -1)
    return labels


def resized(labels: np.ndarray, factor: float, how: int) -> np.ndarray:
    return cv2.resize(labels, None, fx=factor, fy=factor, interpolation=how)


@pytest.mark.parametrize("factor", [0.5, 1.3, 2, 3, 4])
def test_interpolated_masks_are_found(factor):
    masks = {number: resized(drawn(number), factor, cv2.INTER_LINEAR) for number in range(6)}
    (found,) = interpolated({f"m{number}": rims(mask) for number, mask in masks.items()})
    assert (found.low, found.value, found.high, found.masks) == (0, 1, 2, 6)
    column, row = found.spot
    assert masks[int(found.example[1:])][row, column] == 1


@pytest.mark.parametrize("factor", [0.5, 1, 1.3, 2, 4])
def test_masks_resized_to_the_nearest_are_not(factor):
    masks = {f"m{number}": resized(drawn(number), factor, cv2.INTER_NEAREST) for number in range(6)}
    assert interpolated({name: rims(mask) for name, mask in masks.items()}) == []


def test_few_masks_do_not_count():
    blurred = resized(drawn(0), 2, cv2.INTER_LINEAR)
    assert rims(blurred).pixels[1] > 100
    others = {f"m{number}": rims(drawn(number)) for number in range(5)}
    assert interpolated({"a": rims(blurred), **others}) == []


def test_thin_objects_at_their_own_borders_do_not_count():
    labels = drawn(0)
    labels[:, 50:51] = 1  # a pole on the ground alone lies between equal classes
    assert rims(labels).pixels == {}


def test_a_run_and_a_check_of_a_split_warn(tmp_path, caplog):
    for number in range(5):
        mask = resized(drawn(number), 2, cv2.INTER_LINEAR)
        save(tmp_path / "images" / f"i{number}.png", np.full((*mask.shape, 3), 30 * number, np.uint8))
        save(tmp_path / "masks" / f"i{number}.png", mask)
    dataset = Folder(str(tmp_path), classes=["ground", "disk", "square"], val=0.2, cache=False)
    split = make_split(dataset, "full")
    text = "disk stands in thin lines between ground and square in 5 of 5 masks, at 100% of their borders, for example"
    with caplog.at_level(logging.WARNING):
        check_files(dataset, split)
    assert caplog.text.count(text) == 1
    assert any(text in line for line in inspect_split(dataset, split, (), None))


def test_a_line_of_one_class_between_another_and_void_is_no_rim_between_classes(tmp_path, caplog):
    for number in range(5):
        mask = drawn(number)
        cv2.rectangle(mask, (30 + number, 8), (44 + number, 30), 255, 1)
        save(tmp_path / "images" / f"i{number}.png", np.full((*mask.shape, 3), 30 * number, np.uint8))
        save(tmp_path / "masks" / f"i{number}.png", mask)
    dataset = Folder(str(tmp_path), classes=["ground", "disk", "square"], val=0.2, cache=False)
    with caplog.at_level(logging.WARNING):
        check_files(dataset, make_split(dataset, "full"))
    assert "thin lines" not in caplog.text


def test_a_color_lies_between_two_others_in_each_channel():
    codes = np.repeat([[0x000000, 0x400020, 0x800040, 0x000000, 0x000080, 0x800040]], 4, axis=0).astype(
        np.int32
    )
    assert rims(codes, colors=True).pixels == {0x400020: 4}
