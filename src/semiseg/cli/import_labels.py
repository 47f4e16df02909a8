"""``semiseg import``: masks and the dataset config from the files of a labeling tool."""

import argparse
import csv
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from semiseg.cli.arguments import Parser, share_or_name
from semiseg.data.file_faults import BadFilesError
from semiseg.errors import UserError
from semiseg.files import require_writable, write_text
from semiseg.labels.archives import unpacked
from semiseg.labels.class_spelling import spelled
from semiseg.labels.embedded_images import extract
from semiseg.labels.image_places import ImagePlaces
from semiseg.labels.label_formats import FORMATS
from semiseg.labels.label_import import Painted, Reading, new_folder, paint, settled
from semiseg.labels.label_record import Findings
from semiseg.onboard.classes import Classes
from semiseg.onboard.describe import folder_arguments
from semiseg.onboard.draft import dataset_name, measured, next_steps, write_draft
from semiseg.onboard.layout import Layout
from semiseg.onboard.parts import VAL_SHARE, find_parts
from semiseg.onboard.survey import survey
from semiseg.progress_bar import progress
from semiseg.splits.lists import shown

DESCRIPTION = """\
Read the files of a labeling tool: paint a mask for each picture that has labels, and write the dataset config as
`semiseg init` does."""
EPILOG = """\
writes dataset/NAME.masks/, dataset/NAME.yaml and, where needed, dataset/NAME.val.txt in the working directory. Sources
and images stay where they are, unchanged. docs/labels.md says what each format means in doubt.

examples:
  semiseg import labelme data
  semiseg import coco annotations/instances_train.json annotations/instances_val.json --images photos
  semiseg import cvat job_12.zip --images photos --classes road,car --void other
  semiseg import label-studio export.json label_config.xml --images photos --no-background
  semiseg import yolo data.yaml
"""
OR_SKIP = "leave them out with --skip-bad"
OTHERWISE = "Work in another folder, or make room."


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg import`` with the arguments after its name; return the exit code.

    Raises:
        UserError: sources or images that are not there or unusable, all of which it names; classes that do not fit;
            or files that would be replaced.
    """
    options = _parser().parse_args(arguments)
    sources = [Path(source).expanduser() for source in options.sources]
    first = sources[0].resolve()
    name = dataset_name(options.name, first if first.is_dir() else first.with_suffix(""))
    target = Path("dataset") / f"{name}.yaml"
    masks = target.with_suffix(".masks")
    if not options.force and (there := [path for path in (target, masks) if path.exists()]):
        raise UserError(f"{there[0]} exists already: --force replaces it, --name NAME writes another")
    require_writable(target, OTHERWISE)
    found = Findings()
    with new_folder(masks) as part:
        painted = _paint(sources, options, part, found)
        if found.faults and not options.skip_bad:
            raise BadFilesError(found.faults, OR_SKIP)
        if not painted.masks:
            raise UserError(f"no picture in {sources[0]} has a label that can be used; {_left_out(found)}")
        with settled(part, masks):
            _write_config(name, target, masks, sources[0], painted, found, options, shlex.join(arguments))
    return 0


def _paint(sources: list[Path], options: argparse.Namespace, part: Path, found: Findings) -> Painted:
    kind = FORMATS[options.format]
    reading = Reading(
        classes=options.classes,
        void=options.void or (),
        background=options.background,
        no_background=options.no_background,
        crowd_is_void=options.crowd == "void",
        empty_is_background=options.empty == "background",
        order=options.order,
        frame=options.frame,
    )
    images = options.extract_images or options.images
    with unpacked(sources) as opened:
        content = kind.read(opened.paths, found)
        if found.faults and not content.pictures:
            raise BadFilesError(found.faults, OR_SKIP)
        content = spelled(content, found)
        if options.extract_images:
            options.extract_images.mkdir(parents=True, exist_ok=True)
            content = replace(content, pictures=extract(content.pictures, options.extract_images, found))
        places = ImagePlaces(opened.paths, images, opened.folder)
        try:
            painted = paint(content, kind, places, reading, part, found)
        except UserError as error:
            if found.faults and not options.skip_bad:  # of which too few classes may be a result
                raise BadFilesError(found.faults, OR_SKIP) from error
            raise
        found.faults[:] = [replace(each, file=opened.named(each.file)) for each in found.faults]
        return painted


def _left_out(found: Findings) -> str:
    counts = [f"{count} {kind}" for kind, count in found.left_out.items() if count]
    if found.faults:
        return "\n  ".join(["left out:", *counts, shown(map(str, found.faults), 5)])
    return f"it has {', '.join(counts)}" if counts else "it has no shapes"


def _write_config(
    name: str,
    target: Path,
    masks: Path,
    source: Path,
    painted: Painted,
    found: Findings,
    options: argparse.Namespace,
    typed: str,
) -> None:
    """Read all files as a run does, print the report of ``semiseg init`` and write its config."""
    base = source.resolve()
    inside = base.is_dir() and painted.images.is_relative_to(base)
    root = base if inside else painted.images
    layout = Layout(painted.images.relative_to(root).as_posix(), str(masks.absolute()))
    files = layout.find(root)
    with progress("masks", len(files.masks)) as tick:
        seen = survey(files.masks, tick)
    found.notes.extend(_without_labels(files.images.keys() - painted.pictures.keys(), painted.images))
    chosen = painted.chosen
    classes = Classes(chosen.names, tuple(range(len(chosen.names))), (), notes=tuple(found.notes))
    own_list = target.with_suffix(".val.txt")
    val, test = _own_parts(painted, target)
    parts = find_parts(root, files, val or options.val, own_list, options.force)
    values = folder_arguments(name, root, layout, seen, classes, parts, options.skip_bad)
    values |= {"test": test} if test else {}
    values |= {"palette": [list(color) for color in chosen.colors]} if chosen.colors else {}
    draft, lines = measured(values, layout, files, seen, classes, parts)
    print("\n".join([f"{painted.masks:,} masks in {masks}", "", *lines]))
    faults = [f"note     left out: {fault}" for fault in found.faults]
    print("".join(f"{line}\n" for line in faults), end="")
    head = f"# Masks were painted by `semiseg import {typed}`.\n"
    write_draft(replace(draft, config=head + draft.config), target, own_list)
    print("\n".join(next_steps(name, target, draft)))


def _without_labels(ids: Iterable[str], images: Path) -> list[str]:
    """Note about images that no label file names."""
    folders = Counter(image_id.rpartition("/")[0] for image_id in ids)
    if not folders:
        return []
    some = ", ".join(f"{count:,} in {images / folder}" for folder, count in folders.most_common(5))
    more = f" and {len(folders) - 5} other folders" if len(folders) > 5 else ""
    return [f"images that no label file names count as unlabeled: {some}{more}; --images DIR narrows them"]


def _own_parts(painted: Painted, target: Path) -> tuple[str | None, str | None]:
    """Write lists of the validation and test images that the label files name; return their paths."""
    paths = []
    for part in ("val", "test"):
        ids = [
            i for i, each in painted.pictures.items() if each.picture.part == part and each.picture.labeled
        ]
        path = target.with_suffix(f".{part}.txt")
        if ids:
            write_text(path, "".join(f"{image_id}\n" for image_id in ids))
        paths.append(str(path.absolute()) if ids else None)
    return paths[0], paths[1]


def _names(text: str) -> list[str]:
    """Read names between commas; quotes keep a comma in a name."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True)) if name.strip()]


