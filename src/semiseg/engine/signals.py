"""Requests to stop: signals and the time limit, answered between two steps."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from semiseg.errors import Interrupted

TIME_LIMIT_EXIT_CODE = 75


def receive_stop_signals(receive: Callable[[int, FrameType | None], None]) -> Callable[[], None]:
    """Let SIGTERM and SIGINT call a function; return a function that restores their previous handlers."""
    previous = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    return restore


class StopRequest:
    """Collect SIGTERM, SIGINT and the time limit; ``check`` raises once the caller can stop cleanly.

    The first signal only sets a flag, so that the running step can finish and be saved. The second one
    ends the process at once with the signal's exit code.

    Args:
        max_seconds: time limit counted from the construction; ``None`` sets no limit.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        self._deadline = None if max_seconds is None else time.monotonic() + max_seconds
        self._signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._restore = receive_stop_signals(self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        message = f"\n{signal.Signals(number).name} received: finishing the step and saving; once more ends at once.\n"
        # Not by print: the handler may interrupt a print, whose buffer cannot be entered twice.
        os.write(2, message.encode())

    @property
    def requested(self) -> bool:
        """Whether somebody wants the run to stop."""
        return self._signal is not None or (self._deadline is not None and time.monotonic() > self._deadline)

    def check(self) -> None:
        """Raise ``Interrupted`` when a stop was requested."""
        if self._signal is not None:
            raise Interrupted(signal.Signals(self._signal).name, 128 + self._signal)
        if self.requested:
            raise Interrupted("trainer.max_time reached", TIME_LIMIT_EXIT_CODE)
