"""A real StatsD port, which hears what Airflow's tasks send."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.documented_metrics import PREFIX

_LOOK_S = 0.2


class StatsdListener:
    """A UDP port such as statsd_exporter has. A thread reads it, for what a full buffer does not hold is lost."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self._port = listening.getsockname()[1]
        self._lock = threading.Lock()
        self._lines: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """What makes an Airflow send its metrics here."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self._port),
        }

    def gauges(self) -> dict[str, float]:
        """The newest value of each gauge of ours that came since the last look; on loopback none is late."""
        self._drain()
        with self._lock:
            lines, self._lines = self._lines, []
        found = {}
        for line in lines:
            name, _, value = line.partition(":")
            assert value.endswith("|g"), line
            found[name.removeprefix("airflow.")] = float(value.removesuffix("|g"))
        return found

    def read_until(self, closed: threading.Event) -> None:
        """Keep what comes, of ours."""
        while not closed.is_set():
            select.select([self._socket], [], [], _LOOK_S)
            self._drain()

    def _drain(self) -> None:
        # The lock: who looks must not find a line neither in the socket nor among those read.
        with self._lock:
            while True:
                try:
                    line = self._socket.recv(65536).decode()
                except BlockingIOError:
                    return
                if line.startswith(f"airflow.{PREFIX}."):
                    self._lines.append(line)


@contextmanager
def statsd_listener() -> Iterator[StatsdListener]:
    """Listen on a free port until the end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        listener, closed = StatsdListener(listening), threading.Event()
        reader = threading.Thread(target=listener.read_until, args=(closed,), name="statsd")
        reader.start()
        try:
            yield listener
        finally:
            closed.set()
            reader.join()
