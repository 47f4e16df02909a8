"""``semiseg init``: the dataset config of a folder of images and masks."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semiseg.apply.label_folder import RECORD
from semiseg.cli.arguments import Parser, positive, share_or_name
from semiseg.data.bands import BAND_SUFFIXES
from semiseg.data.file_faults import BadFilesError
from semiseg.data.folder_files import FolderFiles
from semiseg.data.mask_labels import Value, is_transparent, parse_color
from semiseg.data.picture_files import Exif
from semiseg.data.tile_grid import TileGrid
from semiseg.errors import UserError
from semiseg.files import read_json, require_writable
from semiseg.onboard.band_survey import band_mask_values, unmeasured_bands
from semiseg.onboard.class_files import find_names
from semiseg.onboard.classes import Classes, as_named, decide
from semiseg.onboard.describe import folder_arguments
from semiseg.onboard.draft import ELSEWHERE, DatasetDraft, dataset_name, measured, next_steps, write_draft
from semiseg.onboard.layout import KnownLayout, Layout
from semiseg.onboard.left_aside import left_aside
from semiseg.onboard.mask_values import read_values
from semiseg.onboard.names import given_names
from semiseg.onboard.parts import VAL_SHARE, find_parts
from semiseg.onboard.preset import (
    Preset,
    make_preset,
    preset_files,
    preset_report,
    preset_steps,
    write_preset,
)
from semiseg.onboard.search import find_layout
from semiseg.onboard.survey import Survey, survey
from semiseg.onboard.tool_files import tool_lines
from semiseg.progress_bar import progress
from semiseg.splits.lists import IMAGE_SUFFIXES

DESCRIPTION = """\
Look at a folder of images, of which some have masks: find the layout, the classes in the masks (numbers or colors),
sizes and label statistics, check every file, and write the config of the dataset; then choose how to train on it, by
its numbers and by the time of a few steps on this machine, and write that too."""
EPILOG = """\
writes dataset/NAME.yaml in the working directory, which `semiseg train dataset=NAME` reads from there; and
dataset/NAME.val.txt, the images to validate on, where FOLDER does not say which; and experiments/NAME.yaml, how to
train, which `semiseg train experiments=NAME` reads (with method/METHOD_NAME.yaml, where the method has settings of its
own). Nothing in FOLDER is changed.

