"""One tracker in front of several."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from semiseg.contracts.tracking import Sample, Tracker


class MultiTracker:
    """Passes everything on to each of its trackers, in their order.

    Args:
        trackers: destinations; ``close`` reaches all of them even where one raises.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = tuple(trackers)

    def start_stage(self, name: str, index: int, total_iterations: int) -> None:
        """See ``Tracker``."""
        for tracker in self.trackers:
            tracker.start_stage(name, index, total_iterations)

    def progress(self, completed: int) -> None:
        """See ``Tracker``."""
        for tracker in self.trackers:
            tracker.progress(completed)

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """See ``Tracker``."""
        for tracker in self.trackers:
            tracker.log(values, step)

    def images(self, key: str, samples: Sequence[Sample], step: int) -> None:
        """See ``Tracker``."""
        for tracker in self.trackers:
            tracker.images(key, samples, step)

    def summary(self, values: Mapping[str, Any]) -> None:
        """See ``Tracker``."""
        for tracker in self.trackers:
            tracker.summary(values)

    def close(self, status: str) -> None:
        """See ``Tracker``."""
        with ExitStack() as stack:
            for tracker in reversed(self.trackers):
                stack.callback(tracker.close, status)
