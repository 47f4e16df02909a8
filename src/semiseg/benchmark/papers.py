"""The step times of all methods in the papers' settings, each measured in a process of its own."""

import subprocess
import sys
from collections.abc import Callable

from semiseg.errors import RunFailed

SMALL = ("trainer.batch_size=2", "trainer.unlabeled_batch_size=2")
"""Batches that fit into the memory of a small machine; crops, networks and losses are the papers'."""

GROUPED = (*SMALL, "method.bn_group_size=2")
"""Settings that give batch norm as many groups as the papers' batches have."""

ROWS: tuple[tuple[str, ...], ...] = (
    ("experiments=supervised_stpp_voc", *GROUPED),
    ("experiments=supervised_cps_voc", *SMALL),
    ("experiments=supervised_dmt_voc", *SMALL),
    ("experiments=stpp_voc", "method=st", *GROUPED),
    ("experiments=stpp_voc", *GROUPED),
    ("experiments=dmt_voc_1of20", *SMALL),
    ("experiments=dmtc_voc_1of8", *SMALL),
    ("experiments=cps_voc", *SMALL),
    ("experiments=cps_cutmix_voc", *SMALL),
    ("experiments=cac_voc", *SMALL),
    ("experiments=dmt_cityscapes_1of8", *SMALL),
    ("experiments=dmtc_cityscapes_1of8", *SMALL),
)


def measure_papers(overrides: list[str], rounds: int, report_line: Callable[[str], None]) -> list[str]:
    """Measure all rows; returns the lines of one table.

    Args:
        overrides: Settings of every row, after its own.
        rounds: Rounds of each measurement.
        report_line: Called with the lines of each row.

    Raises:
        RunFailed: A row could not be measured.
    """
    table: list[str] = []
    for row in ROWS:
        command = [sys.executable, "-m", "semiseg", "benchmark", *row, *overrides, "--rounds", str(rounds)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RunFailed(f"{' '.join(command[2:])} ended with code {result.returncode}:\n{result.stderr}")
        lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
        table += lines[2:] if table else lines
        for line in lines[2:]:
            report_line(line)
    return table
