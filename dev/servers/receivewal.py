"""pg_receivewal, PostgreSQL's own program that keeps a server's WAL as files, as it happens.

Its replication slot makes the server keep what was not received yet, so that no outage of either side leaves a hole.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from dev.processes import Daemon, ServerFailedError
from dev.servers.postgres import BIN_DIR

SLOT = "pv_backup"


class ReceiveWal:
    """One pg_receivewal on slot :data:`SLOT`, run as the current user, who alone may read what it writes.

    When the server goes away it tries again every 5 s; when the server's timeline switches it follows.

    :param home: where its log and process id are kept; made when missing.
    :param directory: where the WAL files go; made with mode 0700 when missing.
    :param port: of the server, on loopback.
    :param user: a role with REPLICATION.
    """

    def __init__(self, *, home: Path, directory: Path, port: int, user: str, password: str) -> None:
        self.home = home
        self.directory = directory
        # By environment: the process list shows arguments to everyone.
        self._environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": user,
            "PGPASSWORD": password,
            "PGAPPNAME": SLOT,
            "LC_ALL": "C.UTF-8",
        }
        self._daemon = Daemon(name="pg_receivewal", home=home)

    @property
    def log(self) -> Path:
        """What it says: each finished segment and each lost connection."""
        return self._daemon.log

    def start(self) -> bool:
        """Make the slot on first use and start to receive; the server must be up.

        :returns: False when it was running already.
        :raises ServerFailedError: when the slot cannot be made, with the server's own words.
        """
        if self._daemon.is_running():
            return False
        self.home.mkdir(parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._create_slot()
        self._remove_cut_segments()
        command: list[str | Path] = [BIN_DIR / "pg_receivewal", "--directory", self.directory, "--slot", SLOT]
        # Without --synchronous it flushes, and reports, finished segments only, up to 10 s late: the slot would hold
        # back as much WAL on the server, and a crash here would lose the open segment's commits.
        self._daemon.start([*command, "--synchronous", "--no-password", "--verbose"], env=self._environment)
        return True

    def is_running(self) -> bool:
        """Whether the process lives; says nothing about whether it has a connection."""
        return self._daemon.is_running()

    def stop(self) -> None:
        """End it in order; the slot stays, and so does what it has to catch up with."""
        self._daemon.stop(how=signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._daemon.stop(how=signal.SIGKILL)

    def _create_slot(self) -> None:
        """One that pg_receivewal makes (`--create-slot`) keeps WAL from its first connection on; this one at once."""
        if not self._ask(f"READ_REPLICATION_SLOT {SLOT}").startswith("physical"):
            self._ask(f"CREATE_REPLICATION_SLOT {SLOT} PHYSICAL (RESERVE_WAL)")

    def _remove_cut_segments(self) -> None:
        """Begin a segment anew that was killed while it was filled with zeros; pg_receivewal would refuse it."""
        for segment in self.directory.glob("*.partial"):
            if not segment.read_bytes().strip(b"\0"):
                segment.unlink()

    def _ask(self, command: str) -> str:
        done = subprocess.run(
            [BIN_DIR / "psql", "--no-psqlrc", "--no-password", "-qtAc", command, "replication=true"],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailedError(f"pg_receivewal cannot make its slot {SLOT}: {done.stderr.strip()}")
        return done.stdout
