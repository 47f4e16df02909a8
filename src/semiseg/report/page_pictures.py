"""The pictures of the page, and the window that shows one of them large."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from semiseg.report.gallery import Gallery, Row
from semiseg.report.groups import ALL
from semiseg.report.page_elements import Html, element, joined

QUALITY = 82
PHOTO = "image"
MAX_COLORS = 256


def gallery_section(galleries: Sequence[Gallery]) -> Html:
    """Write all galleries, the first one open."""
    text = (
        "The same validation images in every column, chosen at equal distances and not by their results. "
        "A click opens a picture; the arrow keys then go through its row."
    )
    return joined(
        element("p", text),
        (_gallery(gallery, number == 0) for number, gallery in enumerate(galleries)),
    )


def viewer() -> Html:
    """Write the window; the script of the page fills it."""
    return element(
        "dialog",
        element("figure", element("img", alt=""), element("figcaption", aria_live="polite")),
        element(
            "div",
            element("button", "Previous", type="button", data_step=-1),
            element("button", "Next", type="button", data_step=1),
            element("button", "Close", type="button", data_step=0),
        ),
        id="viewer",
        aria_label="Picture",
    )


def _gallery(gallery: Gallery, opened: bool) -> Html:
    name = "Predictions" if gallery.name == ALL else f"Predictions, {gallery.name}"
    seeds = ", ".join(f"{method} seed {run.config.get('seed', '?')}" for method, run in gallery.runs.items())
    return element(
        "details",
        element("summary", name),
        element("p", f"One run a method: {seeds}."),
        _legend(gallery),
        (_row(row) for row in gallery.rows),
        open=opened,
    )


def _legend(gallery: Gallery) -> Html:
    if not gallery.legend:
        return Html()
    items = [
        element("li", element("span", style=f"background:rgb({red} {green} {blue})", class_="swatch"), name)
        for name, (red, green, blue) in gallery.legend.items()
    ]
    void = element("li", element("span", style="background:#fff", class_="swatch"), "not labeled")
    return element("ul", items, void, class_="legend", aria_label="Colors of the classes")


def _row(row: Row) -> Html:
    pictures = [_picture(row.name, column, picture) for column, picture in row.pictures.items()]
    return element(
        "div",
        element("h3", row.name),
        element("div", pictures, class_="row", style=f"--columns:{len(pictures)}"),
    )


def _picture(name: str, column: str, picture: Image.Image) -> Html:
    what = {PHOTO: "photograph", "truth": "labels made by people"}.get(column, f"prediction of {column}")
    image = element(
        "img",
        src=_data_uri(picture, column == PHOTO),
        alt=f"{name}: {what}",
        width=picture.width,
        height=picture.height,
    )
    return element("figure", element("button", image, type="button"), element("figcaption", column))


def _data_uri(picture: Image.Image, photo: bool) -> str:
    kind = "jpeg" if photo else "png"
    stream = io.BytesIO()
    if photo:
        picture.convert("RGB").save(stream, kind, quality=QUALITY)
    else:
        _indexed(picture).save(stream, kind, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _indexed(picture: Image.Image) -> Image.Image:
    """The same pixels in a quarter of the bytes, where there are few enough colors."""
    values = np.asarray(picture.convert("RGB"), np.uint32)
    packed = values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]
    colors, indices = np.unique(packed, return_inverse=True)
    if len(colors) > MAX_COLORS:
        return picture
    indexed = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8), "P")
    indexed.putpalette([int(color) >> shift & 255 for color in colors for shift in (16, 8, 0)])
    return indexed
