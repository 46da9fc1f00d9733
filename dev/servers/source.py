"""A PostgreSQL server to back up, with the pg_receivewal that keeps its WAL: what production has, on loopback."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from dev.processes import ServerFailedError
from dev.provisioning.databases import DUMP, RECEIVER, ensure_source_roles
from dev.servers.postgres import Postgres
from dev.servers.receivewal import SLOT, ReceiveWal


class SourceServer:
    """One PostgreSQL server and its pg_receivewal, which start and stop together.

    :param home: directory of both; the WAL files lie in ``wal-archive`` below it.
    :param password: of the superuser; letters, digits, - and _ only, like the other two.
    :param dump_password: of the role that dumps.
    :param receiver_password: of pg_receivewal's role, which may replicate and nothing else.
    :param durable: False trades crash safety for speed; for tests only.
    :param wal_segment_mb: size of a WAL file in MiB, a power of two.
    :param settings: server parameters beside the usual ones, or instead of them.
    """

    def __init__(
        self,
        *,
        home: Path,
        port: int,
        password: str,
        dump_password: str,
        receiver_password: str,
        durable: bool,
        wal_segment_mb: int = 16,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.postgres = Postgres(
            home=home / "postgres",
            port=port,
            password=password,
            durable=durable,
            wal_segment_mb=wal_segment_mb,
            settings=settings,
        )
        self.receiver = ReceiveWal(
            home=home / "receivewal",
            directory=home / "wal-archive",
            port=port,
            user=RECEIVER,
            password=receiver_password,
        )
        self._passwords = {"dump_password": dump_password, "receiver_password": receiver_password}

    @property
    def wal_directory(self) -> Path:
        """Where pg_receivewal writes; mode 0700, owned by the current user."""
        return self.receiver.directory

    def dsn_of_dump(self, database: str) -> str:
        """A libpq URI of the role that dumps."""
        return self.postgres.dsn(database, user=DUMP, password=self._passwords["dump_password"])

    def start(self, *, receiving: bool = True) -> list[str]:
        """Start what does not run yet, and wait until pg_receivewal streams.

        :param receiving: False leaves pg_receivewal as it is.
        :returns: the names of the programs that had to be started.
        :raises PortTakenError, ServerFailedError: naming what does not come up, and why.
        """
        started = ["source PostgreSQL"] if self.postgres.start() else []
        ensure_source_roles(self.postgres, **self._passwords)
        if receiving and self.start_receiving():
            started.append("pg_receivewal")
        return started

    def start_receiving(self) -> bool:
        """Start pg_receivewal on the running server and wait until it streams.

        :returns: False when it was running already.
        :raises ServerFailedError: with the end of its log.
        """
        started = self.receiver.start()
        if started:
            self._wait_until_streaming(timeout_s=30)
        return started

    def stop(self) -> list[str]:
        """Stop both; the data and the WAL files stay.

        :returns: the names of the programs that ran.
        """
        running = {"pg_receivewal": self.receiver.is_running(), "source PostgreSQL": self.postgres.is_running()}
        # The server first: its shutdown waits until pg_receivewal has everything.
        self.postgres.stop()
        self.receiver.stop()
        return [name for name, ran in running.items() if ran]

    def _wait_until_streaming(self, *, timeout_s: float) -> None:
        query = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        deadline = time.monotonic() + timeout_s
        with psycopg.connect(self.postgres.dsn("postgres"), autocommit=True) as connection:
            while connection.execute(query, [SLOT]).fetchone() != (True,):
                if time.monotonic() > deadline or not self.receiver.is_running():
                    said = "\n".join(self.receiver.log.read_text(errors="replace").splitlines()[-15:])
                    raise ServerFailedError(f"pg_receivewal does not receive. The end of {self.receiver.log}:\n{said}")
                time.sleep(0.02)
