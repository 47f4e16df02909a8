"""``semiseg eval``: measure the networks of a finished run again, or in another way."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from semiseg.config.schema import EvaluatorConfig
from semiseg.engine.evaluate import evaluate
from semiseg.errors import UserError
from semiseg.files import write_json
from semiseg.tools.applying import add_options, chosen_device, chosen_settings, compute_as, describe
from semiseg.tools.arguments import Parser
from semiseg.tools.finished import FinishedRun, open_run
from semiseg.track.console import iou_table


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg eval`` with the arguments after its name; return the exit code."""
    options = _parser().parse_args(arguments)
    run = open_run(options.run)
    settings, device = chosen_settings(options, run), chosen_device(options, run)
    compute_as(run)
    result = evaluate_run(run, options.checkpoint, options.part, settings, device, options.root)
    print(f"{options.part} images: {result['images']}, network: {result['checkpoint']}, {describe(settings)}")
    print(iou_table(result["iou"], {"mIoU": result["miou"], "pixel accuracy": result["accuracy"]}))
    path = run.path / f"{file_stem(result, run.evaluator())}.json"
    try:
        write_json(path, result)
        print(f"Written to {path}")
    except OSError as error:
        print(f"semiseg: the result could not be written to {path} ({error.strerror}).", file=sys.stderr)
    return 0


def evaluate_run(
    run: FinishedRun,
    checkpoint: str,
    part: str,
    settings: EvaluatorConfig,
    device: torch.device,
    root: str | None = None,
) -> dict[str, Any]:
    """Measure one network of a run.

    Args:
        run: the run.
        checkpoint: see ``FinishedRun.checkpoint``.
        part: "val" or "test".
        settings: how the network is applied.
        device: where to compute.
        root: where the dataset is now, if it has moved.

    Returns:
        Plain values: miou, iou by class, accuracy, confusion, and what was measured how.

    Raises:
        UserError: no images in this part, no such checkpoint, or classes that differ from the dataset's.
    """
    dataset, split = run.data(root)
    ids = split.val if part == "val" else split.test
    if not ids:
        raise UserError(f"Dataset '{dataset.info.name}' has no {part} images. Choose another --part.")
    network, bundle = run.network(checkpoint, device)
    classes = list(dataset.info.classes)
    if bundle["classes"] != classes:
        raise UserError(
            f"The checkpoint has the classes {', '.join(bundle['classes'])}, the dataset has {', '.join(classes)}."
        )
    metrics = evaluate(network, dataset, ids, settings, device, precision=run.config.trainer.precision)
    return {
        "miou": metrics.miou,
        "iou": metrics.by_class(classes),
        "accuracy": metrics.accuracy,
        "confusion": metrics.confusion,
        "part": part,
        "images": len(ids),
        "checkpoint": checkpoint,
        "step": bundle["step"],
        "iteration": bundle["iteration"],
        "evaluator": dataclasses.asdict(settings),
        "precision": run.config.trainer.precision,
        "device": str(device),
    }


def file_stem(result: dict[str, Any], usual: EvaluatorConfig) -> str:
    """Name a result after what was measured and how that differs from the run's own evaluation."""
    settings = result["evaluator"]
    parts = ["eval", result["part"], re.sub(r"[^\w.-]+", "_", result["checkpoint"])]
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
    parser = Parser(
        prog="semiseg eval",
        description="Evaluate a finished run again. Without options this repeats its reported number.",
        epilog="Writes RUN/eval-PART-CHECKPOINT....json.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--part", choices=("val", "test"), default="val", help="images to measure on (default: val)"
    )
    add_options(parser)
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset, if it has moved")
    return parser
