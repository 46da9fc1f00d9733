"""Let a thread make the next items while these are used: what it does mostly lets go of the interpreter's lock."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

_T = TypeVar("_T")

_DEPTH: Final = 4
_LOOK_EVERY_S: Final = 0.5


@dataclass(frozen=True)
class _Item(Generic[_T]):
    value: _T


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class Ahead(Generic[_T]):
    """Runs an iterator in a thread, a few items ahead; what it raises is raised to whoever consumes it. A context.

    :param items: nobody else may ask it for items any more.
    :param name: of the thread.
    :param depth: how many items may lie ready.
    """

    def __init__(self, items: Iterator[_T], *, name: str, depth: int = _DEPTH) -> None:
        self._items = items
        self._queue: queue.Queue[_Item[_T] | _End] = queue.Queue(depth)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name=name, daemon=True)

    def _run(self) -> None:
        end = _End(None)
        try:
            for item in self._items:
                if not self._put(_Item(item)):
                    return
        except BaseException as error:  # noqa: BLE001 - handed over, whatever it is
            end = _End(error)
        self._put(end)

    def _put(self, item: _Item[_T] | _End) -> bool:
        while not self._abandoned.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_EVERY_S)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[_T]:
        while True:
            match self._queue.get():
                case _Item(value):
                    yield value
                case _End(error):
                    if error is not None:
                        raise error
                    return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._abandoned.set()
