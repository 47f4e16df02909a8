"""``semiseg report``: averages of runs over seeds, in one folder of tables and figures."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from semiseg.cli.arguments import Parser
from semiseg.contracts.score_names import MEAN_IOU
from semiseg.report.aggregate import NO_FLOOR, USUAL_BASELINE, USUAL_FLOOR, study
from semiseg.report.comparable import MIXABLE
from semiseg.report.floor import below_floor
from semiseg.report.page import claim, write_report
from semiseg.report.records import collect
from semiseg.report.scores import scores_of
from semiseg.report.study import Study
from semiseg.report.tables import standings_table, summary_table


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg report`` with the arguments after its name; return the exit code."""
    options = _parser().parse_args(arguments)
    records = collect(options.runs)
    found = study(records, options.by, options.metric, options.baseline, options.mix, options.floor)
    folder = options.output or usual_folder(options.runs)
    claim(folder, options.force)
    figures = write_report(found, folder, f"semiseg report {shlex.join(arguments)}")
    overall = standings_table(found)
    tables = [summary_table(found).text(), *([f"\n{overall.text()}\n"] if overall else [])]
    print("\n".join([*tables, *_remarks(found)]))
    print(f"Written to {folder}: report.html, report.md, results.csv, {len(figures)} figures")
    if options.wandb is not None:
        from semiseg.report.upload import upload

        upload(found, figures, folder, options.project, options.entity, options.wandb)
    return 0


def usual_folder(given: Sequence[Path]) -> Path:
    """Folder ``report`` inside the given folder of runs, or in the working directory for several folders or one run."""
    alone = len(given) == 1 and not (given[0] / "run.yaml").is_file()
    return (given[0] if alone else Path()) / "report"


def _remarks(found: Study) -> list[str]:
    """Remarks about cells below the floor, runs that are left out, and notes."""
    lines = [
        f"{cell.label}: {below_floor(cell.floor, found.floor)}"
        for cell in found.cells
        if cell.below_floor and cell.floor and found.floor
    ]
    for each in found.flagged:
        kinds = ", ".join(flag.kind if flag.kind != "state" else flag.text for flag in each.flags)
        state = "averaged in spite of" if each.averaged else "not averaged"
        lines.append(f"{state}: {each.run.path} ({kinds})")
    return [
        *lines,
        *(f"{cell.label}: {note}" for cell in found.cells for note in (*cell.notes, *cell.limits)),
        *found.notes,
    ]


def _parser() -> Parser:
    parser = Parser(
        prog="semiseg report",
        description="Compare runs: mean and spread over seeds, paired differences to a baseline, curves, pictures. "
        "Runs that failed, or that differ from the others of their cell in anything but seed and partition, are "
        "listed and not averaged. Needs no account and no network.",
        epilog="Examples: semiseg report SWEEP; semiseg report runs --by method,split,backbone --metric miou_test "
        "-o OUT; semiseg report A B --mix code. Writes report.html (one file), report.md, results.csv (a line a run) "
        "and figures/.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="DIR", help="run directories, sweeps, or folders of them"
    )
    parser.add_argument(
        "--by",
        type=_words,
        metavar="KEY,KEY",
        help="what makes a row: config groups such as method or backbone, or keys such as split or "
        "optimizer.lr (default: method,split; of several datasets dataset,split,method)",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help=f"score to compare: {', '.join(scores_of(MEAN_IOU))}, iou/CLASS or iou_test/CLASS (default: the "
        f"primary score, {MEAN_IOU.primary.key})",
    )
    parser.add_argument(
        "--baseline",
        metavar="METHOD",
        help=f"method to compare the others with (default: {USUAL_BASELINE}, where there is one)",
    )
    parser.add_argument(
        "--floor",
        metavar="METHOD",
        help=f"method without training that the others should exceed; {NO_FLOOR} for no such comparison (default: "
        f"{USUAL_FLOOR}, where there is one)",
    )
    parser.add_argument(
        "--mix",
        type=_mixable,
        default="",
        metavar="KIND,KIND",
        help=f"average over runs that differ in {', '.join(MIXABLE)}; they stay flagged (default: none)",
    )
    _add_output_options(parser)
    return parser


def _add_output_options(parser: Parser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="folder to write (default: DIR/report; ./report for a single run or several DIR)",
    )
    parser.add_argument("--force", action="store_true", help="write into a folder that holds something else")
    parser.add_argument(
        "--wandb",
        choices=("online", "offline"),
        help="log the tables and figures as one run of wandb too; offline writes files for `wandb sync`",
    )
    parser.add_argument(
        "--project", default="semiseg", metavar="NAME", help="wandb project (default: semiseg)"
    )
    parser.add_argument("--entity", metavar="NAME", help="wandb user or team (default: the account's)")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _mixable(text: str) -> list[str]:
    kinds = _words(text)
    if wrong := [kind for kind in kinds if kind not in MIXABLE]:
        raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(MIXABLE)}")
    return kinds
