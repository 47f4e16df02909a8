"""Output of ``semiseg init``: the report and the dataset config."""

from collections import Counter
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from semiseg.config.literals import literals
from semiseg.contracts.dataset import IGNORE_INDEX
from semiseg.data.folder_files import FolderFiles, NameEnds
from semiseg.data.mask_labels import is_transparent, parse_color, ranges
from semiseg.data.palette import bit_color
from semiseg.onboard.classes import Classes
from semiseg.onboard.layout import Layout
from semiseg.onboard.measure import Measures
from semiseg.onboard.parts import ChosenParts
from semiseg.onboard.survey import Survey
from semiseg.output import text_table
from semiseg.splits.lists import shown

SHOWN_SIZES = 5
SHOWN_VOID = 6
ALIKE = 24
"""Difference in each channel below which two colors are alike."""

UNUSED = (
    *("image_suffix", "mask_suffix", "image_prefix", "mask_prefix", "pairs", "leave_out"),
    *("values", "palette", "void", "placeholder_names", "groups", "skip_bad"),
)
"""Settings that are written only where they are not empty."""

NODES = ("bands", "tiles")
"""Settings that are records; they are written where they are given."""

COMMENTS = {
    "bands": "Channels of the images; mean and std of each over the valid pixels of the training images.",
    "tiles": "Grid that large pictures are cut on.",
    "palette": "For pictures, since the colors of the masks are hard to tell apart.",
    "placeholder_names": "Equal placeholders in two datasets do not mean equal classes; without effect on other names.",
    "void": 'Numbers or colors that mean "not labeled".',
    "mask_format": "Format of all masks, as they were found; another one is refused.",
    "leave_out": "Pictures among the images that are none; * stands for any text.",
    "pairs": "Lists of images and their masks.",
    "val": "Validation images: a list or a subfolder of the images. Keep frames of one video together.",
    "groups": "Pattern of the part of an id, or CSV file, that says which images belong together.",
    "exif": "Images are read as they are stored, not turned by EXIF, as masks were drawn so.",
    "skip_bad": "Leaves out unusable files.",
}


def survey_report(
    layout: Layout, files: FolderFiles, found: Survey, classes: Classes, measures: Measures
) -> list[str]:
    """Report the survey as lines of text."""
    masked = len(files.images.keys() & files.masks.keys())
    formats = Counter(path.suffix.lower().lstrip(".") for path in files.images.values())
    kinds = ", ".join(f"{count:,} {name}" for name, count in formats.most_common())
    named = (
        f"named {layout.mask_ends.name_of('*')}"
        if layout.mask_ends != NameEnds()
        else "named as their images"
    )
    place = f"listed in {', '.join(layout.pairs)}" if layout.pairs else f"in {layout.masks}, {named}"
    png = all(path.suffix.lower() == ".png" for path in files.masks.values())
    look = "palette" if found.palette else "grey"
    kind = "color-coded" if found.colored else f"{look} {'PNGs' if png else 'pictures'}"
    values = "colors" if found.colored else "values"
    lines = [
        f"images   {len(files.images):,} in {layout.images}: {kinds}; {masked:,} have a mask",
        f"sizes    {_sizes(measures.sizes)}",
        f"masks    {len(files.masks):,} {place}; {kind}, {len(found.pixels)} {values}",
        f"parts    {_parts(measures)}",
    ]
    if measures.skipped:
        lines.append(f"left out {measures.skipped:,} unusable files (dataset.skip_bad)")
    return [*lines, "", *_class_table(found, classes, measures)]


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    some = ", ".join(f"{count:,} of {w}x{h}" for (w, h), count in sizes.most_common(SHOWN_SIZES))
    more = f" and {len(sizes) - SHOWN_SIZES} other sizes" if len(sizes) > SHOWN_SIZES else ""
    return f"{some}{more} (width x height)"


def _parts(measures: Measures) -> str:
    words = {
        "train": "labeled to learn from",
        "val": "to validate on",
        "test": "to test on",
        "unlabeled": "unlabeled",
    }
    return ", ".join(
        f"{measures.parts[part]:,} {text}" for part, text in words.items() if measures.parts[part]
    )


def _class_table(found: Survey, classes: Classes, measures: Measures) -> list[str]:
    total = max(sum(measures.pixels[:-1]), 1)
    parts = list(measures.images)
    colors = bool(found.palette) and not found.colored
    rows = []
    for label, (name, value) in enumerate(zip(classes.names, classes.values, strict=True)):
        color = [found.palette.get(value, "") if isinstance(value, int) else ""] if colors else []
        images = [f"{measures.images[part][label]:,}" for part in parts]
        rows.append([name, str(value), *color, f"{measures.pixels[label] / total:.2%}", *images])
    if measures.pixels[-1]:
        void = [f"{measures.images[part][-1]:,}" for part in parts]
        values = _void_text(found, classes)
        share = f"{measures.pixels[-1] / sum(measures.pixels):.2%}"
        rows.append(["(not labeled)", values, *([""] if colors else []), share, *void])
    titles = [
        "class",
        "in masks",
        *(["color"] if colors else []),
        "pixels",
        *(f"{part} images" for part in parts),
    ]
    return text_table(titles, rows, left=(0, 1, 2) if colors else (0, 1))


