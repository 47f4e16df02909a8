"""Runs with a second network in reports: cells of their own, and comparisons of the network that is reported."""

from pathlib import Path

from written_runs import write_run

from semiseg.report.aggregate import study
from semiseg.report.comparable import facts, not_comparable
from semiseg.report.records import RunRecord, collect
from semiseg.report.scores import NONE

PARTNER = {
    "method._target_": "semiseg.methods.cps.CPS",
    "method.partner._target_": "semiseg.settings.OtherNetwork",
    "method.partner.backbone": {"name": "resnet18", "_target_": "semiseg.models.resnet.ResNet", "depth": 18},
}
STUDENT = {key.replace("partner", "student"): value for key, value in PARTNER.items()} | {
    "method._target_": "semiseg.methods.stpp.SelfTraining"
}


def record(folder: Path) -> RunRecord:
    (found,) = collect([folder])
    return found


def test_runs_are_told_apart_by_the_option_of_the_partner(tmp_path: Path) -> None:
    write_run(tmp_path / "plain", method="cps")
    write_run(tmp_path / "other", method="cps", config=PARTNER)
    found = study(collect([tmp_path]), by=("method", "method.partner.backbone"))
    assert {cell.key["method.partner.backbone"] for cell in found.cells} == {NONE, "resnet18"}
    (cell,) = study(collect([tmp_path])).cells
    assert len(cell.runs) < 2  # in one cell they are not averaged


def test_weights_of_the_partner_are_compared_by_their_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        config = PARTNER | {"method.partner.backbone.weights": f"/{name}/weights.pth"}
        write_run(tmp_path / name, method="cps", config=config)
    first, second = (facts(record(tmp_path / name))["settings"] for name in ("a", "b"))
    assert first == second
    assert first["method.partner.backbone.weights"] == "weights.pth"


def test_the_reported_network_is_compared_with_that_of_the_baseline(tmp_path: Path) -> None:
    base = record(write_run(tmp_path / "base"))
    helped = record(write_run(tmp_path / "helped", method="cps", config=PARTNER))
    assert not_comparable(helped, base) == []
    summary = {"network": "student"}
    student = record(write_run(tmp_path / "student", method="stpp", config=STUDENT, summary=summary))
    assert "backbone.depth" in not_comparable(student, base)
