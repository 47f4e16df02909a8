"""Comparison of two runs: settings, environment, results, classes and images, as tables and as files."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.class_rows import class_rows
from semiseg.config.marks import mark_of
from semiseg.config.places import with_places
from semiseg.contracts.score_names import ScoreNames, absent_remark
from semiseg.data.class_identity import placeholder_remark, unproven
from semiseg.data.fingerprint import other_masks
from semiseg.errors import shown
from semiseg.files import read_json, replacing, write_json, write_text
from semiseg.report.comparable import differences, first_few, matters, must_agree, trains
from semiseg.report.records import RunRecord, number
from semiseg.report.rendering import render_markdown
from semiseg.report.scores import percent, scores_of
from semiseg.report.tables import TextTable, csv_text

if TYPE_CHECKING:
    from semiseg.report.disagreement import NetworkComparison

ABSENT = "-"
JSON, MARKDOWN, CSV, PICTURES = "comparison.json", "comparison.md", "images.csv", "pictures"
LISTS = ("config", "environment", "results", "classes", "classes_test")
COLUMNS = ("id", "pixels", "differ", "right_a", "right_b", "only_a", "only_b", "picture")

COUNTED: dict[str, tuple[str, float, int]] = {
    "best_iteration": ("iteration of the best", 1, 0),
    "iterations": ("iterations in all", 1, 0),
    "split_fraction": ("labeled share, %", 100, 2),
    "train_images_per_s": ("training images/s", 1, 1),
    "wall_s": ("duration, s", 1, 0),
}
"""Numbers of ``summary.json`` shown below the scores: name for people, factor and decimals."""


@dataclass(frozen=True)
class ChangedValue:
    """A value that differs between two runs.

    Args:
        key: Dotted name.
        a: Value in the first run; ``None`` where it has none.
        b: Value in the second run; ``None`` where it has none.
        matters: Whether a result can depend on it.
    """

    key: str
    a: Any
    b: Any
    matters: bool = True


@dataclass(frozen=True)
class NumberPair:
    """A number of both runs.

    Args:
        name: Name of the quantity, or of the class.
        a: Number of the first run; ``None`` where it has none. IoU and accuracy are shares, 0-1.
        b: Number of the second run; ``None`` where it has none.
        change: Second number minus first; ``None`` where one is missing.
    """

    name: str
    a: float | None
    b: float | None
    change: float | None


@dataclass(frozen=True)
class Comparison:
    """Comparison of two runs by their files.

    Args:
        a: First run.
        b: Second run.
        names: Names of the scores.
        cautions: Reasons why the numbers do not show which is better, a sentence each.
        config: Settings that differ, those that cannot change a result last.
        environment: Versions, devices, threads and code states that differ.
        results: Numbers of both summaries.
        classes: Scores by class on the validation images.
        classes_test: Scores by class on the test images; empty where there are none.
    """

    a: RunRecord
    b: RunRecord
    names: ScoreNames
    cautions: list[str]
    config: list[ChangedValue]
    environment: list[ChangedValue]
    results: list[NumberPair]
    classes: list[NumberPair]
    classes_test: list[NumberPair]


def compare(a: RunRecord, b: RunRecord) -> Comparison:
    """Compare two runs in any state by their files."""
    names = (a if a.results else b).names
    results = _pairs(a.results, b.results, _quantities(names))
    classes, classes_test = (
        _pairs(*(run.results.get(key) or {} for run in (a, b)))
        for key in (names.by_class.key, names.by_class.test)
    )
    environment = [ChangedValue(*each) for each in differences(_environment(a), _environment(b))]
    results = [pair for pair in results if (pair.a, pair.b) != (None, None)]
    changed = _changed(a, b)
    return Comparison(a, b, names, _cautions(a, b), changed, environment, results, classes, classes_test)


def heading(found: Comparison) -> list[str]:
    """Name the two runs, and the reasons against comparing their numbers."""
    named = [f"{letter}: {run.path} ({run.state})" for letter, run in (("A", found.a), ("B", found.b))]
    return [*named, *(f"Caution: {reason}" for reason in found.cautions)]


def tables(found: Comparison) -> list[TextTable]:
    """Return tables of all differences and results; empty tables are left out."""
    changed = {
        "Settings that differ": [each for each in found.config if each.matters],
        "Settings that differ and cannot change a result": [
            each for each in found.config if not each.matters
        ],
        "Environment": found.environment,
    }
    laid = [
        TextTable(("", "A", "B"), [(each.key, _text(each.a), _text(each.b)) for each in values], title)
        for title, values in changed.items()
    ]
    quantities = _quantities(found.names)
    rows = [_numbers(pair, *quantities[pair.name]) for pair in found.results]
    laid.append(TextTable(("", "A", "B", "B - A"), rows, "Results", True))
    for images, pairs in (("validation", found.classes), ("test", found.classes_test)):
        chosen = class_rows({pair.name: (pair.a, pair.b) for pair in pairs})
        by_name = {pair.name: pair for pair in pairs}
        rows = [_numbers(by_name[name], name, 100, 2) for name in chosen.names]
        title = f"{found.names.by_class.name} on the {images} images, %"
        if note := chosen.note(f"{JSON} of -o FOLDER"):
            title += f" ({note})"
        laid.append(TextTable(("class", "A", "B", "B - A"), rows, title, True))
    return [table for table in laid if table.rows]


def summary(networks: "NetworkComparison") -> str:
    """Describe the disagreement over all images in one sentence or two; each pixel counts once."""
    ranked = networks.ranked
    pixels = max(sum(each.pixels for each in ranked), 1)
    differ = sum(each.pixels * each.differ for each in ranked) / pixels
    kind = {"val": "validation", "test": "test"}[networks.part]
    text = f"{len(ranked)} {kind} images"
    text += f" ({networks.left_out} that only one of the runs has are left out)" if networks.left_out else ""
    text += f": the networks name other classes for {_share(differ)} % of the pixels."
    if any(each.only_a is None for each in ranked):
        return text
    a, b = (sum(each.pixels * getattr(each, key) for each in ranked) / pixels for key in ("only_a", "only_b"))
    return f"{text} A alone is right on {_share(a)} %, B alone on {_share(b)} %, neither on {_share(differ - a - b)} %."


def image_table(networks: "NetworkComparison", count: int) -> TextTable:
    """Show the images where most pixels differ."""
    head = ("image", "differ %", "A right %", "B right %", "only A %", "only B %")
    rows = [
        (each.id, *map(_share, (each.differ, each.right_a, each.right_b, each.only_a, each.only_b)))
        for each in networks.ranked[:count]
    ]
    return TextTable(head, rows, "Images where they disagree most", True)


def write(folder: Path, found: Comparison, networks: "NetworkComparison | None", count: int) -> None:
    """Write a comparison into an existing folder, in place of an earlier one.

    Args:
        folder: Folder that gets comparison.md, comparison.json and, with networks, images.csv and pictures/.
        found: Comparison by the files of the runs.
        networks: Networks that have ranked the images; ``None`` where nothing was predicted.
        count: Number of images to draw.
    """
    # First, while the earlier list still names its pictures.
    _remove_earlier(folder)
    text = {"heading": heading(found), "tables": tables(found), "summary": "", "pictures": {}}
    images: dict[str, Any] | None = None
    if networks is not None:
        pictures = _draw(folder / PICTURES, networks, count)
        rows = [asdict(each) | {"picture": pictures.get(each.id)} for each in networks.ranked]
        images = {"part": networks.part, "left_out": networks.left_out, "ranked": rows}
        text |= {"summary": summary(networks), "images": image_table(networks, count), "pictures": pictures}
        write_text(folder / CSV, csv_text(COLUMNS, rows))
    runs = {
        letter: {"path": str(run.path), "name": run.name, "state": run.state}
        for letter, run in (("a", found.a), ("b", found.b))
    }
    lists = {key: [asdict(each) for each in getattr(found, key)] for key in LISTS}
    write_json(folder / JSON, {**runs, "cautions": found.cautions, **lists, "images": images})
    write_text(folder / MARKDOWN, render_markdown("compare.md.j2", **text))


def _draw(folder: Path, networks: "NetworkComparison", count: int) -> dict[str, str]:
    """Draw images, and return the path of each picture relative to the folder above, by image id."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for index, image_id in enumerate([each.id for each in networks.ranked[:count]], start=1):
        name = f"{index:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', image_id)}.png"
        with replacing(folder / name) as file:
            networks.picture(image_id).save(file, format="PNG")
        paths[image_id] = f"{folder.name}/{name}"
    return paths