def _void_text(found: Survey, classes: Classes) -> str:
    """Values that mean "not labeled", neighbors joined, as far as a table has room for them."""
    numbers = {value for value in classes.void if isinstance(value, int)}
    if not found.colored and IGNORE_INDEX in found.pixels and IGNORE_INDEX not in classes.values:
        numbers.add(IGNORE_INDEX)
    texts = [value for value in classes.void if isinstance(value, str)]
    parts = [*(ranges(sorted(numbers)).split(", ") if numbers else []), *texts]
    return shown(parts, SHOWN_VOID)


def folder_arguments(
    name: str,
    root: Path,
    layout: Layout,
    found: Survey,
    classes: Classes,
    parts: ChosenParts,
    skip_bad: bool,
) -> dict[str, Any]:
    """Arguments of ``Folder`` for a surveyed folder.

    Args:
        name: name of the dataset.
        root: folder of the dataset.
        layout: folders and names of its files.
        found: values in its masks, and the format of these.
        classes: classes in its masks.
        parts: validation and test images.
        skip_bad: whether unusable files are left out.
    """
    values = None if classes.by_position else list(classes.values)
    return {
        "name": name,
        "root": str(root),
        **layout.settings(),
        "classes": list(classes.names),
        "placeholder_names": classes.made_up,
        "values": values,
        "palette": None
        if _distinct(classes)
        else [list(bit_color(label)) for label in range(len(classes.names))],
        "void": list(classes.void),
        "mask_format": found.reading.format.settings(),
        "val": parts.val,
        "test": parts.test,
        "skip_bad": skip_bad,
    }


def _distinct(classes: Classes) -> bool:
    """Whether the colors of color-coded masks can be distinguished in pictures."""
    colors = [
        parse_color(value) for value in classes.values if isinstance(value, str) and not is_transparent(value)
    ]
    return all(
        max(abs(a - b) for a, b in zip(*pair, strict=True)) >= ALIKE for pair in combinations(colors, 2)
    )


def config_yaml(arguments: dict[str, Any], classes: Classes, measures: Measures) -> str:
    """Write the dataset config as YAML, with comments for the person who will edit it."""
    name = arguments["name"]
    lines = [
        f"# Written by `semiseg init`; `semiseg train dataset={name}` reads it. docs/datasets.md explains the keys.",
        "defaults:",
        "  - folder",
        "  - _self_",
    ]
    for key, value in arguments.items():
        if key == "classes":
            lines += _class_lines(classes, measures)
        elif key == "values" and value is not None:
            lines += ["# Number or color of each class in the masks, in the same order.", "values:"]
            lines += [f"  - {_plain(each)}" for each in value]
        elif key in NODES:
            lines += _node_lines(key, value)
        elif value or key not in UNUSED:
            lines += [f"# {COMMENTS[key]}"] if key in COMMENTS else []
            lines.append(f"{key}: {_plain(value)}")
    return "\n".join(lines) + "\n"


def _node_lines(key: str, value: Any) -> list[str]:
    if value is None:
        return []
    target = f"{type(value).__module__}.{type(value).__qualname__}"
    settings = {name: each for name, each in asdict(value).items() if each is not None}
    lines = [
        f"  {name}: {_plain(list(each) if isinstance(each, tuple) else each)}"
        for name, each in settings.items()
    ]
    return [f"# {COMMENTS[key]}", f"{key}:", f"  _target_: {target}", *lines]


def _class_lines(classes: Classes, measures: Measures) -> list[str]:
    total = max(sum(measures.pixels[:-1]), 1)
    names = [f"  - {_plain(name)}" for name in classes.names]
    width = max(map(len, names))
    values = ["" if classes.by_position else f"{value}, " for value in classes.values]
    shares = [
        f"{value}{count / total:.2%} of the labeled pixels"
        for value, count in zip(values, measures.pixels[:-1], strict=True)
    ]
    placeholders = ": placeholders, write yours" if classes.made_up else ""
    return [
        f"# Names in the order of the labels{placeholders}.",
        "classes:",
        *(f"{name:<{width}}  # {share}" for name, share in zip(names, shares, strict=True)),
    ]


def _plain(value: Any) -> str:
    """Write a value as YAML on one line."""
    text = yaml.safe_dump(literals(value), default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("...\n").strip()