examples:
  semiseg init fields                                  fields/images/*.jpg, fields/masks/*.png for some of them
  semiseg init fields --classes soil,wheat,weed        names in the order in which the report lists the values
  semiseg init scans --classes 'rest=#000000,vessel=#ff0000' --void '#ffffff'
  semiseg init fields --minutes 60 --weights tf_efficientnet_lite0.safetensors
  semiseg init data --name fields --images rgb --masks gt --mask-suffix _mask
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg init`` with the arguments after its name; return the exit code.

    Raises:
        UserError: there is no folder, image or mask, files are unusable, the names do not match the masks, or the
            config exists already.
    """
    options = _parser().parse_args(arguments)
    root = Path(options.folder).expanduser()
    if not root.is_dir():
        fault = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {fault}; expected a folder with images and masks")
    if not options.bands and (options.nodata is not None or options.tile is not None):
        raise UserError("--nodata and --tile are for images of bands; add --bands")
    root = root.resolve()
    name = dataset_name(options.name, root)
    target = Path("dataset") / f"{name}.yaml"
    _require_new(name, target, options)
    own_list = target.with_name(f"{name}.val.txt")
    for path in (target, *(() if options.no_preset else preset_files(name))):
        require_writable(path, ELSEWHERE)
    try:
        findings = _examine(root, name, own_list, options)
    except BadFilesError as error:
        raise BadFilesError(error.faults, "leave them out with --skip-bad", error.notes) from error
    preset = None if options.no_preset else _preset(name, findings, options)
    write_draft(findings, target, own_list)
    if preset is not None:
        write_preset(preset)
        print("\n".join(preset_report(preset)))
    print("\n".join(next_steps(name, target, findings, preset_steps(preset) if preset else ())))
    return 0


def _require_new(name: str, target: Path, options: argparse.Namespace) -> None:
    """Refuse to replace what was written before, and a file of weights that is not there.

    Raises:
        UserError: files that exist already, or no such file.
    """
    if options.weights is not None and not options.weights.expanduser().is_file():
        raise UserError(f"--weights {options.weights}: there is no such file")
    wanted = [target, *(() if options.no_preset else preset_files(name))]
    found = [path for path in wanted if path.exists()]
    if found and not options.force:
        them = "it" if len(found) == 1 else "them"
        kept = "" if target in found else ", --no-preset leaves the way of training as it is"
        raise UserError(
            f"{' and '.join(map(str, found))} exist{'s' if len(found) == 1 else ''} already: --force replaces "
            f"{them}, --name NAME writes another{kept}"
        )


def _preset(name: str, findings: DatasetDraft, options: argparse.Namespace) -> Preset:
    """Choose how to train, which takes some seconds."""
    weights = None if options.weights is None else options.weights.expanduser().resolve()
    return make_preset(name, findings.info, findings.measures, options.minutes, weights)


def _examine(root: Path, name: str, own_list: Path, options: argparse.Namespace) -> DatasetDraft:
    """Examine the folder and print the report."""
    suffixes = BAND_SUFFIXES if options.bands else IMAGE_SUFFIXES
    found_layout = find_layout(root, _known(options), suffixes)
    layout = found_layout.layout
    files = layout.find(root, suffixes)
    masks = {image_id: path for image_id, path in files.masks.items() if image_id in files.images}
    with progress("masks", len(masks)) as tick:
        found = survey(masks, tick, values=band_mask_values if options.bands else read_values)
    found, classes = _classes(found, root, options)
    parts = find_parts(root, files, options.val, own_list, options.force)
    values = folder_arguments(name, root, layout, found, classes, parts, options.skip_bad)
    values["groups"] = _groups(options.groups, root)
    if options.bands:
        values["bands"] = unmeasured_bands(files.images, options.nodata)
        values["tiles"] = None if options.tile is None else TileGrid(options.tile)
    exif, exif_notes = _exif(options.exif, root)
    if exif != "apply":
        values["exif"] = exif
    findings, lines = measured(values, layout, files, found, classes, parts)
    aside = left_aside(root, found_layout.files, files, _lists_read(root, layout, values, options))
    print("\n".join([str(root), *([aside] if aside else []), "", *lines]))
    notes = [*exif_notes, *_renamed(files), *found_layout.notes, *tool_lines(root, found_layout.files)]
    print("".join(f"note     {note}\n" for note in notes), end="")
    return findings


def _exif(given: Exif | None, root: Path) -> tuple[Exif, list[str]]:
    """How images are turned: as given, else as ``semiseg label`` read the pictures that it labeled; and a note."""
    try:
        record = read_json(root / RECORD)
    except (OSError, ValueError):  # there is none, or it is another tool's
        record = None
    if given is None and isinstance(record, dict) and record.get("exif") == "ignore":
        return "ignore", [
            f"{RECORD} says that the labels are those of pictures as they are stored: EXIF orientations are ignored "
            "(--exif apply turns images)"
        ]
    return given or "apply", []


def _known(options: argparse.Namespace) -> KnownLayout:
    return KnownLayout(
        options.images,
        options.masks,
        options.image_suffix,
        options.mask_suffix,
        options.image_prefix,
        options.mask_prefix,
        tuple(options.pairs.split(",")) if options.pairs else None,
    )


def _lists_read(
    root: Path, layout: Layout, values: dict[str, Any], options: argparse.Namespace
) -> list[Path]:
    """Lists in the folder that the dataset reads, and the file with names of classes."""
    lists = [f"{values[part]}".removesuffix(".txt") + ".txt" for part in ("val", "test")]
    named = None if options.classes else find_names(root)
    return [root / name for name in (*lists, "train.txt", *layout.pairs, *([named.source] if named else []))]


def _renamed(files: FolderFiles) -> list[str]:
    """Note about masks whose names differ from those of their images."""
    if not files.other_names:
        return []
    image_id, mask = next(iter(files.other_names.items()))
    return [
        f"{len(files.other_names):,} masks are matched though their names differ from their images' in case, Unicode "
        f"form or a repeated extension, such as {mask.name} for {files.images[image_id].name}"
    ]


def _classes(found: Survey, root: Path, options: argparse.Namespace) -> tuple[Survey, Classes]:
    """Decide on the classes; where that fails and some masks cannot be read, name these instead.

    Returns:
        The survey as masks are to be read with the names at hand, and the classes.
    """
    named = given_names(options.classes) if options.classes else find_names(root)
    found = as_named(found, named)
    try:
        return found, decide(found, named, _void(options.void))
    except UserError:
        if found.faults and not options.skip_bad:
            raise BadFilesError(found.faults) from None
        raise


def _groups(given: str | None, root: Path) -> str | None:
    """The setting ``dataset.groups``: a table of the working directory by its absolute path, all else as given."""
    if given is None or (root / given).is_file() or not Path(given).is_file():
        return given
    return str(Path(given).resolve())


def _void(text: str | None) -> list[Value]:
    values: list[Value] = []
    for word in (text or "").split(","):
        if word.strip().isdigit():
            values.append(int(word))
        elif word.strip():
            if not is_transparent(word.strip()):
                parse_color(word.strip())
            values.append(word.strip().lower())
    return values


def _parser() -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="semiseg init", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("folder", metavar="FOLDER", help="folder with images and masks, anywhere below it")
    parser.add_argument("--name", help="of the dataset; default: the folder's")
    parser.add_argument(
        "--classes",
        metavar="NAME,...",
        help="names of the classes in the order of the values, or NAME=VALUE,... with numbers or colors; default: "
        "those of classes.txt, class_dict.csv, labelmap.txt ... in FOLDER, else placeholders",
    )
    parser.add_argument(
        "--void", metavar="VALUE,...", help='numbers or colors that mean "not labeled", in addition to 255'
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the images below FOLDER; default: found")
    parser.add_argument("--masks", metavar="DIR", help="folder of the masks below FOLDER; default: found")
    parser.add_argument("--image-suffix", metavar="END", help="what images' names end in; default: found")
    parser.add_argument("--mask-suffix", metavar="END", help="what masks' names end in; default: found")
    parser.add_argument(
        "--image-prefix", metavar="BEGIN", help="what images' names begin with; default: found"
    )
    parser.add_argument("--mask-prefix", metavar="BEGIN", help="what masks' names begin with; default: found")
    parser.add_argument(
        "--pairs",
        metavar="FILE,...",
        help="lists of images and their masks, two paths a line (text or CSV); default: by names, else found",
    )
    parser.add_argument(
        "--bands",
        action="store_true",
        help="images of other channels than 8-bit RGB (GeoTIFF, 16-bit PNG, .npy): read all their channels at their "
        "full depth, and measure mean and deviation of each",
    )
    parser.add_argument(
        "--nodata",
        type=float,
        metavar="VALUE",
        help="with --bands: value of pixels that have none (default: as files)",
    )
    parser.add_argument(
        "--tile",
        type=positive(int),
        metavar="PIXELS",
        help="with --bands: cut large pictures into tiles of this side, of which each is an image",
    )
    parser.add_argument(
        "--val",
        type=share_or_name,
        metavar="SHARE|NAME",
        help="share of the labeled images to validate on, a list or a subfolder; default: val, valid or validation if "
        f"there is one, else {VAL_SHARE}",
    )
    parser.add_argument(
        "--groups",
        metavar="PATTERN|FILE",
        help="keep the images of a patient, video, tile set or building on one side: pattern with parentheses around "
        "its name in an id, such as '^(p[0-9]+)_', or CSV file with an id and its group a line",
    )
    parser.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        help="turn images as their EXIF orientation says (default), or leave them as they are stored, for masks that "
        f"were drawn so (default where {RECORD} of `semiseg label` says so)",
    )
    parser.add_argument(
        "--minutes",
        type=positive(float),
        default=20.0,
        metavar="N",
        help="time for one run of training, by which its length and the size of pictures are chosen; default: 20",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="pretrained weights of the chosen network on this machine, where they cannot be fetched",
    )
    parser.add_argument(
        "--no-preset",
        action="store_true",
        help="write no experiments/NAME.yaml, such as where --force would replace one that you have changed",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out unusable files")
    parser.add_argument("--force", action="store_true", help="replace what was written before")
    return parser
