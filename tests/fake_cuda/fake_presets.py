"""What presets do on fake CUDA tensors, and the record of their memory.

python tests/fake_cuda/fake_presets.py list                show what every piece of work does
python tests/fake_cuda/fake_presets.py record              write the peaks of all presets into the fixture
python tests/fake_cuda/fake_presets.py record PRESET ...   of these alone; those of others stay
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_runtime import environment, run_script

TESTS = Path(__file__).resolve().parents[1]
RECORDED = TESTS / "fixtures" / "fake_cuda.json"
PRESETS = sorted(
    path.stem
    for path in (TESTS.parent / "experiments").glob("*.yaml")
    # Sweeps over methods, whose networks are those of other presets.
    if not path.stem.startswith("study_")
)

COVERING = (
    "adv_semiseg_voc",
    "augseg_voc",
    "cac_voc",
    "cct_voc",
    "corrmatch_voc",
    "cps_cutmix_voc",
    "cutmix_seg_voc",
    "dmtc_voc_1of8",
    "few_labels",
    "mean_teacher_voc",
    "prevmatch_voc",
    "s4gan_voc",
    "stpp_voc",
    "supervised_cps_voc",
    "u2pl_voc",
    "unimatch_v2_voc",
    "unimatch_voc",
)
"""Presets with each method, each kind of fit and each family of networks; phases of DMTC are those of DMT."""

Case = dict[str, Any]


def measure(presets: Sequence[str], folder: Path) -> list[Case]:
    """Run presets in one process; ``fake_runs`` describes the cases.

    Raises:
        NoFakeCuda: this machine cannot.
        RuntimeError: the process failed.
    """
    variables = environment(folder)
    output = folder / "cases.jsonl"
    run_script(TESTS / "fake_cuda" / "fake_runs.py", [str(output), *presets], variables)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def title(case: Case) -> str:
    """Kind and name of a case, by which its peak is recorded."""
    return f"{case['kind']} {case['name']}"


def read_recorded() -> dict[str, Any]:
    """Return the fixture: version of torch, and bytes by preset and title."""
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def write_recorded(cases: Sequence[Case], version: str) -> None:
    """Write peaks beside those of presets that are not among the cases."""
    peaks = read_recorded()["peaks"] if RECORDED.is_file() else {}
    for preset in {case["preset"] for case in cases}:
        peaks[preset] = {title(case): case["peak"] for case in cases if case["preset"] == preset}
    text = json.dumps({"torch": version, "peaks": peaks}, indent=1, sort_keys=True)
    RECORDED.write_text(text + "\n", encoding="utf-8")


def minor(version: str) -> str:
    """Return the first two numbers of a version; allocations of one minor version of torch are the same."""
    return ".".join(version.split("+")[0].split(".")[:2])


def row(case: Case) -> str:
    """Show a case as a line of Markdown."""
    counts = [
        ", ".join(f"{count} {what}" for what, count in sorted(case[key].items()))
        for key in ("syncs", "copies", "layouts")
    ]
    failed = case.get("error", "").strip().splitlines()[-1:]
    numbers = [case.get("images", ""), case["kernels"], f"{case['peak'] / 2**30:.2f}"]
    return f"| {' | '.join(map(str, [case['preset'], title(case), *numbers, *counts, *failed]))} |"


def main(words: Sequence[str] | None = None) -> int:
    """List or record."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("list", "record"))
    parser.add_argument("presets", nargs="*", metavar="PRESET")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="semiseg-fake-") as folder:
        cases = measure(given.presets or PRESETS, Path(folder))
    if given.action == "record":
        write_recorded(cases, minor(torch.__version__))
        return 0
    print("| preset | work | images | kernels | peak GiB | the host waits | blocking copies | layout lost |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(map(row, cases)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
