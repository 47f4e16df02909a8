"""Reading ahead and writing behind: order, errors, and threads that end."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from semiseg.data.background import WritingBehind, reading_ahead
from semiseg.errors import UserError


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_items_come_in_order_from_another_thread() -> None:
    threads = set()

    def source() -> Iterator[int]:
        for number in range(10):
            threads.add(threading.get_ident())
            yield number

    with reading_ahead(source()) as items:
        assert list(items) == list(range(10))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_only_so_many_items_are_read_ahead() -> None:
    read = []

    def source() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    with reading_ahead(source(), ahead=3) as items:
        assert next(items) == 0
    assert len(read) <= 4


def test_an_error_comes_in_the_place_of_its_item() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise UserError("Image 'x' is damaged.")

    seen: list[int] = []
    with pytest.raises(UserError, match="'x' is damaged"), reading_ahead(source()) as items:
        seen.extend(items)
    assert seen == [1, 2]


def test_an_error_of_the_reader_of_the_items_ends_the_thread() -> None:
    with pytest.raises(ZeroDivisionError), reading_ahead(itertools.count(1)) as items:
        [1 // (item - 5) for item in items]


def test_calls_are_made_in_order_and_waited_for() -> None:
    written: list[tuple[int, int]] = []
    caller = threading.get_ident()
    with WritingBehind(lambda number: written.append((number, threading.get_ident())), 2) as behind:
        for number in range(20):
            behind(number)
    assert [number for number, _ in written] == list(range(20))
    assert caller not in {thread for _, thread in written}


def test_nothing_is_written_after_a_call_that_failed() -> None:
    written = []

    def write(number: int) -> None:
        if number == 3:
            raise OSError(28, "No space left on device")
        written.append(number)

    for count in (4, 20):  # found at the end, and by a later call
        written.clear()
        with pytest.raises(OSError, match="No space"), WritingBehind(write, 2) as behind:
            list(map(behind, range(count)))
        assert written == [0, 1, 2]


def test_calls_before_an_error_of_the_caller_are_made() -> None:
    written: list[int] = []

    def stopped(behind: WritingBehind) -> None:
        behind(1)
        behind(2)
        raise KeyError

    with pytest.raises(KeyError), WritingBehind(written.append, 5) as behind:
        stopped(behind)
    assert written == [1, 2]
