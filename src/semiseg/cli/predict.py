"""``semiseg predict``: label maps, overlays and confidence of any pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.cli.arguments import Parser, number, run_parser
from semiseg.cli.network_options import add_picture_arguments, add_predictor_options, chosen_predictor
from semiseg.errors import Interrupted, UserError
from semiseg.runs.use import describe, open_run

if TYPE_CHECKING:
    from semiseg.apply.predict_folder import Predictions
    from semiseg.runs.predictor import Predictor

EPILOG = """\
writes:
  OUT/labels/NAME.png      palette PNG whose pixels are class numbers
  OUT/overlay/NAME.png     the picture below the colors of its classes
  OUT/confidence/NAME.png  with --confidence: gray, the probability of the class; white is 1
  OUT/labels/NAME.tif      with --geotiff: GeoTIFF with the place of the picture; 255 is nodata
  OUT/legend.png           numbers, names and colors of the classes
  OUT/predict.json         classes, settings, the pictures, and those that could not be read
  NAME is the picture's path without extension, from the folder on that all IMAGES share.

examples:
  semiseg predict RUN photo.jpg -o OUT
  semiseg predict RUN photos more_photos -o OUT --flip --scales 0.75,1,1.25
  semiseg predict RUN 'photos/**/*.tif' -o OUT --tile 1024 --confidence 16 --no-overlay
  semiseg predict RUN 'fields/*.tif' -o OUT --geotiff
  semiseg predict RUN photos -o OUT --skip-existing      go on after an interruption
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg predict`` with the arguments after its name; return the exit code.

    Raises:
        UserError: no run, no pictures, files that would be replaced, or pictures that could not be predicted,
            after all others have been.
        Interrupted: a signal ended the work between two pictures or tiles.
    """
    options = _parser().parse_intermixed_args(arguments)
    run = open_run(options.run)
    from semiseg.apply.images import find_images, left_aside

    found = find_images(options.images, run.suffixes)
    # These take seconds to import, and the mistakes above are shown without them.
    from semiseg.apply.many_pictures import failures, origin
    from semiseg.apply.predict_folder import RECORD, Predictions

    predictor = chosen_predictor(options, run)
    geotiff = predictor.info.bands is not None if options.geotiff is None else options.geotiff
    output = Predictions(options.output, options.overlay, options.confidence, geotiff)
    waiting = output.open(
        found, origin(options.checkpoint, run, predictor), options.force, options.skip_existing
    )
    _predict_all(predictor, waiting, output)
    skipped = f", {len(found) - len(waiting)} were there already" if len(waiting) < len(found) else ""
    if aside := left_aside(options.images, run.suffixes):
        print(aside)
    print(f"{describe(predictor.settings)}, on {predictor.device}")
    print(
        f"{len(waiting) - len(output.failed)} images predicted{skipped}: {', '.join(output.kinds)} in {output.folder}"
    )
    if output.failed:
        raise UserError(failures(output.failed, len(waiting), output.folder / RECORD))
    return 0


def _predict_all(predictor: Predictor, waiting: Mapping[str, Path], output: Predictions) -> None:
    """Predict pictures one by one, while another thread writes the previous one."""
    from semiseg.apply.many_pictures import predict_raster_into, predicted
    from semiseg.engine.signals import StopRequest
    from semiseg.progress_bar import progress

    state, done = "interrupted", 0
    try:
        with (
            StopRequest() as stop,
            ThreadPoolExecutor(1) as pool,
            progress("predict", len(waiting)) as advance,
        ):
            writing = pool.submit(lambda: None)
            for name, path in waiting.items():
                stop.check()
                if name in output.rasters:
                    predict_raster_into(output, predictor, name, path, stop.check)
                    done += 1
                    advance()
                    continue
                prediction = predicted(predictor, path, stop.check, output.failed)
                writing.result()
                if prediction is not None:
                    tiled = predictor.cuts(*prediction.label.shape)
                    writing = pool.submit(output.write, name, path, prediction, tiled)
                    if tiled:
                        writing.result()  # two large pictures at once take too much memory
                done += 1
                advance()
            writing.result()
        state = "done"
    except Interrupted as error:
        reason = f"{error.reason} after {done} of {len(waiting)} images; the same command with --skip-existing goes on"
        raise Interrupted(reason, error.exit_code) from error
    finally:
        output.close(state, predictor.info)


def _parser() -> Parser:
    description = (
        "Predict the classes of pictures of any size with the network of a finished run, applied as\n"
        "the run evaluated it, so that the pixels are those that `semiseg eval` counts."
    )
    parser = run_parser("predict", description, EPILOG)
    add_picture_arguments(parser)
    add_predictor_options(parser)
    parser.add_argument(
        "--overlay",
        type=number(float, "share", lambda share: 0 <= share <= 1, "is no share between 0 and 1"),
        default=0.5,
        metavar="SHARE",
        help="share of the colors in the overlay, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--no-overlay", dest="overlay", action="store_const", const=None, help="write no overlay"
    )
    parser.add_argument(
        "--confidence",
        type=int,
        choices=(8, 16),
        help="write the confidence too, with so many bits (default: no)",
    )
    parser.add_argument(
        "--geotiff",
        action=argparse.BooleanOptionalAction,
        help="read TIFF files in windows, and write labels and confidence as GeoTIFF with the same place on the ground "
        "(default: for runs on bands, dataset.bands)",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="replace files that are there")
    existing.add_argument(
        "--skip-existing", action="store_true", help="predict only pictures whose files are not there yet"
    )
    return parser
