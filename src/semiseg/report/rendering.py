"""Templates of pages and Markdown, with the filters that write numbers and signs in them."""

import base64
import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from semiseg.report import scores
from semiseg.report.comparable import of_method, ratio, short
from semiseg.report.floor import below_floor, floor_difference
from semiseg.report.study import ALL, Study, panel_starts
from semiseg.report.tables import seeds

LAST = 1e300


def render_markdown(template: str, **content: Any) -> str:
    """Fill in a template of Markdown; values are written on one line, with the signs of Markdown escaped."""
    environment = html_environment()
    # Marked as safe, so that the escaping of HTML leaves it alone.
    environment.finalize = lambda value: value if isinstance(value, Markup) else Markup(_escaped(str(value)))
    return environment.get_template(template).render(**content)


def html_environment() -> Environment:
    """Return the environment of the templates, whose filters write numbers as the functions of ``scores`` do."""
    environment = Environment(
        loader=PackageLoader("semiseg.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: each for name, each in vars(scores).items() if callable(each)}
    environment.filters |= {"below_floor": below_floor, "floor_difference": floor_difference}
    environment.filters |= {"sort_key": _sort_key, "ratio": ratio, "short": short, "bracketed": _bracketed}
    environment.filters |= {
        "file_uri": lambda path: data_uri(path.read_bytes()),
        "picture_size": _picture_size,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    environment.globals |= {
        "scores": scores,
        "NONE": scores.NONE,
        "settings_of": _settings_of,
        "panel_starts": panel_starts,
        "ALL": ALL,
        "seeds": seeds,
    }
    return environment


def data_uri(content: bytes, kind: str = "png") -> str:
    """Return the content of a picture as an address that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _settings_of(study: Study) -> str:
    """Name the keys whose values make a setting, for example "dataset and split"."""
    return " and ".join(key for key in study.by if not of_method(key))


def _bracketed(text: str) -> Markup:
    """Escape a text for the brackets of a Markdown link."""
    return Markup(re.sub(r"([\[\]\\])", r"\\\1", " ".join(text.split())))


def _escaped(text: str) -> str:
    return re.sub(r"([|<*_`])", r"\\\1", " ".join(text.split()))


def _sort_key(value: Any) -> float | str:
    """Return the value by which a column is sorted; a missing one comes last."""
    if not isinstance(value, int | float):
        return ""
    return value if math.isfinite(value) else LAST


def _picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size
