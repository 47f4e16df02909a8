"""``semiseg label``: pseudo-labels of own pictures to correct by hand, ranked by which to label next."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.cli.arguments import Parser, number, positive, run_parser
from semiseg.cli.network_options import add_picture_arguments, add_predictor_options, chosen_predictor
from semiseg.errors import Interrupted, UserError
from semiseg.files import writes
from semiseg.runs.use import describe, open_run

if TYPE_CHECKING:
    from semiseg.apply.labeling_order import Labeling

EPILOG = """\
writes:
  OUT/images/NAME.*        the pictures
  OUT/masks/NAME.png       palette PNG in the numbers and colors of the run's own masks, with one of its own where the
                           network is not sure enough: "(not labeled)" in OUT/classes.txt
  OUT/confidence/NAME.png  gray, the probability of the class; white is 1
  OUT/ranking.csv          all pictures, the one to label next first
  OUT/classes.txt, OUT/legend.png, OUT/label.json
  NAME is the picture's path without extension, from the folder on that all IMAGES share.
  Correct the masks and delete those that nothing should be learned from. Then `semiseg init OUT` writes the
  config of a dataset.

examples:
  semiseg label RUN photos -o OUT
  semiseg label RUN photos -o OUT --keep 0.3 --scales 0.75,1,1.25 --flip
  semiseg label RUN photos -o OUT --rank stability --first 20
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg label`` with the arguments after its name; return the exit code.

    Raises:
        UserError: no run, no pictures, files that would be replaced, or pictures that could not be labeled, after
            all others have been.
        Interrupted: a signal ended the work between two pictures or tiles; the same command goes on.
    """
    options = _parser().parse_intermixed_args(arguments)
    run = open_run(options.run)
    from semiseg.apply.images import find_images, left_aside

    found = find_images(options.images, run.suffixes)
    # These take seconds to import, and the mistakes above are shown without them.
    from semiseg.apply.label_folder import RANKING, RECORD, LabelFolder
    from semiseg.apply.labeling_order import Labeling
    from semiseg.apply.many_pictures import failures, origin
    from semiseg.apply.mask_coding import mask_coding
    from semiseg.engine.signals import StopRequest

    predictor = chosen_predictor(options, run)
    facts = origin(options.checkpoint, run, predictor)
    coding = mask_coding(run.config["dataset"], predictor.info)
    folder = LabelFolder(options.output, found, coding, options.link, predictor.exif)
    folder.open(
        options.force, _digest({**facts, "images": {name: str(path) for name, path in found.items()}})
    )
    with StopRequest() as stop:
        labeling = Labeling(run, predictor, folder, stop.check)
        _label(labeling, found, options, facts)
    total = len(labeling.labels.ids)
    if not total:
        folder.abandon()
        raise UserError(failures(labeling.failed, len(found), folder.folder / RECORD))
    if aside := left_aside(options.images, run.suffixes):
        print(aside)
    print(f"{describe(predictor.settings)}, on {predictor.device}")
    print(
        f"{min(options.first or total, total)} images with masks, and {RANKING} of {total}, in {folder.folder}"
    )
    if labeling.failed:
        raise UserError(failures(labeling.failed, len(found), folder.folder / RECORD))
    return 0


def _label(
    labeling: Labeling, found: Mapping[str, Path], options: argparse.Namespace, facts: Mapping[str, Any]
) -> None:
    try:
        with writes(options.output, "Correct that, then the same command goes on."):
            labeling.predict(found)
            if not labeling.labels.ids:
                return
            scores = labeling.scores(found) if options.rank == "stability" else None
            labeling.write(options.keep, options.first, scores, facts)
    except Interrupted as error:
        raise Interrupted(f"{error.reason}; the same command goes on", error.exit_code) from error


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _parser() -> Parser:
    description = (
        "Label own pictures with the network of a finished run, to be corrected by hand and learned\n"
        "from, and say which of them to label next. Of every predicted class the surest pixels keep\n"
        "their label."
    )
    parser = run_parser("label", description, EPILOG)
    add_picture_arguments(parser)
    parser.add_argument(
        "--keep",
        type=number(float, "share", lambda share: 0 < share <= 1, "is no share above 0 and up to 1"),
        default=0.5,
        metavar="SHARE",
        help="share of the pixels of each predicted class that keep their label, up to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--rank",
        choices=("confidence", "stability"),
        default="confidence",
        help="what comes first in the ranking: low mean confidence, or labels that differ between the networks that "
        "the run kept while it learned, else between views of the picture, which takes longer (default: confidence)",
    )
    parser.add_argument(
        "--first",
        type=positive(int),
        metavar="N",
        help="write only the first N of the ranking (default: all)",
    )
    parser.add_argument("--link", action="store_true", help="link to the pictures instead of copying them")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    add_predictor_options(parser)
    return parser
