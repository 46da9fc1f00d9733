"""A PostgreSQL server on a restored data directory, which nobody but us can reach."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict

import psycopg

from pv_backup.services.errors import ConfigurationError, RestoreFailed
from pv_backup.services.postgres import Server

log = logging.getLogger(__name__)

SUPERUSER: Final = "postgres"
_PACKAGED_USER: Final = "postgres"
_LOOK_EVERY_S: Final = 0.05
_STOP_PATIENCE_S: Final = 120
_TAIL_LINES: Final = 12

# The cluster's own settings must neither reach the outside (archiving) nor hang on files that are not here.
_APART: Final = {
    "listen_addresses": "",
    "port": "5432",
    "ssl": "off",
    "archive_mode": "off",
    "shared_preload_libraries": "",
    "hot_standby": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "autovacuum": "off",
    "max_prepared_transactions": "1000",
    "allow_in_place_tablespaces": "on",
    # Shared memory that a killed server would leave behind goes with the directory.
    "dynamic_shared_memory_type": "mmap",
    # What was restored is synced once, at the end (initdb --sync-only), or thrown away.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class _AsUser(TypedDict):
    cwd: str
    user: str | None
    group: str | None
    extra_groups: list[str] | None


def run_as() -> str | None:
    """The user that PostgreSQL's programs run as: they refuse to be root.

    :raises ConfigurationError: if we are root and Debian's user is not there.
    """
    if os.geteuid() != 0:
        return None
    if subprocess.run(["id", _PACKAGED_USER], capture_output=True, check=False).returncode != 0:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and there is no user {_PACKAGED_USER} here",
            remedy="apt-get install postgresql-15, or run this as an ordinary user",
        )
    return _PACKAGED_USER


def as_user(user: str | None) -> _AsUser:
    """How a program is started as that user, None for ourselves: what `subprocess` is told."""
    # The directory we were called from may be closed to the other user.
    return {"cwd": "/", "user": user, "group": user, "extra_groups": [] if user else None}


class RestoredServer:
    """Starts PostgreSQL on a data directory and stops it again; a context.

    It listens on a socket in a private directory only, whose owner alone is let in.

    :param data: the data directory.
    :param tools: whose `postgres` to run.
    :param settings: server parameters of this recovery.
    """

    def __init__(self, *, data: Path, tools: Server, settings: Mapping[str, str]) -> None:
        self._data = data
        self._tools = tools
        self._user = run_as()
        self._settings = settings
        # A socket's path has at most 107 bytes, and the data directory may lie deep.
        self._home = Path(tempfile.mkdtemp(prefix="pv-backup-server-"))
        self._log = self._home / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the superuser."""
        return psycopg.connect(host=str(self._home), port=5432, user=SUPERUSER, dbname=database, autocommit=True)

    @property
    def log_text(self) -> str:
        """What the server said: where recovery began, which files it read, why it stopped."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Start the server; recovery goes on in it."""
        hba = self._home / "pg_hba.conf"
        hba.write_text("local all all trust\n")
        configuration = self._home / "postgresql.conf"
        configuration.touch()
        own = {
            "config_file": str(configuration),
            "hba_file": str(hba),
            "ident_file": str(self._home / "pg_ident.conf"),
            "unix_socket_directories": str(self._home),
        }
        (self._home / "pg_ident.conf").touch()
        settings = _APART | dict(self._settings) | own
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        if self._user:
            for path in (self._home, *self._home.iterdir()):
                shutil.chown(path, self._user, self._user)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._tools.tool("postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
                **as_user(self._user),
            )

    def wait_until_recovered(self) -> None:
        """Wait until recovery has ended and queries are answered, however long recovery takes.

        :raises RestoreFailed: with the end of its log, if the server ends instead.
        """
        assert self._process is not None  # noqa: S101 - started by the caller
        while self._process.poll() is None:
            try:
                with self.connect() as connection:
                    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            except psycopg.OperationalError:
                row = None
            if row == (False,):
                return
            time.sleep(_LOOK_EVERY_S)
        tail = "\n".join(self.log_text.splitlines()[-_TAIL_LINES:])
        raise RestoreFailed(
            f"PostgreSQL ended in recovery; the end of its log:\n{tail}",
            remedy="its log names what it missed; the bucket is unchanged, restore again into an empty directory",
        )

    def stop(self) -> None:
        """Shut down in order, so that the directory is a clean cluster.

        :raises RestoreFailed: if it does not end.
        """
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise RestoreFailed(
                f"the restored server did not stop in {_STOP_PATIENCE_S} s",
                remedy="see what it does: a disk that hangs? Then restore again",
            ) from None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        shutil.rmtree(self._home)
