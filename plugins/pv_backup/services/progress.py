"""Say how a long stream is doing, so that nobody at 04:10 has to guess whether it hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0
_STEP = 1024.0


def human_bytes(count: float) -> str:
    """Write a byte count the way operators read it (binary prefixes, one decimal)."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < _STEP:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} TiB"


def human_duration(seconds: float) -> str:
    """Write a duration as H:MM:SS."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


class Ticker:
    """Call something at a steady pace from a thread of its own until closed.

    The stream may be stuck for minutes in a retry; what must go on meanwhile (progress lines, lease
    renewals) cannot depend on the next chunk.

    :param every_s: seconds between two calls.
    :param action: what to call; an exception ends the ticker and is logged, the work goes on.
    """

    def __init__(self, *, every_s: float, action: Callable[[], None], name: str) -> None:
        self._every_s = every_s
        self._action = action
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                self._action()
            except Exception:
                log.exception("%s stopped ticking", self._thread.name)
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()


class Progress:
    """Counters of one stream, written by the stages and read by the reporting thread.

    :param label: what is being moved, as the log lines name it.
    :param downloads: nothing is stored by this stream, so its lines do not speak of it.
    :param total_bytes: what :attr:`read_bytes` will be at the end, 0 when nobody knows.
    """

    def __init__(self, *, label: str, downloads: bool = False, total_bytes: int = 0) -> None:
        self.label = label
        self.total_bytes = total_bytes
        self._downloads = downloads
        self.read_bytes = 0
        self.stored_bytes = 0
        self.part_number = 0
        self._started = time.monotonic()
        self._last_report = (self._started, 0)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the stream was created."""
        return time.monotonic() - self._started

    def report(self) -> None:
        """Log bytes, rate since the last line, elapsed time, and for an upload what is stored and the part number."""
        now = time.monotonic()
        then, before = self._last_report
        rate = (self.read_bytes - before) / max(now - then, 1e-9)
        self._last_report = (now, self.read_bytes)
        stored = "" if self._downloads else f"{human_bytes(self.stored_bytes)} stored, part {self.part_number}, "
        log.info(
            "%s: %s read, %s%s/s, %s elapsed",
            self.label,
            human_bytes(self.read_bytes),
            stored,
            human_bytes(rate),
            human_duration(self.elapsed_s),
        )

    def reporting(self) -> AbstractContextManager[object]:
        """Let it be watched while the returned context is open: by the log every 5 seconds, or by :data:`watcher`."""
        return watcher.get()(self)


def _in_the_log(progress: Progress) -> AbstractContextManager[object]:
    return Ticker(every_s=REPORT_EVERY_S, action=progress.report, name=f"progress of {progress.label}")


#: Who looks at a stream: the log, unless somebody sits before a screen.
watcher: ContextVar[Callable[[Progress], AbstractContextManager[object]]] = ContextVar("watcher", default=_in_the_log)
