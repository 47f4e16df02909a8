"""``semiseg cache``: decode the files of a dataset ahead of its runs, compare or remove what is stored."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from semiseg.cli.arguments import Parser
from semiseg.config import build
from semiseg.config.check import Checker
from semiseg.config.compose import Request
from semiseg.config.prepare import checked
from semiseg.data.file_index import CHECKED, place_of
from semiseg.data.store import Storable, store_folder, stored, wanted_files, writing
from semiseg.data.store_fill import Wanted, differing, fill, sized
from semiseg.errors import UserError

DIFFERENT = 2


def main(arguments: Sequence[str]) -> int:
    """Run ``semiseg cache`` with the arguments after its name; return 0, or 2 where stored pixels were wrong.

    Raises:
        UserError: a dataset that is not stored, or a place that cannot be written.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parser().parse_intermixed_args(arguments)
    cfg = checked(Request(tuple(options.overrides)), Checker(), settings_only=True)
    dataset = build.dataset(cfg)
    if not isinstance(dataset, Storable) or not dataset.cache:
        why = (
            "dataset.cache=false, or images of bands, which are read from their files"
            if isinstance(dataset, Storable)
            else "it is drawn, or reads no files"
        )
        raise UserError(f"dataset {dataset.info.name} is not stored: {why}.")
    folder = store_folder(dataset)
    if options.clear:
        place_of(dataset, CHECKED).with_suffix(".npz").unlink(missing_ok=True)
        return _clear(folder)
    split = build.split(cfg, dataset)
    if options.verify:
        return _verify(dataset, folder, wanted_files(dataset, split))
    stored(dataset, split)
    print(f"{folder}: {sized(_size(folder))}")
    return 0


def _verify(dataset: Storable, folder: Path, wanted: Wanted) -> int:
    with writing(folder, lambda: None):
        wrong = differing(dataset, folder, wanted, lambda: None)
        fill(dataset, folder, wanted, lambda: None)
    if not wrong:
        print(f"{folder}: equal to the files")
        return 0
    files = "\n".join(f"  {file}" for file in wrong)
    print(
        f"{folder}: {len(wrong)} files differ from what was stored of them, though their size and time of change "
        f"did not. They have been decoded again; runs since the change learned from the old pixels.\n{files}"
    )
    return DIFFERENT


def _clear(folder: Path) -> int:
    size = _size(folder)
    if folder.is_dir():
        with writing(folder, lambda: None):
            shutil.rmtree(folder)
    print(f"{folder}: {sized(size)} removed")
    return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.bin"))


def _parser() -> Parser:
    parser = Parser(
        prog="semiseg cache",
        description="Decode the files of a dataset into its store, as the first run does: all images, and the masks "
        "of labeled, validation and test images.",
        epilog="Example: semiseg cache dataset=voc dataset.root=PATH split=1/8",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="dataset and split, as for train")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--verify", action="store_true", help="decode the files again and compare them with what is stored"
    )
    action.add_argument("--clear", action="store_true", help="remove the store and the index of this dataset")
    return parser
