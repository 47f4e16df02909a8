"""States are written in a thread as if training had waited for it; failures reach the caller at its next question."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from semiseg.engine.background_saves import BackgroundSaves, host_copy
from semiseg.engine.checkpoint import TrainingState
from semiseg.errors import RunFailed, UserError


class Disk:
    """Holds every sync of a file in another thread until ``open`` is called."""

    def __init__(self) -> None:
        self._way = threading.Event()
        self.fault: OSError | None = None
        self._sync = os.fsync

    def fsync(self, handle: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert self._way.wait(60)
            if self.fault is not None:
                raise self.fault
        self._sync(handle)

    def open(self) -> None:
        self._way.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    slow = Disk()
    monkeypatch.setattr(os, "fsync", slow.fsync)
    yield slow
    slow.open()


def collected(saves: BackgroundSaves, ready: Callable[[], bool]) -> None:
    """Ask as the loop does, until something is so."""
    wait = threading.Event()
    for _ in range(2000):
        saves.collect()
        if ready():
            return
        wait.wait(0.005)
    raise AssertionError("the save never ended")


def test_training_goes_on_while_its_state_is_written(tmp_path: Path, disk: Disk) -> None:
    model, done = nn.BatchNorm2d(3), list[str]()
    with BackgroundSaves(TrainingState(tmp_path)) as saves:
        saves.start("train", {"learner": model.state_dict(), "list": [1]}, lambda: done.append("first"))
        with torch.no_grad():
            model.weight.fill_(7)  # the next step
        saves.collect()
        assert not done
        assert not (tmp_path / "last.pt").exists()
        disk.open()
        collected(saves, lambda: bool(done))
        saves.start("train", {"learner": model.state_dict()}, lambda: done.append("second"))
    assert done == ["first", "second"]
    states = [torch.load(tmp_path / name, weights_only=True) for name in ("last.prev.pt", "last.pt")]
    assert [state["learner"]["weight"].tolist() for state in states] == [[1.0] * 3, [7.0] * 3]
    assert states[0]["learner"]._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]


def test_a_second_save_waits_for_the_first(tmp_path: Path, disk: Disk) -> None:
    order: list[str] = []
    with BackgroundSaves(TrainingState(tmp_path)) as saves:
        saves.start("train", {"value": 1}, lambda: order.append("in place"))
        opening = threading.Timer(0.1, lambda: (order.append("opened"), disk.open()))
        opening.start()
        saves.start("train", {"value": 2}, lambda: None)
        assert order == ["opened", "in place"]
    loaded = TrainingState(tmp_path).load("train")
    assert loaded is not None
    assert loaded["value"] == 2


@pytest.mark.parametrize("ask", ["collect", "wait", "start", "end"])
def test_a_full_disk_is_told_at_the_next_question(tmp_path: Path, disk: Disk, ask: str) -> None:
    done: list[str] = []

    def fail() -> None:
        with BackgroundSaves(TrainingState(tmp_path)) as saves:
            saves.start("train", {"value": 1}, lambda: done.append("told"))
            if ask == "collect":
                collected(saves, lambda: False)
            elif ask == "wait":
                saves.wait()
            elif ask == "start":
                saves.start("train", {"value": 2}, lambda: None)

    disk.fault = OSError(28, "No space left on device")
    disk.open()
    with pytest.raises(RunFailed, match="No space left"):
        fail()
    assert not done
    assert not list(tmp_path.iterdir())


def test_what_ended_the_fit_is_raised_before_a_failed_save(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        with BackgroundSaves(TrainingState(tmp_path)) as saves:
            saves.start("train", {"value": 1}, lambda: None)
            raise UserError("an image is damaged")

    disk.fault = OSError(28, "No space left on device")
    disk.open()
    with pytest.raises(UserError, match="an image is damaged"):
        fail()
    assert "No space left" in caplog.text


def test_a_copy_keeps_layouts_and_what_is_stored_once() -> None:
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    state: dict[str, Any] = {"a": weight, "tied": weight.detach(), "list": [(weight[0], 1.5)], "none": None}
    copied, events = host_copy(state)
    assert events == []
    assert copied["a"].stride() == weight.stride()
    assert copied["a"] is copied["tied"]
    assert copied["a"].data_ptr() != weight.data_ptr()
    assert torch.equal(copied["list"][0][0], weight[0])
    weight.zero_()
    assert copied["a"].any()
    assert copied["list"][0][0].any()
    assert (copied["list"][0][1], copied["none"]) == (1.5, None)
