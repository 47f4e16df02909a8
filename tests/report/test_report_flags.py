"""Runs that are not averaged: each kind of difference, and who decides."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from written_runs import write_run

from semiseg.report.aggregate import study
from semiseg.report.records import collect
from semiseg.report.study import Study

CLEAN = {"commit": "a" * 40, "diff": ""}
OTHER = {"commit": "b" * 40, "diff": ""}
CHANGED = {"commit": "a" * 40, "diff": "+ a line"}


def made(folder: Path, mix: tuple[str, ...] = ()) -> Study:
    return study(collect([folder]), by=["method", "split"], mix=mix)


def usual(folder: Path, seeds: int = 2) -> None:
    for seed in range(seeds):
        write_run(folder / f"usual-{seed}", 0.4 + seed / 10, seed=seed, git=CLEAN)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"state": "failed", "error": "disk full"}, "state", "failed: disk full"),
        (
            {"state": "failed", "error": "\x1b[31mno\x00 memory\x1b[0m\nat all"},
            "state",
            "failed: no  memory at all",
        ),
        ({"state": "interrupted"}, "state", "interrupted"),
        ({"state": "running"}, "state", "killed"),
        ({"evaluator": {"scales": [0.5]}}, "evaluator", "evaluator.scales=[0.5] (averaged: [1.0])"),
        (
            {"summary": {"split_counts": {"val": 3, "test": 8}}},
            "evaluator",
            "validation images=3 (averaged: 8)",
        ),
        ({"iterations": 50}, "iterations", "iterations=50 (averaged: 100)"),
        ({"version": "1.1"}, "code", "code=1.1 aaaaaaaa (averaged: 1.0 aaaaaaaa)"),
        ({"git": OTHER}, "code", "code=1.0 bbbbbbbb (averaged: 1.0 aaaaaaaa)"),
        ({"git": CHANGED}, "code", "code=1.0 aaaaaaaa+"),
        ({"config": {"dataset.name": "voc"}}, "dataset", "dataset.name=voc (averaged: shapes)"),
        ({"config": {"split_family": "every"}}, "split", "split_family=every (averaged: shuffled)"),
        ({"config": {"optimizer.lr": 0.1}}, "settings", "optimizer.lr=0.1 (averaged: 0.01)"),
        ({"config": {"backbone.name": "resnet18"}}, "settings", "backbone.name=resnet18 (averaged: tiny)"),
    ],
)
def test_a_run_that_differs_is_flagged_and_not_averaged(
    tmp_path: Path, change: dict[str, Any], kind: str, text: str
) -> None:
    usual(tmp_path)
    write_run(tmp_path / "strange", 0.9, **{"seed": 2, "git": CLEAN, **change})
    found = made(tmp_path)
    (cell,) = found.cells
    assert cell.scores["miou"].values == (0.4, 0.5)
    (flagged,) = found.flagged
    assert (flagged.run.path.name, flagged.averaged) == ("strange", False)
    (flag,) = flagged.flags
    assert flag.kind == kind
    assert text in flag.text
    hint = "1 run is left out for other code alone; --mix code averages over it."
    assert (hint in found.notes) == (kind == "code")


def test_runs_may_differ_in_what_belongs_to_a_seed_or_a_machine(tmp_path: Path) -> None:
    usual(tmp_path)
    config = {
        "dataset.root": "/other",
        "trainer.threads": 8,
        "trainer.device": "cuda",
        "tracker.mode": "online",
    }
    starts = {"method.baseline": "runs/supervised-2", "backbone.weights": "/there/weights.pth"}
    write_run(tmp_path / "far", 0.6, seed=2, git=CLEAN, config=config)
    assert made(tmp_path).flagged == ()
    for seed in range(2):
        write_run(
            tmp_path / f"cps-{seed}",
            method="cps",
            seed=seed,
            config={
                **starts,
                "backbone._target_": "semiseg.models.resnet.ResNet",
                "method._target_": "semiseg.methods.stpp.SelfTraining",
                "method.baseline": f"runs/{seed}",
                "backbone.weights": f"/place{seed}/weights.pth",
            },
        )
    assert made(tmp_path).flagged == ()


def test_other_validation_images_are_flagged_where_runs_know_them(tmp_path: Path) -> None:
    usual(tmp_path)
    strange = write_run(tmp_path / "strange", 0.9, seed=2, git=CLEAN)
    step = strange / "stages" / "00-train" / "step.json"
    step.write_text('{"data": {"val": "other ids"}}')
    (flagged,) = made(tmp_path).flagged
    assert flagged.flags[0].text == "ids of the validation images=other id (averaged: validati)"
    step.unlink()
    assert made(tmp_path).flagged == ()


def test_of_two_equally_large_groups_none_is_averaged(tmp_path: Path) -> None:
    write_run(tmp_path / "short", 0.4, seed=0, iterations=50)
    write_run(tmp_path / "long", 0.6, seed=1)
    found = made(tmp_path)
    (cell,) = found.cells
    assert (cell.runs, cell.scores["miou"].mean) == ((), None)
    assert cell.notes == (
        "none is averaged: its runs differ in iterations, and no more of them agree than differ",
    )
    texts = {flagged.run.path.name: flagged.flags[0].text for flagged in found.flagged}
    assert texts == {"short": "iterations=50 (others: 100)", "long": "iterations=100 (others: 50)"}


def test_a_repeated_run_counts_once_and_the_later_one(tmp_path: Path) -> None:
    usual(tmp_path)
    again = write_run(tmp_path / "again", 0.8, seed=1, git=CLEAN)
    summary = tmp_path / "usual-1" / "summary.json"
    os.utime(again / "summary.json", (2e9, 2e9))
    found = made(tmp_path)
    assert found.cells[0].scores["miou"].values == (0.4, 0.8)
    assert [(each.run.path.name, each.flags[0].kind) for each in found.flagged] == [("usual-1", "repeat")]
    os.utime(summary, (3e9, 3e9))
    assert made(tmp_path).cells[0].scores["miou"].values == (0.4, 0.5)


def test_partitions_of_other_names_with_the_same_images_are_repeats(tmp_path: Path) -> None:
    for split_id in ("0", "1", "2"):
        write_run(tmp_path / split_id, split="full", split_id=split_id, labeled="all")
    write_run(tmp_path / "other", split="full", seed=1, labeled="all")
    found = made(tmp_path)
    assert found.cells[0].scores["miou"].n == 2
    assert [each.flags[0].kind for each in found.flagged] == ["repeat", "repeat"]


def test_a_repeated_run_does_not_make_a_majority(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / f"again-{number}", 0.4, seed=0, iterations=50)
    write_run(tmp_path / "long-1", 0.6, seed=1)
    write_run(tmp_path / "long-2", 0.6, seed=2)
    assert made(tmp_path).cells[0].scores["miou"].values == (0.6, 0.6)


def test_the_same_partition_with_other_images_is_flagged_in_all_cells(tmp_path: Path) -> None:
    for method in ("supervised", "cps"):
        write_run(tmp_path / method, 0.4, method=method)
    write_run(tmp_path / "strange", 0.9, method="st", labeled="others")
    found = made(tmp_path)
    (flagged,) = found.flagged
    assert (flagged.run.path.name, flagged.flags[0].kind) == ("strange", "split")
    assert "labeled and unlabeled images have the hashes others and rest of" in flagged.flags[0].text


def test_of_two_equally_frequent_hashes_of_a_partition_none_is_averaged(tmp_path: Path) -> None:
    write_run(tmp_path / "one", 0.4, method="supervised")
    write_run(tmp_path / "other", 0.6, method="cps", labeled="others")
    found = made(tmp_path)
    assert [cell.runs for cell in found.cells] == [(), ()]
    assert {flagged.flags[0].kind for flagged in found.flagged} == {"split"}


def test_code_of_a_resumed_run_is_that_of_all_its_processes(tmp_path: Path) -> None:
    usual(tmp_path)
    resumed = write_run(tmp_path / "resumed", 0.9, seed=2, git=CLEAN)
    env = {"packages": {"semiseg": "1.0"}, "git": OTHER}
    (resumed / "env-resumed-20260101-000000.json").write_text(json.dumps(env))
    (flagged,) = made(tmp_path).flagged
    assert "code=1.0 aaaaaaaa, then 1.0 bbbbbbbb" in flagged.flags[0].text


def test_what_is_mixed_on_request_is_averaged_and_stays_flagged(tmp_path: Path) -> None:
    usual(tmp_path)
    write_run(tmp_path / "newer", 0.9, seed=2, git=OTHER)
    write_run(tmp_path / "short", 0.9, seed=3, git=OTHER, iterations=50)
    found = made(tmp_path, mix=("code",))
    assert found.cells[0].scores["miou"].values == (0.4, 0.5, 0.9)
    flagged = {each.run.path.name: (each.averaged, each.flags[0].kind) for each in found.flagged}
    assert flagged == {"short": (False, "iterations"), "newer": (True, "code")}


def test_jobs_without_a_run_are_flagged_in_their_cell_where_it_is_known(tmp_path: Path) -> None:
    usual(tmp_path)
    jobs = {
        "a": {
            "overrides": ["method=supervised", "split=1/8", "seed=2"],
            "state": "failed",
            "log": ["no memory"],
        },
        "b": {"overrides": ["seed=3"], "state": "killed", "log": []},
    }
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    found = made(tmp_path)
    assert len(found.cells) == 1
    told = {each.run.path.name: (dict(each.key), each.flags[0].text) for each in found.flagged}
    assert told == {
        "a": ({"method": "supervised", "split": "1/8"}, "failed: no memory"),
        "b": ({}, "killed"),
    }
