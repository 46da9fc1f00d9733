"""A real StatsD port, which hears what Airflow's tasks send."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.documented_metrics import PREFIX


class StatsdListener:
    """A UDP port such as statsd_exporter has. What comes waits in the socket's buffer, so look every few seconds."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self._port = listening.getsockname()[1]

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
        found = {}
        while True:
            try:
                line = self._socket.recv(65536).decode()
            except BlockingIOError:
                return found
            name, _, value = line.partition(":")
            if name.startswith(f"airflow.{PREFIX}."):
                assert value.endswith("|g"), line
                found[name.removeprefix("airflow.")] = float(value.removesuffix("|g"))


@contextmanager
def statsd_listener() -> Iterator[StatsdListener]:
    """Listen on a free port until the end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        yield StatsdListener(listening)
