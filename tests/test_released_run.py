"""Runs that version 0.1.0 made are opened, used and gone on with: one that is finished, one that was interrupted.

``fixtures/released_run`` is a finished supervised run, without its training state. ``fixtures/interrupted_run`` is
self-training that was stopped while the student learned; ``fixtures/interrupted_run.json`` holds what the same
command gave without the stop.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import same_results
import semiseg
from same_results import FIXTURES, Result
from semiseg.cli import main
from semiseg.report.comparable import differences, facts_of
from semiseg.report.records import read_run

pytestmark = pytest.mark.slow

MIOU = json.loads((FIXTURES / "released_run/summary.json").read_text())["miou"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give a copy of the finished run."""
    return Path(shutil.copytree(FIXTURES / "released_run", tmp_path / "released"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Give a folder of pictures."""
    same_results.draw_pictures(tmp_path / "pictures")
    return tmp_path / "pictures/images"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_its_number_is_measured_again(run: Path, tmp_path: Path) -> None:
    assert main(["eval", str(run), "-o", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("eval-val-*.json")
    values = json.loads(path.read_text())
    assert values["miou"] == pytest.approx(MIOU, abs=0.01)
    assert main(["eval", str(run), "--checkpoint", "last", "--part", "test", "--flip"]) == 0


def test_it_predicts_and_labels_pictures(run: Path, pictures: Path, tmp_path: Path) -> None:
    assert main(["predict", str(run), str(pictures), "-o", str(tmp_path / "out"), "--confidence", "8"]) == 0
    predictor = semiseg.load(run, device="cpu")
    for path in sorted(pictures.iterdir()):
        label = pixels(tmp_path / "out/labels" / path.name)
        assert label.shape == pixels(path).shape[:2]
        np.testing.assert_array_equal(predictor.predict(path).label, label)
    words = ["label", str(run), str(pictures), "-o", str(tmp_path / "own"), "--rank", "stability"]
    assert main(words) == 0
    assert len(list((tmp_path / "own/masks").glob("*.png"))) == len(list(pictures.iterdir()))


def test_it_is_exported(run: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    assert main(["export", str(run)]) == 0
    assert (run / "network.onnx").is_file()


def test_it_is_reported_and_compared(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "-o", str(tmp_path / "report")]) == 0
    assert f"{100 * MIOU:.1f}" in (tmp_path / "report/report.md").read_text()
    assert main(["compare", str(run), str(FIXTURES / "interrupted_run")]) == 0
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert main(["compare", str(run), str(other), "-o", str(tmp_path / "differences")]) == 0
    assert (tmp_path / "differences/comparison.md").is_file()
    capsys.readouterr()


def test_only_its_code_differs_from_a_run_of_today(run: Path, tmp_path: Path) -> None:
    """Defaults that its version did not write are those that are written today."""
    today = tmp_path / "today"
    words = ["train", "--config-dir", str(run), "--config-name", "run", f"run_dir={today}"]
    assert main([*words, "trainer.iterations=2", "trainer.eval_every=2"]) == 0
    found = list(facts_of(map(read_run, (run, today))).values())
    unlike = {kind for kind in found[0] if found[0][kind] != found[1][kind]}
    assert unlike <= {"code", "iterations", "settings"}
    changed = {key for key, *_ in differences(found[0]["settings"], found[1]["settings"])}
    assert changed <= {"trainer.eval_every"}


def test_going_on_with_it_shows_its_summary(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*.pt")}
    assert main(["train", f"run_dir={run}"]) == 0
    assert f"{100 * MIOU:.2f}" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*.pt")} == before


def test_a_run_begins_with_its_network_and_another_takes_its_fit(run: Path, tmp_path: Path) -> None:
    shared = json.loads((run / "overrides.yaml").read_text())
    own = [
        word for word in shared if word.partition("=")[0] not in ("run_dir", "method", "trainer.iterations")
    ]
    short = [f"run_dir={tmp_path / 'begun'}", "method=cps", "trainer.iterations=2", f"init_from={run}"]
    assert main(["train", *own, *short]) == 0
    taken = [f"run_dir={tmp_path / 'taken'}", "method=st", f"method.baseline={run}", "--plan"]
    assert main(["train", *own, "trainer.iterations=2500", *taken]) == 0


def test_it_is_made_again_from_its_config(run: Path, tmp_path: Path) -> None:
    words = ["train", "--config-dir", str(run), "--config-name", "run", f"run_dir={tmp_path / 'again'}"]
    assert main([*words, "trainer.iterations=2", "trainer.eval_every=2"]) == 0


def test_an_interrupted_run_ends_as_without_the_stop(tmp_path: Path) -> None:
    run = Path(shutil.copytree(FIXTURES / "interrupted_run", tmp_path / "run"))
    assert main(["train", f"run_dir={run}"]) == 0
    right = json.loads((FIXTURES / "interrupted_run.json").read_text())
    now, same_bits = same_results.read_run(run), right["environment"] == same_results.environment()
    # On another machine a few pseudo-labels differ, and the student learns these.
    allowed = same_results.EXACT if same_bits else same_results.RESTLESS
    assert same_results.unequal_numbers("run", Result({}, right["numbers"]), now, allowed) == []
    assert now.digests.keys() == right["digests"].keys()
    if same_bits:
        assert now.digests == right["digests"]
