"""A PostgreSQL server on a data directory that came from a backup: the proof that the backup is one."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

from dev.ports import free_ports
from dev.processes import Daemon
from dev.servers.postgres import BIN_DIR, RUN_AS, SETTINGS, SUPERUSER, UNSAFE_BUT_FAST, is_open_to_others
from tests.support.clusters import query_all

_TRUSTING = "host all all 127.0.0.1/32 trust\n"


class RestoredServer:
    """Starts a restored cluster on a free port and lets the superuser in without a password; a context that stops it.

    :param data_directory: the extracted backup, in a directory that PostgreSQL's user may pass through (the fixture
        ``open_path``). It is handed to that user, with the mode that PostgreSQL asks for.
    :param wal_directory: WAL files by their names: recovery goes on from the backup with these, to their end or to
        the target among the settings. None: the cluster has all it needs in its ``pg_wal``.
    :param settings: server parameters, such as ``recovery_target_time``.
    """

    def __init__(
        self,
        data_directory: Path,
        *,
        wal_directory: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        assert is_open_to_others(data_directory.parent), "PostgreSQL's user can't get there; use the fixture open_path"
        self.data_directory = data_directory
        self._wal_directory = wal_directory
        self._home = data_directory.with_name(f"{data_directory.name}-server")
        # A target reached is an end reached: by default PostgreSQL would pause there.
        self._settings = {"recovery_target_action": "promote"} | dict(settings or {})
        self._daemon = Daemon(name="the restored PostgreSQL", home=self._home)
        port = free_ports(["postgres"])["postgres"]
        self._overruling = {"port": str(port), "hba_file": str(self._home / "pg_hba.conf")}
        self.dsn = f"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres"

    @property
    def log(self) -> str:
        """What the server said: where recovery began, which files it replayed, why it stopped."""
        return self._daemon.log.read_text(errors="replace")

    def start(self, *, timeout_s: float = 180) -> None:
        """Start, and wait until recovery has ended and queries are answered.

        :raises ServerFailedError: with the end of the log, when PostgreSQL refuses the cluster or does not get there.
        """
        self._home.mkdir(exist_ok=True)
        (self._home / "pg_hba.conf").write_text(_TRUSTING)
        if self._wal_directory:
            _hand_to_postgres(self._wal_directory)
            (self.data_directory / "recovery.signal").touch()
            self._settings["restore_command"] = f'cp "{self._wal_directory}/%f" "%p"'
        self.data_directory.chmod(0o700)
        _hand_to_postgres(self.data_directory)
        settings = SETTINGS | UNSAFE_BUT_FAST | self._settings | self._overruling
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._daemon.start([BIN_DIR / "postgres", "-D", self.data_directory, *options], user=RUN_AS)
        self._daemon.wait_until(self._has_recovered, timeout_s=timeout_s)

    def stop(self) -> None:
        """End the server at once; data directory and log stay."""
        self._daemon.stop(how=signal.SIGQUIT)

    def sql(self, query: str, *params: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as superuser, committed at once."""
        return query_all(make_conninfo(self.dsn, dbname=database), query, *params)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _has_recovered(self) -> bool:
        try:
            return self.sql("SELECT pg_is_in_recovery()") == [(False,)]
        except psycopg.OperationalError:
            return False


def _hand_to_postgres(directory: Path) -> None:
    if RUN_AS:
        subprocess.run(["chown", "--recursive", f"{RUN_AS}:{RUN_AS}", directory], check=True)
