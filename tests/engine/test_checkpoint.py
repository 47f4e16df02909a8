import json
import os
from pathlib import Path

import pytest
import torch

from semiseg.engine.checkpoint import TrainingState, load_bundle, save_bundle
from semiseg.errors import RunFailed, UserError


def state(value: int) -> dict[str, object]:
    return {"value": value, "weights": torch.full((1000,), float(value))}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def saved(tmp_path: Path) -> TrainingState:
    checkpoints = TrainingState(tmp_path)
    for value in (1, 2, 3):
        checkpoints.save("train", state(value))
    return checkpoints


def test_newest_state_is_loaded_and_the_one_before_is_kept(saved: TrainingState) -> None:
    loaded = saved.load("train")
    assert loaded is not None
    assert loaded["value"] == 3
    names = sorted(path.name for path in saved.directory.iterdir())
    assert names == ["last.prev.pt", "last.pt", "manifest.json"]


@pytest.mark.parametrize("damage", ["bit", "truncated", "empty", "zeros", "removed"])
def test_damaged_newest_falls_back_to_the_one_before(
    saved: TrainingState, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved.directory / "last.pt"
    if damage == "bit":
        flip_a_bit(path)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        path.unlink()
    loaded = saved.load("train")
    assert loaded is not None
    assert loaded["value"] == 2
    assert damage == "removed" or "damaged" in caplog.text


def test_refuses_when_all_are_damaged(saved: TrainingState) -> None:
    for name in ("last.pt", "last.prev.pt"):
        flip_a_bit(saved.directory / name)
    with pytest.raises(UserError, match="All checkpoints of this run are damaged"):
        saved.load("train")


def test_state_of_another_step_is_not_loaded(saved: TrainingState) -> None:
    assert saved.load("student") is None


def test_kill_between_manifest_and_rename_of_the_next_step(
    saved: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        real = Path.replace
        patch.setattr(
            Path,
            "replace",
            lambda self, to: real(self, to) if to.name == "manifest.json" else killed(self, to),
        )
        with pytest.raises(KeyboardInterrupt):
            saved.save("student", state(4))
    assert TrainingState(saved.directory).load("student") is None
    assert not list(saved.directory.glob(".*tmp*"))


def test_kill_between_rotation_and_rename_keeps_the_former_state(
    saved: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        real = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if target.name == "last.pt":
                raise KeyboardInterrupt
            return real(self, target)

        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            saved.save("train", state(4))
    loaded = TrainingState(saved.directory).load("train")
    assert loaded is not None
    assert loaded["value"] == 3


def test_missing_manifest_warns_and_loads(saved: TrainingState, caplog: pytest.LogCaptureFixture) -> None:
    saved.manifest.unlink()
    loaded = saved.load("train")
    assert loaded is not None
    assert loaded["value"] == 3
    assert "cannot be verified" in caplog.text


def test_bundle_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save_bundle(path, state(1))
    assert load_bundle(path)["value"] == 1
    flip_a_bit(path)
    with pytest.raises(UserError, match="damaged"):
        load_bundle(path)


def test_malicious_pickle_is_never_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.system, (f"touch {marker}",))

    path = tmp_path / "evil.pt"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(UserError, match="cannot be read"):
        load_bundle(path)
    assert not marker.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("file write failed")])
def test_full_disk_leaves_the_former_state_and_no_part(
    saved: TrainingState, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(RunFailed, match=r"cannot be written.*(No space|write failed)"):
        saved.save("train", state(4))
    assert not list(saved.directory.glob(".*tmp*"))
    loaded = saved.load("train")
    assert loaded is not None
    assert loaded["value"] == 3
    assert json.loads(saved.manifest.read_text())["step"] == "train"


def test_a_damaged_file_does_not_replace_the_good_one_before_it(saved: TrainingState) -> None:
    flip_a_bit(saved.directory / "last.pt")
    loaded = saved.load("train")
    assert loaded is not None
    assert loaded["value"] == 2
    saved.save("train", state(4))
    flip_a_bit(saved.directory / "last.pt")
    again = TrainingState(saved.directory).load("train")
    assert again is not None
    assert again["value"] == 2
