"""``report.html``: the whole report as one file that needs nothing else and asks no network."""

import base64
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from PIL import Image

from semiseg import __version__
from semiseg.files import write_text
from semiseg.report import page_tables
from semiseg.report.gallery import Gallery
from semiseg.report.model import Figure, Study
from semiseg.report.page_elements import Html, element, joined
from semiseg.report.page_pictures import gallery_section, viewer
from semiseg.report.page_text import explained, glance, head_line, title

UNFOLDED = 8
"""So many flagged runs are listed before the results without a click."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_html(study: Study, figures: Sequence[Figure], galleries: Sequence[Gallery], path: Path) -> None:
    """Write the page; all pictures are inside.

    Args:
        study: what is shown.
        figures: those of ``write_figures``.
        galleries: pictures of the validation images.
        path: the file; replaced where it exists.
    """
    write_text(path, page(study, figures, galleries) + "\n")


def page(study: Study, figures: Sequence[Figure], galleries: Sequence[Gallery]) -> Html:
    """Write the page as HTML text."""
    parts = list(_sections(study, figures, galleries))
    links = (element("li", element("a", name, href=f"#{anchor}")) for anchor, name, _ in parts)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title(study)),
        element("style", _own("page.css")),
    )
    body = element(
        "body",
        element("a", "Skip to the results", href="#results", class_="skip"),
        element(
            "header",
            element("h1", title(study)),
            element("p", head_line(study), class_="lead"),
            element("nav", element("ul", links), aria_label="Sections"),
        ),
        element("main", (_section(*part) for part in parts)),
        element("footer", element("p", f"Made by semiseg {__version__} from the files of the runs alone.")),
        viewer() if galleries else "",
        element("script", _own("page.js")),
    )
    return joined(Html("<!doctype html>\n"), element("html", head, body, lang="en"))


def _sections(
    study: Study, figures: Sequence[Figure], galleries: Sequence[Gallery]
) -> Iterator[tuple[str, str, Html]]:
    """Anchor, name and content of each section that there is something for."""
    yield "glance", "At a glance", glance(study)
    if study.flagged:
        yield "flags", f"Flagged runs ({len(study.flagged)})", _flags(study)
    charts = joined(_figures(figures, "ratio", "scores"), _figures(figures, "difference"))
    yield "results", "Results", joined(page_tables.results(study), element("div", charts, class_="pair"))
    if any(cell.published for cell in study.cells):
        yield "published", "Published numbers", page_tables.published(study)
    if study.classes and any(cell.iou for cell in study.cells):
        yield "classes", "Classes", _classes(study)
    for topic, name, text in CURVES:
        if shown := _figures(figures, topic):
            yield topic, name, joined(element("p", text), element("div", shown, class_="pair"))
    if any(cell.costs for cell in study.cells if cell.runs):
        yield "cost", "Time and memory", joined(element("p", COST_TEXT), page_tables.costs(study))
    if galleries:
        yield "gallery", "Pictures", gallery_section(galleries)
    yield "runs", "Every run", page_tables.every_run(study)
    yield "method", "How these numbers are made", explained(study)


CURVES = (
    (
        "learning",
        "Learning curves",
        "Validation mIoU over the iterations of the whole run. Thin: each run; with markers: their mean. A line ends "
        "where a step of the recipe ends and another network begins.",
    ),
    (
        "pseudo",
        "Pseudo-labels",
        "Coverage: share of pixels of unlabeled images that are learned from. Accuracy: share of them that is right, "
        "where masks exist to compare with. Single points are pseudo-labels that a step stored, and their accuracy "
        "is that of the pixels they cover. Lines are methods that label each batch anew; their accuracy is "
        "that of the network on all pixels of unlabeled images.",
    ),
)
COST_TEXT = (
    "Time is what the whole run took, evaluations included, on the machine and beside whatever else ran there. "
    "Images per second count training alone."
)


def _section(anchor: str, name: str, content: Html) -> Html:
    return element("section", element("h2", name), content, id=anchor)


def _flags(study: Study) -> Html:
    left_out = sum(not each.averaged for each in study.flagged)
    text = "They are averaged in spite of what differs, as the command asked."
    if left_out:
        text = (
            f"{left_out} of them {'is' if left_out == 1 else 'are'} in no mean of this page. A run is left out where "
            "it did not finish, or differs from the others of its cell in more than seed and partition."
        )
    shown = page_tables.flagged(study)
    if len(study.flagged) > UNFOLDED:
        shown = element("details", element("summary", "All of them, and why"), shown)
    return joined(element("p", text), shown)


def _classes(study: Study) -> Html:
    text = "IoU in percent, mean over the runs of a cell. The stronger the color, the higher."
    validation = page_tables.classes(
        study, [cell.iou for cell in study.cells], "IoU on the validation images"
    )
    content = [element("p", text), element("h3", "Validation images"), validation]
    if any(cell.iou_test for cell in study.cells):
        test = page_tables.classes(study, [cell.iou_test for cell in study.cells], "IoU on the test images")
        content.append(element("details", element("summary", "Test images"), test))
    return joined(content)


def _figures(figures: Sequence[Figure], *topics: str) -> Html:
    return joined(_figure(figure) for figure in figures if figure.topic in topics)


def _figure(figure: Figure) -> Html:
    with Image.open(figure.path) as picture:
        width, height = picture.size
    dark = element("source", media="(prefers-color-scheme: dark)", srcset=_data_uri(figure.dark))
    light = element("img", src=_data_uri(figure.path), alt=figure.alt, width=width, height=height)
    note = element("p", element("small", figure.caption)) if figure.caption else ""
    return element("figure", element("figcaption", figure.title), element("picture", dark, light), note)


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _own(name: str) -> Html:
    """A file of this package, which is ours and holds nothing to escape."""
    return Html(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
