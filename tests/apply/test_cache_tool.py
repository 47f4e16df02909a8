import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.cli import main


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    for part in ("train", "val"):
        for folder, array in ((part, np.full((20, 30, 3), 90)), (f"{part}annot", np.ones((20, 30)))):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(array.astype(np.uint8)).save(
                    tmp_path / "camvid" / folder / f"{part}{number}.png"
                )
    return [
        *("cache", "dataset=camvid", f"dataset.root={tmp_path / 'camvid'}", "split=1"),
        f"dataset.cache_dir={tmp_path / 'cache'}",
    ]


def stored(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in tmp_path.rglob("*.bin"))


def test_builds_and_clears(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert stored(tmp_path) == 4 * 30 * 20 * 3 + 3 * 30 * 20
    assert f"{tmp_path / 'cache'}" in capsys.readouterr().out
    assert main([*words, "--clear"]) == 0
    assert main([*words, "--clear"]) == 0
    assert stored(tmp_path) == 0


def test_compares_contents(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert main([*words, "--verify"]) == 0
    assert "equal to the files" in capsys.readouterr().out
    file = tmp_path / "camvid" / "train" / "train1.png"
    status = file.stat()
    Image.new("RGB", (30, 20), (90, 90, 91)).save(file)
    assert file.stat().st_size == status.st_size
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert main([*words, "--verify"]) == 2
    assert "1 files differ from what was stored of them" in capsys.readouterr().out
    assert main([*words, "--verify"]) == 0


def test_refuses_what_is_not_stored(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "dataset=shapes"]) == 2
    assert "dataset shapes is not stored" in capsys.readouterr().err
    assert main([*words, "dataset.cache=false"]) == 2
    assert "dataset.cache=false" in capsys.readouterr().err
    assert main([*words, "--verify", "--clear"]) == 2
