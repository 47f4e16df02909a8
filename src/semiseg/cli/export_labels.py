"""``semiseg export-labels``: predictions or masks as the files of a labeling tool."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from semiseg.cli.arguments import Parser, number
from semiseg.errors import UserError, nearest
from semiseg.files import writes
from semiseg.labels.label_formats import FORMATS
from semiseg.labels.label_import import new_folder, settled
from semiseg.labels.labeled_folders import LabeledFolder, labeled_folder, of_dataset
from semiseg.labels.mask_shapes import Writing
from semiseg.progress_bar import progress
from semiseg.splits.lists import repeated, shown

DESCRIPTION = """\
Write predictions, or the masks of a dataset, as files that a labeling tool opens, to be corrected there. Pictures are
not copied."""
EPILOG = """\
SOURCE is a folder that `semiseg predict` or `semiseg label` has written, or dataset=NAME, with further keys as of
`semiseg train`. `semiseg import` reads the corrected files.

examples:
  semiseg predict RUN photos -o predicted
  semiseg export-labels labelme predicted -o corrections
  semiseg export-labels cvat dataset=fields -o for_cvat --shapes outline --tolerance 1
  semiseg export-labels label-studio predicted -o tasks --address '/data/local-files/?d=photos/'
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg export-labels`` with the arguments after its name; return the exit code.

    Raises:
        UserError: there is no such source, a file of it cannot be read, or the folder exists.
    """
    options = _parser().parse_args(arguments)
    kind = FORMATS[options.format]
    as_masks = kind.masks and (options.shapes == "mask" if options.shapes else not kind.outlines_first)
    if options.shapes and as_masks != (options.shapes == "mask"):
        raise UserError(f"--shapes {options.shapes}: {options.format} holds no masks; expected outline")
    if options.shapes == "outline" and not kind.outlines:
        raise UserError(f"--shapes outline: {options.format} holds no outlines; expected mask")
    if options.output.exists() and not options.force:
        raise UserError(f"-o {options.output} exists already: --force replaces it, or choose another folder")
    source = _source(options.source)
    if not source.files:
        raise UserError(f"{options.source[0]} has no picture with labels")
    _refuse_same_names(source)
    classes = source.info.classes
    if options.background is not None and options.background not in classes:
        near = nearest(options.background, classes)
        raise UserError(
            f"--background {options.background}: expected one of {', '.join(classes)}"
            + (f"; did you mean {near}?" if near else "")
        )
    rest = None if options.background is None else classes.index(options.background)
    writing = Writing(source.info, rest, as_masks, options.tolerance, source.reviewed, options.address)
    with (
        new_folder(options.output) as part,
        writes(options.output, "Choose another folder by -o, or make room."),
    ):
        with progress("pictures", len(source.files)) as tick:
            kind.write(part, writing, source.pictures(tick))
        with settled(part, options.output):
            print("\n".join(_report(options, len(source.files), as_masks)))
    return 0


def _source(words: Sequence[str]) -> LabeledFolder:
    if "=" not in words[0]:
        if len(words) > 1:
            raise UserError(f"{words[1]}: expected one folder, or keys such as dataset=NAME")
        return labeled_folder(Path(words[0]).expanduser())
    # Hydra takes a moment to import, and a folder needs none of it.
    from semiseg.config import build
    from semiseg.config.check import Checker
    from semiseg.config.compose import Request
    from semiseg.config.prepare import checked

    return of_dataset(build.dataset(checked(Request(tuple(words)), Checker(), settings_only=True)))


def _refuse_same_names(source: LabeledFolder) -> None:
    """Refuse pictures that differ only in the extension, whose label files would have one name."""
    stems = [key.rpartition(".")[0] for key in source.files]
    if twice := repeated(stems):
        raise UserError(f"pictures differ only in the extension: {shown(twice)}; rename one of each")


def _report(options: argparse.Namespace, pictures: int, as_masks: bool) -> list[str]:
    shapes = "masks" if as_masks else f"outlines within {options.tolerance:g} pixels of the rims"
    rest = f"--background {options.background}" if options.background else "--no-background"
    nothing = f"class {options.background}" if options.background else "not labeled"
    kind = FORMATS[options.format]
    if not kind.outlines:
        return [
            f"{pictures:,} pictures as masks in {options.output}",
            f"to read it back: semiseg import {options.format} {options.output} --images FOLDER",
        ]
    how = "" if kind.covers_all and not options.background else f" {rest}"
    return [
        f"{pictures:,} pictures as {shapes} in {options.output}; what no shape covers is {nothing}",
        f"to read it back: semiseg import {options.format} {options.output}{how} --images FOLDER",
    ]


def _parser() -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="semiseg export-labels", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    formats = "; ".join(f"{name}: {each.about}" for name, each in FORMATS.items())
    parser.add_argument("format", choices=FORMATS, metavar="FORMAT", help=formats)
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="folder, or dataset=NAME [KEY=VALUE ...]")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="new folder")
    parser.add_argument(
        "--shapes",
        choices=("mask", "outline"),
        help="masks of pixels, exact, or outlines with corners to drag (default: mask where the format has it, but "
        "outline in labelme)",
    )
    parser.add_argument(
        "--tolerance",
        type=number(float, "number", lambda value: value >= 0, "is below 0"),
        default=0.5,
        metavar="PX",
        help="largest distance in pixels between rim and outline; 0 is exact and has many corners (default: 0.5)",
    )
    rest = (
        "class that gets no shape; what is not labeled then gets one (default: what is not labeled gets none)"
    )
    parser.add_argument("--background", metavar="NAME", help=rest)
    address = (
        "what Label Studio needs before the names of pictures, for example '/data/local-files/?d=photos/'"
    )
    parser.add_argument("--address", default="", metavar="URL", help=address)
    parser.add_argument("--force", action="store_true", help="replace the folder")
    return parser
