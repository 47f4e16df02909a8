"""Reading ahead and writing behind, each in a thread beside the one that computes."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, cast

Item = TypeVar("Item")

log = logging.getLogger(__name__)

AHEAD = 2
"""Number of items that are read before they are asked for."""


@contextmanager
def reading_ahead(source: Iterable[Item], ahead: int = AHEAD) -> Iterator[Iterator[Item]]:
    """Iterate over a source in a thread; give its items, in their order, and what it raises in place of an item.

    The thread has ended when the block is left, however that happens.

    Args:
        source: items, made by one thread at a time.
        ahead: number of items that are made before they are asked for.
    """
    iterator, end = iter(source), object()
    pool = ThreadPoolExecutor(1, "reading-ahead")
    coming = deque(pool.submit(next, iterator, end) for _ in range(ahead))

    def items() -> Iterator[Item]:
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, iterator, end))
            yield cast(Item, item)

    try:
        yield items()
    finally:
        pool.shutdown(cancel_futures=True)


class WritingBehind:
    """Calls a function in a thread, one call after the other; a context manager that waits for all of them.

    After a call that fails no other is made, since what it wrote may be incomplete. Its error is raised by a later
    call, or at the end.

    Args:
        work: function to call; its result is dropped.
        most: number of calls that may wait before the caller has to.
    """

    def __init__(self, work: Callable[..., object], most: int) -> None:
        self._work = work
        self._most = most
        self._failed = False
        self._pool = ThreadPoolExecutor(1, "writing-behind")
        self._waiting: deque[Future[None]] = deque()

    def __call__(self, *arguments: Any) -> None:
        """Add a call with these arguments."""
        self._waiting.append(self._pool.submit(self._call, *arguments))
        while len(self._waiting) > self._most:
            self._waiting.popleft().result()

    def _call(self, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            self._work(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        for each in self._waiting:
            if error is None:
                each.result()
            elif (failure := each.exception()) is not None:
                # What ended the caller is to be shown, not what came of it.
                log.error("%s", failure)
