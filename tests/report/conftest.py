"""One made-up study and its page for all tests that look at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from drawn_runs import draw_run, draw_sweep

from semiseg.report.aggregate import study
from semiseg.report.page import write_report
from semiseg.report.records import collect
from semiseg.report.study import Study, StudyFigure


@dataclass(frozen=True)
class Shown:
    """A study with its files: three methods, two ratios, three seeds; one run failed and one is shorter."""

    study: Study
    figures: Sequence[StudyFigure]
    page: Path


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    runs = draw_sweep(tmp_path_factory.mktemp("drawn"))
    draw_run(runs, "cps", "1/8", 7, 0.6, state="failed", error="RuntimeError: <script>alert(1)</script>")
    draw_run(runs, "cps", "1/16", 8, 0.9, iterations=50)
    found, folder = study(collect([runs])), tmp_path_factory.mktemp("shown")
    figures = write_report(found, folder, "semiseg report runs")
    return Shown(found, figures, folder / "report.html")
