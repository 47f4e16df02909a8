"""Training states that are written while the training goes on."""

import copy
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from semiseg.engine.checkpoint import TrainingState

log = logging.getLogger(__name__)


class BackgroundSaves:
    """Writes the training states of a fit, one at a time, in a thread; the caller waits for the copy of a state only.

    A state that is being written is held in memory a second time, in that of the host. Its files are those of
    ``TrainingState.save``. Use it as a context, which waits for the last one at its end.

    Args:
        checkpoints: files of the states.
    """

    def __init__(self, checkpoints: TrainingState) -> None:
        self.checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(1, "training-state")
        self._pending: tuple[Future[None], Callable[[], None]] | None = None

    def __enter__(self) -> "BackgroundSaves":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            # What ended the fit is to be shown, not what came of it.
            log.error("%s", failure)
        finally:
            self._thread.shutdown()

    def start(self, step: str, state: dict[str, Any], done: Callable[[], None]) -> None:
        """Copy a state and begin to write it, once the one before is in place.

        Args:
            step: name of the fit.
            state: state, which may change as soon as this returns.
            done: function that ``collect`` or ``wait`` calls, in the caller's thread, once the state is in place.

        Raises:
            RunFailed: the state before this one could not be written.
        """
        self.wait()
        copied, copying = host_copy(state)
        self._pending = self._thread.submit(self._write, step, copied, copying), done

    def collect(self) -> None:
        """Finish a save that has been written by now, without waiting; raises as ``wait`` does."""
        if self._pending is not None and self._pending[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait until the state that is being written is in place.

        Raises:
            RunFailed: it could not be written; the previous states are untouched.
        """
        if self._pending is None:
            return
        (written, done), self._pending = self._pending, None
        written.result()
        done()

    def _write(self, step: str, state: dict[str, Any], copying: list[torch.Event]) -> None:
        for event in copying:
            event.synchronize()
        self.checkpoints.save(step, state)


def host_copy(value: Any) -> tuple[Any, list[torch.Event]]:
    """Copy nested containers with their tensors into memory of the host, without waiting for a device.

    Returns:
        The copy, and the events after which its tensors hold their values. What a device is given to do later, such as
        the next step, begins after it has read the tensors.
    """
    copied, devices = _Copies(), set[torch.device]()
    result = copied.of(value, devices)
    events = []
    for device in devices:
        event = torch.Event(device)
        event.record(torch.accelerator.current_stream(device))
        events.append(event)
    return result, events


class _Copies:
    """Copies by the memory that they were made of, so that what is stored once in it stays so."""

    def __init__(self) -> None:
        self._known: dict[Any, Tensor] = {}

    def of(self, value: Any, devices: set[torch.device]) -> Any:
        """Copy a value; devices of its tensors, other than the CPU, are added to ``devices``."""
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), devices)
        if isinstance(value, dict):
            # Its own class and attributes, of which the versions of modules are one.
            result = copy.copy(value)
            result.update((key, self.of(item, devices)) for key, item in value.items())
            return result
        if type(value) in (list, tuple):
            return type(value)(self.of(item, devices) for item in value)
        return copy.deepcopy(value)

    def _tensor(self, value: Tensor, devices: set[torch.device]) -> Tensor:
        place = value.untyped_storage().data_ptr(), value.storage_offset()
        key = value.device, place, value.shape, value.stride(), value.dtype
        if key not in self._known:
            on_device = value.device.type != "cpu"
            target = _page_locked_like(value) if on_device else torch.empty_like(value)
            self._known[key] = target.copy_(value, non_blocking=on_device)
            if on_device:
                devices.add(value.device)
        return self._known[key]


def _page_locked_like(value: Tensor) -> Tensor:
    """Return memory of the host, to which a copy runs while the host goes on; torch keeps it for the next save."""
    try:
        return torch.empty_like(value, device="cpu", pin_memory=True)
    except RuntimeError:
        # A system locks a part of its memory at most. To other memory the copy is waited for.
        return torch.empty_like(value, device="cpu")
