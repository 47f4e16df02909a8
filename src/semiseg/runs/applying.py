"""How a finished run's network is applied: options that ``eval``, ``predict``, ``label`` and ``export`` share."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from semiseg.config import build, searchpath
from semiseg.config.check_keys import check_evaluator
from semiseg.config.faults import ConfigFaults
from semiseg.errors import UserError
from semiseg.runs.finished import REPORTED, FinishedRun
from semiseg.settings import EvaluatorSettings

if TYPE_CHECKING:
    import torch


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a command choose the network, the way it is applied, and the device."""
    add_network_options(parser)
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: as the run)")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Let a command choose the network and the way it is applied."""
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


def chosen_settings(options: argparse.Namespace, run: FinishedRun) -> EvaluatorSettings:
    """Return how the options of ``add_options`` apply a network of a run.

    Raises:
        UserError: no such evaluator, or one that cannot be changed so.
    """
    usual = run.evaluator() if options.evaluator is None else named_evaluator(options.evaluator)
    return change(usual, options.mode, options.window, options.scales, options.flip)


def chosen_device(options: argparse.Namespace, run: FinishedRun) -> torch.device:
    """Return the device of ``--device``, else the run's; raises ``UserError`` where there is none of that name."""
    if options.device is None:
        return build.device(run.config.trainer.device)
    return build.device(options.device, "--device")


def compute_as(run: FinishedRun) -> None:
    """Choose threads and algorithms as the run did."""
    import torch

    trainer = run.config.trainer
    torch.set_num_threads(trainer.threads)
    torch.use_deterministic_algorithms(trainer.deterministic)
    torch.backends.cudnn.benchmark = not trainer.deterministic


def named_evaluator(name: str) -> EvaluatorSettings:
    """Read an option of the group ``evaluator``, of semiseg or of the working directory.

    Raises:
        UserError: there is no such option, or a key or value in it is wrong.
    """
    places = [folder / "evaluator" / f"{name}.yaml" for folder in searchpath.search_dirs()]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(
            f"--evaluator={name}: there is no such option. There are: "
            f"{', '.join(searchpath.options('evaluator'))}."
        )
    values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    if faults := check_evaluator(values):
        raise UserError(f"{path}: {faults[0].key.removeprefix('evaluator.')}: {faults[0].expected}")
    return build.settings(EvaluatorSettings, values)


def change(
    settings: EvaluatorSettings,
    mode: str | None = None,
    window: int | None = None,
    scales: list[float] | None = None,
    flip: bool | None = None,
) -> EvaluatorSettings:
    """Return settings with what is given replaced; padding of whole images goes with ``mode="slide"``.

    Raises:
        UserError: a window for whole images, or a value that is wrong, by itself or with the others.
    """
    given: dict[str, Any] = {"mode": mode, "window": window, "scales": scales, "flip": flip}
    if mode == "slide":
        given |= {"pad": "none", "pad_to": 0, "pad_value": "zero"}
    values = dataclasses.asdict(settings) | {key: value for key, value in given.items() if value is not None}
    if window is not None and values["mode"] == "whole":
        raise UserError(f"a window of {window} pixels: whole images have none; choose the mode slide too.")
    if faults := check_evaluator(values):
        raise ConfigFaults(faults)
    return EvaluatorSettings(**values)


def describe(settings: EvaluatorSettings) -> str:
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


def positive(kind: type[int] | type[float]) -> Any:
    """Return a reader of numbers above 0 for ``argparse``."""

    def number(text: str) -> int | float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    number.__name__ = kind.__name__
    return number


def _scales(text: str) -> list[float]:
    return [positive(float)(part) for part in text.split(",")]


_scales.__name__ = "list of numbers"