def _remove_earlier(folder: Path) -> None:
    """Remove the pictures that an earlier comparison lists, since those of the new one may have other names."""
    try:
        earlier = read_json(folder / JSON)["images"]["ranked"]
        names = [Path(each["picture"]).name for each in earlier if each["picture"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        (folder / PICTURES / name).unlink(missing_ok=True)


def _quantities(names: ScoreNames) -> dict[str, tuple[str, float, int]]:
    """Return the numbers of ``summary.json`` to compare, the scores first."""
    return {key: (f"{score.compared}, %", 100, 2) for key, score in scores_of(names).items()} | COUNTED


def _changed(a: RunRecord, b: RunRecord) -> list[ChangedValue]:
    """Return settings that differ, those that cannot change a result last; the folders of the runs are left out."""
    unlike = differences(dict(_leaves(a.settings)), dict(_leaves(b.settings)))
    found = [
        ChangedValue(*each, any(matters(each[0], run.settings) for run in (a, b)))
        for each in unlike
        if mark_of(each[0], a.settings).role != "identity"
    ]
    named = {each.key.removesuffix(".name") for each in found if each.key.endswith(".name")}
    # The name of another option says already that its class is another one.
    found = [each for each in found if each.key.removesuffix("._target_") not in named]
    return sorted(found, key=lambda each: not each.matters)


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any], names: Iterable[str] = ()) -> list[NumberPair]:
    """Return the numbers of two runs with these names, or with all names, in the order of the first run."""
    found = [(name, number(a, name), number(b, name)) for name in names or dict.fromkeys([*a, *b])]
    return [NumberPair(name, x, y, None if x is None or y is None else y - x) for name, x, y in found]


