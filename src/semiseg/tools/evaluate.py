"""``semiseg eval``: measure the networks of a finished run again, or in another way."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from semiseg.config import build, searchpath
from semiseg.config.schema import EvaluatorConfig
from semiseg.engine.evaluate import evaluate
from semiseg.errors import UserError
from semiseg.files import write_json
from semiseg.tools.arguments import Parser
from semiseg.tools.finished import REPORTED, FinishedRun, open_run
from semiseg.track.console import iou_table


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg eval`` with the arguments after its name; return the exit code."""
    options = _parser().parse_args(arguments)
    run = open_run(options.run)
    chosen = run.evaluator() if options.evaluator is None else named_evaluator(options.evaluator)
    settings = change(chosen, options.mode, options.window, options.scales, options.flip)
    if options.window is not None and settings.mode != "slide":
        raise UserError(f"--window={options.window}: whole images have no window; add --mode slide.")
    device = _device(options.device, run.config.trainer.device)
    _compute_as(run)
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


def _device(given: str | None, usual: str) -> torch.device:
    return build.device(usual) if given is None else build.device(given, "--device")


def _compute_as(run: FinishedRun) -> None:
    """Choose threads and algorithms as the run did."""
    trainer = run.config.trainer
    torch.set_num_threads(trainer.threads)
    torch.use_deterministic_algorithms(trainer.deterministic)
    torch.backends.cudnn.benchmark = not trainer.deterministic


def named_evaluator(name: str) -> EvaluatorConfig:
    """Read an option of the group ``evaluator``, of semiseg or of the working directory.

    Raises:
        UserError: there is no such option, or a key or value in it is wrong.
    """
    places = [folder / "evaluator" / f"{name}.yaml" for folder in searchpath.search_dirs()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(
            f"--evaluator={name}: there is no such option. There are: {', '.join(searchpath.options('evaluator'))}."
        )
    try:
        node = OmegaConf.merge(OmegaConf.structured(EvaluatorConfig), OmegaConf.load(path))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
    settings: EvaluatorConfig = build.settings(node)  # type: ignore[arg-type]
    return settings


def change(
    settings: EvaluatorConfig,
    mode: str | None = None,
    window: int | None = None,
    scales: list[float] | None = None,
    flip: bool | None = None,
) -> EvaluatorConfig:
    """Return settings with what is given replaced; padding of whole images goes with ``mode="slide"``."""
    given: dict[str, Any] = {"mode": mode, "window": window, "scales": scales, "flip": flip}
    if mode == "slide":
        given |= {"pad": "none", "pad_to": 0, "pad_value": "zero"}
    return dataclasses.replace(settings, **{key: value for key, value in given.items() if value is not None})


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


def describe(settings: EvaluatorConfig) -> str:
    """Say in a few words how networks are applied."""
    words = ["whole images" if settings.mode == "whole" else f"windows of {settings.window} pixels"]
    if settings.resize_to is not None:
        words.append("resized to " + "x".join(map(str, settings.resize_to)))
    if settings.pad != "none":
        words.append(f"padded ({settings.pad} {settings.pad_to}, {settings.pad_value})")
    if list(settings.scales) != [1.0]:
        words.append("scales " + ", ".join(f"{scale:g}" for scale in settings.scales))
    if settings.flip:
        words.append("mirrored too")
    return ", ".join(words)


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
        "--checkpoint",
        default=REPORTED,
        metavar="best|last|FILE",
        help="network to measure (default: the one that the run reports)",
    )
    parser.add_argument(
        "--part", choices=("val", "test"), default="val", help="images to measure on (default: val)"
    )
    parser.add_argument(
        "--evaluator",
        metavar="NAME",
        help="a way of evaluating by its name, such as cac (default: as the run)",
    )
    parser.add_argument("--mode", choices=("whole", "slide"), help="whole images or a sliding window")
    parser.add_argument("--window", type=_positive(int), metavar="PIXELS", help="side of the sliding window")
    parser.add_argument("--scales", type=_scales, metavar="A,B,...", help="image scales to average over")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, help="average with mirrored images")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: as the run)")
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset, if it has moved")
    return parser


def _positive(kind: type[int] | type[float]) -> Any:
    def number(text: str) -> int | float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    number.__name__ = kind.__name__
    return number


def _scales(text: str) -> list[float]:
    return [_positive(float)(part) for part in text.split(",")]
