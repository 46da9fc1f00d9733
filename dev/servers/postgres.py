"""PostgreSQL 15 from Debian's package, on loopback, run as an ordinary user even when we are root."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from dev import guard
from dev.servers.loopback import LoopbackServer

BIN_DIR = Path("/usr/lib/postgresql/15/bin")
SUPERUSER = "postgres"
# Where root's clusters go when the clone lies in a closed directory such as /root.
OPEN_BASE = Path("/var/lib/pv-backup-dev")
# PostgreSQL refuses to run as root; Debian's package brings this user. None: as ourselves.
RUN_AS = "postgres" if os.geteuid() == 0 else None

# What a server that replays this one's WAL must have too: it refuses to with fewer connections or senders.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # A socket's path may have 107 bytes, and a clone may lie deep.
    "unix_socket_directories": "",
    "max_connections": "200",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


class Postgres(LoopbackServer):
    """One PostgreSQL server with one superuser, :data:`SUPERUSER`, that logs in over TCP with a password.

    :param home: directory of this server; made when missing.
    :param durable: False trades crash safety for speed; for tests only.
    :param wal_segment_mb: size of a WAL file in MiB, a power of two; decided when the cluster is made.
    :param settings: server parameters beside ours, or instead of them.
    """

    def __init__(
        self,
        *,
        home: Path,
        port: int,
        password: str,
        durable: bool,
        wal_segment_mb: int = 16,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name="PostgreSQL", home=home, ports={"PostgreSQL": port}, answers_within_s=60)
        self.port = port
        self._password = password
        self._settings = SETTINGS | ({} if durable else UNSAFE_BUT_FAST) | dict(settings or {}) | {"port": str(port)}
        self._durable = durable
        self._wal_segment_mb = wal_segment_mb
        self._data = home / "data"

    def dsn(self, database: str, *, user: str = SUPERUSER, password: str | None = None) -> str:
        """A libpq URI for this server; passwords here are URL-safe by construction (:mod:`dev.credentials`)."""
        return f"postgresql://{user}:{password or self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def data_directory(self) -> Path:
        """PGDATA."""
        return self._data

    def answers(self) -> bool:
        """Whether a superuser can connect and ask something."""
        try:
            with psycopg.connect(make_conninfo(self.dsn("postgres"), connect_timeout=2)) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, nothing committed is lost."""
        self._daemon.stop(how=signal.SIGINT)

    def kill(self) -> None:
        """Crash the server (immediate shutdown); the next start recovers from WAL."""
        self._daemon.stop(how=signal.SIGQUIT)

    def destroy(self) -> None:
        """Lose the machine: SIGKILL for every process at once, then no file of the cluster is left."""
        data = self._data.resolve()
        shared_memory = _shared_memory_of(data)
        self._daemon.kill_family()
        if shared_memory:
            # PostgreSQL's lock on its cluster; the kernel would keep it until the next boot.
            subprocess.run(["ipcrm", "--shmem-id", shared_memory], check=True)
        shutil.rmtree(data)

    def remove(self) -> None:
        """Stop, and delete the cluster wherever it lies."""
        self.stop()
        shutil.rmtree(self._data.resolve(), ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)
        with contextlib.suppress(OSError):  # not there, or another clone's cluster is in it
            OPEN_BASE.rmdir()

    def _launch(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        self._daemon.start([BIN_DIR / "postgres", "-D", self._data.resolve(), *options], user=RUN_AS)

    def _make_cluster(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        target = self._data
        if RUN_AS and not is_open_to_others(self.home.resolve()):
            target = OPEN_BASE / hashlib.sha3_256(str(self.home.resolve()).encode()).hexdigest()[:12]
            self._data.unlink(missing_ok=True)
            self._data.symlink_to(target)
        target.mkdir(parents=True, exist_ok=True)
        guard.watch_path(target)
        if RUN_AS:
            shutil.chown(target, RUN_AS, RUN_AS)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=".pw-") as password_file:
            password_file.write(self._password)
            password_file.flush()
            if RUN_AS:
                shutil.chown(password_file.name, RUN_AS)
            command: list[str | Path] = [BIN_DIR / "initdb", "-D", target, "-U", SUPERUSER, "--auth=scram-sha-256"]
            command += ["--encoding=UTF8", "--locale=C.UTF-8", f"--pwfile={password_file.name}"]
            command += [f"--wal-segsize={self._wal_segment_mb}"]
            command += [] if self._durable else ["--no-sync"]
            done = subprocess.run(
                command,
                user=RUN_AS,
                group=RUN_AS,
                extra_groups=[] if RUN_AS else None,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed for {target}: {done.stderr.strip()}")


def _shared_memory_of(data: Path) -> str | None:
    """The id of the running server's System V segment (postmaster.pid, line 7: key and id)."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
    except (FileNotFoundError, IndexError):
        return None


def is_open_to_others(directory: Path) -> bool:
    """Whether another user can reach a directory by its absolute path: search permission all the way up."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (directory, *directory.parents))
