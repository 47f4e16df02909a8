"""``semiseg eval``: evaluate the networks of a finished run again, in another way, or on other images."""

import dataclasses
import hashlib
import math
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from semiseg.apply.image_scores import ImageScore, ImageScores, write_scores, write_worst
from semiseg.apply.other_data import PARTS, EvaluatedPart, images_of, same_data
from semiseg.cli.arguments import Parser, number, run_parser
from semiseg.cli.network_options import add_options, chosen_device, chosen_settings
from semiseg.config.check_keys import check_evaluator
from semiseg.config.faults import ConfigFaults
from semiseg.contracts.dataset import SegDataset, kind_of_images
from semiseg.contracts.score_names import RELIABILITY, ScoreNames, absent_remark, segmentation_scores
from semiseg.contracts.training import Network
from semiseg.errors import UserError
from semiseg.files import write_json, writes
from semiseg.models.bundle import bundled_bands
from semiseg.progress_bar import progress
from semiseg.runs.use import FinishedRun, compute_as, describe, open_run
from semiseg.settings import EvaluatorSettings
from semiseg.tasks.evaluate import evaluate, take_samples
from semiseg.track.console import score_table

WORST = 8
EPILOG = """\
writes, where STEM is eval-PART-CHECKPOINT and what else differs from the run's own evaluation:
  RUN/STEM.json                    all scores, confusion matrix, and what was measured how
  RUN/STEM/confusion.csv and .png  pixels by true class (rows) and predicted class
  RUN/STEM/reliability.csv, .png   accuracy by confidence, with --metrics calibration
  RUN/STEM/images.csv              scores and pixels of each image, the worst first
  RUN/STEM/worst.html              page of the worst images: image, truth, prediction, what is wrong, confidence
  RUN/STEM/worst/                  the same as pictures

examples:
  semiseg eval RUN
  semiseg eval RUN --part test --flip --scales 0.75,1,1.25
  semiseg eval RUN --foreground crack --primary foreground_iou --metrics boundary_iou,calibration
  semiseg eval RUN --part unlabeled                        pseudo-labels, where masks are known after all
  semiseg eval RUN val_subset=valtiny                      another partition
  semiseg eval RUN dataset.root=other_town                 other files of the same kind
  semiseg eval RUN dataset=fields --part labeled           all training images of another dataset
"""


