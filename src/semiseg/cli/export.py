"""``semiseg export``: a network of a finished run as one file that needs no semiseg."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg import __version__
from semiseg.cli.arguments import Parser, positive, run_parser
from semiseg.cli.network_options import add_network_options, chosen_settings
from semiseg.config.other_networks import config_of
from semiseg.contracts.score_names import ScoreNames
from semiseg.data.class_identity import placeholder_remark
from semiseg.errors import UserError
from semiseg.files import file_digest, replacing, writes
from semiseg.runs.use import REPORTED, FinishedRun, describe, open_run

if TYPE_CHECKING:
    from semiseg.export.graph import ExportFormat
    from semiseg.export.verification import Agreement
    from semiseg.settings import EvaluatorSettings

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
VERSION = 1
OTHER_FILE = "Choose another file by -o."
EPILOG = """\
writes one file, by default RUN/network.onnx or RUN/network.pt2, once it gives the run's own predictions at three
unrelated sizes. It takes any number of RGB images of one size, (N, H, W, 3) uint8, and gives

  label          (N, H, W) uint8       number of the class
  confidence     (N, H, W) float32     its probability
  probabilities  (N, K, H, W) float32  those of all classes

Normalization, padding, scales and mirroring are inside, as the run evaluated; class names, colors and all settings
are in the file's metadata. docs/export.md shows ten lines that use it without semiseg.

examples:
  semiseg export RUN
  semiseg export RUN --format torch -o roads.pt2
  semiseg export RUN --mode whole                        a run that evaluated by a sliding window
  semiseg export RUN --size 512 1024                     for images of 512 rows and 1024 columns only
  semiseg export RUN --scales 0.75,1,1.25 --flip         slower, a little better
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg export`` with the arguments after its name; return the exit code.

    Raises:
        UserError: no run, a file that is there already, packages that are missing, or a network or an evaluator
            that cannot be exported.
        RunFailed: the exported network predicts differently from the trained one.
    """
    options = _parser().parse_args(arguments)
    run = open_run(options.run)
    settings = chosen_settings(options, run)
    target = _target(options.output, options.format, run, options.force)
    # Torch takes seconds to import, and the mistakes above are shown without it.
    from semiseg.export import graph as export_network

    if options.format == "onnx":
        export_network.require_onnx()
    given = None if options.size is None else (options.size[0], options.size[1])
    agreements, size = export(run, options.checkpoint, settings, options.format, target, given)
    print(f"{describe(settings)}; compared with PyTorch's predictions:")
    for each in agreements:
        print(
            f"  {each.images} x {each.width}x{each.height} pixels: probabilities differ by at most "
            f"{each.difference:.1e}, {100 * each.labels:.2f} % of the labels are equal"
        )
    for sentence in outside(run):
        print(f"semiseg: note: {sentence}")
    if names := made_up_names(run):
        print(f"semiseg: note: {placeholder_remark(names)}.")
    print(f"Written to {target} ({size / 1e6:.1f} MB)")
    return 0


def export(
    run: FinishedRun,
    checkpoint: str,
    settings: EvaluatorSettings,
    form: ExportFormat,
    target: Path,
    size: tuple[int, int] | None = None,
) -> tuple[list[Agreement], int]:
    """Write a network as a file after comparing it with its origin.

    Args:
        run: the run.
        checkpoint: name of the network, see ``FinishedRun.checkpoint``.
        settings: settings of the evaluation.
        form: format, "onnx", or "torch" for a file of ``torch.export``.
        target: file in a folder that exists; an existing file is replaced.
        size: height and width of all images; ``None`` for images of any size.

    Returns:
        The agreement at each size, and the number of bytes of the file.

    Raises:
        UserError: no such checkpoint; a network or settings that cannot be exported; the file cannot be written.
        RunFailed: the exported network predicts differently from its origin.
    """
    import torch

    from semiseg.export import graph as export_network
    from semiseg.export.verification import compare_predictions

    torch.set_num_threads(run.config["trainer"]["threads"])
    network, bundle = run.network(checkpoint, torch.device("cpu"))
    # A run in fp64 stored numbers that few programs take.
    network.float().to(memory_format=torch.contiguous_format)
    network.heads.clear()
    smallest = export_network.smallest_side(network, settings)
    facts = metadata(run, checkpoint, settings, bundle, smallest, size)
    program = export_network.trace(network, settings, size)
    if form == "onnx":
        content = export_network.as_onnx(program, facts, size)
    else:
        content = export_network.as_torch(program, facts)
    opened = export_network.opened(content, form)
    agreements = compare_predictions(opened, network, settings, smallest, size)
    with writes(target, OTHER_FILE), replacing(target) as file:
        file.write(content)
    return agreements, len(content)


def metadata(
    run: FinishedRun,
    checkpoint: str,
    settings: EvaluatorSettings,
    bundle: dict[str, Any],
    smallest: int,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return the metadata of an exported file as plain values, without any path of this machine."""
    names = ScoreNames.of(run.summary)
    config = config_of(run.config, bundle.get("role"))
    return {
        "version": VERSION,
        "classes": bundle["classes"],
        "palette": bundle["palette"],
        "placeholder_names": made_up_names(run),
        "input": _input(bundle),
        **({"bands": bundle["bands"]} if "bands" in bundle else {}),
        "outputs": {
            "label": "(N, H, W) uint8, number of the class",
            "confidence": "(N, H, W) float32, probability of that class",
            "probabilities": "(N, K, H, W) float32, probabilities of all classes",
        },
        "smallest_side": smallest,
        **({} if size is None else {"height": size[0], "width": size[1]}),
        "inside": describe(settings),
        "outside": outside(run),
        "evaluator": dataclasses.asdict(settings),
        "run": config["name"],
        **{key: config[key]["name"] for key in ("dataset", "method", "model", "backbone")},
        "checkpoint": checkpoint if checkpoint in (REPORTED, "best", "last") else Path(checkpoint).name,
        "checkpoint_sha256": file_digest(run.checkpoint(checkpoint)),
        "iteration": bundle["iteration"],
        f"{names.primary.key}_of_run": names.value(run.summary),
        "semiseg": __version__,
    }


