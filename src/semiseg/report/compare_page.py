"""What ``semiseg compare`` prints and writes: the same tables, pictures beside them, all numbers for programs."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.files import read_json, replacing, write_json, write_text
from semiseg.report.compare_facts import Comparison
from semiseg.report.compare_tables import Table, class_table, difference_table, result_table, share

if TYPE_CHECKING:
    from semiseg.report.compare_images import Disagreement, Duel

JSON, MARKDOWN, CSV, PICTURES = "comparison.json", "comparison.md", "images.csv", "pictures"
COLUMNS = ("id", "pixels", "differ", "right_a", "right_b", "only_a", "only_b")


def heading(found: Comparison) -> list[str]:
    """Say which runs these are, and what speaks against comparing their numbers."""
    named = [f"{letter}: {run.path} ({run.state})" for letter, run in (("A", found.a), ("B", found.b))]
    return [*named, *(f"Caution: {reason}" for reason in found.cautions)]


def tables(found: Comparison) -> list[Table]:
    """Tables of all that the runs' files say; those with nothing in them are left out."""
    matters = [each for each in found.config if each.matters]
    others = [each for each in found.config if not each.matters]
    laid = [
        difference_table("Settings that differ", matters),
        difference_table("Settings that differ and cannot change a result", others),
        difference_table("Environment", found.environment),
        result_table(found.results),
        class_table("IoU on the validation images, %", found.classes),
        class_table("IoU on the test images, %", found.classes_test),
    ]
    return [table for table in laid if table.rows]


def verdict(duel: "Duel", ranked: Sequence["Disagreement"]) -> str:
    """Sum the disagreement up over all images, each pixel counted once."""
    pixels = max(sum(each.pixels for each in ranked), 1)
    differ = sum(each.pixels * each.differ for each in ranked) / pixels
    kind = {"val": "validation", "test": "test"}[duel.part]
    images = f"{len(ranked)} {kind} images" + (
        f" ({duel.left_out} that only one of the runs has are left out)" if duel.left_out else ""
    )
    text = f"{images}: the networks name other classes for {share(differ)} % of the pixels."
    if any(each.only_a is None for each in ranked):
        return text
    a, b = (sum(each.pixels * getattr(each, key) for each in ranked) / pixels for key in ("only_a", "only_b"))
    return f"{text} A alone is right on {share(a)} %, B alone on {share(b)} %, neither on {share(differ - a - b)} %."


def image_table(ranked: Sequence["Disagreement"], count: int) -> Table:
    """Show the images where most pixels differ."""
    head = ("image", "differ %", "A right %", "B right %", "only A %", "only B %")
    rows = [
        (each.id, *map(share, (each.differ, each.right_a, each.right_b, each.only_a, each.only_b)))
        for each in ranked[:count]
    ]
    return Table("Images where they disagree most", head, rows, numbers=True)


def write(
    folder: Path, found: Comparison, duel: "Duel | None", ranked: Sequence["Disagreement"], count: int
) -> None:
    """Write a comparison into an existing folder; what an earlier one left there is replaced.

    Args:
        folder: gets comparison.md, comparison.json and, with a duel, images.csv and pictures/.
        found: what the runs' files say.
        duel: the networks before the images; None where nothing was predicted.
        ranked: its result, in order.
        count: how many of them are drawn.
    """
    _remove_former(folder)
    pictures = {} if duel is None else _draw(folder / PICTURES, duel, [each.id for each in ranked[:count]])
    blocks = ["# Comparison of two runs", "", *(f"- {line}" for line in heading(found))]
    text = "\n\n".join(["\n".join(blocks), *(table.markdown() for table in tables(found))])
    images: dict[str, Any] | None = None
    if duel is not None:
        text += "\n\n" + "\n\n".join([verdict(duel, ranked), image_table(ranked, count).markdown()])
        text += "".join(f"\n\n{name}\n\n![{name}]({path})" for name, path in pictures.items())
        rows = [asdict(each) | {"picture": pictures.get(each.id)} for each in ranked]
        images = {"part": duel.part, "left_out": duel.left_out, "ranked": rows}
        write_text(folder / CSV, _csv(rows))
    write_json(folder / JSON, _plain(found) | {"images": images})
    write_text(folder / MARKDOWN, text + "\n")


def _plain(found: Comparison) -> dict[str, Any]:
    runs = {
        letter: {"path": str(run.path), "name": run.name, "state": run.state}
        for letter, run in (("a", found.a), ("b", found.b))
    }
    lists = {key: [asdict(each) for each in getattr(found, key)] for key in ("config", "environment")}
    numbers = {
        key: [asdict(pair) | {"change": pair.change} for pair in getattr(found, key)]
        for key in ("results", "classes", "classes_test")
    }
    return {**runs, "cautions": found.cautions, **lists, **numbers}


def _draw(folder: Path, duel: "Duel", ids: Sequence[str]) -> dict[str, str]:
    """Draw images; return the path of each id's picture, as seen from above the folder."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for number, image_id in enumerate(ids, start=1):
        name = f"{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', image_id)}.png"
        with replacing(folder / name) as file:
            duel.picture(image_id).save(file, format="PNG")
        paths[image_id] = f"{folder.name}/{name}"
    return paths


def _remove_former(folder: Path) -> None:
    """Remove the pictures of an earlier comparison, which its list names; new ones may be called otherwise."""
    try:
        former = read_json(folder / JSON)["images"]["ranked"]
        names = [Path(each["picture"]).name for each in former if each["picture"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        (folder / PICTURES / name).unlink(missing_ok=True)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, "picture"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
