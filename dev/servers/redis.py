"""Redis from Debian's package, on loopback: the broker that hands tasks to Celery workers, and nothing that lasts."""

from __future__ import annotations

import os
from pathlib import Path

import redis

from dev.servers.loopback import LoopbackServer

BINARY = Path("/usr/bin/redis-server")


class Redis(LoopbackServer):
    """One Redis server that keeps all in memory, behind a password.

    :param home: directory of this server; made when missing.
    :param password: letters, digits, - and _ only, for it goes into a URL.
    :ivar url: with the password in it.
    """

    def __init__(self, *, home: Path, port: int, password: str) -> None:
        super().__init__(name="Redis", home=home, ports={"Redis": port}, answers_within_s=30)
        self._port = port
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        self.password = password

    def answers(self) -> bool:
        """Whether it takes our password and a command."""
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        """End the server, and with it every task that no worker has taken."""
        self._daemon.stop()

    def _launch(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self._daemon.start([BINARY, self._write_config()])

    def _write_config(self) -> Path:
        """By file: the process list shows arguments to everyone."""
        path = self.home / "redis.conf"
        options = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "requirepass": self.password,
            "dir": str(self.home),
            "save": '""',
            "appendonly": "no",
        }
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(f"{name} {value}\n" for name, value in options.items())
        return path
