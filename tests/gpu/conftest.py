"""Tests for a machine with a GPU. Each shows the figures that it found below the results.

pytest tests/gpu -n 0                           on the GPU
SEMISEG_GPU_TESTS=cpu pytest tests/gpu -n 0     the same code on small networks without one; figures mean nothing
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_machine import Machine, config, opened, trainer_of

from semiseg.benchmark.bare_passes import FitRecorder
from semiseg.config import build
from semiseg.engine.loop import Trainer

FIGURES = "figures of the GPU"


@pytest.fixture(scope="session")
def machine() -> Machine:
    """Give the machine, or skip the test."""
    name = os.environ.get("SEMISEG_GPU_TESTS", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU; SEMISEG_GPU_TESTS=cpu runs the same code on the CPU")
    return Machine(name)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Give the function that keeps a figure under its name."""
    return lambda name, value: record_property(FIGURES, f"{name}: {value}")


@pytest.fixture
def trainers(machine: Machine, tmp_path: Path) -> Iterator[Callable[..., list[tuple[Trainer, Any]]]]:
    """Give the function that returns a trainer of each kind of fit of a preset, and a batch on the device."""
    with ExitStack() as stack:

        def make(preset: str, *more: str) -> list[tuple[Trainer, Any]]:
            cfg = config(machine.words(preset, *more))
            session, networks = stack.enter_context(opened(cfg, tmp_path))
            lab = FitRecorder(session, networks)
            build.method(cfg).run(lab)
            return [trainer_of(fit, tmp_path) for fit in lab.distinct_fits()]

        yield make


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what the tests found, also where they ran in other processes."""
    reports = [each for found in terminalreporter.stats.values() for each in found]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == FIGURES
    ]
    if lines:
        terminalreporter.section(FIGURES)
        terminalreporter.write_line("\n".join(lines))
