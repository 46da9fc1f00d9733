"""The host of pg_receivewal, without systemd: a source, a Vault that knows it, and runs of the program."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dev.airflow_env import ROOT
from dev.servers.receivewal import SLOT
from tests.infrastructure.ansible.watchdog_world import HostsVault
from tests.integration.wal_world import wait_until
from tests.support.clusters import SourceCluster

ROLE: Final = ROOT / "ansible" / "roles" / "postgresql_backup"
PROGRAM: Final = ROLE / "files" / "pv-backup-receivewal"
SECRET: Final = "pv-backup/receivewal"
_USER: Final = "of_the_host"


@dataclass
class Run:
    """One run of the program, from its start to its end.

    :ivar seen: every argument of every process of it that was ever looked at.
    """

    process: subprocess.Popen[bytes]
    log: Path
    seen: set[str] = field(default_factory=set)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def look(self) -> None:
        """Read what `ps` shows of it and its children."""
        try:
            parent = psutil.Process(self.process.pid)
            for process in [parent, *parent.children(recursive=True)]:
                self.seen |= set(process.cmdline())
        except psutil.NoSuchProcess:
            pass

    def end(self, timeout_s: float = 60) -> int:
        """Wait for its end, looking all the time; its exit status."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.look()
            try:
                return self.process.wait(0.005)
            except subprocess.TimeoutExpired:
                pass
        raise AssertionError(f"still at work after {timeout_s:.0f} s:\n{self.said}")


class SourceOfWal:
    """A cluster that lets one role in to receive its WAL.

    :ivar password: of the role, with all that could need escaping.
    """

    def __init__(self, cluster: SourceCluster) -> None:
        self.cluster = cluster
        self.password = ""
        self.change_password()

    @property
    def conninfo(self) -> str:
        """How the source lets us in since the last change of the password."""
        return make_conninfo(self.cluster.dsn, user=_USER, password=self.password)

    def change_password(self) -> None:
        """As an administrator of the source does."""
        self.password = f"it's \\ a=b \"{secrets.token_urlsafe(12)}"
        self.cluster.sql(
            f"DO $$ BEGIN CREATE ROLE {_USER} LOGIN REPLICATION; EXCEPTION WHEN duplicate_object THEN END $$"
        )
        self.cluster.sql(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(_USER), self.password).as_string())

    def streams(self) -> bool:
        """Whether the source sees it stream from the slot."""
        query = """SELECT application_name, usename, state FROM pg_replication_slots
                   JOIN pg_stat_replication ON pid = active_pid WHERE slot_name = %s"""
        return self.cluster.sql(query, SLOT) == [("pv_backup", _USER, "streaming")]

    def is_left_alone(self) -> bool:
        """Whether it knows of no receiver, be it because it is down; a killed one is seen to be gone a little later."""
        try:
            return self.cluster.sql("SELECT FROM pg_replication_slots WHERE active") == []
        except psycopg.OperationalError:
            return True


@dataclass
class Host:
    """Where the program runs, with the directories that systemd would make.

    :ivar path: where it finds its tools.
    """

    home: Path
    vault: HostsVault
    source: SourceOfWal
    address: str = ""
    path: str = os.environ["PATH"]

    def __post_init__(self) -> None:
        self.address = self.vault.settings["VAULT_ADDR"]
        self.vault.keep(SECRET, conninfo=self.source.conninfo)
        for directory in (self.wal_directory, self.runtime_directory, self.credentials):
            directory.mkdir(mode=0o700)
        self.bring(*self.vault.draw())

    @property
    def mount(self) -> str:
        """Of Vault's KV."""
        return self.vault.settings["VAULT_KV_MOUNT"]

    @property
    def where(self) -> str:
        """The secret's place in Vault, as messages say it."""
        return f"{self.mount}/{SECRET}"

    @property
    def wal_directory(self) -> Path:
        return self.home / "wal-archive"

    @property
    def runtime_directory(self) -> Path:
        return self.home / "run"

    @property
    def credentials(self) -> Path:
        return self.home / "credentials"

    @property
    def service_file(self) -> Path:
        return self.runtime_directory / "pg_service.conf"

    def bring(self, role_id: str, secret_id: str) -> None:
        """Put them where systemd would, as an editor leaves them."""
        for name, value in {"role_id": role_id, "secret_id": secret_id}.items():
            (self.credentials / name).write_text(f"{value}\n")

    def record(self, *tools: str) -> Path:
        """From now on each of these tools writes its arguments down, a line each, before it does its work.

        They are over in milliseconds: who looks at the process list may miss them.
        """
        recorded, recorders = self.home / "recorded", self.home / "recorders"
        recorders.mkdir()
        for tool in tools:
            recorder = recorders / tool
            recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{recorded}"\nexec {shutil.which(tool)} "$@"\n')
            recorder.chmod(0o755)
        self.path = f"{recorders}:{self.path}"
        return recorded

    @contextmanager
    def running(self) -> Iterator[Run]:
        """Start it as the unit does: with these variables and no other."""
        environment = {
            "PATH": self.path,
            **self.vault.settings,
            "VAULT_ADDR": self.address,
            "WAL_DIRECTORY": str(self.wal_directory),
            "SLOT": SLOT,
            "CREDENTIALS_DIRECTORY": str(self.credentials),
            "RUNTIME_DIRECTORY": str(self.runtime_directory),
        }
        log = self.home / f"log-{uuid4()}"
        with log.open("wb") as output:
            process = subprocess.Popen([PROGRAM], env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            yield Run(process, log)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            wait_until(self.source.is_left_alone, meaning="forgot the receiver that ended")

    def refused(self) -> Run:
        """Run it to its end, which must be a failure."""
        with self.running() as run:
            assert run.end() != 0, run.said
        return run

    def segment_that_was_begun(self) -> Path:
        """Receive until there is WAL in an unfinished segment, and be killed."""

        def begun() -> list[Path]:
            return [path for path in self.wal_directory.glob("*.partial") if path.read_bytes().strip(b"\0")]

        with self.running():
            wait_until(self.source.streams, meaning="streamed")
            self.source.cluster.write(0.1)
            (segment,) = wait_until(begun, meaning="wrote into a segment")
        return Path(segment)

    def received(self) -> list[str]:
        """The finished segments."""
        return sorted(path.name for path in self.wal_directory.iterdir() if len(path.name) == 24)
