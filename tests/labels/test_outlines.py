"""Outlines as pixels and back, against the libraries that others use."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from semiseg.labels.outlines import ellipse, filled, outer_rings, rectangle, ring_of, turned

SIZE = (64, 72)


def polygons(count=40, seed=0):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        corners = generator.integers(3, 9)
        angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
        radii = generator.uniform(3, 40, corners)
        center = generator.uniform(10, 60, 2)
        yield np.stack([center[0] + radii * np.cos(angles), center[1] + radii * np.sin(angles)], 1)


def test_pixels_are_those_of_gdal():
    features = pytest.importorskip("rasterio.features", reason="rasterio is in the extra geo")
    for ring in polygons():
        closed = [*ring.tolist(), ring[0].tolist()]
        expected = features.rasterize([({"type": "Polygon", "coordinates": [closed]}, 1)], SIZE)
        assert np.count_nonzero(filled([ring], SIZE) != expected) <= 1  # a center on a side within rounding


def test_pixels_differ_from_those_of_pycocotools_at_the_rim_alone():
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is in the extra dev")
    for ring in polygons():
        ours = filled([ring], SIZE)
        theirs = mask.decode(mask.frPyObjects([ring.ravel().tolist()], *SIZE))[..., 0].astype(bool)
        assert not (ours != theirs)[far_from_rim(ours) & far_from_rim(theirs)].any()


def far_from_rim(bits):
    kernel = np.ones((3, 3), np.uint8)
    values = bits.astype(np.uint8)
    return cv2.dilate(values, kernel) == cv2.erode(values, kernel)


def test_a_shared_side_belongs_to_one_of_two_shapes():
    left = ring_of([(5, 5), (40.3, 5), (20.7, 50), (5, 50)])
    right = ring_of([(40.3, 5), (60, 5), (60, 50), (20.7, 50)])
    whole = filled([rectangle(5, 5, 60, 50)], SIZE)
    assert not (filled([left], SIZE) & filled([right], SIZE)).any()
    assert ((filled([left], SIZE) | filled([right], SIZE)) == whole).all()
    assert whole.sum() == 55 * 45


def test_rings_inside_of_rings_are_holes():
    ring, hole = rectangle(5, 5, 25, 25), rectangle(10, 10, 20, 20)
    assert filled([ring, hole], SIZE).sum() == 400 - 100


def test_what_lies_outside_of_the_picture_is_cut_off():
    assert filled([rectangle(-10, -10, 3, 4)], SIZE).sum() == 12
    assert filled([rectangle(70, 60, 100, 100)], SIZE).sum() == 2 * 4
    assert not filled([rectangle(100, 100, 120, 120)], SIZE).any()


def test_areas_of_ellipses_and_turned_rectangles():
    assert filled([ellipse((30, 30), (20, 10))], SIZE).sum() == pytest.approx(np.pi * 200, rel=0.01)
    turned_once = filled([turned(rectangle(20, 20, 40, 30), (30, 25), 90)], SIZE)
    assert (turned_once == filled([rectangle(25, 15, 35, 35)], SIZE)).all()


@pytest.mark.parametrize("points", [[(0, 0), (1, 1)], [(0, 0), (1, float("nan")), (2, 2)], [1, 2, 3]])
def test_what_is_no_polygon_is_refused(points):
    with pytest.raises(ValueError):
        ring_of(points)


def readers():
    def with_cv2(ring):
        canvas = np.zeros(SIZE, np.uint8)
        return cv2.fillPoly(canvas, [ring.astype(np.int32)], 1).astype(bool)

    def with_pillow(ring):
        canvas = Image.new("L", SIZE[::-1])
        ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in ring.tolist()], fill=1, outline=1)
        return np.array(canvas, bool)

    def with_pycocotools(ring):
        mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is in the extra dev")
        return mask.decode(mask.frPyObjects([ring.ravel().tolist()], *SIZE))[..., 0].astype(bool)

    return {"cv2": with_cv2, "pillow": with_pillow, "pycocotools": with_pycocotools}


@pytest.mark.parametrize("reader", ["cv2", "pillow", "pycocotools"])
def test_outlines_give_the_same_pixels_in_programs_that_fill_in_another_way(reader):
    fill = readers()[reader]
    for polygon in polygons():
        bits = filled([polygon], SIZE)
        again = np.zeros(SIZE, bool)
        for ring in outer_rings(bits, 0):
            again |= fill(ring)
        holes = filled(
            outer_rings(bits, 0), SIZE
        )  # pixels enclosed at corners count as holes, which stay filled
        assert (again == holes).all()


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0])
def test_simplified_outlines_stay_within_their_tolerance_of_the_rim(tolerance):
    for polygon in polygons(seed=1):
        bits = filled([polygon], SIZE)
        rings = outer_rings(bits, tolerance)
        again = filled(rings, SIZE)
        # A center is half a pixel or more from the rim, and distances are counted between centers.
        assert rim_distance(bits)[again != bits].max(initial=0) <= tolerance + 1


def rim_distance(bits):
    """Distance of each pixel to the nearest on the other side of the rim; outside of the picture is one."""
    depth = cv2.distanceTransform(np.pad(bits, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.maximum(depth, cv2.distanceTransform((~bits).astype(np.uint8), cv2.DIST_L2, 5))
