"""``report.html``: complete, self-contained, escaped, and usable without seeing it."""

import re
from html.parser import HTMLParser

import pytest
from drawn_runs import draw_run

from semiseg.report.aggregate import study
from semiseg.report.page import page
from semiseg.report.records import collect

VOID = {"img", "source", "meta"}


class Tree(HTMLParser):
    """Elements with their attributes, and the text outside of style and script."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def written(folder, **options):
    return Tree(page(study(collect([folder]), **options)))


@pytest.fixture(scope="module")
def tree(shown):
    return Tree(shown.page.read_text(encoding="utf-8"))


def test_the_page_is_whole_and_has_every_section(tree):
    assert tree.open == []
    ids = [attributes["id"] for attributes in tree.all("section")]
    expected = "glance flags results classes learning pseudo cost gallery runs method"
    assert ids == expected.split()
    assert [link["href"] for link in tree.all("a")] == ["#results", *(f"#{name}" for name in ids)]
    assert tree.all("html") == [{"lang": "en"}]


def test_nothing_is_asked_from_outside(shown, tree):
    sources = [
        each.get("src") or each.get("srcset") or "" for tag in ("img", "source") for each in tree.all(tag)
    ]
    assert all(source == "" or source.startswith("data:image/") for source in sources)
    text = shown.page.read_text(encoding="utf-8")
    assert not re.search(r"(https?:)?//[a-z]+\.", text)
    assert not tree.all("link")
    policy = next(each["content"] for each in tree.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_every_picture_has_a_text_alternative_and_a_size(tree):
    pictures = [each for each in tree.all("img") if each.get("src")]
    assert len(pictures) > 20
    assert all(each["alt"] and each["width"] and each["height"] for each in pictures)
    assert len(tree.all("source")) == 7
    assert all(each["media"] == "(prefers-color-scheme: dark)" for each in tree.all("source"))


def test_tables_name_their_rows_and_columns_and_can_be_scrolled_by_keyboard(tree):
    assert {each["scope"] for each in tree.all("th")} == {"row", "col"}
    regions = [each for each in tree.all("div") if each.get("role") == "region"]
    assert len(regions) == len(tree.all("table")) > 3
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in regions)


def test_each_seed_n_and_all_scores_are_shown(tree):
    for shown in (
        "55.3 ± 1.5",
        "0: 55.0",
        "1: 57.0",
        "2: 54.0",
        "(n = 3)",
        "+3.3",
        "[−3.8, +10.5], 3 pairs",
        "14 %",
    ):
        assert shown in tree.text
    assert "the interval [−3.8, +10.5] includes 0, so that 3 pairs do not tell them apart" in tree.text
    for heading in ("best", "last", "test", "gap closed"):
        assert heading in tree.text


def test_flagged_runs_are_shown_with_their_reasons_and_not_averaged(tree):
    assert "Flagged runs (2)" in tree.text
    assert "made-1of16-cps-s8 (cps 1/16), not averaged" in tree.text
    assert "iterations: iterations=50 (averaged: 100)" in tree.text
    assert "53.7 ± 1.5" in tree.text


def test_names_and_errors_are_text_and_never_markup(tree):
    assert "<script>alert(1)</script>" in tree.text
    assert "tree <b>" in tree.text
    assert "car & van" in tree.text
    assert len(tree.all("script")) == 1


def test_a_page_without_finished_runs_says_so(tmp_path):
    draw_run(tmp_path, "cps", "1/8", 0, 0.5, state="interrupted")
    tree = written(tmp_path)
    assert "No run has been averaged yet." in tree.text
    assert "interrupted" in tree.text


def test_other_keys_and_scores(tmp_path):
    draw_run(tmp_path, "supervised", "1/8", 0, 0.5)
    draw_run(tmp_path, "cps", "1/8", 0, 0.6)
    text = written(tmp_path, by=["backbone", "method"], metric="iou/road").text
    assert "IoU of road" in text
    assert "+10.0 to supervised in a single pair, which tells nothing about the spread." in text


def test_runs_are_named_below_the_folder_that_holds_all(tmp_path):
    for name in ("cps/20260101-000000", "st/20260101-000000"):
        draw_run(tmp_path / name, "cps", "1/8", 0, 0.5, state="failed")
    text = written(tmp_path).text
    assert "cps/20260101-000000/made-1of8-cps-s0" in text
    assert str(tmp_path) not in text


def test_many_flagged_runs_are_folded_below_their_number(tmp_path):
    for seed in range(9):
        draw_run(tmp_path, "cps", "1/8", seed, 0.5, state="failed")
    tree = written(tmp_path)
    assert "Flagged runs (9)" in tree.text
    assert "open" not in tree.all("details")[0]


def test_fields_have_what_their_column_is_sorted_by_and_missing_ones_nothing(tmp_path):
    draw_run(tmp_path, "cps", "1/8", 0, 0.5)
    draw_run(tmp_path, "cps", "full", 1, 0.5, state="failed")
    text = page(study(collect([tmp_path])))
    assert '<th scope="row">cps</th>\n<th scope="row" data-sort="0.125">1/8</th>' in text
    assert '<th scope="row" data-sort="1e+300">full</th>' in text
    assert '<td data-sort="0.5" class="main">50.0</td>' in text
    assert '<td data-sort="">–</td>' in text
