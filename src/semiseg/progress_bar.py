"""Progress of a command: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

LINE_SECONDS = 30.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show on standard error the number of pieces of work done and the time that the rest takes.

    Args:
        what: name of the work, for example "predict".
        total: number of pieces.

    Yields:
        A function to call after each piece.
    """
    if not sys.stderr.isatty():
        yield _lines(what, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _lines(what: str, total: int) -> Callable[[], None]:
    begun = shown = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal shown, done
        done += 1
        now = time.monotonic()
        if now - shown >= LINE_SECONDS and done < total:
            shown = now
            left = timedelta(seconds=round((now - begun) / done * (total - done)))
            print(f"{what}: {done} of {total}, {left} left", file=sys.stderr, flush=True)

    return advance