def _cautions(a: RunRecord, b: RunRecord) -> list[str]:
    """Return reasons why the numbers of two runs do not show which is better, each in one sentence."""
    found = [f"{run.path} has not finished ({run.state})." for run in (a, b) if run.summary is None]
    first, second = a.results, b.results
    if a.option("dataset") != b.option("dataset"):
        found.append(f"Other datasets: {a.option('dataset')} and {b.option('dataset')}.")
    if names := _unproven_names(a, b):
        found.append(f"Of other datasets: {placeholder_remark(names)}.")
    # Of the config, which has the defaults of settings that an earlier version did not write.
    evaluators = [run.settings.get("evaluator") or {} for run in (a, b)]
    unlike = [key for key, *_ in differences(*evaluators)]
    if keys := [key for key in unlike if must_agree(mark_of(f"evaluator.{key}", a.config))]:
        found.append(f"Evaluated in other ways: evaluator.{', evaluator.'.join(keys)}.")
    if not (first and second):
        return found
    if a.names.primary != b.names.primary:
        found.append(f"Measured by other scores: {a.names.primary.name} and {b.names.primary.name}.")
    for letter, run in (("A", a), ("B", b)):
        for images, suffix in (("validation", ""), ("test", "_test")):
            if remark := absent_remark(run.results, run.names, images, suffix):
                found.append(f"{letter}: {remark}.")
    hashes = [results.get("split_sha256") or {} for results in (first, second)]
    for kind in ("labeled", "unlabeled"):
        if hashes[0].get(kind) != hashes[1].get(kind):
            found.append(f"Trained on other {kind} images: {_split(first)} and {_split(second)}.")
    if a.validation_sha256() != b.validation_sha256():
        found.append("Selected on other validation images.")
    if unlike_ids := _other_masks(a, b):
        found.append(
            f"Trained or measured on other data: {len(unlike_ids)} images have another mask in one of the runs, "
            f"{first_few(unlike_ids)}."
        )
    if first.get("iterations") != second.get("iterations") and trains(a) and trains(b):
        found.append(
            f"Trained for other lengths: {first.get('iterations')} and {second.get('iterations')} iterations."
        )
    return found


def _unproven_names(a: RunRecord, b: RunRecord) -> list[str]:
    """Return the made-up class names that runs of two datasets share."""
    one, other = (with_places(run.config, run.path)[0].get("dataset") or {} for run in (a, b))
    classes = one.get("classes")
    return unproven(one, other, classes) if classes and classes == other.get("classes") else []


def _other_masks(a: RunRecord, b: RunRecord) -> list[str]:
    """Return the ids of images of one dataset that have other masks in the two runs."""
    if a.fingerprint is None or b.fingerprint is None or a.option("dataset") != b.option("dataset"):
        return []
    return other_masks(a.fingerprint, b.fingerprint)


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values at any depth; a list of plain values is one value."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and any(isinstance(item, Mapping) for item in node):
        for index, item in enumerate(node):
            yield from _leaves(item, f"{key}[{index}]")
    else:
        yield key, node


def _environment(run: RunRecord) -> dict[str, Any]:
    known = {key: value for key, value in run.env.items() if key not in ("git", "command", "directory")}
    git = run.env.get("git") or {}
    diff = git.get("diff")
    # A hash shows whether two states of the code differ, without printing them.
    changes = f"changes {sha256(diff.encode()).hexdigest()[:8]}" if diff else None if diff is None else "none"
    return dict(_leaves(known)) | {"git.commit": git.get("commit"), "git.uncommitted": changes}


def _split(results: Mapping[str, Any]) -> str:
    return f"split {results.get('split')} {results.get('split_family')} {results.get('split_id')}"


def _text(value: Any) -> str:
    return ABSENT if value is None else shown(value)


def _numbers(pair: NumberPair, name: str, factor: float, decimals: int) -> list[str]:
    numbers = (pair.a, pair.b, pair.change)
    a, b, change = (ABSENT if each is None else f"{each * factor:.{decimals}f}" for each in numbers)
    return [name, a, b, f"+{change}" if pair.change and pair.change > 0 else change]


def _share(value: float | None) -> str:
    return ABSENT if value is None else percent(value, 2)
