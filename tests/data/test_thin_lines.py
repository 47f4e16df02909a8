"""Masks that were resized with interpolation show classes as thin lines between others."""

import logging

import cv2
import numpy as np
import pytest
from picture_writing import save

from semiseg.data.file_faults import check_files
from semiseg.data.folder import Folder
from semiseg.data.thin_lines import thin_lines, thin_values
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
    masks = [(f"m{number}", resized(drawn(number), factor, cv2.INTER_LINEAR)) for number in range(6)]
    found = thin_lines(masks)
    assert [(each.value, each.masks) for each in found] == [(1, 6)]
    assert found[0].example.startswith("m")


@pytest.mark.parametrize("factor", [0.5, 1, 1.3, 2, 4])
def test_masks_resized_to_the_nearest_are_not(factor):
    assert (
        thin_lines((f"m{number}", resized(drawn(number), factor, cv2.INTER_NEAREST)) for number in range(6))
        == []
    )


def test_rims_of_void_and_few_masks_do_not_count():
    rimmed = drawn(0)
    cv2.rectangle(rimmed, (30, 8), (44, 30), 255, 1)
    assert thin_values(rimmed) == {}
    blurred = resized(drawn(0), 2, cv2.INTER_LINEAR)
    assert thin_values(blurred)
    assert thin_lines([("a", blurred), *((f"m{number}", drawn(number)) for number in range(5))]) == []


def test_thin_objects_at_their_own_borders_do_not_count():
    labels = drawn(0)
    labels[:, 50:51] = 1  # a pole on the ground alone lies between equal classes
    assert thin_values(labels) == {}


def test_a_run_and_a_check_of_a_split_warn(tmp_path, caplog):
    for number in range(5):
        mask = resized(drawn(number), 2, cv2.INTER_LINEAR)
        save(tmp_path / "images" / f"i{number}.png", np.full((*mask.shape, 3), 30 * number, np.uint8))
        save(tmp_path / "masks" / f"i{number}.png", mask)
    dataset = Folder(str(tmp_path), classes=["ground", "disk", "square"], val=0.2, cache=False)
    split = make_split(dataset, "full")
    with caplog.at_level(logging.WARNING):
        check_files(dataset, split)
    text = "disk: seen as lines of one or two pixels between two other classes in 5 of 5 masks, for example"
    assert text in caplog.text
    assert any(text in line for line in inspect_split(dataset, split, (), None))
