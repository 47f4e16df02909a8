import numpy as np

from semiseg.contracts.dataset import DatasetInfo
from semiseg.report.disagreement import NEITHER, ONLY_A, ONLY_B, draw

INFO = DatasetInfo("toy", ("sky", "road", "tree"), ((10, 20, 30), (200, 100, 50), (0, 90, 0)))
IMAGE = np.full((40, 200, 3), 77, np.uint8)


def labels(*columns):
    """A label map of 40 x 200 with one value a column of 50 pixels."""
    return np.repeat(np.array(columns, np.uint8), 50)[None].repeat(40, 0)


def panels(picture, count):
    """Cut the panels out of a picture; 200 pixels wide ones are neither enlarged nor reduced."""
    pixels = np.asarray(picture)[18:58]
    return [pixels[:, start : start + 200] for start in range(0, count * 204 - 4, 204)]


def colors(panel):
    return [tuple(int(value) for value in panel[20, column]) for column in (25, 75, 125, 175)]


def test_colors_tell_who_is_right():
    truth, a, b = labels(0, 0, 0, 255), labels(0, 1, 1, 0), labels(1, 0, 2, 1)
    picture = draw(IMAGE, truth, a, b, INFO)
    _, true, first, second, difference = panels(picture, 5)
    assert colors(true) == [INFO.palette[0]] * 3 + [(255, 255, 255)]
    assert colors(first) == [INFO.palette[index] for index in (0, 1, 1, 0)]
    assert colors(second) == [INFO.palette[index] for index in (1, 0, 2, 1)]
    assert colors(difference)[:3] == [ONLY_A, ONLY_B, NEITHER]
    # Pixels without a true class do not count.
    (pale,) = set(colors(difference)[3])
    assert pale > 160


def test_the_legend_names_what_can_be_seen():
    both = labels(0, 0, 2, 2)
    tall = draw(IMAGE, both, both, both, INFO)
    assert tall.height > 58
    legend = np.asarray(tall)[58:].reshape(-1, 3)
    shown = {tuple(int(value) for value in color) for color in np.unique(legend, axis=0)}
    assert {INFO.palette[0], INFO.palette[2], ONLY_A, ONLY_B, NEITHER} <= shown
    assert INFO.palette[1] not in shown


def test_without_a_mask_nothing_is_right():
    picture = draw(IMAGE, None, labels(0, 1, 1, 0), labels(1, 1, 0, 0), INFO)
    difference = panels(picture, 4)[3]
    assert colors(difference)[0] == colors(difference)[2] == NEITHER
    assert colors(difference)[1] == colors(difference)[3]
    assert picture.width == 4 * 204 - 4
