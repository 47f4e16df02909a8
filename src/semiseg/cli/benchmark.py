"""``semiseg benchmark``: rates of the data pipelines, and what a training step costs beside its networks."""

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from semiseg.cli.arguments import Parser
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Request
from semiseg.config.prepare import checked, set_environment
from semiseg.errors import UserError
from semiseg.files import write_text
from semiseg.runs.directory import environment

PACKAGES = ("semiseg", "torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "albumentations")


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg benchmark`` with the arguments after its name.

    Raises:
        UserError: wrong settings, or a dataset without images.
    """
    options = _parser().parse_intermixed_args(arguments)
    if min(options.rounds, options.images, options.seconds) <= 0:
        raise UserError("--rounds, --images and --seconds have to be above 0.")
    report = {"step": _step, "papers": _papers, "data": _data}[options.parts](options)
    lines = [f"    semiseg benchmark {' '.join(arguments)}", "", *report, "", *machine()]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.output is not None:
        write_text(options.output, text)
    return 0


def machine() -> list[str]:
    """What the numbers were measured on, as lines of Markdown."""
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


def _config(overrides: Sequence[str]) -> DictConfig:
    cfg = checked(Request(tuple(overrides)), Checker(), settings_only=True)
    set_environment(cfg)
    return cfg


def _data(options: argparse.Namespace) -> list[str]:
    cfg = _config(options.overrides)
    from semiseg.benchmark.data import measure

    source = build.dataset(cfg)
    if not source.ids("train"):
        raise UserError(f"dataset {source.info.name} has no training images to make files of.")
    rates, files = measure(source, options.images, options.rounds, options.seconds, _told)
    lines = [
        "| pipeline | original | files | store | store / original | original, recorded |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.original:.3g} | {each.files:.3g} | {each.store:.4g} | **{each.gain:.1f}** "
        f"| {each.recorded:g} |"
        for each in rates
    ]
    lines += ["", "| files | image | mask | stored a second |", "|---|---|---|---|"]
    lines += [
        f"| {each.name} | {each.image_bytes / 1e3:.0f} KB | {each.mask_bytes / 1e3:.1f} KB | {each.stored:.3g} |"
        for each in files
    ]
    return lines


def _step(options: argparse.Namespace) -> list[str]:
    cfg = _config(options.overrides)
    from semiseg.benchmark.step_times import measure

    network = f"{cfg.backbone.name} {cfg.model.name} {cfg.trainer.crop_size}"
    lines = [
        "| method | fit | network, crop | images | passes | bare s | step s | step / bare | by CPU time | images/s "
        "| data s | memory GiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in measure(cfg, options.rounds, _told):
        lines.append(
            f"| {cfg.method.name} | {each.fit} | {network} | {each.images} | {each.passes} | {each.bare:.3g} "
            f"| {each.step:.3g} | **{each.multiple:.2f}** | {each.cpu_multiple:.2f} | {each.images / each.step:.3g} "
            f"| {each.data:.2g} | {each.memory / 2**30:.1f} |"
        )
    return lines


def _papers(options: argparse.Namespace) -> list[str]:
    from semiseg.benchmark.papers import measure

    return measure(options.overrides, options.rounds, _told)


def _told(line: str) -> None:
    print(line, flush=True)


def _parser() -> Parser:
    parser = Parser(
        prog="semiseg benchmark",
        description="Measure the training step of a method against the bare passes of its networks, or the data "
        "pipelines of all papers against the published operations.",
        epilog="Examples: semiseg benchmark experiments=cps_voc trainer.batch_size=2; "
        "semiseg benchmark --parts data dataset=camvid dataset.root=PATH",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    parser.add_argument(
        "--parts",
        choices=("step", "papers", "data"),
        default="step",
        help="step: the training step of a method (default); papers: the same for all methods in the papers' "
        "settings; data: images/s of the data pipelines, on files made of the dataset's images",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="of each measurement; the median counts (default: 5)"
    )
    parser.add_argument("--images", type=int, default=64, help="files to make for --parts data (default: 64)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="CPU time of a round of --parts data (default: 1)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the report there too")
    return parser
