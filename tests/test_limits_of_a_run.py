"""What limits a result is said before training, beside the result, in the summary and in a report; or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.cli import main
from semiseg.report.aggregate import study
from semiseg.report.page import page
from semiseg.report.records import collect

SHORT = ["trainer.iterations=1", "trainer.eval_every=1", "trainer.crop_size=32", "trainer.batch_size=2"]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a run whose validation images hold one of two classes, one of them a copy of a labeled image."""
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    for number in range(6):
        rng = np.random.default_rng(number % 5)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        mask = np.zeros((32, 32), np.uint8)
        mask[:, :16] = number < 4
        for folder, picture in (("images", coarse.resize((32, 32))), ("masks", Image.fromarray(mask))):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "data" / folder / f"p{number}.png")
    (tmp_path / "data" / "val.txt").write_text("p4\np5\n")
    given = [
        "dataset=folder",
        f"dataset.root={tmp_path / 'data'}",
        "dataset.classes=[ground,disk]",
        "split=full",
    ]
    return [
        "train",
        *given,
        "method=supervised",
        "tracker.mode=disabled",
        f"run_dir={tmp_path / 'run'}",
        *SHORT,
    ]


CLASSES = "no validation image holds disk: mIoU is over 1 of 2 classes"
COPY = "1 of 2 validation images is equal to labeled ones: p0 and p5"


def test_a_run_says_it_everywhere(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(words) == 0
    assert [record.message for record in caplog.records if record.message.startswith("Warning")] == [
        f"Warning: {COPY}.",
        f"Warning: {CLASSES}.",
    ]
    result = capsys.readouterr().out.partition("mIoU  ")[2]
    assert result.count(f"Note: {CLASSES}.") == 1
    assert result.count(f"Note: {COPY}.") == 1
    trust = json.loads((tmp_path / "run" / "summary.json").read_text())["trust"]
    assert trust["warnings"] == [COPY]
    assert trust["unmeasured"] == [CLASSES]
    assert trust["missing_classes"] == {"labeled": [], "val": ["disk"]}
    assert trust["copies"] == [
        {"first": "labeled", "second": "val", "equal": 1, "near": 0, "examples": [["p0", "p5"]]}
    ]
    found = page(study(collect([tmp_path / "run"])))
    assert COPY in found
    assert CLASSES in found


def test_strict_refuses_with_all_warnings(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "strict=true"]) == 2
    told = capsys.readouterr().err
    assert "not trained, because the check warns and strict=true" in told
    assert COPY in told
    assert CLASSES in told
    assert not (tmp_path / "run" / "run.yaml").exists()
