"""What a thread makes ahead arrives whole, in order, with its error, and nothing runs on that nobody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pv_backup.services.ahead import Ahead

pytestmark = pytest.mark.case("TC-INV-08")


def test_all_items_arrive_in_their_order_none_and_empty_ones_too() -> None:
    items = [b"", None, b"x", 0, *range(100)]
    with Ahead(iter(items), name="test") as ahead:
        assert list(ahead) == items


def test_what_the_iterator_raises_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("the second")

    seen: list[int] = []
    with pytest.raises(LookupError, match="the second"), Ahead(failing(), name="test") as ahead:
        seen.extend(ahead)

    assert seen == [1]


def test_it_runs_a_few_items_ahead_and_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for n in range(1000):
            made.append(n)
            yield n

    with Ahead(items(), name="test", depth=3) as ahead:
        first = next(iter(ahead))
        deadline = time.monotonic() + 60
        while len(made) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert first == 0
        # Three lie ready, one waits to be put, one was taken.
        assert len(made) == 5


def test_its_thread_ends_when_nobody_wants_more() -> None:
    with Ahead(iter(range(10**9)), name="abandoned") as ahead:
        next(iter(ahead))
    deadline = time.monotonic() + 60
    while any(thread.name == "abandoned" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not any(thread.name == "abandoned" for thread in threading.enumerate())