def _parser() -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="semiseg import", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    formats = "; ".join(f"{name}: {each.about}" for name, each in FORMATS.items())
    parser.add_argument("format", choices=FORMATS, metavar="FORMAT", help=formats)
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="files, folders or ZIP archives of labels"
    )
    parser.add_argument("--name", help="of the dataset; default: that of the first source")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images; default: next to the labels"
    )
    names = "names of the classes in the order of the labels; default: all, in the order of the files"
    parser.add_argument("--classes", type=_names, metavar="NAME,...", help=names)
    parser.add_argument("--void", type=_names, metavar="NAME,...", help="names whose pixels are not labeled")
    rest = parser.add_mutually_exclusive_group()
    covered = "class of pixels that no shape covers; default: background, in voc and cityscapes none"
    rest.add_argument("--background", metavar="NAME", help=covered)
    rest.add_argument(
        "--no-background", action="store_true", help="pixels that no shape covers are not labeled"
    )
    empty = "what pictures without shapes are (default: unlabeled)"
    parser.add_argument("--empty", choices=("unlabeled", "background"), default="unlabeled", help=empty)
    crowd = "whether crowds of COCO are not labeled, or of their class (default: void)"
    parser.add_argument("--crowd", choices=("void", "class"), default="void", help=crowd)
    order = (
        "which shape is painted over which: the later one, the smaller one, or that of the higher layer "
        f"(default: {', '.join(f'{name} {each.order}' for name, each in FORMATS.items())})"
    )
    parser.add_argument("--order", choices=("file", "area", "layer"), help=order)
    frame = "whether labels are drawn on the pictures as shown, or as stored without a rotation by EXIF"
    parser.add_argument(
        "--frame", choices=("shown", "stored"), help=f"{frame} (default: what sizes prove, else shown)"
    )
    held = "write the images that stand in labelme's files into this folder, and use them"
    parser.add_argument("--extract-images", type=Path, metavar="DIR", help=held)
    val = f"validation images: a share, a list or a subfolder (default: as the files say, else {VAL_SHARE})"
    parser.add_argument("--val", type=share_or_name, metavar="SHARE|NAME", help=val)
    parser.add_argument("--skip-bad", action="store_true", help="leave out unusable files and pictures")
    parser.add_argument("--force", action="store_true", help="replace what was written before")
    return parser
