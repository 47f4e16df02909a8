"""What ``semiseg benchmark --parts data`` says about the reading of a dataset."""

from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from semiseg.benchmark.reading import fill_store, interleaved, one_thread
from semiseg.cli import main
from semiseg.data.shapes import Shapes
from semiseg.data.voc import Voc
from semiseg.splits.split import make_split


def test_rates_are_medians_of_turns() -> None:
    calls: list[str] = []

    def work(name: str, turns: int) -> Any:
        def run(number: int) -> None:
            calls.append(name)
            sum(range(turns))

        return run

    rates = interleaved({"slow": (work("slow", 40_000), 1), "quick": (work("quick", 4000), 1)}, 3, 0.01)
    assert 3 < rates["quick"] / rates["slow"] < 40
    batch = interleaved({"one": (work("one", 20_000), 1), "eight": (work("eight", 20_000), 8)}, 3, 0.01)
    assert 4 < batch["eight"] / batch["one"] < 16


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    with one_thread():
        assert torch.get_num_threads() == cv2.getNumThreads() == 1
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


QUICK = ("--rounds", "1", "--seconds", "0.01", "--images", "3")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    from made_files import voc_tree

    source = Shapes(train=5, val=2, test=0)
    voc_tree(source, source.ids("train"), tmp_path / "made", tmp_path / "cache")
    return tmp_path / "made" / "VOC2012"


def test_a_dataset_of_files_is_read_from_them_and_from_a_store(
    voc: Path, cache_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = sorted(cache_folder.glob("decoded/*"))
    words = ["benchmark", "--parts", "data", "dataset=voc", f"dataset.root={voc}", "augment=cac"]
    assert main([*words, "dataset.cache=false", "trainer.crop_size=64", *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines if line.startswith("| voc ")}
    assert list(rows) == [
        *(
            f"voc {name} 64"
            for name in ("labeled weak", "labeled strong", "unlabeled weak", "unlabeled pair")
        ),
        "voc",
    ]
    for name in list(rows)[:-1]:
        files, store, gain = (float(cell.strip(" *")) for cell in rows[name])
        assert store / files == pytest.approx(gain, rel=0.1)
        assert gain > 1
    assert all(cell.strip().endswith("KB") for cell in rows["voc"][:2])
    assert "| pipeline | files | store | store / files |" in lines
    assert "    semiseg benchmark --parts data dataset=voc" in "\n".join(lines)
    assert sorted(cache_folder.glob("decoded/*")) == stores


def test_a_dataset_without_files_has_no_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--parts", "data", "trainer.crop_size=32", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "| shapes labeled weak 32 |" in out
    assert "| - | - |" in out
    assert "stored a second" not in out


def test_the_rate_of_a_store_counts_images_with_masks(voc: Path, tmp_path: Path) -> None:
    dataset = Voc(str(voc), cache_dir=str(tmp_path / "store"))
    source, fill = fill_store("made", dataset, make_split(dataset, "full"))
    assert (source.image("00001") == dataset.image("00001")).all()
    assert fill.name == "made"
    assert fill.rate > 0
    assert fill.image_bytes > fill.mask_bytes > 500
