"""``semiseg benchmark``: times of training steps compared with their bare networks, and of reading images."""

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.cli.arguments import Parser
from semiseg.config.check import Checker
from semiseg.config.compose import Composed, Request
from semiseg.config.environment import set_environment
from semiseg.config.prepare import checked
from semiseg.errors import UserError
from semiseg.files import write_text, writes
from semiseg.runs.directory import environment

if TYPE_CHECKING:
    from semiseg.benchmark.reading import StoreFill

PACKAGES = ("semiseg", "torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "albumentations")


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg benchmark`` with the arguments after its name.

    Raises:
        UserError: wrong settings, or a dataset without images.
    """
    options = _parser().parse_intermixed_args(arguments)
    report = {"step": _step, "papers": _papers, "data": _data}[options.parts](options)
    publish(["semiseg benchmark", *arguments], report, options.output)
    return 0


def benchmark_config(options: argparse.Namespace) -> Composed:
    """Config of the overrides on the command line.

    Raises:
        UserError: wrong settings, or numbers that nothing can be measured with.
    """
    require_positive(options)
    cfg = checked(Request(tuple(options.overrides)), Checker(), settings_only=True)
    set_environment(cfg)
    return cfg


def publish(command: Sequence[str], report: Sequence[str], output: Path | None) -> None:
    """Print the lines of a report below its command and above the machine, and write them to a file too."""
    lines = [f"    {' '.join(command)}", "", *report, "", *machine()]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if output is not None:
        with writes(output, "Choose another file."):
            write_text(output, text)


def machine() -> list[str]:
    """Describe the machine as lines of Markdown."""
    found = environment()
    versions = ", ".join(
        f"{name} {found['packages'][name]}" for name in PACKAGES if name in found["packages"]
    )
    return [
        f"Machine: {processor()}, {found['cpus']} cores, {', '.join(found['gpus']) or 'no GPU'}; "
        f"{platform.system()}, Python {found['python']}; {versions}."
    ]


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def require_positive(options: argparse.Namespace) -> None:
    """Refuse numbers that nothing can be measured with.

    Raises:
        UserError: one of them is not above 0.
    """
    if min(options.rounds, options.images, options.seconds) <= 0:
        raise UserError("--rounds, --images and --seconds have to be above 0.")


def fill_table(fills: Sequence["StoreFill"]) -> list[str]:
    """Files and how quickly a store was filled with them, as a table of Markdown."""
    lines = ["| files | image | mask | stored a second |", "|---|---|---|---|"]
    lines += [
        f"| {each.name} | {each.image_bytes / 1e3:.0f} KB | {each.mask_bytes / 1e3:.1f} KB | {each.rate:.3g} |"
        for each in fills
    ]
    return lines


def _data(options: argparse.Namespace) -> list[str]:
    cfg = benchmark_config(options)
    from semiseg.benchmark.reading import measure_reading, rate_text

    rates, fills = measure_reading(cfg, options.images, options.rounds, options.seconds, report_line)
    lines = ["| pipeline | files | store | store / files |", "|---|---|---|---|"]
    for each in rates:
        store, gain = "-", "-"
        if each.store is not None:
            store, gain = rate_text(each.store), f"**{each.store / each.files:.1f}**"
        lines.append(f"| {each.name} | {rate_text(each.files)} | {store} | {gain} |")
    return [*lines, "", *fill_table(fills)] if fills else lines


def _step(options: argparse.Namespace) -> list[str]:
    cfg = benchmark_config(options)
    from semiseg.benchmark.step_times import measure_steps

    network = f"{cfg.backbone.name} {cfg.model.name} {cfg.trainer.crop_size}"
    lines = [
        "| method | fit | network, crop | images | passes | bare s | step s | step / bare | by CPU time | images/s "
        "| data s | memory GiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in measure_steps(cfg, options.rounds, report_line):
        lines.append(
            f"| {cfg.method.name} | {each.fit} | {network} | {each.images} | {each.passes} | {each.bare:.3g} "
            f"| {each.step:.3g} | **{each.multiple:.2f}** | {each.cpu_multiple:.2f} | {each.images / each.step:.3g} "
            f"| {each.data:.2g} | {each.memory / 2**30:.1f} |"
        )
    return lines


def _papers(options: argparse.Namespace) -> list[str]:
    require_positive(options)
    from semiseg.benchmark.papers import measure_papers

    return measure_papers(options.overrides, options.rounds, report_line)


def report_line(line: str) -> None:
    """Show a line at once, as measuring takes long."""
    print(line, flush=True)


def _parser() -> Parser:
    parser = Parser(
        prog="semiseg benchmark",
        description="Measure the training step of a method against the bare passes of its networks, or how quickly "
        "images of the dataset are read and augmented.",
        epilog="Examples: semiseg benchmark experiments=cps_voc trainer.batch_size=2; "
        "semiseg benchmark --parts data dataset=camvid dataset.root=PATH",
    )
    parser.add_argument(
        "--parts",
        choices=("step", "papers", "data"),
        default="step",
        help="step: the training step of a method (default); papers: the same for all methods in the papers' "
        "settings; data: images/s of the dataset and its views, from files and from the store of decoded pixels",
    )
    add_measuring_options(parser, "training images to read for --parts data")
    return parser


def add_measuring_options(parser: Parser, images: str) -> None:
    """Add the options that every benchmark has.

    Args:
        parser: Parser of the command line.
        images: Help of ``--images``.
    """
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    parser.add_argument(
        "--rounds", type=int, default=5, help="of each measurement; the median counts (default: 5)"
    )
    parser.add_argument("--images", type=int, default=64, help=f"{images} (default: 64)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="CPU time of a round of reading (default: 1)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the report there too")
