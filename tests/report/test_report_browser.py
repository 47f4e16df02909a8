"""``report.html`` in a real browser; skipped where there is no Chromium or Chrome."""

import numpy as np
import pytest
from PIL import Image

from browser.chromium import find, opened
from browser.look import look

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find() is None, reason="needs Chromium or Chrome")]
COLUMN = "[...document.querySelector('#results table').tBodies[0].rows].map(r => r.cells[{}].textContent)"
HEAD = "document.querySelector('#results table').tHead.rows[0].cells[{}]"


@pytest.fixture(scope="module")
def browser():
    with opened(find()) as page:
        yield page


@pytest.fixture
def tab(browser, shown):
    browser.complaints.clear()
    browser.show(shown.page.as_uri(), 1280, 900)
    return browser


def test_phones_and_desktops_show_it_without_faults_light_and_dark(shown, tmp_path):
    views = look(find(), shown.page, tmp_path)
    assert [view.name for view in views] == ["phone-light", "phone-dark", "desktop-light", "desktop-dark"]
    assert {view.name: view.faults for view in views if view.faults} == {}
    brightness = [np.asarray(Image.open(view.picture).convert("L")).mean() for view in views]
    assert min(brightness[0], brightness[2]) > 180
    assert max(brightness[1], brightness[3]) < 100


def test_faults_of_a_page_are_told(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><title>x</title><meta name=viewport content='width=device-width'>"
        "<div style='width:3000px'>wide</div><img src='data:image/png;base64,AAAA'>"
        "<script>console.error('told'); fetch('https://example.invalid/x').catch(() => 0)</script>"
    )
    faults = "; ".join(look(find(), path, tmp_path)[-1].faults)
    for expected in (
        "told",
        "asks for https://example.invalid/x",
        "cannot be shown",
        "no text alt",
        "pixels wide",
    ):
        assert expected in faults


def test_a_click_on_a_column_sorts_by_its_numbers_with_missing_ones_last(tab):
    assert tab.evaluate(COLUMN.format(0))[:3] == ["supervised"] * 3
    sort(tab, 3)
    means = [float(text.split()[0]) for text in tab.evaluate(COLUMN.format(3))]
    assert means == sorted(means)
    assert tab.evaluate(f"{HEAD.format(3)}.ariaSort") == "ascending"
    for first, last in ("+1.7", "+3.3"), ("+3.3", "+1.7"):
        sort(tab, 8)
        differences = [text.split("[")[0] for text in tab.evaluate(COLUMN.format(8))]
        assert differences == [first, first, last, last, "–", "–", "–"]
    assert tab.evaluate(f"{HEAD.format(3)}.ariaSort") is None
    assert tab.evaluate(f"{HEAD.format(8)}.ariaSort") == "descending"
    sort(tab, 1)
    assert tab.evaluate(COLUMN.format(1)) == ["1/16"] * 3 + ["1/8"] * 3 + ["full"]
    assert tab.complaints == []


def sort(tab, column):
    tab.evaluate(f"{HEAD.format(column)}.querySelector('button').click()")


def test_pictures_open_and_turn_by_keyboard(tab):
    caption = "document.querySelector('#viewer figcaption').textContent"
    tab.evaluate("document.querySelector('.row button').focus()")
    tab.press("Enter")
    assert tab.evaluate(caption) == "scene_0: photograph (1 of 5)"
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    assert tab.evaluate(caption) == "scene_0: prediction of supervised (3 of 5)"
    tab.press("Escape")
    assert tab.evaluate("document.querySelector('#viewer').open") is False
    assert tab.evaluate("document.activeElement === document.querySelector('.row button')")
    assert tab.complaints == []


def test_dark_pages_show_the_dark_figures(tab, shown):
    source = "document.querySelector('picture img').currentSrc"
    light = tab.evaluate(source)
    tab.show(shown.page.as_uri(), 1280, 900, dark=True)
    assert tab.evaluate(source) != light
