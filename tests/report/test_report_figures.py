"""The figures and pictures of a report."""

import shutil

import numpy as np
from drawn_runs import INFO, draw_run
from PIL import Image
from written_runs import write_run

from semiseg.report.aggregate import study
from semiseg.report.figures import write_figures
from semiseg.report.gallery import contact_sheet, find_galleries
from semiseg.report.records import Curve, collect, curves, mean_curve, read_run

NAMES = {
    "ratio",
    "difference",
    "classes",
    "learning-1of16",
    "learning-1of8",
    "learning-full",
    "pseudo-1of16",
    "pseudo-1of8",
    "cost",
    "gallery-1of16",
    "gallery-1of8",
    "gallery-full",
}


def test_each_topic_has_a_picture_for_light_and_one_for_dark_pages(shown):
    assert {figure.name for figure in shown.figures} == NAMES
    for figure in shown.figures:
        assert picture_size(figure.path) == picture_size(figure.dark)
        assert figure.title
        if figure.topic != "gallery":
            assert _corner(figure.path).min() > 250
            assert _corner(figure.dark).max() < 40


def test_no_half_written_file_stays(shown):
    names = {path.name for path in shown.figures[0].path.parent.iterdir()}
    assert names == {path.name for figure in shown.figures for path in (figure.path, figure.dark)}


def test_text_alternatives_say_the_numbers(shown):
    alt = {figure.name: figure.alt for figure in shown.figures}
    assert "st 1/16: 55.3 ± 1.5" in alt["ratio"]
    assert "cps 1/8: +1.7 [−5.5, +8.8]" in alt["difference"]
    assert "supervised full: highest road 95.5, lowest car & van 55.5" in alt["classes"]
    assert "cps: 33.1 at iteration 20, 53.7 at 100" in alt["learning-1of16"]
    assert "st: 90.0 at iteration 50" in alt["pseudo-1of16"]
    assert "supervised" not in alt["pseudo-1of16"]
    assert "2 ± 0.5 minutes" in alt["cost"]
    assert "columns image, truth, supervised, cps, st" in alt["gallery-1of8"]


def test_one_ratio_is_shown_without_an_axis_of_ratios_and_in_the_same_files_again(tmp_path):
    write_run(tmp_path / "runs" / "one", method="a_$x_1$")
    found = study(collect([tmp_path / "runs"]))
    one, again = (write_figures(found, (), tmp_path / name) for name in ("one", "again"))
    assert [figure.name for figure in one] == ["scores", "classes", "cost"]
    for figure, other in zip(one, again, strict=True):
        assert figure.path.read_bytes() == other.path.read_bytes()


def test_without_finished_runs_there_is_nothing_to_draw(tmp_path):
    draw_run(tmp_path / "runs", "cps", "1/8", 0, 0.5, state="failed")
    found = study(collect([tmp_path / "runs"]))
    assert write_figures(found, find_galleries(found), tmp_path / "out") == []


def test_curves_of_stored_labels_of_batch_labels_and_of_none(tmp_path):
    drawn = {
        method: curves(read_run(draw_run(tmp_path, method, "1/8", 0, 0.5)))
        for method in ("supervised", "cps", "st")
    }
    assert not drawn["supervised"].coverage
    assert not drawn["supervised"].accuracy
    assert drawn["cps"].coverage.iterations == tuple(range(10, 101, 10))
    assert drawn["cps"].accuracy.values == (0.8,) * 5
    assert (drawn["st"].coverage.values, drawn["st"].accuracy.values) == ((0.9,), (0.85,))
    assert drawn["st"].coverage.stages == ("label",)
    assert all(found.score.values[-1] == 0.5 for found in drawn.values())


def test_means_are_taken_where_all_runs_have_a_point():
    one = Curve(("a", "a", "b"), (10, 20, 30), (0.1, 0.2, 0.3))
    other = Curve(("a", "b"), (10, 30), (0.3, 0.5))
    assert mean_curve([one, other]) == Curve(("a", "b"), (10, 30), (0.2, 0.4))
    assert not mean_curve([])


def test_a_gallery_shows_the_same_images_of_one_seed(shown):
    first = find_galleries(shown.study)[0]
    assert (first.name, first.columns) == ("1/16", ("image", "truth", "supervised", "cps", "st"))
    assert [row.name for row in first.rows] == [f"scene_{number}" for number in range(4)]
    assert {run.config["seed"] for run in first.runs.values()} == {0}
    truth = np.asarray(first.rows[0].pictures["truth"])
    assert set(map(tuple, truth.reshape(-1, 3))) == set(INFO.palette)
    sheet = contact_sheet(first)
    assert sheet.width == 5 * 160 + 4 * 4
    assert sheet.height == 4 * (120 + 18)


def test_pictures_of_other_images_or_unreadable_ones_are_left_out(tmp_path):
    for method in ("supervised", "cps"):
        draw_run(tmp_path, method, "1/8", 0, 0.5)
    samples = tmp_path / "made-1of8-cps-s0" / "samples"
    (samples / "00-scene_0.png").write_bytes(b"no picture")
    shutil.copy(samples / "03-scene_3.png", samples / "02-scene_2.png")
    rows = find_galleries(study(collect([tmp_path])))[0].rows
    assert [row.name for row in rows] == ["scene_1", "scene_3"]


def test_colors_of_classes_are_read_from_a_checkpoint(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    gallery = find_galleries(study(collect([tmp_path / "run"])))[0]
    assert "background" in gallery.legend
    shown = {
        color
        for row in gallery.rows
        for color in map(tuple, np.asarray(row.pictures["truth"]).reshape(-1, 3))
    }
    assert shown - {(255, 255, 255)} <= set(gallery.legend.values())


def picture_size(path):
    with Image.open(path) as picture:
        return picture.size


def _corner(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))[:3, :3]