class Evaluation(NamedTuple):
    """A network that was measured, and the result.

    Args:
        network: network on its device.
        dataset: images and masks.
        names: names of the scores.
        result: plain values: scores, those of classes by name, confusion, and how they were measured.
        images: scores of the images, the worst first.
    """

    network: Network
    dataset: SegDataset
    names: ScoreNames
    result: dict[str, Any]
    images: list[ImageScore]


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg eval`` with the arguments after its name; return the exit code.

    Raises:
        UserError: no finished run, no such images, other classes, settings that do not suit the network, or a chosen
            folder that cannot be written.
    """
    options = _parser().parse_intermixed_args(arguments)
    run = open_run(options.run)
    settings, device = _measured(options, chosen_settings(options, run)), chosen_device(options, run)
    compute_as(run)
    found = evaluate_run(run, options.checkpoint, options.part, settings, device, options.root, options.data)
    result = found.result
    print(f"{options.part} images: {result['images']}, network: {result['checkpoint']}, {describe(settings)}")
    folder = run.path if options.output is None else options.output.expanduser()
    path = folder / f"{file_stem(result, run.evaluator())}.json"
    print(score_table(result, found.names, {}, str(path)))
    if remark := absent_remark(result, found.names, "validation" if options.part == "val" else options.part):
        print(f"Note: {remark}.")
    try:
        with writes(path, "-o chooses another folder."):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, result)
            _write_details(path.with_suffix(""), found, settings, device, options.worst)
        print(f"Written to {path} and {path.with_suffix('')}/ (worst.html shows the worst images)")
    except UserError as error:
        if options.output is not None:
            raise
        print(f"semiseg: {error}", file=sys.stderr)
    return 0


def evaluate_run(
    run: FinishedRun,
    checkpoint: str,
    part: EvaluatedPart,
    settings: EvaluatorSettings,
    device: torch.device,
    root: str | None = None,
    overrides: Sequence[str] = (),
) -> Evaluation:
    """Measure one network of a run.

    Args:
        run: the run.
        checkpoint: name of the network, see ``FinishedRun.checkpoint``.
        part: part of the images, see ``images_of``.
        settings: settings of the evaluation.
        device: device to compute on.
        root: folder of the dataset, if it has moved; ``None`` takes that of the run.
        overrides: config keys of another dataset or partition.

    Raises:
        UserError: no images in this part, no such checkpoint, or classes or channels that differ from the dataset's.
    """
    dataset, ids = images_of(run, part, overrides, root)
    network, bundle = run.network(checkpoint, device)
    classes = list(dataset.info.classes)
    if bundle["classes"] != classes:
        raise UserError(
            f"The checkpoint has the classes {', '.join(bundle['classes'])}, the dataset has "
            f"{', '.join(classes)}."
        )
    theirs, ours = bundled_bands(bundle), dataset.info.bands
    if kind_of_images(theirs) != kind_of_images(ours):
        raise UserError(
            f"The network takes {kind_of_images(theirs)}, the dataset has {kind_of_images(ours)}. Name one "
            "of such images, as in dataset=NAME."
        )
    data = same_data(run, part, dataset, ids, compared=not overrides)
    precision = run.config["trainer"]["precision"]
    with progress("evaluate", len(ids)) as advance:
        scores = ImageScores(ids, dataset.info, settings, advance)
        metrics = evaluate(network, dataset, ids, settings, device, precision=precision, watch=scores)
    names = segmentation_scores(settings)
    result = {
        **names.summarized(metrics.as_dict(), classes),
        **names.as_dict(),
        "confusion": metrics.confusion,
        "part": part,
        "dataset": dataset.info.name,
        "overrides": list(overrides),
        "images": len(ids),
        "checkpoint": checkpoint,
        "step": bundle["step"],
        "iteration": bundle["iteration"],
        "evaluator": dataclasses.asdict(settings),
        "precision": precision,
        "device": str(device),
        "data": data,
    }
    return Evaluation(network, dataset, names, result, scores.ranked())


def _write_details(
    folder: Path, found: Evaluation, settings: EvaluatorSettings, device: torch.device, worst: int
) -> None:
    """Write the confusion matrix, the scores of the images, and pictures of the worst."""
    # matplotlib takes a second to import, and mistakes are shown without it.
    from semiseg.apply.confusion import write_picture, write_table
    from semiseg.apply.reliability import write_reliability
    from semiseg.report.worst_images import write_worst_page

    result, info, primary = found.result, found.dataset.info, found.names.primary
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "confusion.csv", result["confusion"], info.classes)
    about = f"{info.name}, {result['part']}: {result['images']} images, {primary.name} "
    about += f"{100 * result[primary.key]:.2f} %"
    title = f"Share of each true class, in percent\n{about}"
    write_picture(folder / "confusion.png", result["confusion"], info.classes, title)
    if RELIABILITY in result:
        write_reliability(folder, result[RELIABILITY], f"{about}, ECE {100 * result['ece']:.2f} %")
    write_scores(folder / "images.csv", found.images, primary, info.classes)
    chosen = [score for score in found.images if not math.isnan(score.score)][:worst]
    samples = take_samples(
        found.network,
        found.dataset,
        [score.id for score in chosen],
        settings,
        device,
        precision=result["precision"],
    )
    write_worst(folder / "worst", samples, chosen, primary, info)
    write_worst_page(folder, f"Worst images: {about}", found.names)


def _measured(options: Namespace, settings: EvaluatorSettings) -> EvaluatorSettings:
    """Return the settings with the scores that the options choose.

    Raises:
        UserError: no such score, or one that needs another option.
    """
    given = {"primary": options.primary, "metrics": options.metrics, "foreground": options.foreground}
    values = dataclasses.asdict(settings) | {key: value for key, value in given.items() if value is not None}
    if faults := check_evaluator(values):
        raise ConfigFaults(faults)
    return EvaluatorSettings(**values)


def file_stem(result: dict[str, Any], usual: EvaluatorSettings) -> str:
    """Name a result by part and network, and by its differences from the run's own evaluation."""
    settings, data = result["evaluator"], result.get("data") or {}
    parts = ["eval", result["part"], re.sub(r"[^\w.-]+", "_", result["checkpoint"])]
    if overrides := result.get("overrides"):
        digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()
        parts += [result["dataset"], digest[:8]]
    elif data.get("differences"):
        # Beside the result on the data of the run, which it must not replace.
        parts += ["other-data", data["sha256"][:8]]
    if settings["name"] != usual.name:
        parts.append(settings["name"])
    if settings["mode"] != usual.mode or settings["window"] != usual.window:
        parts.append(f"slide{settings['window']}" if settings["mode"] == "slide" else "whole")
    if settings["scales"] != list(usual.scales):
        parts.append("scales" + "_".join(f"{scale:g}" for scale in settings["scales"]))
    if settings["flip"] != usual.flip:
        parts.append("flip" if settings["flip"] else "noflip")
    return "-".join(parts)


def _parser() -> Parser:
    description = "Evaluate a finished run again. Without options this repeats its reported number."
    parser = run_parser("eval", description, EPILOG)
    parser.add_argument(
        "data",
        nargs="*",
        metavar="KEY=VALUE",
        help="another dataset with the same classes, or another partition: dataset, dataset.KEY, split, split_family, "
        "split_id, split_lists, val_subset",
    )
    parser.add_argument(
        "--part",
        choices=PARTS,
        default="val",
        help="images to evaluate on; labeled and unlabeled are training images (default: val)",
    )
    add_options(parser)
    parser.add_argument(
        "--primary",
        metavar="SCORE",
        help="score that images are ranked by, such as mdice (default: as the run)",
    )
    parser.add_argument(
        "--metrics", type=_words, metavar="A,B", help="also measure boundary_iou, calibration or both"
    )
    parser.add_argument(
        "--foreground", type=_words, metavar="CLASS,CLASS", help="classes whose means are reported too"
    )
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset, if it has moved")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="folder to write into (default: the run directory)"
    )
    parser.add_argument(
        "--worst",
        type=number(int, "number", lambda count: count >= 0, "is below 0"),
        default=WORST,
        metavar="N",
        help=f"how many of the worst images to draw (default: {WORST})",
    )
    return parser


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


_words.__name__ = "list of names"
