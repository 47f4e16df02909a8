"""JobSchedule of a launcher: starts jobs, watches them, stops them, and notes all in the index."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from semiseg.engine.signals import receive_stop_signals
from semiseg.errors import Interrupted
from semiseg.sweep.index import Index, look
from semiseg.sweep.job import Job
from semiseg.sweep.process import Child, ExternalProcess, external_process
from semiseg.sweep.screen import Screen

WAIT = 0.1


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM: the first asks the jobs to stop after their step, the second ends them."""
    received: list[int] = []
    restore = receive_stop_signals(lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        restore()


class JobSchedule:
    """Runs jobs, several at a time, each in its own process.

    Args:
        index: index of all jobs.
        n_jobs: number of processes at a time.
        environment: function that returns the variables of a job in one of the ``n_jobs`` places.
        screen: messages to the user.
    """

    def __init__(
        self, index: Index, n_jobs: int, environment: Callable[[Job, int], Mapping[str, str]], screen: Screen
    ) -> None:
        self.index = index
        self.environment = environment
        self.screen = screen
        self._places: list[Child | ExternalProcess | None] = [None] * n_jobs
        self._waiting: deque[Job] = deque()
        self._forwarded = 0

    def run(self, jobs: Sequence[Job]) -> None:
        """Run the jobs that are not done.

        Raises:
            Interrupted: a signal stopped the sweep; its jobs have ended.
        """
        self._waiting.extend(job for job in dict.fromkeys(jobs) if self.index.entry(job).state != "done")
        with stop_signals() as received:
            while any(self._places) or (self._waiting and not received):
                if not received:
                    self._fill()
                self._collect()
                self._forward(received)
                time.sleep(WAIT)
        if received:
            raise Interrupted(signal.Signals(received[0]).name, 128 + received[0])

    def _fill(self) -> None:
        """Give every free place a job."""
        for place, taken in enumerate(self._places):
            if taken is None and self._waiting:
                self._places[place] = self._start(self._waiting.popleft(), place)

    def _start(self, job: Job, place: int) -> Child | ExternalProcess:
        external = external_process(job)
        started = external or Child(job, self.environment(job, place))
        entry = self.index.entry(job)
        entry.state, entry.exit_code, entry.log = "running", None, []
        self.index.write()
        if external:
            self.screen.waits(job, external.owner)
        else:
            self.screen.starts(job)
        return started

    def _collect(self) -> None:
        """Note the jobs that have ended, and free their places."""
        for place, at_work in enumerate(self._places):
            if isinstance(at_work, Child) and at_work.poll() is not None:
                self._places[place] = None
                self._ended(at_work)
            elif isinstance(at_work, ExternalProcess) and not at_work.working():
                self._places[place] = None
                self._left(at_work.job)

    def _ended(self, child: Child) -> None:
        code = child.poll()
        self.index.entry(child.job).seconds += child.seconds
        if code == 2 and external_process(child.job):  # another launcher was quicker by a moment
            self._waiting.appendleft(child.job)
            return
        self.screen.ends(child.job, self.index.end(child.job, code, child.last_lines()))

    def _left(self, job: Job) -> None:
        """Note that an external process has ended: the job is done, or has its turn again."""
        entry = self.index.entry(job)
        entry.state = "waiting"
        look(job.folder, entry)
        if entry.state == "done":
            self.index.write()
            self.screen.ends(job, entry)
        else:
            self._waiting.appendleft(job)

    def _forward(self, received: Sequence[int]) -> None:
        """Pass on the signals received since the last call, to own processes only."""
        for number in received[self._forwarded :]:
            children = [each for each in self._places if isinstance(each, Child)]
            self.screen.stops(number, len(children), last=self._forwarded > 0)
            for child in children:
                if self._forwarded:
                    child.kill()
                else:
                    child.stop(number)
            self._places = [each if isinstance(each, Child) else None for each in self._places]
            self._forwarded += 1
