"""Options of ``eval``, ``predict``, ``label`` and ``export``: network, settings of its evaluation, and device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.cli.arguments import positive
from semiseg.config import build
from semiseg.runs.use import REPORTED, FinishedRun, change, compute_as, named_evaluator
from semiseg.settings import EvaluatorSettings

if TYPE_CHECKING:
    import torch

    from semiseg.runs.predictor import Predictor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the network, the settings of its evaluation, and the device."""
    add_network_options(parser)
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: as the run)")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the network and the settings of its evaluation."""
    parser.add_argument(
        "--checkpoint",
        default=REPORTED,
        metavar="best|last|FILE",
        help="network to use (default: the one that the run reports)",
    )
    parser.add_argument(
        "--evaluator",
        metavar="NAME",
        help="a way of evaluating by its name, such as cac (default: as the run)",
    )
    parser.add_argument("--mode", choices=("whole", "slide"), help="whole images or a sliding window")
    parser.add_argument("--window", type=positive(int), metavar="PIXELS", help="side of the sliding window")
    parser.add_argument("--scales", type=_scales, metavar="A,B,...", help="image scales to average over")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, help="average with mirrored images")


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the pictures and the folder to write."""
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders, and patterns in quotes")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write into"
    )


def add_predictor_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the network and for its use on pictures of any size."""
    add_options(parser)
    parser.add_argument(
        "--tile",
        type=_side,
        metavar="PIXELS|never",
        help="cut pictures that are higher or wider into tiles of this side, which pass smoothly into each other "
        "(default: 1536 for pictures of more than 16 megapixels, none for others)",
    )
    parser.add_argument(
        "--overlap",
        type=positive(int),
        metavar="PIXELS",
        help="what tiles share at least, with --tile (default: an eighth of it)",
    )


def chosen_predictor(options: argparse.Namespace, run: FinishedRun) -> Predictor:
    """Return the predictor that the options of ``add_predictor_options`` describe; compute as the run did.

    Raises:
        UserError: an unusable checkpoint, device or setting.
    """
    from semiseg.runs.predictor import of_run

    settings, device = chosen_settings(options, run), chosen_device(options, run)
    compute_as(run)
    predictor = of_run(run, options.checkpoint, device, settings)
    return predictor.applied(tile=options.tile, overlap=options.overlap)


def chosen_settings(options: argparse.Namespace, run: FinishedRun) -> EvaluatorSettings:
    """Return the settings of the evaluation that the options of ``add_options`` choose.

    Raises:
        UserError: no such evaluator, or changes that do not suit it.
    """
    usual = run.evaluator() if options.evaluator is None else named_evaluator(options.evaluator)
    return change(usual, options.mode, options.window, options.scales, options.flip)


def chosen_device(options: argparse.Namespace, run: FinishedRun) -> torch.device:
    """Return the device of ``--device``, else the run's; raises ``UserError`` where there is none of that name."""
    if options.device is None:
        return build.device(run.config["trainer"]["device"])
    return build.device(options.device, "--device")


def _scales(text: str) -> list[float]:
    return [positive(float)(part) for part in text.split(",")]


_scales.__name__ = "list of numbers"


def _side(text: str) -> int:
    return 0 if text == "never" else int(positive(int)(text))


_side.__name__ = "number of pixels, or never"