def made_up_names(run: FinishedRun) -> list[str]:
    """Return the class names of a run that were made up when its dataset was described."""
    from semiseg.data.folder_info import is_placeholder

    node = run.config["dataset"]
    return [
        name for name in node.get("classes") or () if node.get("placeholder_names") and is_placeholder(name)
    ]


def _input(bundle: dict[str, Any]) -> str:
    """Describe what an exported file takes."""
    if "bands" not in bundle:
        return "images: (N, H, W, 3) uint8, RGB, any number of images of one size"
    return (
        f"images: (N, H, W, {bundle['bands']['channels']}) float32, bands in the numbers of the files, any number of "
        "images of one size; the mean of the band where a pixel has no value"
    )


def outside(run: FinishedRun) -> list[str]:
    """Describe what the run does to its predictions and no exported file does."""
    sentences = []
    if run.config["dataset"].get("half_size", False):
        sentences.append(
            "The network learned from images of half the height and width (dataset.half_size): halve images before, "
            "each pixel the mean of four."
        )
    if (precision := run.config["trainer"]["precision"]) != "fp32":
        sentences.append(f"The run computed in {precision}, the exported network computes in fp32.")
    return sentences


def _target(given: Path | None, form: ExportFormat, run: FinishedRun, force: bool) -> Path:
    """Return the file to write; its folder is made.

    Raises:
        UserError: it is there already, is named as a file of another format, or its folder cannot be made.
    """
    suffix = SUFFIXES[form]
    target = run.path / f"network{suffix}" if given is None else given.expanduser()
    if target.suffix != suffix or target.is_dir():
        raise UserError(f"-o {target}: a file of --format {form} ends in {suffix}.")
    if target.exists() and not force:
        raise UserError(f"{target} is there already. Replace it with --force, or choose another file by -o.")
    with writes(target, OTHER_FILE):
        target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _parser() -> Parser:
    description = "Write the network of a finished run as one file that runs without semiseg."
    parser = run_parser("export", description, EPILOG)
    parser.add_argument(
        "--format",
        choices=tuple(SUFFIXES),
        default="onnx",
        help="ONNX, for onnxruntime and others; or a file of torch.export, for PyTorch (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file to write (default: in the run directory)"
    )
    parser.add_argument(
        "--size",
        type=positive(int),
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="images of one size only, for programs that take no other; a sliding window is possible then "
        "(default: any size)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    add_network_options(parser)
    return parser
