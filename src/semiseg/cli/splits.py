"""``semiseg splits``: list, make, import and check partitions of the training images."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from semiseg.cli.arguments import Parser
from semiseg.errors import UserError
from semiseg.splits.manifest import manifest
from semiseg.splits.partitions import DATASETS, Family, Manifest, Partition
from semiseg.splits.published_lists import LABELED, UNLABELED, WORKING, cache_dir, find_imported

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
        UserError: what was asked for cannot be done, or a check found faults.
    """
    options = _parser().parse_args(arguments)
    if options.command == "list":
        print(listing(manifest(), options.dataset, options.family))
    elif options.command == "import":
        from semiseg.splits.importing import import_family

        target = cache_dir() if options.to == "cache" else Path(options.to).expanduser()
        print(import_family(options.family, Path(options.source).expanduser(), target, options.dataset))
    else:
        # Hydra and OpenCV take a moment, which the other commands need not.
        from semiseg.splits import verification as splits_check

        if options.command == "make":
            print(splits_check.make(options.overrides, Path(options.output).expanduser()))
        else:
            splits_check.check(options.overrides, options.overlap, masks=options.masks)
    return 0


def listing(known: Manifest, dataset: str | None = None, family: str | None = None) -> str:
    """Lay out the published partitions as plain text.

    Args:
        known: the manifest.
        dataset: only this one.
        family: only this one.
    """
    blocks = [
        _block(known, each, name)
        for name in ([dataset] if dataset else DATASETS)
        for each in ([known.families[family]] if family else known.families.values())
        if each.of(name)
    ]
    if not blocks:
        others = "; ".join(
            f"--dataset {name} has some" for name in DATASETS if known.families[str(family)].of(name)
        )
        raise UserError(f"--family {family} has no partitions of {dataset}; {others}.")
    return "\n\n".join(blocks)


def _block(known: Manifest, family: Family, dataset: str) -> str:
    origin = family.origin
    head = [
        f"dataset={dataset} split_family={family.name}: {family.about}",
        f"  from {origin.repository} @ {origin.commit[:12]}, license {origin.license}",
        *(f"  known fault: {defect}" for defect in family.defects),
    ]
    clean = any(each.clean is not None for each in family.of(dataset))
    titles = [
        "split",
        "split_id",
        "labeled",
        "unlabeled",
        *(["of VOC's 1,464"] if clean else []),
        "at hand",
        "same",
    ]
    rows = [_row(known, each, clean) for each in family.of(dataset)]
    return "\n".join([*head, *table(titles, rows, left=(0, len(titles) - 2, len(titles) - 1))])


def _row(known: Manifest, each: Partition, clean: bool) -> list[str]:
    source = known.canonical(each)
    rule = known.families[source.family].rule
    at_hand = "rule" if rule else "imported" if find_imported(source) else "to import"
    same = ", ".join(str(other) for other in known.names(each))
    counts = [f"{each.labeled.count:,}", f"{each.unlabeled.count:,}", *([f"{each.clean:,}"] if clean else [])]
    return [each.split, each.split_id, *counts, at_hand, same]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Lay out rows below their titles in columns; those that ``left`` names are aligned to the left."""
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]

    def line(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return "  " + "  ".join(f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in pairs).rstrip()

    return [line(titles), *(line(row) for row in rows)]


def _parser() -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="semiseg splits", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|make|import|check")
    families = list(manifest().families)
    shown = commands.add_parser("list", help="show the published partitions")
    shown.add_argument("--dataset", choices=DATASETS)
    shown.add_argument("--family", choices=families)
    made = commands.add_parser("make", help="write the lists of a partition of your dataset")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=CONFIG_KEYS)
    made.add_argument(
        "-o", "--output", required=True, metavar="DIR", help=f"folder of {LABELED} and {UNLABELED}"
    )
    taken = commands.add_parser("import", help="take published lists from a clone of their repository")
    taken.add_argument("family", choices=families)
    taken.add_argument("--from", dest="source", required=True, metavar="DIR", help="the clone")
    taken.add_argument("--dataset", choices=DATASETS, help="only its lists")
    taken.add_argument(
        "--to",
        default=str(WORKING),
        metavar="DIR",
        help='where to; "cache" for all folders (default: %(default)s)',
    )
    checked = commands.add_parser(
        "check", help="check a partition: files, classes, leaks, overlap with others"
    )
    checked.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=CONFIG_KEYS)
    checked.add_argument(
        *("--overlap",),
        action="append",
        default=[],
        metavar="FAMILY:SPLIT:ID",
        help="compare with this partition; may be repeated (default: those at hand of the same split)",
    )
    checked.add_argument(
        "--no-masks", dest="masks", action="store_false", help="do not open the labeled masks"
    )
    return parser
