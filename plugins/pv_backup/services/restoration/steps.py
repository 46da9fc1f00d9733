"""The steps of a restoration, told to whoever wants to know how long each took: a drill puts them into its evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Is told name and seconds of each step that ended well; nobody, unless a drill listens.
listener: ContextVar[Callable[[str, float], None]] = ContextVar("listener", default=lambda name, seconds: None)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Tell that what the block does was done, if it was; one that fails is told by its error."""
    began = time.monotonic()
    yield
    listener.get()(name, round(time.monotonic() - began, 3))


@contextmanager
def told_to(listen: Callable[[str, float], None]) -> Iterator[None]:
    """Listen while the context is open."""
    token = listener.set(listen)
    try:
        yield
    finally:
        listener.reset(token)
