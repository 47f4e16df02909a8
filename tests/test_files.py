"""Files that survive a kill."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from semiseg.errors import UserError
from semiseg.files import (
    copy,
    final_name,
    remove_temporaries,
    require_writable,
    temporary,
    write_json,
    write_text,
)


def test_json_holds_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"miou": math.nan, "iou": [1.0, math.inf, (math.nan,)], "name": "NaN"})

    def refuse(text: str) -> None:
        raise AssertionError(text)

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"miou": None, "iou": [1.0, None, [None]], "name": "NaN"}


def test_a_failed_write_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_kill_in_a_write_leaves_a_file_that_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    temporary(tmp_path / "a.txt").write_text("ne")
    remove_temporaries(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_copy_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"content")
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(target.exists()))
    copy(source, target)
    assert target.read_bytes() == b"content"
    assert synced == [False, True]


def test_temporaries_are_recognized(tmp_path: Path) -> None:
    assert final_name(temporary(tmp_path / "run.yaml").name) == "run.yaml"
    assert final_name("thesis.tex") == "thesis.tex"


def test_run_directories_are_read_without_torch() -> None:
    code = "import sys, semiseg.files, semiseg.runs.directory; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_writing_is_tried_before_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_writable(tmp_path / "deep" / "er" / "a.yaml", "Go elsewhere.")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.yaml cannot be written \(.*file is a file\)\. Go elsewhere\."):
        require_writable(tmp_path / "file" / "a.yaml", "Go elsewhere.")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"a\.yaml cannot be written \(No space left on device\)"):
        require_writable(tmp_path / "a.yaml", "Go elsewhere.")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
