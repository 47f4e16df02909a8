"""``semiseg compare``: differences of two runs, in their files and on the images."""

from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.cli.arguments import Parser
from semiseg.errors import UserError
from semiseg.files import writes
from semiseg.progress_bar import progress

if TYPE_CHECKING:
    from semiseg.report.disagreement import NetworkComparison
    from semiseg.report.records import RunRecord

PICTURES = 8


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg compare`` with the arguments after its name; return the exit code.

    Raises:
        UserError: no run, several runs or twice the same; networks that cannot be compared; a folder that is
            not to be overwritten.
    """
    options = _parser().parse_args(arguments)
    if options.images < 1:
        raise UserError(f"--images={options.images}: expected 1 or more. --no-images predicts none.")
    # Hydra takes a moment, which mistakes in the options need not.
    from semiseg.report.compare import MARKDOWN, compare, heading, image_table, summary, tables, write

    a, b = (_one_run(path) for path in (options.a, options.b))
    if a.path.resolve() == b.path.resolve():
        raise UserError(f"{options.a} and {options.b} are the same run. Give two runs.")
    if options.output is not None:
        _claim(options.output, options.force)
    found = compare(a, b)
    print("\n\n".join(["\n".join(heading(found)), *(each.text() for each in tables(found))]), flush=True)
    networks = _networks(a, b, options) if options.predict and a.summary and b.summary else None
    if networks:
        networks.rank(_watched)
        print(f"\n{summary(networks)}\n\n{image_table(networks, options.images).text()}")
    if options.output is not None:
        write(options.output, found, networks, options.images)
        print(f"\nWritten to {options.output / MARKDOWN}")
    return 0


def _one_run(path: Path) -> "RunRecord":
    """Read the run in a folder.

    Raises:
        UserError: there is none that can be read, or more than one.
    """
    from semiseg.report.records import collect

    found = collect([path])
    if len(found) > 1:
        raise UserError(
            f"{path} holds {len(found)} runs. Give one of them, for example {found[0].path}; "
            "`semiseg report` compares many."
        )
    if not found[0].config:
        raise UserError(
            f"The run in {path} cannot be read: {found[0].status.get('error')}. Give another run."
        )
    return found[0]


def _claim(folder: Path, force: bool) -> None:
    """Make the folder of the output.

    Raises:
        UserError: it holds files already, or cannot be made.
    """
    with writes(folder, "Choose another folder by -o."):
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in folder.iterdir())
    if there and not force:
        raise UserError(
            f"-o {folder} is not empty (found {', '.join(there[:5])}). "
            "Give another folder, or --force to replace a comparison in it."
        )


def _networks(a: "RunRecord", b: "RunRecord", options: Namespace) -> "NetworkComparison":
    """Load both networks, and compute as the first run did."""
    from semiseg.cli.network_options import chosen_device
    from semiseg.report.disagreement import NetworkComparison
    from semiseg.runs.use import compute_as, open_run

    first, second = open_run(a.path), open_run(b.path)
    device = str(chosen_device(options, first))
    compute_as(first)
    try:
        return NetworkComparison(first, second, options.part, device, options.root)
    except UserError as error:
        raise UserError(f"{error} --no-images compares everything else.") from error


def _watched(ids: Sequence[str]) -> Iterator[str]:
    """Yield ids one by one and show how many are done."""
    with progress("compare", len(ids)) as advance:
        for image_id in ids:
            yield image_id
            advance()


def _parser() -> Parser:
    parser = Parser(
        prog="semiseg compare",
        description="Compare two runs: settings, environment, results, IoU of each class, and the images where\n"
        "their networks disagree most. Runs that have not finished are compared by their settings.",
        epilog="examples:\n"
        "  semiseg compare runs/a/TIME runs/b/TIME\n"
        "  semiseg compare A B -o differences --part test --images 20\n\n"
        "Each network predicts as its run evaluates, on the images of RUN_A's dataset. -o writes comparison.md,\n"
        "comparison.json, images.csv (every image) and pictures/ (image, truth, both predictions, difference).",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path, metavar="RUN_A", help="run directory")
    parser.add_argument("b", type=Path, metavar="RUN_B", help="run directory to compare it with")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder to write to (default: none)")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    parser.add_argument(
        "--part", choices=("val", "test"), default="val", help="images to predict (default: val)"
    )
    parser.add_argument(
        "--images",
        type=int,
        default=PICTURES,
        metavar="N",
        help=f"how many images to list and to draw (default: {PICTURES})",
    )
    parser.add_argument(
        "--no-images", dest="predict", action="store_false", help="compare the files of the runs alone"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: as RUN_A)")
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset, if it has moved")
    return parser
