"""Seconds that the start of a run takes on a large dataset before training, the first time and later.

    python benchmarks/start.py --entries 120000

A made tree of tiny files in the layout of COCO is opened as `semiseg train` does it: dataset, split, check of files.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from semiseg.cli.arguments import Parser
from semiseg.data.coco import Coco
from semiseg.data.file_faults import check_files
from semiseg.data.fingerprint import fingerprint
from semiseg.data.garbage import without_collection
from semiseg.data.store import stored
from semiseg.data.trust import weigh
from semiseg.output import text_table
from semiseg.splits.split import make_split

SIDE = 16
VAL = 5000
LABELED = {"all": "full", "few": "1/512"}
DESCRIPTION = "Measure the start of a run on a made tree of tiny files, the first time and after that."


def main() -> None:
    """Make the tree, start three times in processes of their own, and print a table."""
    parser = Parser(prog="start.py", description=DESCRIPTION)
    parser.add_argument("--entries", type=int, default=120_000, help="files in the tree, half of them masks")
    parser.add_argument(
        "--labeled", choices=LABELED, default="all", help="whether all images are labeled, or 1/512"
    )
    parser.add_argument("--cache", action="store_true", help="store decoded pixels too (dataset.cache=true)")
    parser.add_argument(
        "--one-start", metavar="ROOT", help="measure one start on this tree, and print it as JSON"
    )
    options = parser.parse_args(sys.argv[1:])
    if options.one_start:
        print(json.dumps(_start(Path(options.one_start), LABELED[options.labeled], options.cache)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "coco"
        _make(root, options.entries // 2)
        words = [__file__, *sys.argv[1:], "--one-start", str(root)]
        environment = os.environ | {"SEMISEG_CACHE": str(Path(folder) / "cache")}
        runs = []
        for _ in range(3):
            found = subprocess.run(
                [sys.executable, *words], env=environment, capture_output=True, text=True, check=True
            )
            runs.append(json.loads(found.stdout.splitlines()[-1]))
    rows = [[part, *(f"{run[part][0]:.2f} ({run[part][1]:.2f})" for run in runs)] for part in runs[0]]
    print("\n".join(text_table(["seconds (of a processor)", "first start", "second", "third"], rows)))


def _make(root: Path, pairs: int) -> None:
    generator = np.random.default_rng(0)
    for folder in ("train2017", "val2017", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(pairs):
        part = "val2017" if number < min(VAL, pairs // 10) else "train2017"
        image = cv2.resize(generator.integers(0, 256, (4, 4, 3)).astype(np.uint8), (SIDE, SIDE))
        cv2.imwrite(str(root / part / f"{number:012d}.jpg"), image)
        mask = generator.integers(0, 81, (2, 2)).astype(np.uint8).repeat(SIDE // 2, 0).repeat(SIDE // 2, 1)
        cv2.imwrite(str(root / "masks" / f"{number:012d}.png"), mask)


def _start(root: Path, split: str, cache: bool) -> dict[str, tuple[float, float]]:
    """Seconds that passed, and those of processors, by part; they differ where others use the machine too."""
    seconds: dict[str, tuple[float, float]] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.perf_counter(), time.process_time()
        yield
        seconds[part] = time.perf_counter() - began[0], time.process_time() - began[1]

    with timed("all"):
        with timed("dataset"), without_collection():
            dataset = Coco(str(root), cache=cache)
        with timed("split"):
            made = make_split(dataset, split)
        with timed("store"):
            read = stored(dataset, made)
        with timed("check of files"):
            report = check_files(read, made)
        with timed("copies, classes"):
            weigh(read, report)
        with timed("fingerprint"):
            fingerprint(report.split, report.facts).as_dict()
    return {part: seconds[part] for part in sorted(seconds, key=lambda each: each == "all")}


if __name__ == "__main__":
    main()
