"""``semiseg splits``: list, make, import and check partitions of the training images."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from semiseg.cli.arguments import Parser
from semiseg.errors import UserError
from semiseg.output import text_table
from semiseg.splits.importing import import_family
from semiseg.splits.lists import LABELED, UNLABELED
from semiseg.splits.manifest import Family, manifest
from semiseg.splits.published_lists import WORKING, cache_dir, find_imported

DESCRIPTION = "Which training images are labeled: what is published, and what of it is at hand."
EPILOG = """\
examples:
  semiseg splits list --dataset voc
  semiseg splits import cac --from Context-Aware-Consistency
  semiseg splits make dataset=voc split=1/8 split_family=shuffled split_id=1 -o my_lists
  semiseg splits check dataset=voc split=1/8 --overlap cac:1/8:0 --overlap u2pl:1/8
"""
CONFIG_KEYS = "config keys as of `semiseg train`: dataset, dataset.root, split, split_family, split_id, ..."


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg splits`` with the arguments after its name; return the exit code.

    Raises:
        UserError: no such partition, files that cannot be read or written, or faults found by a check.
    """
    options = _parser().parse_args(arguments)
    if options.command == "list":
        print(listing(options.dataset, options.family))
    elif options.command == "import":
        target = cache_dir() if options.to == "cache" else Path(options.to).expanduser()
        print(import_family(options.family, Path(options.source).expanduser(), target, options.dataset))
    else:
        for line in _of_own_dataset(options):
            print(line)
    return 0


def _of_own_dataset(options: argparse.Namespace) -> Iterator[str]:
    """Run ``make`` or ``check``; yield what is printed."""
    # Hydra and OpenCV take a moment to import, and the other commands need neither.
    from semiseg.config import build
    from semiseg.config.check import Checker
    from semiseg.config.compose import Request
    from semiseg.config.prepare import checked
    from semiseg.splits.inspection import inspect_split, write_split

    config = checked(Request(tuple(options.overrides)), Checker(), settings_only=True)
    dataset = build.dataset(config)
    split = build.split(config, dataset)
    if options.command == "make":
        yield write_split(split, Path(options.output).expanduser())
    else:
        yield from inspect_split(dataset, split, options.overlap, config.split_lists, masks=options.masks)


def listing(dataset: str | None = None, family: str | None = None) -> str:
    """Return the published partitions as tables of plain text.

    Args:
        dataset: name of the only dataset that is listed; ``None`` lists all.
        family: name of the only family that is listed; ``None`` lists all.
    """
    known = manifest()
    chosen = [
        (each, name)
        for name in ([dataset] if dataset else known.pools)
        for each in known.families.values()
        if family in (None, each.name) and known.of(name, each.name)
    ]
    if not chosen:
        others = "; ".join(f"--dataset {name} has some" for name in known.pools if known.of(name, family))
        raise UserError(f"--family {family} has no partitions of {dataset}; {others}.")
    return "\n\n".join(_block(*each) for each in chosen)


def _block(family: Family, dataset: str) -> str:
    partitions = manifest().of(dataset, family.name)
    clean = ["of VOC's 1,464"] if any(each.clean is not None for each in partitions) else []
    titles = ["split", "split_id", "labeled", "unlabeled", *clean, "at hand", "same"]
    rows = [
        [
            *(each.split, each.split_id, f"{each.labeled.count:,}", f"{each.unlabeled.count:,}"),
            *(f"{each.clean:,}" for _ in clean),
            "rule" if each.rule else "imported" if find_imported(each) else "to import",
            ", ".join(map(str, manifest().same_images(each))),
        ]
        for each in partitions
    ]
    head = [
        f"dataset={dataset} split_family={family.name}: {family.about}",
        f"  from {family.repository} @ {family.commit[:12]}, license {family.license}",
        *(f"  known fault: {defect}" for defect in family.defects),
    ]
    return "\n".join([*head, *text_table(titles, rows, left=(0, len(titles) - 2, len(titles) - 1))])


def _parser() -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="semiseg splits", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|make|import|check")
    families, datasets = list(manifest().families), list(manifest().pools)
    listed = commands.add_parser("list", help="show the published partitions")
    listed.add_argument("--dataset", choices=datasets)
    listed.add_argument("--family", choices=families)
    made = commands.add_parser("make", help="write the lists of a partition of your dataset")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=CONFIG_KEYS)
    files = f"folder of {LABELED} and {UNLABELED}"
    made.add_argument("-o", "--output", required=True, metavar="DIR", help=files)
    imported = commands.add_parser("import", help="take published lists from a clone of their repository")
    imported.add_argument("family", choices=families)
    imported.add_argument("--from", dest="source", required=True, metavar="DIR", help="the clone")
    imported.add_argument("--dataset", choices=datasets, help="only its lists")
    target = 'where to; "cache" for all folders (default: %(default)s)'
    imported.add_argument("--to", default=str(WORKING), metavar="DIR", help=target)
    what = "check a partition: files, classes, leaks, overlap with others"
    checked = commands.add_parser("check", help=what)
    checked.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=CONFIG_KEYS)
    others = "compare with this partition; may be repeated (default: those at hand of the same split)"
    checked.add_argument("--overlap", action="append", default=[], metavar="FAMILY:SPLIT:ID", help=others)
    masks = "do not open the labeled masks"
    checked.add_argument("--no-masks", dest="masks", action="store_false", help=masks)
    return parser
